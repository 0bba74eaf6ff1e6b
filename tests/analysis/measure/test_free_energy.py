import numpy as np
import pytest

from deltaserver.analysis.measure import free_energy
from deltaserver.analysis.measure.variables import plane_angle
from deltaserver.errors import DataError
from deltaserver.units import KB_EV_PER_K
from tests.analysis.written import ornstein_uhlenbeck

KT = KB_EV_PER_K * 300.0


def test_harmonic_well_within_its_error_bars():
    """Samples of exp(−k x²/2kT), correlated over 20 frames: F = k x²/2."""
    sigma, memory = 0.3, 20
    x = ornstein_uhlenbeck(100_000, 1, sigma, memory, 2)
    edges = free_energy.bin_edges(x, 40, (-0.9, 0.9))
    found = free_energy.free_energy(x, (edges,), 300.0)
    bins = np.linspace(-0.9, 0.9, 40 * 50 + 1)  # the mean of the density over a bin
    middles = (bins[1:] + bins[:-1]) / 2
    density = np.exp(-0.5 * (middles / sigma) ** 2).reshape(40, 50).mean(axis=1)
    expected = -KT * np.log(density)
    difference = found.free_energy_ev - expected
    pull = (difference - np.average(difference, weights=density)) / found.error_ev
    assert np.nanmax(np.abs(pull)) < 5.0
    assert 0.5 < np.sqrt(np.nanmean(pull**2)) < 1.6  # errors that respect the correlation
    independent = KT / np.sqrt(len(x) * density / density.sum())
    assert np.nanmean(found.error_ev / independent) > 1.5


def test_well_in_two_dimensions():
    x = ornstein_uhlenbeck(60_000, 2, 1.0, 2, 3)
    edges = tuple(free_energy.bin_edges(x, 16, (-4, 4)) for _ in range(2))
    found = free_energy.free_energy(x, edges, 300.0)
    a, b = np.meshgrid(*found.centres, indexing="ij")
    inner = a**2 + b**2 < 4.0
    expected = KT * (a**2 + b**2) / 2
    expected -= (expected - found.free_energy_ev)[inner].mean()
    assert np.abs(found.free_energy_ev - expected)[inner].max() < 0.25 * KT
    assert np.isnan(found.free_energy_ev[0, 0])  # nothing has been there
    assert np.isnan(found.error_ev[0, 0])
    assert np.nanmin(found.free_energy_ev) == 0.0


def test_jacobian_of_a_distance_and_an_angle():
    """Points spread evenly in space have P(R) ∝ R², and a flat potential of mean force."""
    rng = np.random.default_rng(4)
    points = rng.uniform(-1, 1, size=(400_000, 3))
    radius = np.linalg.norm(points, axis=1)
    angle = np.degrees(np.arccos(points[:, 2] / radius))[radius < 1.0, None]
    radius = radius[radius < 1.0, None]
    edges = (np.linspace(0.3, 1.0, 15),)
    kept = free_energy.free_energy(radius, edges, 300.0, ("distance",))
    middle = kept.centres[0]
    expected = -2.0 * KT * np.log(middle / middle[-1])
    assert kept.free_energy_ev == pytest.approx(expected, abs=0.06 * KT)
    flat = free_energy.free_energy(radius, edges, 300.0, ("distance",), "remove")
    assert np.ptp(flat.free_energy_ev) < 0.06 * KT
    edges = (np.linspace(0.0, 180.0, 13),)
    flat = free_energy.free_energy(angle, edges, 300.0, ("angle",), "remove")
    assert np.ptp(flat.free_energy_ev) < 0.1 * KT


def test_planes_at_random_have_a_flat_potential_of_mean_force():
    """Bins beyond 90° hold what there is up to 90°."""
    rng = np.random.default_rng(6)
    atoms = rng.normal(size=(2, 100_000, 3, 3))
    angle = plane_angle(*atoms)[:, None]
    edges = (np.linspace(0.0, 100.0, 9),)
    flat = free_energy.free_energy(angle, edges, 300.0, ("plane_angle",), "remove")
    assert np.ptp(flat.free_energy_ev) < 0.1 * KT
    kept = free_energy.free_energy(angle, edges, 300.0, ("plane_angle",))
    assert np.ptp(kept.free_energy_ev) > KT


def test_unequal_bins_count_by_their_width():
    x = np.random.default_rng(5).uniform(0, 3, size=(90_000, 1))
    found = free_energy.free_energy(x, (np.array([0.0, 1.0, 3.0]),), 300.0)
    assert np.ptp(found.free_energy_ev) < 0.03 * KT


def test_beads_are_samples_of_one_frame():
    """Copies of a sample change neither F nor its error: they are not independent."""
    x = ornstein_uhlenbeck(5000, 1, 1.0, 5, 6)
    edges = (np.linspace(-3, 3, 13),)
    one = free_energy.free_energy(x, edges, 300.0)
    four = free_energy.free_energy(np.repeat(x[:, None], 4, axis=1), edges, 300.0)
    assert np.allclose(one.free_energy_ev, four.free_energy_ev, equal_nan=True)
    assert np.allclose(one.error_ev, four.error_ev, equal_nan=True)
    assert four.n_samples == 20_000


def test_too_short_a_run_has_no_errors():
    x = np.linspace(0, 1, 30)[:, None]  # one slow drift
    found = free_energy.free_energy(x, (free_energy.bin_edges(x, 4),), 300.0)
    assert found.n_blocks == 0
    assert np.isnan(found.error_ev).all()
    assert np.isfinite(found.free_energy_ev).all()


def test_samples_outside_are_told():
    x = np.arange(10.0)[:, None]
    assert free_energy.free_energy(x, (np.array([0.0, 5.0]),), 300.0).kept == 0.6
    with pytest.raises(DataError, match="no frame lies within the bins"):
        free_energy.free_energy(x, (np.array([20.0, 30.0]),), 300.0)


def test_bin_edges_hold_all_samples():
    x = np.array([1.0, 2.0, 3.0])
    edges = free_energy.bin_edges(x, 5)
    assert edges[0] < 1.0
    assert edges[-1] > 3.0
    assert np.diff(free_energy.bin_edges(np.ones(4), 2)) == pytest.approx([0.5, 0.5])
    with pytest.raises(DataError, match="span nothing"):
        free_energy.bin_edges(np.array([np.nan]), 5)


def test_temperature_is_needed():
    with pytest.raises(DataError, match="temperature 0 K"):
        free_energy.free_energy(np.ones((5, 1)), (np.array([0.0, 2.0]),), 0.0)


def test_a_guest_that_leaves_does_not_stretch_the_bins():
    well = np.random.default_rng(8).normal(4.8, 0.2, size=5000)
    leaving = np.concatenate([well, np.linspace(5.0, 15.0, 300)])
    low, high = free_energy.usual_range([well, leaving])
    assert low == leaving.min()
    assert well.max() < high < 7.0
    assert free_energy.usual_range([well]) == (well.min(), well.max())
    assert free_energy.usual_range([np.ones(4), np.full(2, 3.0)]) == (1.0, 3.0)


def test_two_states_are_both_within():
    rng = np.random.default_rng(9)
    states = np.concatenate([rng.normal(4, 0.1, 3000), rng.normal(9, 0.1, 3000)])
    assert free_energy.usual_range([states]) == (states.min(), states.max())
