"""Does a model directory still compute what it did when it was made?

Beside the models stands ``check.json``: one structure, and the energies and forces that every
part gave for it when it was stored, with the models' fingerprint. Evaluating it again tells
models that were changed, and machines, backends and versions that compute something else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.errors import GuardError, InputError

if TYPE_CHECKING:
    from deltaserver.model.force_field import ForceField


CHECK_NAME = "check.json"
FORMAT = "deltaserver-check/1"
MAX_BYTES = 64 << 20
# Rounding of another processor's sums; seven digits of single precision.
TOLERANCE, SINGLE_TOLERANCE = 1e-6, 1e-3
# Energies are small sums of large terms: their differences keep few digits.
SLOPE_TOLERANCE, SINGLE_SLOPE_TOLERANCE = 1e-4, 1e-1
STEP_ANG = 1e-3
# Central differences of fourth order: how many steps away, and what counts how much.
STENCIL, WEIGHTS = (-2, -1, 1, 2), (1 / 12, -8 / 12, 8 / 12, -1 / 12)


@dataclass(frozen=True)
class StoredFrame:
    """A structure and what every part of a model gave for it.

    Attributes:
        fingerprint: of the models that did.
        positions: Å, (N, 3).
        energy_ev: by part.
        forces: by part, eV/Å, (N, 3).
    """

    fingerprint: str
    positions: Floats
    energy_ev: Mapping[str, float]
    forces: Mapping[str, Floats]


@dataclass(frozen=True)
class PartCheck:
    """What was found about one part at a structure.

    Attributes:
        name: the part's, or "total".
        slope_error: of −F·u against the derivative of the energy along u, relative.
        energy_error_ev: |E − stored|, None where nothing is stored.
        force_error_ev_per_ang: largest |F − stored|, None where nothing is stored.
    """

    name: str
    slope_error: float
    energy_error_ev: float | None = None
    force_error_ev_per_ang: float | None = None


def evaluate_parts(model: ForceField, positions: Floats) -> dict[str, tuple[float, Floats]]:
    """Return energy (eV) and forces (eV/Å) of the total and of every part at one structure."""
    result = model.evaluate(positions)
    found = {"total": (float(result.energy), result.forces)}
    for name, part in result.contributions.items():
        found[name] = (float(part.energy), part.forces)
    if model.full is not None:
        full = model.evaluate(positions, "full")
        found["full"] = (float(full.energy), full.forces)
    return found


def store(model: ForceField, positions: Floats) -> str:
    """Return the text of ``check.json`` for a model at one structure (Å, (N, 3))."""
    found = evaluate_parts(model, positions)
    return json.dumps(
        {
            "format": FORMAT,
            "fingerprint": model.fingerprint(),
            "positions_ang": np.asarray(positions).tolist(),
            "parts": {
                name: {"energy_ev": energy, "forces_ev_per_ang": forces.tolist()}
                for name, (energy, forces) in found.items()
            },
        }
    )


def read_stored(directory: Path, n_atoms: int) -> StoredFrame | None:
    """Read ``check.json`` of a model directory; None if there is none.

    Raises:
        InputError: it is not what :func:`store` writes.
    """
    path = directory / CHECK_NAME
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(MAX_BYTES))
        if data["format"] != FORMAT:
            raise ValueError(f"format is {data['format']!r:.40}; this version reads {FORMAT!r}")
        parts = data["parts"]
        return StoredFrame(
            fingerprint=str(data["fingerprint"]),
            positions=_table(data["positions_ang"], n_atoms),
            energy_ev={str(name): float(part["energy_ev"]) for name, part in parts.items()},
            forces={
                str(name): _table(part["forces_ev_per_ang"], n_atoms)
                for name, part in parts.items()
            },
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{path}: not a stored frame of this model ({reason}); make it anew with "
            "deltaserver check --models DIR --store"
        ) from None


def _table(values: Any, n_atoms: int) -> Floats:
    table = np.asarray(values, dtype=np.float64)
    if table.shape != (n_atoms, 3) or not np.isfinite(table).all():
        raise ValueError(f"a table has shape {table.shape}; expected {n_atoms} finite rows of 3")
    return table


def some_way(n_atoms: int) -> Floats:
    """Return a direction of all atoms, (N, 3), of length 1; always the same."""
    way = np.random.default_rng(0).normal(size=(n_atoms, 3))
    return np.asarray(way / np.linalg.norm(way))


def slope_error(energies: Sequence[float], forces: Floats, way: Floats) -> float:
    """Return how far −F·u is from dE/du, relative to |F|.

    Args:
        energies: at ``STENCIL`` steps along ``way``, eV or whatever the forces are in, per Å.
        forces: (N, 3), in the middle.
        way: u, (N, 3), of length 1.
    """
    slope = float(np.dot(WEIGHTS, energies)) / STEP_ANG
    size = max(float(np.linalg.norm(forces)), 1e-3)
    return abs(slope + float((forces * way).sum())) / size


def check_parts(
    model: ForceField, positions: Floats, stored: StoredFrame | None
) -> tuple[PartCheck, ...]:
    """Compare forces with slopes of the energy, and both with what is stored."""
    here = evaluate_parts(model, positions)
    way = some_way(len(positions))
    around = {k: evaluate_parts(model, positions + k * STEP_ANG * way) for k in STENCIL}
    checks = []
    for name, (energy, forces) in here.items():
        error = slope_error([around[k][name][0] for k in STENCIL], forces, way)
        if stored is None or name not in stored.energy_ev:
            checks.append(PartCheck(name, error))
            continue
        difference = np.abs(forces - stored.forces[name])
        checks.append(
            PartCheck(name, error, abs(energy - stored.energy_ev[name]), float(difference.max()))
        )
    return tuple(checks)


def refuse(
    checks: tuple[PartCheck, ...],
    stored: StoredFrame | None,
    found: str,
    tolerance: float,
    slope_tolerance: float = SLOPE_TOLERANCE,
) -> None:
    """Raise GuardError where a check is beyond its tolerance (eV and eV/Å; relative)."""
    for check in checks:
        if not check.slope_error <= slope_tolerance:
            raise GuardError(
                f"{check.name}: forces are not the slope of the energy (off by "
                f"{check.slope_error:.1e} of their size)"
            )
        errors = (check.energy_error_ev, check.force_error_ev_per_ang)
        if not all(error is None or error <= tolerance for error in errors):
            cause = (
                "the models have been changed since; if on purpose, store a frame anew with --store"
                if stored and stored.fingerprint != found
                else "the models are the same, so that this machine or version computes wrongly"
            )
            raise GuardError(
                f"{check.name}: energy off by {errors[0]:.1e} eV and forces by {errors[1]:.1e} "
                f"eV/Å from what is stored in {CHECK_NAME}: {cause}"
            )
    if stored and stored.fingerprint != found:
        raise GuardError(
            f"the models' fingerprint is not the one in {CHECK_NAME}: they have been changed "
            "since; if on purpose, store a frame anew with --store"
        )
