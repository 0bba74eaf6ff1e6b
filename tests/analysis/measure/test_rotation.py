import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from deltaserver.analysis.measure import rotation
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


CO2 = np.array([[0.0, 0.0, -1.16], [0.0, 0.0, 0.0], [0.0, 0.0, 1.16]])
HCN = np.array([[0.0, 0.0, -1.07], [0.0, 0.0, 0.0], [0.0, 0.0, 1.15]])
C2H2 = np.array([[0.0, 0.0, -1.66], [0.0, 0.0, -0.6], [0.0, 0.0, 0.6], [0.0, 0.0, 1.66]])
HEAVY_WATER = np.array([[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]])
PEROXIDE = np.array([[0.0, 0.0, 0.0], [1.45, 0.0, 0.0], [-0.2, 0.95, 0.0], [1.65, 0.3, 0.9]])


def shaken_and_turned(x, sigma, n_frames, seed):
    rng = np.random.default_rng(seed)
    turns = Rotation.random(n_frames, random_state=seed).as_matrix()
    frames = (x + rng.normal(0.0, sigma, (n_frames, *x.shape))) @ turns.swapaxes(-1, -2)
    return frames + rng.normal(0.0, 3.0, (n_frames, 1, 3))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sigma", [1e-6, 0.02, 0.08])
@pytest.mark.parametrize(
    ("x", "masses", "linear"),
    [
        (CO2, [16, 12, 16], True),
        (HCN, [1, 12, 14], True),
        (C2H2, [1, 12, 12, 1], True),
        (CO2[::2], [14, 14], True),
        (HEAVY_WATER, [16, 2, 2], False),
        (PEROXIDE, [16, 16, 1, 1], False),
        (POSITIONS[3:], [12, 1, 1, 1, 1], False),
    ],
)
def test_linear_molecules_bend_and_are_linear_all_the_same(x, masses, linear, sigma, seed):
    frames = shaken_and_turned(x, sigma, 60, seed)
    assert rotation.is_linear(frames, np.array(masses, float)) == linear


def test_a_linear_molecules_axis_points_from_its_first_atoms_to_its_last():
    turns = Rotation.random(50, random_state=3).as_matrix()
    frames = CO2 @ turns.swapaxes(-1, -2) + 5.0
    found = rotation.axes(CO2, frames, np.array([16.0, 12, 16]))
    np.testing.assert_allclose(found, turns[:, :, 2], atol=1e-12)
