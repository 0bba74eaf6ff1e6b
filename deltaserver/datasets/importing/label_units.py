"""The units of labels that come from elsewhere: of lengths, energies and forces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from deltaserver import units
from deltaserver.errors import UnitError


@dataclass(frozen=True)
class LabelUnits:
    """How many Å, eV and eV/Å one unit of lengths, energies and forces is."""

    length_ang: float
    energy_ev: float
    force_ev_per_ang: float


ALIASES = {"a": "ang", "eh": "hartree", "a0": "bohr"}


def parse_units(text: str) -> LabelUnits:
    """Read ``kcal/mol,Ang``, ``Hartree,Bohr``, ``eV/Bohr`` or ``Hartree,Ang,eV/Ang``.

    One unit each of energy, length and force, in any order. Forces are energy per length unless
    stated; a force alone, as ``eV/Bohr``, states the energy too, and leaves lengths in Å.

    Raises:
        UnitError: a unit that is not known, or two of one kind.
    """
    found: dict[str, float] = {}
    for word in text.replace(",", " ").split():
        for kind, value in _meaning(word.split("=")[-1], text).items():
            if kind in found:
                raise UnitError(f"--units {text}: two units of {kind}")
            found[kind] = value
    energy = found.get("energy", found.get("energy of forces"))
    if energy is None:
        raise UnitError(f"--units {text}: no unit of energy; expected as in kcal/mol,Ang")
    length = found.get("length", 1.0)
    return LabelUnits(length, energy, found.get("force", energy / length))


def _meaning(word: str, text: str) -> dict[str, float]:
    alone = {
        "length": _known(units.length_in_ang, word),
        "energy": _known(units.energy_in_ev, word),
    }
    if any(value is not None for value in alone.values()):  # atomic units are both
        return {kind: value for kind, value in alone.items() if value is not None}
    above, _, below = word.rpartition("/")
    per, of = _known(units.energy_in_ev, above), _known(units.length_in_ang, below)
    if per is None or of is None:
        raise UnitError(
            f"--units {text}: {word!r} is no unit of length, energy or force; expected as in "
            "kcal/mol,Ang or Hartree,Bohr or eV/Bohr"
        )
    return {"force": per / of, "energy of forces": per}


def _known(look_up: Callable[[str], float], word: str) -> float | None:
    try:
        return look_up(ALIASES.get(word.lower(), word))
    except UnitError:
        return None
