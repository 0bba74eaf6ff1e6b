"""The ASE calculator: ASE's conventions, our numbers."""

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError, all_properties
from ase.io import read

from deltaserver import CompositeModel
from deltaserver.ase import DeltaCalculator
from deltaserver.errors import ComponentError, GeometryError, StructureError
from tests.builders import (
    COMPLEX,
    TRICLINIC,
    WATER_ATOMS,
    numerical_gradient,
)
from tests.integration.conftest import ROOT


def atoms_at(positions, calculator, **kwargs):
    return Atoms(COMPLEX, positions, calculator=calculator, **kwargs)


def test_the_numbers_are_the_model_s(composite, positions):
    atoms = atoms_at(positions, DeltaCalculator(composite))
    expected = composite.evaluate(positions)
    assert atoms.get_potential_energy() == float(expected.energy)
    np.testing.assert_array_equal(atoms.get_forces(), expected.forces)
    parts = atoms.calc.contributions
    assert sum(float(part.energy) for part in parts.values()) == pytest.approx(
        atoms.get_potential_energy(), abs=1e-10
    )


def test_a_directory_will_do_and_a_component(model_directory, composite, positions):
    for path in (model_directory, str(model_directory)):
        atoms = atoms_at(positions, DeltaCalculator(path, "binding"))
        expected = float(composite.evaluate(positions, "binding").energy)
        assert atoms.get_potential_energy() == pytest.approx(expected, rel=1e-13)


def test_moving_the_atoms_moves_the_result(composite, positions):
    atoms = atoms_at(positions, DeltaCalculator(composite))
    before = atoms.get_potential_energy()
    atoms.positions[3] += 0.1
    assert atoms.get_potential_energy() != before


def test_without_a_cell_there_is_no_stress(composite, positions):
    with pytest.raises(PropertyNotImplementedError):
        atoms_at(positions, DeltaCalculator(composite)).get_stress()


def test_stress_is_the_derivative_of_the_energy_in_ase_s_own_strain(periodic, positions):
    """ASE keeps cell vectors in rows: a transposed cell gives another energy and stress."""
    positions = positions.copy()
    positions[WATER_ATOMS] += TRICLINIC @ [1, -1, 0]
    atoms = atoms_at(positions, DeltaCalculator(periodic), cell=TRICLINIC.T, pbc=True)

    def energy(strain):
        strained = atoms.copy()
        strained.set_cell(atoms.cell.array @ (np.eye(3) + strain).T, scale_atoms=True)
        strained.calc = DeltaCalculator(periodic)
        return strained.get_potential_energy()

    numerical = numerical_gradient(energy, np.zeros((3, 3))) / atoms.get_volume()
    np.testing.assert_allclose(atoms.get_stress(voigt=False), numerical, atol=1e-8)
    transposed = atoms_at(positions, DeltaCalculator(periodic), cell=TRICLINIC, pbc=True)
    difference = transposed.get_potential_energy() - atoms.get_potential_energy()
    assert abs(difference) > 1e-3


def test_other_elements_and_other_numbers_of_atoms_are_refused(composite, positions):
    swapped = COMPLEX.copy()
    swapped[[5, 1]] = swapped[[1, 5]]
    with pytest.raises(GeometryError, match="atom 1 is O; water-ammonia has H there"):
        Atoms(swapped, positions, calculator=DeltaCalculator(composite)).get_potential_energy()
    with pytest.raises(GeometryError, match="has 7 atoms; the structure has 6"):
        Atoms(COMPLEX[:6], positions[:6], calculator=DeltaCalculator(composite)).get_forces()


def test_an_unknown_component_is_refused_at_once(composite):
    with pytest.raises(ComponentError):
        DeltaCalculator(composite, "oxygen")


def test_the_first_structure_is_compared_with_the_molecule_where_asked():
    model = CompositeModel.load(ROOT / "models" / "methane_dimer")
    good = read(ROOT / "models" / "methane_dimer" / "structure.xyz")
    wrong = good.copy()
    wrong.positions[[1, 6]] = wrong.positions[[6, 1]]
    wrong.calc = DeltaCalculator(model)
    wrong.get_potential_energy()  # anything is evaluated unless asked
    wrong.calc = DeltaCalculator(model, check_structure=True)
    with pytest.raises(StructureError, match=r"atom 1 .* and atom 6 .* are exchanged"):
        wrong.get_potential_energy()
    good.calc = DeltaCalculator(model, check_structure=True)
    good.get_potential_energy()
    good.positions *= 1.5  # later structures are the model's own affair
    good.get_potential_energy()


def test_molecules_that_the_cell_has_cut_are_refused():
    """At every structure: its energy was off by 60 eV. Whole ones in the same cell are fine."""
    atoms = read(ROOT / "models" / "methane_dimer" / "structure.xyz")
    atoms.calc = DeltaCalculator(ROOT / "models" / "methane_dimer")
    energy = atoms.get_potential_energy()
    atoms.set_cell([8.0, 8.0, 8.0])
    atoms.pbc = True
    assert atoms.get_potential_energy() == energy
    atoms.wrap()
    with pytest.raises(StructureError, match="the cell's boundary has cut it"):
        atoms.get_potential_energy()
    atoms.pbc = False  # nothing repeats: as it stands
    assert atoms.get_potential_energy() > energy + 1.0


def test_results_are_what_ase_takes():
    """SinglePointCalculator and export_properties refuse keys that ASE does not know."""
    from ase.calculators.singlepoint import SinglePointCalculator

    atoms = read(ROOT / "ipi_inputs" / "benzene_dimer.xyz")
    atoms.calc = DeltaCalculator(ROOT / "models" / "benzene_dimer")
    energy = atoms.get_potential_energy()
    stored = SinglePointCalculator(atoms, **atoms.calc.results)
    assert stored.get_potential_energy() == energy
    assert atoms.calc.export_properties()["energy"] == energy
    assert set(atoms.calc.results) <= set(all_properties)
    parts = atoms.calc.contributions
    assert sum(part.energy for part in parts.values()) == pytest.approx(energy, rel=1e-12)
    atoms.calc.reset()
    assert atoms.calc.contributions == {}


@pytest.mark.parametrize("pbc", [False, (True, True, False)])
def test_a_periodic_model_wants_atoms_that_repeat(periodic, positions, pbc):
    """Those that do not had the energy of their images, even without a cell: the directory's."""
    atoms = atoms_at(positions, DeltaCalculator(periodic), cell=TRICLINIC.T, pbc=pbc)
    with pytest.raises(GeometryError, match="is periodic and the structure is not"):
        atoms.get_potential_energy()
    atoms.pbc, atoms.cell = True, None
    with pytest.raises(GeometryError, match="give it a cell, and pbc in all three"):
        atoms.get_potential_energy()
