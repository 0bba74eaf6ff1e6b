import numpy as np
import pytest

from deltaserver.errors import GeometryError
from deltaserver.model.descriptor import PairDescriptor
from tests.builders import (
    AMMONIA_PERMS,
    TRICLINIC,
    geometry,
    inverse_distances,
    numerical_gradient,
    shaken,
)


def test_descriptor_is_inverse_distances_in_row_order():
    positions = shaken(geometry(5), 3, 1)
    found = PairDescriptor(5).geometry(positions).descriptor
    np.testing.assert_allclose(found, inverse_distances(positions), rtol=1e-14)


def test_order_of_pairs_is_that_of_the_papers():
    # Atoms on a line at 0, 1, 3, 7: every distance is another number.
    positions = np.zeros((1, 4, 3))
    positions[0, :, 0] = [0.0, 1.0, 3.0, 7.0]
    d = 1.0 / PairDescriptor(4).geometry(positions).descriptor[0]
    np.testing.assert_allclose(d, [1, 3, 2, 7, 6, 4])  # (1,0) (2,0) (2,1) (3,0) (3,1) (3,2)


def test_minimum_images_undo_lattice_shifts_and_those_of_a_transposed_cell_do_not():
    compact = shaken(geometry(4), 3, 2)  # small beside the cell: its own nearest images
    shifts = np.random.default_rng(2).integers(-2, 3, (3, 4, 3))
    scattered = compact + shifts @ TRICLINIC.T
    pairs = PairDescriptor(4)
    found = pairs.geometry(scattered, TRICLINIC).descriptor
    np.testing.assert_allclose(found, inverse_distances(compact), rtol=1e-12)
    np.testing.assert_allclose(found, inverse_distances(compact, TRICLINIC), rtol=1e-12)
    for other in (TRICLINIC.T, None):
        assert np.abs(pairs.geometry(scattered, other).descriptor - found).max() > 1e-2


@pytest.mark.parametrize("cell", [None, TRICLINIC])
def test_forces_are_the_gradient_of_any_function_of_the_descriptor(cell):
    positions = geometry(5, 4)
    weights = np.random.default_rng(4).normal(size=(1, 10))
    pairs = PairDescriptor(5)

    def energy(x):
        return float((weights * pairs.geometry(x[None], cell).descriptor).sum())

    forces = pairs.pull_back(-weights, pairs.geometry(positions[None], cell))[0][0]
    np.testing.assert_allclose(forces, -numerical_gradient(energy, positions), atol=1e-9)


@pytest.mark.parametrize("cell", [None, TRICLINIC])
def test_virial_is_the_derivative_with_respect_to_strain(cell):
    positions = geometry(5, 5)
    weights = np.random.default_rng(5).normal(size=(1, 10))
    pairs = PairDescriptor(5)

    def energy(strain):
        deform = np.eye(3) + strain
        box = None if cell is None else deform @ cell
        return float((weights * pairs.geometry((positions @ deform.T)[None], box).descriptor).sum())

    virial = pairs.pull_back(-weights, pairs.geometry(positions[None], cell))[1][0]
    np.testing.assert_allclose(virial, -numerical_gradient(energy, np.zeros((3, 3))), atol=1e-9)
    np.testing.assert_allclose(virial, virial.T, atol=1e-12)


def test_pair_permutations_follow_atom_permutations():
    positions = geometry(4, 6)[None]
    pairs = PairDescriptor(4)
    reference = pairs.geometry(positions).descriptor[0]
    for perm, pair_perm in zip(AMMONIA_PERMS, pairs.permutations(AMMONIA_PERMS), strict=True):
        permuted = pairs.geometry(positions[:, perm]).descriptor[0]
        np.testing.assert_allclose(permuted, reference[pair_perm], rtol=1e-14)


def test_coinciding_atoms_are_named():
    positions = shaken(geometry(5), 2, 7)
    positions[1, 3] = positions[1, 1]
    with pytest.raises(GeometryError, match="atoms 1 and 3 are at the same place"):
        PairDescriptor(5).geometry(positions)


def test_an_empty_batch_has_an_empty_descriptor():
    assert PairDescriptor(3).geometry(np.zeros((0, 3, 3))).descriptor.shape == (0, 3)
