import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from deltaserver.analysis.measure import msad, survey
from deltaserver.analysis.measure.definitions import PairsSpec, RotationSpec
from deltaserver.analysis.measure.survey import Survey, Task, find_bonds, molecules
from deltaserver.analysis.measure.variables import Variable
from tests.analysis.written import FRAGMENTS, POSITIONS, free_rotation, turned

MASSES = np.array([16.0, 1, 1, 12, 1, 1, 1, 1])
NUMBERS = np.array([8, 1, 1, 6, 1, 1, 1, 1])
WATER, METHANE = FRAGMENTS["water"], FRAGMENTS["methane"]


@pytest.fixture
def task():
    return Task(
        reference=POSITIONS,
        masses=MASSES,
        bonds=find_bonds(POSITIONS, NUMBERS),
        variables=(Variable("d", "distance", ((0,), (3,))),),
        rotations=(RotationSpec("methane", "water", METHANE, WATER),),
        pairs=(PairsSpec("w-m", WATER, METHANE, 10.0, 50),),
    )


def surveyed(task, frames, steps=None, block=7):
    steps = np.arange(len(frames)) if steps is None else np.asarray(steps)
    found = Survey(task)
    for k in range(0, len(frames), block):
        found.add(steps[k : k + block], frames[k : k + block, None])
    return found.result()


def test_a_rigid_rotation_of_the_whole_complex_gives_zero_msad_of_the_guest(task):
    turns = Rotation.from_quat(free_rotation(300, 0.05, 1)).as_matrix()
    frames = POSITIONS @ turns.swapaxes(-1, -2) + np.array([5.0, 1.0, 2.0])
    found = surveyed(task, frames)
    result = msad.mean_squared_angular_displacement(found.quaternions["methane"], 1.0, (1, 50))
    assert result.integrated.value.max() < 1e-24
    assert result.net.value.max() < 1e-12
    assert found.fit_ang["methane"] == pytest.approx(0.0, abs=1e-12)
    assert found.values[:, 0, 0] == pytest.approx(np.full(300, 4.0))


def test_the_guests_own_rotation_is_found_while_the_host_turns_too(task):
    quaternions = free_rotation(4000, 0.01, 2)
    frames = turned(POSITIONS, METHANE, quaternions)
    tumbling = Rotation.from_quat(free_rotation(4000, 0.3, 3)).as_matrix()
    frames = frames @ tumbling.swapaxes(-1, -2)
    found = surveyed(task, frames, block=500)
    assert found.quaternions["methane"].shape == (4000, 4)
    expected = msad.mean_squared_angular_displacement(quaternions, 1.0)
    result = msad.mean_squared_angular_displacement(found.quaternions["methane"], 1.0)
    assert result.integrated.value == pytest.approx(expected.integrated.value, rel=1e-9)
    assert result.c2.value == pytest.approx(expected.c2.value, abs=1e-9)


def test_blocks_do_not_matter(task):
    frames = POSITIONS + 0.05 * np.random.default_rng(4).normal(size=(60, 8, 3))
    one, many = surveyed(task, frames, block=60), surveyed(task, frames, block=1)
    assert np.allclose(one.values, many.values)
    assert np.allclose(one.stretch, many.stretch)
    assert np.array_equal(one.sampled.counts["w-m"], many.sampled.counts["w-m"])


def test_a_frame_written_twice_counts_once(task):
    frames = np.repeat(POSITIONS[None], 7, axis=0)
    frames[:, 0, 2] -= np.arange(7)
    found = surveyed(task, frames, steps=[0, 1, 2, 3, 2, 3, 4], block=3)
    assert found.steps.tolist() == [0, 1, 2, 3, 4]
    assert found.values[:, 0, 0].tolist() == [4, 5, 8, 9, 10]
    assert found.n_overwritten == 2
    assert found.sampled.steps.tolist() == [0, 1, 2, 3, 4]
    assert len(found.sampled.counts["w-m"]) == 5


def test_sampled_frames_are_evenly_spaced_and_few(task, monkeypatch):
    monkeypatch.setattr(survey, "MAX_SAMPLED", 50)
    frames = np.repeat(POSITIONS[None], 1234, axis=0)
    found = surveyed(task, frames, block=100)
    assert 50 <= len(found.sampled.steps) < 100
    assert len(set(np.diff(found.sampled.steps))) == 1
    assert found.sampled.steps[-1] > 1200


def test_stretched_bonds_and_numbers_that_are_none(task):
    frames = np.repeat(POSITIONS[None], 4, axis=0)
    frames[1, 4] += 0.63  # a C–H bond twice as long
    frames[3, 0, 0] = np.nan
    found = surveyed(task, frames)
    assert found.stretch[[0, 2]] == pytest.approx(1.0)
    assert found.stretch[1] == pytest.approx(2.0)
    assert np.isinf(found.stretch[3])


def test_beads_are_values_of_their_own(task):
    farther = POSITIONS.copy()
    farther[3:, 2] += 2.0
    found = Survey(task)
    found.add(np.array([0]), np.stack([POSITIONS, farther])[None])
    assert found.result().values[0, :, 0] == pytest.approx([4.0, 6.0])
    assert found.result().sampled.positions[0, 3, 2] == pytest.approx(5.0)  # the centroid
    assert found.result().sampled.counts["w-m"].sum() == 2 * 3 * 5


def test_no_frames(task):
    found = Survey(task).result()
    assert len(found.steps) == 0
    assert found.values.shape == (0, 1, 1)
    assert found.sampled.positions.shape == (0, 8, 3)


def test_bonds_and_molecules():
    bonds = find_bonds(POSITIONS, NUMBERS)
    assert {tuple(pair) for pair in bonds.pairs.tolist()} == {
        (0, 1), (0, 2), (3, 4), (3, 5), (3, 6), (3, 7),
    }  # fmt: skip
    assert molecules(bonds, 8) == (WATER, METHANE)
    lone = find_bonds(np.array([[0.0, 0, 0], [0, 0, 9]]), np.array([18, 18]))
    assert molecules(lone, 2) == ((0,), (1,))
    assert lone.stretch(np.zeros((3, 2, 3))).tolist() == [1, 1, 1]


def test_between_keeps_what_belongs_to_the_frames(task):
    frames = np.repeat(POSITIONS[None], 20, axis=0)
    part = surveyed(task, frames, steps=np.arange(0, 100, 5)).between(4, 8)
    assert part.steps.tolist() == [20, 25, 30, 35]
    assert part.sampled.steps.tolist() == [20, 25, 30, 35]
    assert len(part.quaternions["methane"]) == 4
    assert len(surveyed(task, frames).between(5, 5).steps) == 0
