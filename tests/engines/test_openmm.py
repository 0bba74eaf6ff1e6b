"""The real OpenMM with our force: its units, its periodic boxes, its dynamics."""

import subprocess
import sys

import numpy as np
import pytest

from deltaserver import CompositeModel
from deltaserver.errors import ComponentError, GeometryError
from deltaserver.molecules.elements import SYMBOLS
from deltaserver.textio.species import parse_species
from tests.builders import (
    AMMONIA_ATOMS,
    COMPLEX,
)

openmm = pytest.importorskip("openmm")
if not hasattr(openmm, "PythonForce"):
    pytest.skip("OpenMM before 8.6 has no PythonForce", allow_module_level=True)

from openmm import app, unit  # noqa: E402

from deltaserver.openmm import delta_force  # noqa: E402

JOULE_EV = 1.0 / 1.602176634e-19
KJ_MOL_EV = 1e3 * JOULE_EV / 6.02214076e23
TOLERANCE = 1e-6  # eV and eV/Å


def system_with(force, numbers=COMPLEX):
    system = openmm.System()
    for number in numbers:
        system.addParticle(parse_species(SYMBOLS[number]).mass_u)
    system.addForce(force)
    return system


def context_at(system, x, step_ps=0.0):
    platform = openmm.Platform.getPlatformByName("Reference")  # in float64
    context = openmm.Context(system, openmm.VerletIntegrator(step_ps), platform)
    context.setPositions(x * unit.angstrom)
    return context


def found_in(context):
    """Energy (eV) and forces (eV/Å) by OpenMM's own units."""
    state = context.getState(getEnergy=True, getForces=True)
    energy = state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole)
    per_ang = unit.kilojoule_per_mole / unit.angstrom
    return KJ_MOL_EV * energy, KJ_MOL_EV * state.getForces(asNumpy=True).value_in_unit(per_ang)


@pytest.mark.parametrize("component", ["total", "binding", "water"])
def test_energies_and_forces_are_the_model_s(composite, positions, component):
    force = delta_force(composite, component, check_structure=False)
    energy, forces = found_in(context_at(system_with(force), positions))
    expected = composite.evaluate(positions, component)
    assert energy == pytest.approx(float(expected.energy), abs=TOLERANCE)
    np.testing.assert_allclose(forces, expected.forces, rtol=0, atol=TOLERANCE)


def test_some_particles_of_a_larger_system_in_the_model_s_order(model_directory, positions):
    """Three other particles stand between the model's atoms, which come in another order."""
    composite = CompositeModel.load(model_directory)
    order = np.random.default_rng(5).permutation(10)
    mine = order[:7]
    x = np.random.default_rng(6).uniform(50.0, 60.0, (10, 3))
    x[mine] = positions
    force = delta_force(model_directory, particles=mine.tolist(), check_structure=False)
    energy, forces = found_in(context_at(system_with(force, np.ones(10, int)), x))
    expected = composite.evaluate(positions)
    assert energy == pytest.approx(float(expected.energy), abs=TOLERANCE)
    np.testing.assert_allclose(forces[mine], expected.forces, rtol=0, atol=TOLERANCE)
    assert np.abs(forces[order[7:]]).max() == 0.0


def test_a_periodic_model_is_in_openmm_s_box(periodic, positions):
    # OpenMM wants its reduced form: a along x, b in the plane of x and y.
    rows = np.array([[9.0, 0.0, 0.0], [1.5, 8.0, 0.0], [-1.0, 2.0, 10.0]])
    positions[AMMONIA_ATOMS] += rows[1]
    system = system_with(delta_force(periodic, check_structure=False))
    system.setDefaultPeriodicBoxVectors(*(rows * unit.angstrom))
    energy, forces = found_in(context_at(system, positions))
    expected = periodic.evaluate(positions, cell=rows.T)
    assert energy == pytest.approx(float(expected.energy), abs=TOLERANCE)
    np.testing.assert_allclose(forces, expected.forces, rtol=0, atol=TOLERANCE)
    free = periodic.evaluate(positions, cell=1e3 * np.eye(3))
    assert abs(float(free.energy) - energy) > 1e-3


