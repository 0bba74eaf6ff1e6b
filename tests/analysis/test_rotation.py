import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from deltaserver.analysis import rotation
from deltaserver.errors import DataError
from tests.analysis.written import POSITIONS

MASSES = np.array([16.0, 1, 1, 12, 1, 1, 1, 1])


@pytest.fixture
def turns():
    return Rotation.random(40, rng=np.random.default_rng(1))


def test_kabsch_finds_the_rotation_that_was_made(turns):
    moved = POSITIONS @ turns.as_matrix().swapaxes(-1, -2) + np.array([3.0, -1, 2])
    found = rotation.kabsch(POSITIONS, moved, MASSES)
    assert np.allclose(found, turns.as_matrix(), atol=1e-12)
    assert rotation.rms_deviation(POSITIONS, moved, MASSES) == pytest.approx(0.0, abs=1e-12)


def test_kabsch_agrees_with_scipy_for_shaken_atoms(turns):
    rng = np.random.default_rng(2)
    moved = POSITIONS @ turns.as_matrix().swapaxes(-1, -2) + 0.1 * rng.normal(size=(40, 8, 3))
    found = rotation.kabsch(POSITIONS, moved, MASSES)
    for k in range(40):
        expected, _ = Rotation.align_vectors(
            rotation.centred(moved[k], MASSES), rotation.centred(POSITIONS, MASSES), MASSES
        )
        assert np.allclose(found[k], expected.as_matrix(), atol=1e-10)


def test_flat_molecules_and_mirror_images_get_proper_rotations(turns):
    flat = POSITIONS[:3]
    moved = flat @ turns.as_matrix().swapaxes(-1, -2)
    found = rotation.kabsch(flat, moved, MASSES[:3])
    assert np.linalg.det(found) == pytest.approx(1.0)
    assert np.allclose(flat @ found.swapaxes(-1, -2), moved, atol=1e-12)
    mirrored = rotation.kabsch(POSITIONS, -POSITIONS[None], MASSES)
    assert np.linalg.det(mirrored) == pytest.approx(1.0)


def test_a_rigid_rotation_of_the_whole_leaves_the_guest_still(turns):
    moved = POSITIONS @ turns.as_matrix().swapaxes(-1, -2)
    guest = rotation.kabsch(POSITIONS[3:], moved[:, 3:], MASSES[3:])
    host = rotation.kabsch(POSITIONS[:3], moved[:, :3], MASSES[:3])
    assert np.allclose(rotation.relative(guest, host), np.eye(3), atol=1e-12)


def test_atoms_on_a_line_have_no_orientation():
    line = np.array([[0.0, 0, 0], [0, 0, 1.1], [0, 0, 2.3]])
    with pytest.raises(DataError, match="CO2: its 3 atoms stand on a line"):
        rotation.check_orientable(line, np.ones(3), "CO2")
    with pytest.raises(DataError, match="its 2 atoms"):
        rotation.check_orientable(POSITIONS[:2], np.ones(2), "OH")
    rotation.check_orientable(POSITIONS[:3], MASSES[:3], "water")
