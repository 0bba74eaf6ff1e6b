from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaserver.errors import DataError
from deltaserver.training.selection import draw_stratified, split_in_time


def test_every_trajectory_is_divided_in_time():
    trajectory = np.repeat([4, 7], 50)
    step = np.concatenate([np.arange(50)[::-1], np.arange(50)])  # the first is listed backwards
    split = split_in_time(trajectory, step)
    for index in (4, 7):
        times = {
            use: step[frames[trajectory[frames] == index]] for use, frames in vars(split).items()
        }
        assert times["train"].max() < times["valid"].min()
        assert times["valid"].max() < times["held_out"].min()
        assert (len(times["train"]), len(times["valid"]), len(times["held_out"])) == (32, 8, 10)


def test_whole_trajectories_are_held_out():
    trajectory = np.repeat([0, 1, 2], 20)
    split = split_in_time(trajectory, np.arange(60), 1.0, (1,))
    assert set(trajectory[split.held_out]) == {1}
    assert 1 not in trajectory[np.concatenate([split.train, split.valid])]
    with pytest.raises(DataError, match=r"no trajectory 9 .* the dataset has \[0, 1, 2\]"):
        split_in_time(trajectory, np.arange(60), 1.0, (9,))
    with pytest.raises(DataError, match=r"0 of 60 frames are left .* in 0 trajectories: too few"):
        split_in_time(trajectory, np.arange(60), 1.0, (0, 1, 2))
    with pytest.raises(DataError, match="train fraction"):
        split_in_time(trajectory, np.arange(60), 0.0)


@given(
    st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=80),
    st.integers(0, 2**31),
    st.floats(0.0, 1.0),
)
def test_any_count_is_drawn_without_repetition(energies, seed, share):
    energy = np.array(energies)
    count = max(1, int(share * len(energy)))
    drawn = draw_stratified(energy, count, seed)
    assert len(drawn) == count == len(set(drawn.tolist()))
    assert drawn.min() >= 0
    assert drawn.max() < len(energy)
    np.testing.assert_array_equal(drawn, draw_stratified(energy, count, seed))


def test_energies_that_hardly_differ_but_for_one():
    drawn = draw_stratified(np.array([0.0, 0.0, 0.0, 1.0, 3e-313]), 1, 0)
    assert len(drawn) == 1


def test_the_distribution_is_kept_and_tails_are_drawn():
    rng = np.random.default_rng(0)
    energy = rng.normal(size=5000)
    drawn = energy[draw_stratified(energy, 300, 1)]
    assert abs(drawn.mean() - energy.mean()) < 0.1
    assert abs(drawn.std() - energy.std()) < 0.15
    assert drawn.max() > np.quantile(energy, 0.995)


@pytest.mark.parametrize("count", [0, 11])
def test_a_count_that_cannot_be_is_refused(count):
    with pytest.raises(DataError, match=rf"{count} training frames are wanted and 10 are there"):
        draw_stratified(np.arange(10.0), count, 0, "training frames")


def test_trajectories_of_one_frame_serve_every_use():
    """Frames of windows along a separation: in the order of the separation, none is left out."""
    trajectory = np.arange(300)
    split = split_in_time(trajectory, np.zeros(300, dtype=int), 0.8, (7,))
    assert len(split.train) == pytest.approx(0.64 * 300, abs=3)
    assert len(split.valid) == pytest.approx(0.16 * 300, abs=3)
    assert 7 in split.held_out
    assert np.diff(split.train).max() <= 4  # evenly, at every separation
    everything = np.concatenate([split.train, split.valid, split.held_out])
    assert np.array_equal(np.sort(everything), trajectory)
    whole = split_in_time(trajectory, np.zeros(300, dtype=int), 1.0)
    assert not len(whole.held_out)
    assert len(whole.valid) == pytest.approx(60, abs=3)


def test_what_was_chosen_is_trained_on_as_a_whole():
    trajectory, step = np.repeat([0, 1, 2], [20, 5, 1]), np.arange(26)
    split = split_in_time(trajectory, step, 0.8, (), (1, 2))
    assert set(range(20, 26)) <= set(split.train.tolist())
    without = split_in_time(trajectory[:20], step[:20], 0.8)
    np.testing.assert_array_equal(split.valid, without.valid)
    np.testing.assert_array_equal(split.held_out, without.held_out)
