"""Conversion factors, each with its source. Nowhere else in the package does a factor stand.

The package computes in eV and Å. i-PI speaks Hartree and Bohr; sGDML files speak what their
``r_unit`` and ``e_unit`` say.

Sources:
    [SI]      the defining constants e, N_A, h, c of the SI (BIPM, 9th edition, 2019), exact.
    [CODATA]  CODATA 2018, DOI 10.1103/RevModPhys.93.025010 (Bohr radius, Hartree energy).
    [THERMO]  the thermochemical calorie, 4.184 J exactly (ISO 31-4). sGDML uses this one.
              i-PI's ``kilocal/mol`` is the International Table calorie (4.1868 J), 6.7e-4 off.
"""

from __future__ import annotations

import math

from deltaserver.errors import UnitError

ELEMENTARY_CHARGE_C = 1.602176634e-19  # [SI]
AVOGADRO_PER_MOL = 6.02214076e23  # [SI]
BOLTZMANN_J_PER_K = 1.380649e-23  # [SI]
CALORIE_J = 4.184  # [THERMO]
INTERNATIONAL_CALORIE_J = 4.1868  # the International Table calorie, exact (ISO 31-4)
ATOMIC_MASS_KG = 1.66053906660e-27  # [CODATA]
FS_PER_S = 1e15
ANG_PER_M = 1e10

BOHR_ANG = 0.529177210903  # [CODATA]
HARTREE_EV = 27.211386245988  # [CODATA]
ATOMIC_TIME_FS = 2.4188843265857e-2  # ħ/E_h [CODATA]
COULOMB_EV_ANG = HARTREE_EV * BOHR_ANG  # e²/(4πε₀): one Hartree at one Bohr
KJ_PER_MOL_EV = 1e3 / (AVOGADRO_PER_MOL * ELEMENTARY_CHARGE_C)
KCAL_PER_MOL_EV = CALORIE_J * KJ_PER_MOL_EV
LITRE_ANG3 = 1e-3 * ANG_PER_M**3
ANG3_PER_MOLAR = LITRE_ANG3 / AVOGADRO_PER_MOL  # the volume of a molecule at 1 mol/l
KB_EV_PER_K = BOLTZMANN_J_PER_K / ELEMENTARY_CHARGE_C

LENGTH_ANG = {
    "ang": 1.0,
    "angstrom": 1.0,
    "å": 1.0,
    "bohr": BOHR_ANG,
    "au": BOHR_ANG,
    "a.u.": BOHR_ANG,
    "nm": 10.0,
    "pm": 0.01,
    "atomic_unit": BOHR_ANG,
    "nanometer": 10.0,
    "picometer": 0.01,
}
ENERGY_EV = {
    "ev": 1.0,
    "mev": 1e-3,
    "kcal/mol": KCAL_PER_MOL_EV,
    "kj/mol": KJ_PER_MOL_EV,
    "hartree": HARTREE_EV,
    "ha": HARTREE_EV,
    "au": HARTREE_EV,
    "a.u.": HARTREE_EV,
    "rydberg": HARTREE_EV / 2.0,
    "ry": HARTREE_EV / 2.0,
}
# What i-PI accepts, in the headers of its files, its inputs and comments, by kind of quantity:
# how many eV, fs, K or Å one unit is. A prefix (milli, kilo, …) may stand before each.
_IPI_ATOMIC = {
    "energy": HARTREE_EV,
    "time": ATOMIC_TIME_FS,
    "temperature": HARTREE_EV / KB_EV_PER_K,
    "length": BOHR_ANG,
}
_IPI_NAMED = {
    "energy": {
        "electronvolt": 1.0,
        "ase": 1.0,
        "j/mol": KJ_PER_MOL_EV / 1e3,
        "joule/mol": KJ_PER_MOL_EV / 1e3,
        "cal/mol": INTERNATIONAL_CALORIE_J * KJ_PER_MOL_EV / 1e3,
        "kelvin": KB_EV_PER_K,
    },
    "time": {
        "second": FS_PER_S,
        "ase": math.sqrt(ATOMIC_MASS_KG / ELEMENTARY_CHARGE_C) / ANG_PER_M * FS_PER_S,
    },
    "temperature": {"kelvin": 1.0, "ase": 1.0},
    "length": {"angstrom": 1.0, "ase": 1.0, "meter": ANG_PER_M},
}
IPI_UNITS = {
    kind: {"": atomic, "automatic": atomic, "atomic_unit": atomic, **_IPI_NAMED[kind]}
    for kind, atomic in _IPI_ATOMIC.items()
}
IPI_PREFIXES = {
    "yotta": 1e24,
    "zetta": 1e21,
    "exa": 1e18,
    "peta": 1e15,
    "tera": 1e12,
    "giga": 1e9,
    "mega": 1e6,
    "kilo": 1e3,
    "milli": 1e-3,
    "micro": 1e-6,
    "nano": 1e-9,
    "pico": 1e-12,
    "femto": 1e-15,
    "atto": 1e-18,
    "zepto": 1e-21,
    "yocto": 1e-24,
}
PS_FS = 1e3


def from_ipi(kind: str, unit: str) -> float:
    """Return what one of i-PI's units is in ours.

    Args:
        kind: ``energy`` (eV), ``time`` (fs), ``temperature`` (K) or ``length`` (Å).
        unit: as i-PI spells it, a prefix included (``kilocal/mol``); empty for atomic units.

    Raises:
        UnitError: i-PI has no such unit; the message names those that it has.
    """
    table, asked = IPI_UNITS[kind], unit.strip()
    if asked.lower() in table:
        return table[asked.lower()]
    for prefix, factor in IPI_PREFIXES.items():
        base = asked.removeprefix(prefix).lower()
        if asked.startswith(prefix) and base in table:
            return factor * table[base]
    raise UnitError(
        f"{unit!r} is no unit of {kind} that i-PI knows; it has {', '.join(filter(None, table))}, "
        "and prefixes such as milli and kilo"
    )


def length_in_ang(unit: str) -> float:
    """Return how many Å one ``unit`` is; raise UnitError naming the units that are known."""
    return _look_up(unit, LENGTH_ANG, "length")


def energy_in_ev(unit: str) -> float:
    """Return how many eV one ``unit`` is; raise UnitError naming the units that are known."""
    return _look_up(unit, ENERGY_EV, "energy")


def _look_up(unit: str, table: dict[str, float], kind: str) -> float:
    try:
        return table[unit.strip().lower()]
    except KeyError:
        raise UnitError(
            f"{kind} unit {unit!r} is not known; use one of {', '.join(sorted(table))}"
        ) from None
