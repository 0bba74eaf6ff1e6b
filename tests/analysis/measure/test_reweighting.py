"""Biased samples of a known potential give back its free energy, within the errors they tell."""

import numpy as np
import pytest

from deltaserver.analysis.measure.binding import Shells, binding_free_energy
from deltaserver.analysis.measure.reweighting import (
    Series,
    join_windows,
    offsets,
    sum_of_hills,
    weigh_metadynamics,
)
from deltaserver.bias.coordinate import Coordinate
from deltaserver.bias.settings import Bias
from deltaserver.bias.terms import Hill, Hills, Spring, UpperWall, WellTempered
from deltaserver.errors import DataError
from deltaserver.units import ANG3_PER_MOLAR, KB_EV_PER_K
from tests.two_atoms import constant_ang3, energy_ev, free_energy_ev, sample

KELVIN = 120.0
PAIR = Coordinate("R_CM", ((0,), (1,)), ((4.0,), (4.0,)))
EDGES = np.linspace(2.6, 7.6, 26)


def windows(n, seed=0, centres=(2.8, 3.4, 4.0, 4.6, 5.2, 5.8, 6.4, 7.0, 7.6)):
    pytest.importorskip("pymbar")
    wall = UpperWall(8.0, 0.5)
    runs = []
    for k, centre in enumerate(centres):
        bias = Bias(PAIR, Spring(centre, 0.12, centre), wall)
        s = sample(bias.fixed_energy, n, KELVIN, seed + k)
        runs.append(Series(f"w{centre:g}", bias, s[:, None]))
    return runs


@pytest.fixture(scope="module")
def joined():
    return join_windows(windows(600), KELVIN, 40)


def of_bins(r_edges, jacobian):
    """F of bins, by integration within them, relative to the lowest."""
    kt = KB_EV_PER_K * KELVIN
    fine = np.linspace(r_edges[:-1], r_edges[1:], 200)
    weight = fine**2 * np.exp(-energy_ev(fine) / kt)
    probability = np.trapezoid(weight, fine, axis=0)
    measure = np.diff(r_edges) if jacobian == "keep" else np.diff(r_edges**3) / 3.0
    free = -kt * np.log(probability / measure)
    return free - free.min()


def off(surface, expected):
    """By how many standard errors each bin is off, the constant taken off."""
    difference = surface.free_energy_ev - expected
    difference -= np.average(difference, weights=surface.error_ev**-2)
    return difference / surface.error_ev


@pytest.mark.parametrize("jacobian", ["keep", "remove"])
def test_windows_give_the_surface_of_the_formula(joined, jacobian):
    surface = joined.surface([0], (EDGES,), ("distance",), jacobian)
    z = off(surface, of_bins(EDGES, jacobian))
    assert np.isfinite(z).all()
    assert 0.4 < np.sqrt(np.mean(z**2)) < 1.6
    assert np.abs(z).max() < 4.5
    assert np.median(surface.error_ev) < 0.2 * KB_EV_PER_K * KELVIN


def test_without_its_jacobian_it_is_the_potential(joined):
    kept = joined.surface([0], (EDGES,), ("distance",), "keep").free_energy_ev
    removed = joined.surface([0], (EDGES,), ("distance",), "remove").free_energy_ev
    middle = (EDGES[1:] + EDGES[:-1]) / 2.0
    turned = kept + 2.0 * KB_EV_PER_K * KELVIN * np.log(middle)
    step = (EDGES[1] - EDGES[0]) / EDGES[0]
    bound = KB_EV_PER_K * KELVIN * step**2  # the bin's width to second order
    np.testing.assert_allclose(removed - removed[5], turned - turned[5], atol=bound)


