from dataclasses import replace

import numpy as np
import pytest

from deltaserver.errors import DataError
from deltaserver.evaluation.splits import SplitRequest, choose_split
from deltaserver.training.selection import split_in_time


@pytest.fixture
def long(frames):
    """Sixty frames of two trajectories, 40 and 20, not in order of time in the file."""
    index = np.resize(np.arange(len(frames)), 60)
    step = np.concatenate([np.arange(40), np.arange(20)])[::-1].copy()
    trajectory = np.concatenate([np.full(20, 7), np.full(40, 2)])
    return replace(frames.select(index), trajectory=trajectory, step=step)


def test_time_split_leaves_a_gap_and_tests_the_end_of_every_trajectory(long):
    split = choose_split(long, SplitRequest())
    for trajectory, n_train, n_test in ((2, 32, 6), (7, 16, 3)):
        steps = [
            np.sort(long.step[index[long.trajectory[index] == trajectory]])
            for index in (split.train, split.valid, split.held_out)
        ]
        n_frames = (long.trajectory == trajectory).sum()
        assert len(steps[0]) + len(steps[1]) == n_train
        assert steps[0].max() < steps[1].min()
        assert steps[2].tolist() == list(range(n_frames - n_test, n_frames))
        assert steps[2].min() > steps[1].max() + 1  # the gap


def test_time_split_trains_on_what_the_trainer_trains_on(long):
    ours, theirs = choose_split(long, SplitRequest()), split_in_time(long.trajectory, long.step)
    np.testing.assert_array_equal(ours.train, theirs.train)
    np.testing.assert_array_equal(ours.valid, theirs.valid)
    assert np.isin(ours.held_out, theirs.held_out).all()


def test_large_test_fraction_takes_frames_from_training(long):
    split = choose_split(long, SplitRequest(test_fraction=0.5))
    assert len(split.held_out) == 30
    assert not np.intersect1d(split.held_out, np.concatenate([split.train, split.valid])).size


def test_trajectory_split_tests_on_whole_trajectories(long):
    split = choose_split(long, SplitRequest("trajectory", (7,)))
    np.testing.assert_array_equal(split.held_out, np.flatnonzero(long.trajectory == 7))
    assert (long.trajectory[np.concatenate([split.train, split.valid])] == 2).all()


def test_random_split_happens_only_on_demand_and_says_what_it_is(long):
    request = SplitRequest("random", seed=4)
    known = np.arange(30)
    split = choose_split(long, request, known)
    assert len(split.held_out) == 9
    assert not np.intersect1d(split.held_out, known).size
    everything = np.concatenate([split.train, split.valid, split.held_out])
    assert np.sort(everything).tolist() == list(range(60))
    assert "too low" in request.describe()
    np.testing.assert_array_equal(split.held_out, choose_split(long, request, known).held_out)


@pytest.mark.parametrize(
    ("request_arguments", "message"),
    [
        ({"kind": "trajectory"}, "needs a --test-trajectory"),
        ({"kind": "time", "test_trajectories": (7,)}, "contradicts --split time"),
        ({"kind": "by eye"}, "not known"),
        ({"test_fraction": 1.0}, "not between 0 and 1"),
    ],
)
def test_contradicting_options_are_refused(request_arguments, message):
    with pytest.raises(DataError, match=message):
        SplitRequest(**request_arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "trajectory", "test_trajectories": (5,)}, "no trajectory 5.*has 2, 7"),
        ({"test_fraction": 0.01}, "ask for --split random"),
        ({"kind": "random", "test_fraction": 0.01}, "leave none to test on"),
    ],
)
def test_splits_without_test_frames_are_refused(long, arguments, message):
    with pytest.raises(DataError, match=message):
        choose_split(long, SplitRequest(**arguments))


def test_frames_without_order_in_time_are_not_split_at_random_silently(long):
    with pytest.raises(DataError, match=r"several frames at one step.*--split random"):
        choose_split(replace(long, step=np.zeros(60, dtype=int)), SplitRequest())


def test_all_frames_of_what_no_model_has_seen(long):
    for request in (SplitRequest("all"), SplitRequest("trajectory", (2, 7))):
        split = choose_split(long, request)
        np.testing.assert_array_equal(np.sort(split.held_out), np.arange(60))
        assert len(split.train) == len(split.valid) == 0
        assert request.describe().startswith("all frames of ")
