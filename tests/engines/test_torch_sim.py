"""The real torch-sim with our model: its own check of a model, its states, its dynamics."""

import inspect

import numpy as np
import pytest
from ase import Atoms

from deltaserver import CompositeModel, SGDMLModel
from deltaserver.errors import ComponentError, GeometryError, StructureError
from deltaserver.model.composite import Fragment
from deltaserver.model.files.parameters import parse_parameters
from deltaserver.model.manifest import IsolatedAtom
from deltaserver.model.sgdml import NativeUnits
from tests.builders import (
    COMPLEX,
    TRICLINIC,
    WATER_ATOMS,
    geometry,
    sgdml_model,
)

torch = pytest.importorskip("torch")
ts = pytest.importorskip("torch_sim")

from torch_sim.models.interface import validate_model_outputs  # noqa: E402

from deltaserver.torch_sim import DeltaModel  # noqa: E402

CPU = torch.device("cpu")
TOLERANCE = 1e-6  # eV and eV/Å


def state_of(*structures, dtype=torch.float64):
    return ts.io.atoms_to_state(list(structures), CPU, dtype)


def molecule(x, numbers=COMPLEX):
    return Atoms(numbers, x, cell=50.0 * np.eye(3), pbc=False)


def test_the_systems_of_a_state_have_the_model_s_numbers(composite, batch):
    found = DeltaModel(composite)(state_of(*map(molecule, batch)))
    expected = composite.evaluate(batch)
    np.testing.assert_allclose(found["energy"], expected.energy, rtol=0, atol=TOLERANCE)
    forces = expected.forces.reshape(-1, 3)
    np.testing.assert_allclose(found["forces"], forces, rtol=0, atol=TOLERANCE)
    stress = -expected.virial / 50.0**3
    np.testing.assert_allclose(found["stress"], stress, rtol=0, atol=TOLERANCE)


def test_a_directory_will_do_and_a_component(model_directory, composite, positions):
    model = DeltaModel(model_directory, component="binding", dtype=torch.float32)
    found = model(state_of(molecule(positions), dtype=torch.float32))
    assert found["energy"].dtype == torch.float32
    expected = float(composite.evaluate(positions, "binding").energy)
    assert float(found["energy"][0]) == pytest.approx(expected, rel=1e-5)


def model_of(numbers, lattice):
    """A model of one fragment, random but for its elements and its periodicity."""
    if len(numbers) == 1:
        return CompositeModel((Fragment("atom", np.array([0]), IsolatedAtom(26, -1.5)),), None)
    raw = sgdml_model(np.asarray(numbers), seed=7, lattice=lattice)
    model = SGDMLModel(parse_parameters(raw, "memory"), NativeUnits(1.0, 1.0))
    return CompositeModel((Fragment("all", np.arange(len(numbers)), model),), None)


# What validate_model_outputs evaluates: of torch-sim 0.3, then of 0.6.
SUBJECTS = ["Si8", "Fe12", "Mg12", "Fe", "C6H6"]


def test_torch_sim_s_own_check_passes():
    """It takes crystals of silicon, iron and magnesium, and benzene: a model of each."""
    models = []
    for formula in SUBJECTS:
        numbers = Atoms(formula).numbers
        lattice = None if formula == "C6H6" else np.eye(3)
        models.append(model_of(numbers, lattice))
    options = {}
    if "state_modifier" in inspect.signature(validate_model_outputs).parameters:
        options["state_modifier"] = displaced
    validate_model_outputs(DeltaModel(*models), CPU, torch.float64, **options)


def displaced(state):
    """Move every atom, by where it is: pairs half a lattice vector apart have two nearest images.

    Which of them is taken, and so the direction of their force, would be a matter of rounding.
    """
    moved = state.clone()
    phase = state.positions @ torch.tensor([7.0, 5.0, 3.0], dtype=state.dtype)
    moved.positions = state.positions + 0.05 * torch.sin(phase[:, None] + torch.arange(3.0))
    return moved