@pytest.mark.slow
def test_errors_are_as_large_as_those_of_repeated_sampling(joined):
    """Twenty repetitions with other random numbers spread as the bootstrap of one says."""
    probe = (np.array([3.0, 3.5]), np.array([6.5, 7.0]))

    def step(found):
        p = [found.weights @ ((found.samples[:, 0] >= a) & (found.samples[:, 0] < b))
             for a, b in probe]  # fmt: skip
        return np.log(p[0] / p[1])

    repeated = [step(join_windows(windows(300, 1000 * k), KELVIN, 0)) for k in range(1, 21)]
    one = join_windows(windows(300), KELVIN)
    inside = [((one.samples[:, 0] >= a) & (one.samples[:, 0] < b)).astype(float) for a, b in probe]
    told = np.log(one.probability(inside[0])[1] / one.probability(inside[1])[1]).std(ddof=1)
    # The spread of 20 is known to one part in √38, and its own to a twentieth.
    assert told / np.std(repeated, ddof=1) == pytest.approx(1.0, abs=3.5 / np.sqrt(38))


def test_the_binding_constant_is_the_integral(joined):
    shells = Shells(4.5, (6.5, 7.5))
    found = binding_free_energy(joined, 0, shells)
    constant = constant_ang3(4.5, (6.5, 7.5), KELVIN)
    expected = -KB_EV_PER_K * KELVIN * np.log(constant / ANG3_PER_MOLAR)
    assert abs(found.free_energy_ev - expected) < 4.0 * found.error_ev
    assert found.error_ev < 0.3 * KB_EV_PER_K * KELVIN
    assert found.constant_per_molar == pytest.approx(found.ratio * shells.outer_volume_ang3
                                                     / ANG3_PER_MOLAR)  # fmt: skip


def test_a_free_run_behind_a_wall_binds_as_the_windows_do(joined):
    """Unbiased sampling in a container, against windows: the same constant, the same formula."""
    pytest.importorskip("pymbar")
    bias = Bias(PAIR, wall=UpperWall(7.0, 2.0))
    s = sample(bias.fixed_energy, 20000, KELVIN, 77)
    direct = join_windows([Series("free", bias, s[:, None])], KELVIN)
    shells = Shells(4.5, (6.0, 7.0))
    one, other = (binding_free_energy(found, 0, shells) for found in (direct, joined))
    error = np.hypot(one.error_ev, other.error_ev)
    assert abs(one.free_energy_ev - other.free_energy_ev) < 4.0 * error


def test_frames_that_depend_on_one_another_are_thinned_out():
    run = windows(400)[3]
    slow = Series("slow", run.bias, np.repeat(run.values, 8, axis=0))
    found = join_windows([slow], KELVIN, 2).windows[0]
    assert found.n_frames == 3200
    assert found.n_independent == pytest.approx(400, rel=0.25)


def test_windows_that_do_not_meet_are_refused():
    with pytest.raises(
        DataError, match=r"w3.4 ends at .* and w7 begins at .*--windows 5.2 --spring 0.12$"
    ):
        join_windows(windows(50, centres=(2.8, 3.4, 7.0)), KELVIN)


def test_neighbours_overlap_as_their_distributions_do():
    """Two windows of a flat potential: O = ∫ N₂ p₁ p₂ / (N₁ p₁ + N₂ p₂), by quadrature."""
    pytest.importorskip("pymbar")
    kt, spring, distance = KB_EV_PER_K * KELVIN, 0.4, 0.4
    width = np.sqrt(kt / spring)
    rng, n = np.random.default_rng(3), 4000
    runs = [
        Series(f"w{k}", Bias(PAIR, Spring(c, spring, c)), rng.normal(c, width, (n, 1)))
        for k, c in enumerate((5.0, 5.0 + distance))
    ]
    found = join_windows(runs, KELVIN, 2)
    x = np.linspace(4.0, 6.5, 4000)
    p, q = (np.exp(-0.5 * ((x - c) / width) ** 2) for c in (5.0, 5.0 + distance))
    expected = np.trapezoid(p * q / (p + q), x) / np.trapezoid(p, x)
    assert found.least_overlap.label == "w0"
    assert found.least_overlap.overlap == pytest.approx(expected, abs=4.0 / np.sqrt(n) * expected)
    assert np.isnan(found.windows[1].overlap)


