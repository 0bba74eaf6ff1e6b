"""A spring between fragments' centres: its forces are its energy's, and leave the complex alone."""

import numpy as np
import pytest

from deltaserver.datasets.frames import FragmentSpec
from deltaserver.datasets.sampling.restraints import CentreRestraint, FragmentWall

Atoms = pytest.importorskip("ase").Atoms

NUMBERS = np.array([29, 29, 29, 79, 79])
POSITIONS = np.array([[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0], [0, 0.5, 3.2], [2.5, 0.7, 3.4]])
PAIR = (FragmentSpec("copper", (0, 1, 2)), FragmentSpec("gold", (3, 4)))
THREE = (FragmentSpec("a", (0, 3)), FragmentSpec("b", (1,), 1), FragmentSpec("c", (2, 4)))
NEAR, FAR = 3.2, 4.1  # between copper and gold are 3.32 Å


def forces_of(spring, atoms):
    forces = np.zeros((len(atoms), 3))
    spring.adjust_forces(atoms, forces)
    return forces


@pytest.mark.parametrize("kind", [CentreRestraint, FragmentWall])
@pytest.mark.parametrize("fragments", [PAIR, THREE])
def test_forces_are_the_energys_slope_without_net_force_or_torque(kind, fragments):
    atoms = Atoms(NUMBERS, POSITIONS)
    spring = kind(fragments, 1.9 if fragments is THREE else NEAR, 1.5)
    forces = forces_of(spring, atoms)
    step = 1e-5
    slope = np.zeros_like(forces)
    for index in np.ndindex(forces.shape):
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[index] += sign * step
            energies.append(spring.adjust_potential_energy(moved))
        slope[index] = (energies[0] - energies[1]) / (2 * step)
    assert abs(forces).max() > 0.01
    np.testing.assert_allclose(forces, -slope, atol=1e-8)
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(np.cross(POSITIONS, forces).sum(axis=0), 0.0, atol=1e-12)


def test_a_wall_only_pulls_and_a_restraint_pushes_as_well():
    atoms = Atoms(NUMBERS, POSITIONS)
    assert forces_of(FragmentWall(PAIR, NEAR, 1.0), atoms)[3:, 2].sum() < 0
    assert FragmentWall(PAIR, FAR, 1.0).adjust_potential_energy(atoms) == 0.0
    assert not forces_of(FragmentWall(PAIR, FAR, 1.0), atoms).any()
    assert forces_of(CentreRestraint(PAIR, NEAR, 1.0), atoms)[3:, 2].sum() < 0
    assert forces_of(CentreRestraint(PAIR, FAR, 1.0), atoms)[3:, 2].sum() > 0


def test_centres_on_each_other_have_no_direction_to_be_pushed_in():
    atoms = Atoms([29, 79], np.zeros((2, 3)))
    spring = CentreRestraint((FragmentSpec("a", (0,)), FragmentSpec("b", (1,))), 1.0, 2.0)
    assert not forces_of(spring, atoms).any()
    assert spring.adjust_potential_energy(atoms) == 1.0
