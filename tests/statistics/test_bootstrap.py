import numpy as np
import pytest

from deltaserver.errors import DataError
from deltaserver.evaluation.held_out_errors import _gain
from deltaserver.statistics.bootstrap import (
    BlockBootstrap,
    Estimate,
    choose_block_length,
)


def autoregressive(n_series, length, phi, seed=0):
    """AR(1) series around 0 with unit variance, shape (n_series, length); τ = (1+φ)/(1−φ)."""
    rng = np.random.default_rng(seed)
    noise = np.sqrt(1 - phi**2) * rng.normal(size=(n_series, length))
    series = np.empty_like(noise)
    series[:, 0] = rng.normal(size=n_series)
    for t in range(1, length):
        series[:, t] = phi * series[:, t - 1] + noise[:, t]
    return series


def coverage(series, block_length):
    trajectory = np.zeros(series.shape[1], dtype=int)
    inside = []
    for seed, values in enumerate(series):
        found = BlockBootstrap.draw(trajectory, block_length, 300, 0.9, seed).mean(values)
        inside.append(found.low <= 0.0 <= found.high)
    return float(np.mean(inside))


def test_blocks_cover_the_true_mean_about_as_often_as_stated_and_single_frames_do_not():
    series = autoregressive(250, 400, 0.7)
    chosen = [choose_block_length([s], np.zeros(400, dtype=int)) for s in series]
    assert 12 < np.median(chosen) < 24
    assert 0.84 <= coverage(series, int(np.median(chosen))) <= 0.95
    assert coverage(series, 1) < 0.65


def test_blocks_do_not_hurt_where_frames_are_independent():
    series = np.random.default_rng(5).normal(size=(200, 200))
    assert 0.82 <= coverage(series, 6) <= 0.95


def test_resamples_stay_inside_trajectories_and_hold_whole_blocks():
    trajectory = np.repeat([3, 1], [10, 8])
    drawn = BlockBootstrap.draw(trajectory, 4, 50)
    assert drawn.times.shape == (50, 18)
    assert (drawn.n_blocks, drawn.n_whole) == (3 + 2, 0)
    assert (drawn.times[:, trajectory == 3].sum(axis=1) == 10).all()
    ring = drawn.times[:, trajectory == 1]
    assert (ring[:, :4] + ring[:, 4:] == 2).all()  # one of each two that are half a ring apart


def test_every_frame_is_drawn_equally_often():
    drawn = BlockBootstrap.draw(np.zeros(20, dtype=int), 7, 20_000)
    np.testing.assert_allclose(drawn.times.mean(axis=0), 1.0, atol=0.05)


def test_trajectories_no_longer_than_a_block_are_drawn_as_a_whole():
    trajectory = np.repeat([5, 2, 9, 4], [2, 3, 20, 1])
    drawn = BlockBootstrap.draw(trajectory, 5, 400)
    assert (drawn.n_blocks, drawn.n_whole) == (4 + 3, 3)
    for number in (5, 2, 4):
        times = drawn.times[:, trajectory == number]
        assert (times == times[:, :1]).all()
        assert set(times[:, 0]) == {0.0, 1.0, 2.0, 3.0}
    assert (drawn.times[:, trajectory == 9].sum(axis=1) == 20).all()


@pytest.mark.parametrize(("size", "own"), [(1, 1.0), (2, 0.3), (6, 0.3)])
def test_intervals_of_short_trajectories_know_how_these_differ(size, own):
    """Normal frames of variance ``own`` about trajectories' means, normal too: σ² is known."""
    n, rng = 40, np.random.default_rng(size)
    trajectory = np.repeat(np.arange(n), size)
    widths, inside = [], []
    for seed in range(200):
        values = rng.normal(size=n)[trajectory] + np.sqrt(own) * rng.normal(size=n * size)
        length = choose_block_length([values], trajectory)
        found = BlockBootstrap.draw(trajectory, length, 400, 0.9, seed).mean(values)
        widths.append(found.high - found.low)
        inside.append(found.low <= 0.0 <= found.high)
    sigma = np.sqrt((1.0 + own / size) / n)
    assert np.mean(widths) == pytest.approx(2 * 1.6849 * sigma, rel=0.06)  # Student's t of 39
    assert 0.84 <= np.mean(inside) <= 0.95


