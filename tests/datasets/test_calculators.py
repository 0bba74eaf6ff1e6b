"""The same method from the program that is there: xtb, or tblite where xtb is missing."""

import numpy as np
import pytest

from deltaserver.datasets import calculators
from deltaserver.datasets.calculators import calculator_factory, evaluate, program_versions
from deltaserver.errors import InputError, MissingExtraError

NUMBERS = np.array([8, 1, 1])
POSITIONS = np.array([[0.0, 0.0, 0.12], [0.0, 0.77, -0.46], [0.0, -0.75, -0.5]])  # Å
NEUTRAL = np.zeros(3, np.int64)


@pytest.fixture
def without(monkeypatch):
    """Return what makes packages look as if they were not installed."""

    def hide(*packages):
        calculator_factory.cache_clear()
        monkeypatch.setattr(calculators, "_has", lambda name: name not in packages)

    yield hide
    calculator_factory.cache_clear()


@pytest.mark.parametrize("method", ["GFN2-xTB", "GFN1-xTB"])
def test_xtb_and_tblite_agree_to_what_their_scf_is_converged_to(without, method):
    pytest.importorskip("xtb")
    pytest.importorskip("tblite")
    results = []
    for hidden in ((), ("xtb",)):
        without(*hidden)
        results.append(evaluate(calculator_factory(method), NUMBERS, POSITIONS, NEUTRAL))
    (e_xtb, f_xtb), (e_tblite, f_tblite) = results
    assert e_tblite == pytest.approx(e_xtb, abs=1e-5)  # eV
    np.testing.assert_allclose(f_tblite, f_xtb, atol=1e-4)  # eV/Å
    assert e_tblite != e_xtb  # two programs did it


@pytest.mark.parametrize("method", ["GFN2-xTB", "GFN1-xTB"])
def test_forces_of_a_planar_molecule_in_a_plane_of_the_axes_are_the_slope_of_the_energy(method):
    """libxtb's own are off by 0.2 eV/Å where atoms share a coordinate (its issue 986)."""
    pytest.importorskip("xtb")
    turns = np.arange(6)[:, None] * np.pi / 3.0
    ring = np.hstack([np.cos(turns), np.sin(turns), 0.0 * turns])
    positions = np.vstack([1.395 * ring, 2.482 * ring, [[0.0, 0.0, 2.4]]])
    numbers = np.array([6] * 6 + [1] * 6 + [11])
    charges = np.array([0] * 12 + [1])
    factory = calculator_factory(method)
    up = np.zeros_like(positions)
    up[0, 2] = 2e-3  # Å
    forces = evaluate(factory, numbers, positions, charges)[1]
    ends = [evaluate(factory, numbers, positions + way * up, charges)[0] for way in (1, -1)]
    assert forces[0, 2] == pytest.approx((ends[1] - ends[0]) / 4e-3, abs=1e-3)


def test_the_calculator_of_a_run_follows_its_atoms():
    """Turned or not, ASE asks again where atoms have moved, and only there."""
    pytest.importorskip("xtb")
    from ase import Atoms

    atoms = Atoms(NUMBERS, POSITIONS)
    atoms.calc = calculator_factory("GFN2-xTB")(atoms)
    energy, forces = atoms.get_potential_energy(), atoms.get_forces()
    assert not atoms.calc.calculation_required(atoms, ["energy"])
    atoms.positions[1] += 0.01 * forces[1]
    assert atoms.get_potential_energy() < energy
    np.testing.assert_array_equal(atoms.positions[[0, 2]], POSITIONS[[0, 2]])


def test_without_xtb_the_record_names_tblite(without):
    pytest.importorskip("tblite")
    without("xtb")
    assert {"tblite"} == set(program_versions("GFN2-xTB")) - {"deltaserver", "ase"}


def test_what_no_program_has_is_told(without):
    without("xtb")
    with pytest.raises(InputError, match=r"Python up to 3\.11"):
        calculator_factory("GFN-FF")
    without("xtb", "tblite")
    with pytest.raises(MissingExtraError, match=r"deltaserver\[train\]"):
        calculator_factory("GFN2-xTB")


def test_a_shipped_model_samples_by_its_name(without):
    factory = calculator_factory("methane_dimer")
    assert factory(None).model.n_atoms == 10


def test_density_fitting_is_a_prefix_and_changes_little():
    pytest.importorskip("pyscf")
    plain, fitted = (calculator_factory(f"{prefix}PBE0/def2-SVP") for prefix in ("", "DF-"))
    energy, forces = evaluate(plain, NUMBERS, POSITIONS, NEUTRAL)
    near, slopes = evaluate(fitted, NUMBERS, POSITIONS, NEUTRAL)
    assert 0.0 < abs(near - energy) < 5e-3  # eV: the fit was done, and is a good one
    np.testing.assert_allclose(slopes, forces, atol=5e-3)  # eV/Å
    step = np.zeros((3, 3))
    step[1, 1] = 1e-3
    up, down = (
        evaluate(fitted, NUMBERS, POSITIONS + sign * step, NEUTRAL)[0] for sign in (1.0, -1.0)
    )
    # The exchange–correlation grid moves with the atoms, which PySCF's forces leave out.
    assert slopes[1, 1] == pytest.approx(-(up - down) / 2e-3, abs=5e-3)