def test_its_dynamics_conserve_the_energy(shipped_dimer):
    model, x = shipped_dimer
    context = context_at(system_with(delta_force(model), model.numbers), x, step_ps=2.5e-4)
    context.setVelocitiesToTemperature(100.0, 1)
    energies = []
    for _ in range(20):
        context.getIntegrator().step(1)
        state = context.getState(getEnergy=True)
        total = state.getPotentialEnergy() + state.getKineticEnergy()
        energies.append(KJ_MOL_EV * total.value_in_unit(unit.kilojoule_per_mole))
        kinetic = KJ_MOL_EV * state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
    assert np.ptp(energies) < 0.02 * kinetic


@pytest.fixture(scope="module")
def shipped_dimer():
    from ase.io import read

    from tests.integration.nursery import ROOT

    directory = ROOT / "models" / "benzene_dimer"
    return CompositeModel.load(directory), read(directory / "structure.xyz").positions


def test_a_wrong_order_of_atoms_is_refused(shipped_dimer):
    model, x = shipped_dimer
    order = np.random.default_rng(3).permutation(len(x))
    context = context_at(system_with(delta_force(model), model.numbers), x[order])
    with pytest.raises(Exception, match="order of the atoms"):
        context.getState(getEnergy=True)


def test_a_component_that_is_not_there_is_refused(composite):
    with pytest.raises(ComponentError):
        delta_force(composite, "nothing")


def topology_of(numbers):
    topology = app.Topology()
    residue = topology.addResidue("X", topology.addChain())
    for number in numbers:
        topology.addAtom("X", app.Element.getByAtomicNumber(int(number)), residue)
    return topology


@pytest.fixture
def potential(composite):
    """As OpenMM-ML finds it: by the entry point, if the package is installed with it."""
    mlpotential = pytest.importorskip("openmmml.mlpotential")
    from deltaserver.openmm import DeltaPotentialImplFactory

    mlpotential.MLPotential.registerImplFactory("deltaserver", DeltaPotentialImplFactory())
    return mlpotential.MLPotential("deltaserver", models=composite)


def test_openmm_ml_makes_a_system_of_a_topology(potential, composite, positions):
    system = potential.createSystem(topology_of(COMPLEX), check_structure=False)
    energy, forces = found_in(context_at(system, positions))
    expected = composite.evaluate(positions)
    assert energy == pytest.approx(float(expected.energy), abs=TOLERANCE)
    np.testing.assert_allclose(forces, expected.forces, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize(
    ("numbers", "message"),
    [(COMPLEX[:-1], "has 7 atoms; the topology has 6"), (COMPLEX[::-1], "of the topology is")],
)
def test_openmm_ml_s_topology_is_compared_with_the_model(potential, numbers, message):
    with pytest.raises(GeometryError, match=message):
        potential.createSystem(topology_of(numbers))


def test_openmm_ml_takes_the_model_for_some_atoms_and_another_force_for_the_others(
    potential, composite, positions
):
    """Two neon atoms on a spring; the spring between atoms of the model is taken out."""
    x = np.concatenate([positions, [[30.0, 0.0, 0.0], [31.5, 0.0, 0.0]]])
    spring = openmm.HarmonicBondForce()  # its equilibrium is 1 Å
    spring.addBond(7, 8, 0.1, 1000.0)
    spring.addBond(0, 1, 0.1, 1000.0)
    whole = system_with(spring, [*COMPLEX, 10, 10])
    atoms = list(range(7))
    mixed = potential.createMixedSystem(
        topology_of([*COMPLEX, 10, 10]), whole, atoms, check_structure=False
    )
    energy, forces = found_in(context_at(mixed, x))
    expected = composite.evaluate(positions)
    stretched = 0.5 * 1000.0 * 0.05**2 * KJ_MOL_EV
    assert energy == pytest.approx(float(expected.energy) + stretched, abs=TOLERANCE)
    np.testing.assert_allclose(forces[:7], expected.forces, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("first", ["deltaserver.openmm", "openmmml"])
def test_either_may_be_imported_first(first):
    """OpenMM-ML imports this module while it is imported, where the package is installed."""
    pytest.importorskip("openmmml")
    code = f"import {first}, openmmml, deltaserver.openmm"
    subprocess.run([sys.executable, "-c", code], check=True)
