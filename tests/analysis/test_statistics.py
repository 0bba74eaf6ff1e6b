import numpy as np
import pytest

from deltaserver.analysis import statistics
from tests.analysis.written import ornstein_uhlenbeck


def test_autocorrelation_of_a_known_process():
    series = ornstein_uhlenbeck(200_000, 1, 1.0, 10.0, 1)[:, 0]
    found = statistics.autocorrelation(series, 20)
    assert found == pytest.approx(np.exp(-np.arange(20) / 10.0), abs=0.03)
    assert len(statistics.autocorrelation(series[:50])) == 50


def test_inefficiency_of_known_processes():
    series = ornstein_uhlenbeck(200_000, 1, 1.0, 10.0, 2)[:, 0]
    decay = np.exp(-0.1)
    assert statistics.inefficiency(series) == pytest.approx((1 + decay) / (1 - decay), rel=0.15)
    white = np.random.default_rng(3).normal(size=20_000)
    assert statistics.inefficiency(white) == pytest.approx(1.0, abs=0.1)
    assert statistics.inefficiency(np.ones(100)) == 1.0
    assert statistics.inefficiency(np.ones(2)) == 1.0


def test_error_of_a_mean_is_its_scatter_over_many_runs():
    means = [statistics.mean_of(ornstein_uhlenbeck(4000, 1, 1.0, 20.0, k)[:, 0]) for k in range(60)]
    scatter = np.std([m.value for m in means], ddof=1)
    assert np.mean([m.error for m in means]) == pytest.approx(scatter, rel=0.3)


def test_a_short_series_has_no_error():
    assert np.isnan(statistics.mean_of(np.linspace(0, 1, 20)).error)
    assert statistics.mean_of(np.array([3.0])).value == 3.0


def test_blocks_are_longer_than_the_memory():
    series = ornstein_uhlenbeck(50_000, 1, 1.0, 10.0, 4)
    length = statistics.block_length(series)
    assert length >= 3 * 17
    both = np.hstack([np.random.default_rng(1).normal(size=(50_000, 1)), series])
    assert statistics.block_length(both) == length
    assert statistics.block_length(np.linspace(0, 1, 30)) is None


def test_resampling_keeps_the_number_of_blocks():
    sums = np.ones((7, 3, 2))
    drawn = statistics.resample(sums, 50, 1)
    assert drawn.shape == (50, 3, 2)
    assert np.all(drawn == 7)


@pytest.mark.parametrize(
    ("steps", "kept"),
    [
        ([0, 10, 20], [1, 1, 1]),
        ([0, 10, 20, 20, 30], [1, 1, 0, 1, 1]),
        ([0, 10, 20, 30, 10, 20], [1, 0, 0, 0, 1, 1]),
        ([0, 10, 20, 30, 10, 20, 0], [0, 0, 0, 0, 0, 0, 1]),
        ([], []),
    ],
)
def test_the_later_piece_wins(steps, kept):
    assert statistics.later_wins(np.array(steps, dtype=int)).tolist() == [bool(k) for k in kept]