def test_windows_of_a_few_frames_are_refused():
    with pytest.raises(DataError, match="4 independent frames of 4, at least 5 are needed"):
        join_windows(windows(4), KELVIN)


def test_nothing_bound_is_told(joined):
    with pytest.raises(DataError, match="no frame below 1 Å"):
        binding_free_energy(joined, 0, Shells(1.0, (6.5, 7.5)))


# -- hills -----------------------------------------------------------------------------------------


def well_tempered(n_steps, seed=5):
    """Overdamped dynamics of the pair's distance with growing hills: frames, steps, hills."""
    growth = WellTempered(0.5 * KB_EV_PER_K * KELVIN, 0.2, 200, 8.0, KELVIN)
    bias, kt = Bias(PAIR, wall=UpperWall(7.0, 1.0), growth=growth), KB_EV_PER_K * KELVIN
    fine = np.linspace(2.0, 9.0, 2801)
    force = -np.gradient(free_energy_ev(fine, KELVIN) + bias.fixed_energy(fine), fine)
    rng, mobility = np.random.default_rng(seed), 2e-3 / kt
    noise = np.sqrt(2.0 * mobility * kt) * rng.normal(size=n_steps)
    hills, s, pull = Hills(0.2), 3.1, np.zeros_like(fine)
    frames = []
    for step in range(1, n_steps + 1):
        k = min(max(round((s - 2.0) / 2.5e-3), 0), 2800)
        s += mobility * (force[k] + pull[k]) + noise[step - 1]
        if step % 20 == 0:
            frames.append((step, s))
        if step % growth.hill_every == 0:
            height = growth.height(hills.energy_and_slope(s)[0])
            hills.add(Hill(step, s, height))
            away = fine - s
            pull += height * away / 0.04 * np.exp(-0.5 * (away / 0.2) ** 2)
    steps, values = np.array(frames).T
    return Series("metad", bias, values[:, None]), steps.astype(int), hills


@pytest.fixture(scope="module")
def metad():
    return well_tempered(200_000)


def test_metadynamics_gives_the_surface_of_the_formula(metad):
    series, steps, hills = metad
    late = steps > 40_000
    run = Series("metad", series.bias, series.values[late])
    found = weigh_metadynamics(run, steps[late], hills)
    edges = np.linspace(2.8, 6.8, 17)
    surface = found.surface([0], (edges,), ("distance",), "keep")
    z = off(surface, of_bins(edges, "keep"))
    assert np.sqrt(np.mean(z**2)) < 2.0
    by_hills = sum_of_hills(hills, series.bias, surface.centres[0])
    difference = by_hills - of_bins(edges, "keep")
    kt = KB_EV_PER_K * KELVIN
    assert (difference - difference.mean()).std() < 0.5 * kt


def test_the_offset_is_the_mean_that_its_formula_says():
    """exp(c/kT) = ∫ e^(γV/(γ−1)kT) ds / ∫ e^(V/(γ−1)kT) ds, integrated here by another rule."""
    growth = WellTempered(0.01, 0.2, 10, 6.0, KELVIN)
    hills = Hills(0.2, [Hill(10, 3.0, 0.01), Hill(20, 3.4, 0.02), Hill(30, 3.1, 0.015)])
    found, kt = offsets(hills, growth), KB_EV_PER_K * KELVIN
    places = np.linspace(3.0 - 5 * 0.2, 3.4 + 5 * 0.2, 4001)
    for n in range(4):
        v = hills.energy(places, n) / kt
        ratio = np.trapezoid(np.exp(1.2 * v), places) / np.trapezoid(np.exp(0.2 * v), places)
        assert found[n] == pytest.approx(kt * np.log(ratio), abs=0.01 * kt)


def test_no_hills_are_told(metad):
    series, steps, _ = metad
    with pytest.raises(DataError, match="no hills"):
        weigh_metadynamics(series, steps, Hills(0.2))
