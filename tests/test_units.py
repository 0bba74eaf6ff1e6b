"""Factors against the values as CODATA 2018 prints them."""

import pytest

from deltaserver import units
from deltaserver.errors import UnitError


@pytest.mark.parametrize(
    ("unit", "ang"),
    [("Ang", 1.0), ("Å", 1.0), (" bohr ", 0.529177210903), ("nm", 10.0), ("pm", 0.01)],
)
def test_lengths(unit, ang):
    assert units.length_in_ang(unit) == pytest.approx(ang, rel=1e-12)


@pytest.mark.parametrize(
    ("unit", "ev"),
    [
        ("eV", 1.0),
        ("meV", 0.001),
        ("Hartree", 27.211386245988),
        ("Ry", 13.605693122994),  # CODATA 2018: Rydberg energy in eV
        ("kJ/mol", 0.0103642696),
        ("kcal/mol", 0.0433641043),
    ],
)
def test_energies(unit, ev):
    assert units.energy_in_ev(unit) == pytest.approx(ev, rel=1e-8)


def test_the_calorie_is_the_thermochemical_one():
    # Hartree in kcal/mol is 627.5095 with 4.184 J, and 627.09 with the IT calorie.
    assert pytest.approx(627.509474, rel=1e-8) == units.HARTREE_EV / units.KCAL_PER_MOL_EV
    assert units.energy_in_ev("kcal/mol") / units.energy_in_ev("kJ/mol") == pytest.approx(
        4.184, rel=1e-14
    )


def test_boltzmann():
    assert pytest.approx(8.617333262e-5, rel=1e-10) == units.KB_EV_PER_K


def test_hartree_times_bohr_is_coulomb_s_constant():
    # e²/4πε₀ = E_h a₀ = 14.399645 eV Å: the two CODATA values belong together.
    assert pytest.approx(14.3996454785, rel=1e-9) == units.HARTREE_EV * units.BOHR_ANG


@pytest.mark.parametrize("look_up", [units.length_in_ang, units.energy_in_ev])
def test_an_unknown_unit_is_refused_with_those_that_are_known(look_up):
    with pytest.raises(UnitError, match=r"'furlong' is not known; use one of .*a\.u\."):
        look_up("furlong")


def test_the_angstrom_sign_is_the_letter_too():
    assert units.length_in_ang("\u212b") == 1.0


@pytest.mark.parametrize(
    ("kind", "unit", "value"),
    [
        ("energy", "kilocal/mol", 0.0433931242),  # the International Table calorie
        ("energy", "j/mol", 1.03642696e-5),
        ("energy", "kiloj/mol", 0.0103642696),
        ("energy", "millielectronvolt", 1e-3),
        ("energy", "ElectronVolt", 1.0),
        ("energy", "kelvin", 8.617333e-5),
        ("energy", "", 27.211386),
        ("time", "femtosecond", 1.0),
        ("time", "nanosecond", 1e6),
        ("time", "atomic_unit", 0.0241888433),
        ("time", "ase", 10.180505),  # 1 Å √(u/eV)
        ("temperature", "millikelvin", 1e-3),
        ("temperature", "automatic", 315775.02),
        ("length", "picometer", 0.01),
        ("length", "nanometer", 10.0),
    ],
)
def test_units_as_ipi_spells_them(kind, unit, value):
    assert units.from_ipi(kind, unit) == pytest.approx(value, rel=2e-7)


@pytest.mark.parametrize("kind", sorted(units.IPI_UNITS))
@pytest.mark.parametrize("prefix", ["", *units.IPI_PREFIXES])
def test_every_unit_of_ipi_has_its_factor(kind, prefix):
    ipi = pytest.importorskip("ipi.utils.units")
    ours = units.from_ipi(kind, "atomic_unit")
    for base in set(ipi.UnitMap[kind]) - {"radian", "degree"}:
        theirs = ipi.unit_to_internal(kind, prefix + base, 1.0) * ours
        # i-PI's factors are older ones: its kelvin is 1.2e-6 off, its Bohr 2e-8.
        assert units.from_ipi(kind, prefix + base) == pytest.approx(theirs, rel=2e-6), base


def test_i_pi_has_no_prefix_that_is_missing_here():
    ipi = pytest.importorskip("ipi.utils.units")
    assert ipi.UnitPrefix == {"": 1.0, **units.IPI_PREFIXES}


@pytest.mark.parametrize("unit", ["furlong", "millifurlong", "angstrom", "kcal/mol"])
def test_a_unit_that_ipi_does_not_know_is_refused(unit):
    with pytest.raises(UnitError, match="is no unit of energy that i-PI knows; it has automatic"):
        units.from_ipi("energy", unit)
