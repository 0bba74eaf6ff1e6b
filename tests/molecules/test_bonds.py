"""Bonds read off training geometries, against the chemistry of the shipped molecules."""

import numpy as np
import pytest

from deltaserver.molecules.bonds import bonds_between, find_bonds, training_distances
from tests import shipped
from tests.builders import inverse_distances
from tests.integration.conftest import ROOT


def bonds_of(numbers, geometries):
    distances = 1.0 / inverse_distances(np.array(geometries))
    return find_bonds("m", np.array(numbers), 10 + np.arange(len(numbers)), distances)


@pytest.fixture(scope="module")
def c60():
    return shipped.load(ROOT / "models" / "c60")


def test_c60_has_ninety_bonds_three_at_every_atom(c60):
    fragment = c60.fragments[0]
    distances = training_distances(fragment.model.parameters.x, fragment.model.native.length_ang)
    found = find_bonds("c60", fragment.numbers, fragment.atoms, distances)
    assert len(found) == 90
    np.testing.assert_array_equal(np.bincount(np.concatenate([found.i, found.j])), 3)
    assert ((found.typical > 1.37) & (found.typical < 1.48)).all()
    assert (found.shortest <= found.typical).all()
    assert (found.typical <= found.longest).all()
    # 30 bonds between two hexagons, 60 between a hexagon and a pentagon: two lengths
    assert np.sort(found.typical)[29] < np.sort(found.typical)[30] - 0.02


WATER = [[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]


def test_atoms_are_numbered_as_in_the_complex():
    found = bonds_of([8, 1, 1], [WATER])
    assert set(zip(found.i.tolist(), found.j.tolist(), strict=True)) == {(11, 10), (12, 10)}
    np.testing.assert_allclose(found.slack, 0.30)


def test_a_molecule_that_comes_apart_in_training_has_no_bonds_to_rely_on():
    apart = [WATER[0], [3.0, 0.0, 0.0], WATER[2]]
    assert len(bonds_of([8, 1, 1], [WATER, apart])) == 0


def test_two_molecules_in_one_fragment_are_no_molecule():
    both = [*WATER, *(np.array(WATER) + np.array([0.0, 0.0, 3.0]))]
    assert len(bonds_of([8, 1, 1, 8, 1, 1], [both])) == 0


def test_a_hydrogen_has_one_bond():
    assert len(bonds_of([8, 1, 8], [[[-1.1, 0.0, 0.0], [0.0, 0.0, 0.0], [1.1, 0.0, 0.0]]])) == 0


def test_descriptors_that_are_no_inverse_distance():
    found = training_distances(np.array([[0.5, 0.0, -1.0]]), 0.5)
    np.testing.assert_array_equal(found, [[1.0, np.inf, np.inf]])


@pytest.mark.parametrize("length", [0.6, 0.74, 0.79, 1.0])
def test_hydrogen_molecules_swing_beyond_the_covalent_radii(length):
    found = bonds_of([1, 1], [[[0.0, 0.0, 0.0], [0.0, 0.0, length]]])
    assert (found.i.tolist(), found.j.tolist()) == ([11], [10])


def test_two_hydrogens_apart_are_two_atoms():
    assert len(bonds_of([1, 1], [[[0.0, 0.0, 0.0], [0.0, 0.0, 1.2]]])) == 0


def test_hydrogens_of_a_heavier_atom_are_not_bonded_to_each_other():
    """As close as beads of a path integral bring them."""
    squeezed = [[0.0, 0.0, 0.0], [0.85, 0.3, 0.0], [0.85, -0.3, 0.0]]
    i, j = bonds_between(np.array([8, 1, 1]), np.array(squeezed))
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == {(1, 0), (2, 0)}


def test_hydrogen_molecules_beside_water():
    x = np.array([*WATER, [4.0, 0.0, 0.0], [4.78, 0.0, 0.0]])
    i, j = bonds_between(np.array([8, 1, 1, 1, 1]), x)
    assert set(zip(i.tolist(), j.tolist(), strict=True)) == {(1, 0), (2, 0), (4, 3)}
    i, j = bonds_between(np.array([8, 1, 1, 1, 1]), x, np.array([3, 4]))
    assert (i.tolist(), j.tolist()) == ([4], [3])