def test_systems_of_several_models_in_any_order(composite, positions):
    small = model_of([8, 1, 1], None)
    water = molecule(geometry(3, 5), [8, 1, 1])
    found = DeltaModel(composite, small)(state_of(water, molecule(positions), water))
    first, second = small.evaluate(water.positions).energy, composite.evaluate(positions).energy
    np.testing.assert_allclose(found["energy"], [first, second, first], rtol=0, atol=TOLERANCE)
    forces = composite.evaluate(positions).forces
    np.testing.assert_allclose(found["forces"][3:10], forces, rtol=0, atol=TOLERANCE)


def test_a_periodic_model_in_a_cell_that_is_not_symmetric(periodic, positions):
    positions[WATER_ATOMS] += TRICLINIC[:, 0]  # another image: the transposed cell has none there
    atoms = Atoms(COMPLEX, positions, cell=TRICLINIC.T, pbc=True)
    other = atoms.copy()
    other.set_cell(1.05 * TRICLINIC.T)
    found = DeltaModel(periodic)(state_of(atoms, other))
    for k, cell in enumerate((TRICLINIC, 1.05 * TRICLINIC)):
        expected = periodic.evaluate(positions, cell=cell)
        assert float(found["energy"][k]) == pytest.approx(float(expected.energy), abs=TOLERANCE)
        stress = -expected.virial / np.linalg.det(cell)
        np.testing.assert_allclose(found["stress"][k], stress, rtol=0, atol=TOLERANCE)


def test_a_periodic_model_wants_a_state_that_repeats(periodic, positions):
    atoms = Atoms(COMPLEX, positions, cell=TRICLINIC.T, pbc=False)
    with pytest.raises(GeometryError, match="is periodic and the structure is not"):
        DeltaModel(periodic)(state_of(atoms))


def test_molecules_that_its_dynamics_wrap_are_refused():
    """torch-sim puts atoms back into the cell after every step where ``pbc`` is true."""
    from ase.io import read

    from tests.integration.nursery import ROOT

    directory = ROOT / "models" / "methane_dimer"
    atoms = read(directory / "structure.xyz")
    atoms.set_cell([8.0, 8.0, 8.0])
    model, wrapped = DeltaModel(directory), atoms.copy()
    wrapped.pbc = True
    wrapped.wrap()
    for x in (atoms, wrapped):
        x.pbc = True
    whole = model(state_of(atoms))["energy"]
    with pytest.raises(StructureError, match="the cell's boundary has cut it"):
        model(state_of(atoms, wrapped))  # wrong by 60 eV
    for x in (atoms, wrapped):
        x.pbc = False  # nothing repeats: as it stands
    both = model(state_of(atoms, wrapped))["energy"]
    assert float(both[0]) == pytest.approx(float(whole[0]), rel=1e-12)  # in a batch, other sums


def test_what_is_no_model_s_is_refused(composite, positions):
    with pytest.raises(GeometryError, match="system 1 has the atoms"):
        DeltaModel(composite)(state_of(molecule(positions), molecule(positions, COMPLEX[::-1])))
    with pytest.raises(ComponentError):
        DeltaModel(composite, component="nothing")


def test_its_dynamics_run_on_the_model_from_a_start_that_is_checked():
    from ase.io import read

    from tests.integration.nursery import ROOT

    directory = ROOT / "models" / "benzene_dimer"
    atoms = read(directory / "structure.xyz")
    model = DeltaModel(directory, check_structure=True)
    start = state_of(molecule(atoms.positions, atoms.numbers))
    with pytest.raises(StructureError):
        model(state_of(molecule(1.2 * atoms.positions, atoms.numbers)))
    nve = ts.nve if hasattr(ts, "nve") else ts.Integrator.nve  # torch-sim 0.3, and since
    end = ts.integrate(
        system=start, model=model, integrator=nve, n_steps=5, temperature=100.0, timestep=2.5e-4
    )
    x = end.positions.numpy()
    assert 1e-4 < np.abs(x - atoms.positions).max() < 0.1
    expected = model.models[0].evaluate(x)
    assert float(end.energy[0]) == pytest.approx(float(expected.energy), abs=TOLERANCE)
    np.testing.assert_allclose(end.forces, expected.forces, rtol=0, atol=TOLERANCE)
