import numpy as np
import pytest

from deltaserver.statistics import correlation
from tests.analysis.written import ornstein_uhlenbeck


def filtered(phi, noise):
    """Return x(t+1) = φ x(t) + noise."""
    from scipy.signal import lfilter  # half a second, which not every worker has to spend

    return lfilter([1.0], [1.0, -phi], noise)


def test_autocorrelation_of_a_known_process():
    series = ornstein_uhlenbeck(200_000, 1, 1.0, 10.0, 1)[:, 0]
    found = correlation.autocorrelation(series, 20)
    assert found == pytest.approx(np.exp(-np.arange(20) / 10.0), abs=0.03)
    assert len(correlation.autocorrelation(series[:50])) == 50


def test_inefficiency_of_known_processes():
    series = ornstein_uhlenbeck(200_000, 1, 1.0, 10.0, 2)[:, 0]
    decay = np.exp(-0.1)
    assert correlation.inefficiency(series) == pytest.approx((1 + decay) / (1 - decay), rel=0.15)
    white = np.random.default_rng(3).normal(size=20_000)
    assert correlation.inefficiency(white) == pytest.approx(1.0, abs=0.1)
    assert correlation.inefficiency(np.ones(100)) == 1.0
    assert correlation.inefficiency(np.ones(2)) == 1.0


@pytest.mark.parametrize("phi", [0.6, 0.9])
def test_inefficiency_of_an_autoregression_is_the_exact_one(phi):
    """x(t+1) = φ x(t) + noise has ρ(k) = φᵏ, so that g = (1 + φ)/(1 − φ): 4 and 19."""
    noise = np.random.default_rng(5).normal(size=(20, 50_000))
    found = [correlation.inefficiency(x) for x in filtered(phi, noise)[:, 500:]]
    exact, scatter = (1 + phi) / (1 - phi), np.std(found, ddof=1) / np.sqrt(20)
    # Summing up to five correlation times, g/2 each, leaves out exp(−5) of them.
    assert abs(np.mean(found) - exact) < 3.0 * scatter + np.exp(-5.0) * exact
    assert np.mean(found) == pytest.approx(exact, rel=0.05)


def test_error_of_a_mean_is_its_scatter_over_many_runs():
    means = [
        correlation.mean_of(ornstein_uhlenbeck(4000, 1, 1.0, 20.0, k)[:, 0]) for k in range(60)
    ]
    scatter = np.std([m.value for m in means], ddof=1)
    assert np.mean([m.error for m in means]) == pytest.approx(scatter, rel=0.3)


def test_a_short_series_has_no_error():
    assert np.isnan(correlation.mean_of(np.linspace(0, 1, 20)).error)
    assert correlation.mean_of(np.array([3.0])).value == 3.0


def test_blocks_are_longer_than_the_memory():
    series = ornstein_uhlenbeck(50_000, 1, 1.0, 10.0, 4)
    length = correlation.block_length(series)
    assert length >= 3 * 17
    both = np.hstack([np.random.default_rng(1).normal(size=(50_000, 1)), series])
    assert correlation.block_length(both) == length
    assert correlation.block_length(np.linspace(0, 1, 30)) is None


def test_resampling_keeps_the_number_of_blocks():
    sums = np.ones((7, 3, 2))
    drawn = correlation.resample(sums, 50, 1)
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
    assert correlation.later_wins(np.array(steps, dtype=int)).tolist() == [bool(k) for k in kept]


@pytest.mark.parametrize("centre", [0.0, 90.0, 179.0, 180.0, -179.0, -45.0])
def test_the_mean_of_an_angle_knows_no_seam(centre):
    """What is found at 0° is found, turned, at ±180°."""
    rng = np.random.default_rng(4)
    series = filtered(0.9, rng.normal(0.0, 10.0 * np.sqrt(1 - 0.81), 5000))
    plain = correlation.mean_of(series)
    wrapped = correlation.around(series + centre, 0.0, 360.0)
    assert np.abs(wrapped).max() <= 180.0
    found = correlation.circular_mean_of(wrapped[:, None], 360.0)
    difference = correlation.around(np.array(found.value - centre - plain.value), 0.0, 360.0)
    assert abs(difference) < 1e-9
    assert found.error == pytest.approx(plain.error, rel=0.05)
    middle = correlation.circular_mean(wrapped, 360.0)
    assert correlation.around(wrapped, middle, 360.0).std() == pytest.approx(series.std())


def test_beads_on_both_sides_of_the_seam():
    values = np.array([[179.0, -179.0], [178.0, -178.0]] * 20)
    assert abs(correlation.circular_mean_of(values, 360.0).value) == pytest.approx(180.0)