def test_one_block_says_nothing_about_the_spread():
    drawn = BlockBootstrap.draw(np.zeros(3, dtype=int), 3, 20)
    assert drawn.mean(np.arange(3.0)) == Estimate(1.0, -np.inf, np.inf)
    assert drawn.estimate_positive(1.0, drawn.means(np.ones(3))) == Estimate(1.0, 0.0, np.inf)


def test_many_trajectories_are_blocks_and_few_long_ones_have_them():
    def chosen(n, size):
        return choose_block_length([np.zeros(n * size)], np.repeat(np.arange(n), size))

    assert [chosen(20, 1), chosen(20, 2), chosen(12, 50), chosen(4, 5)] == [1, 2, 50, 5]
    assert [chosen(4, 10), chosen(2, 250), chosen(1, 60)] == [2, 7, 4]


def test_block_length_keeps_five_blocks_in_the_longest_trajectory():
    drift = np.linspace(0.0, 1.0, 30)
    assert choose_block_length([drift], np.zeros(30, dtype=int)) == 6
    assert choose_block_length([np.zeros(3)], np.zeros(3, dtype=int)) == 1


def test_few_blocks_widen_intervals_by_students_t():
    # Quantiles of Student's t at 97.5 %: 12.7062 (1 degree of freedom), 2.5706 (5), 2.2010 (11).
    for n_blocks, expected in ((2, 12.7062), (6, 2.5706), (12, 2.2010)):
        drawn = BlockBootstrap.draw(np.zeros(5 * n_blocks, dtype=int), 5, 10)
        assert drawn.widening == pytest.approx(
            expected / 1.95996 * np.sqrt(n_blocks / (n_blocks - 1)), rel=1e-4
        )


def test_estimates_scale_and_seeds_repeat():
    assert Estimate(2.0, 1.0, 4.0).scaled(0.5) == Estimate(1.0, 0.5, 2.0)
    values, trajectory = np.arange(30.0), np.zeros(30, dtype=int)
    first, second = (BlockBootstrap.draw(trajectory, 3, 50, seed=9).mean(values) for _ in "ab")
    assert first == second
    assert first.low < first.value == values.mean() < first.high


@pytest.mark.parametrize(("n_frames", "block", "resamples"), [(0, 1, 10), (5, 0, 10), (5, 1, 1)])
def test_senseless_requests_are_refused(n_frames, block, resamples):
    with pytest.raises(DataError):
        BlockBootstrap.draw(np.zeros(n_frames, dtype=int), block, resamples)


@pytest.mark.parametrize("n_blocks", [2, 3, 5, 20])
def test_intervals_of_errors_stay_above_zero(n_blocks):
    """A few large errors among many small ones, in few blocks: percentiles widened go below."""
    rng = np.random.default_rng(n_blocks)
    values = rng.lognormal(0.0, 2.0, 5 * n_blocks)
    drawn = BlockBootstrap.draw(np.zeros(len(values), dtype=int), 5, 500)
    found = drawn.estimate_positive(float(values.mean()), drawn.means(values))
    assert 0.0 < found.low < found.value == values.mean() < found.high
    gain = _gain(found)
    assert gain.low < gain.value < gain.high < 100.0


def test_the_interval_of_a_logarithm_covers_as_stated():
    inside = []
    for seed in range(200):
        values = np.random.default_rng(seed).gamma(0.5, 2.0, 40)  # mean 1, skewed
        drawn = BlockBootstrap.draw(np.zeros(40, dtype=int), 4, 300, 0.9, seed)
        found = drawn.estimate_positive(float(values.mean()), drawn.means(values))
        inside.append(found.low <= 1.0 <= found.high)
    assert 0.83 <= np.mean(inside) <= 0.97


def test_errors_of_zero_have_an_interval_that_begins_there():
    drawn = BlockBootstrap.draw(np.zeros(40, dtype=int), 4, 300)
    assert drawn.estimate_positive(0.0, np.zeros(300)) == Estimate(0.0, 0.0, 0.0)
