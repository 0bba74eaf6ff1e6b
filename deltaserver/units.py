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

from deltaserver.errors import UnitError

ELEMENTARY_CHARGE_C = 1.602176634e-19  # [SI]
AVOGADRO_PER_MOL = 6.02214076e23  # [SI]
BOLTZMANN_J_PER_K = 1.380649e-23  # [SI]
CALORIE_J = 4.184  # [THERMO]
INTERNATIONAL_CALORIE_J = 4.1868  # the International Table calorie, exact (ISO 31-4)

BOHR_ANG = 0.529177210903  # [CODATA]
HARTREE_EV = 27.211386245988  # [CODATA]
ATOMIC_TIME_FS = 2.4188843265857e-2  # ħ/E_h [CODATA]
KJ_PER_MOL_EV = 1e3 / (AVOGADRO_PER_MOL * ELEMENTARY_CHARGE_C)
KCAL_PER_MOL_EV = CALORIE_J * KJ_PER_MOL_EV
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
    # as i-PI spells them
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
# As i-PI spells them, in the headers of its property files and in its inputs.
IPI_ENERGY_EV = {
    "": HARTREE_EV,
    "automatic": HARTREE_EV,
    "atomic_unit": HARTREE_EV,
    "electronvolt": 1.0,
    "millielectronvolt": 1e-3,
    "j/mol": KJ_PER_MOL_EV / 1e3,
    "kilojoule/mol": KJ_PER_MOL_EV,
    "kilocal/mol": INTERNATIONAL_CALORIE_J * KJ_PER_MOL_EV,
}
IPI_TIME_FS = {
    "": ATOMIC_TIME_FS,
    "automatic": ATOMIC_TIME_FS,
    "atomic_unit": ATOMIC_TIME_FS,
    "femtosecond": 1.0,
    "picosecond": 1e3,
    "nanosecond": 1e6,
}
IPI_TEMPERATURE_K = {
    "": HARTREE_EV / KB_EV_PER_K,
    "automatic": HARTREE_EV / KB_EV_PER_K,
    "atomic_unit": HARTREE_EV / KB_EV_PER_K,
    "kelvin": 1.0,
}


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
