"""Weights that take a bias out of samples again, so that averages are those of the free system.

Windows of an umbrella are joined by the multistate Bennett acceptance ratio, MBAR [Shirts and
Chodera, J. Chem. Phys. 129, 124105 (2008), DOI 10.1063/1.2978177]: with βU_k(s) the bias of window
k, N_k its samples and f_k its free energy,

    w_n ∝ 1 / Σ_k N_k exp(f_k − βU_k(s_n)),   f_k = −ln Σ_n w_n exp(−βU_k(s_n)).

A metadynamics run is weighted by the bias that stood when a frame was taken, from which its
average is taken off [Tiwary and Parrinello, J. Phys. Chem. B 119, 736 (2015), DOI
10.1021/jp504920s]:

    w(t) ∝ exp(β(V(s,t) − c(t))),   c(t) = kT ln [∫ e^(γV/(γ−1)kT) ds / ∫ e^(V/(γ−1)kT) ds].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deltaserver.analysis.measure.free_energy import (
    Jacobian,
    Surface,
    minus_kt_ln,
    spread_of_rows,
)
from deltaserver.arrays import Floats, Ints
from deltaserver.bias.settings import Bias
from deltaserver.bias.terms import Hills, WellTempered
from deltaserver.errors import DataError, MissingExtraError
from deltaserver.statistics import correlation
from deltaserver.units import KB_EV_PER_K

N_RESAMPLES = 100
SEED = 20271
FEWEST = 5  # independent samples of a window
GRID = 400  # places at which c(t) is integrated
LEAST_OVERLAP = 0.03  # of neighbours [Klimovich, Shirts and Mobley, see _overlaps]
MARGIN = 5.0  # widths of a hill beyond the outermost


@dataclass(frozen=True)
class Window:
    """What one run gives: its bias, how much of it is independent, its free energy in kT."""

    label: str
    bias: Bias
    n_frames: int
    inefficiency: float
    n_independent: int
    free_energy_kt: float = 0.0
    overlap: float = float("nan")  # with the next one along the variable, in MBAR's matrix


@dataclass(frozen=True)
class Weighted:
    """Samples (n, V) of all variables and their weights; of those of resamples too, (B, n)."""

    samples: Floats
    weights: Floats
    replicates: Floats
    temperature_k: float
    windows: tuple[Window, ...]
    block_frames: int = 1

    @property
    def kt_ev(self) -> float:
        """Boltzmann's constant times the temperature."""
        return KB_EV_PER_K * self.temperature_k

    @property
    def least_overlap(self) -> Window | None:
        """The window that overlaps least with the next one; None where there is but one."""
        known = [window for window in self.windows if np.isfinite(window.overlap)]
        return min(known, key=lambda window: window.overlap, default=None)

    def probability(self, inside: Floats) -> tuple[float, Floats]:
        """Return the probability of samples for which ``inside`` (n,) is 1, and the resamples'."""
        return float(self.weights @ inside), self.replicates @ inside

    def surface(
        self,
        columns: Sequence[int],
        edges: tuple[Floats, ...],
        kinds: tuple[str, ...],
        jacobian: Jacobian,
    ) -> Surface:
        """Return F = −kT ln P over some of the variables; its errors are the resamples' spread.

        Raises:
            DataError: no sample lies within the bins.
        """
        values = self.samples[:, list(columns)]
        place, shape, inside = _bins(values, edges)
        if not inside.any():
            raise DataError("no frame lies within the bins; widen their range")
        n_bins = int(np.prod(shape))
        rows = np.stack([
            np.bincount(place[inside], weights=row[inside], minlength=n_bins)
            for row in (self.weights, *self.replicates)
        ]).reshape(-1, *shape)  # fmt: skip
        free = np.stack(
            [minus_kt_ln(row, edges, self.temperature_k, kinds, jacobian) for row in rows]
        )
        error = spread_of_rows(free[1:])
        lowest = float(np.nanmin(free[0]))
        return Surface(
            edges=edges,
            free_energy_ev=free[0] - lowest,
            error_ev=np.where(np.isnan(free[0]), np.nan, error),
            temperature_k=self.temperature_k,
            jacobian=jacobian,
            n_samples=len(values),
            kept=float(self.weights[inside].sum()),
            n_blocks=sum(window.n_independent for window in self.windows),
            block_frames=self.block_frames,
        )


def _bins(values: Floats, edges: tuple[Floats, ...]) -> tuple[Ints, tuple[int, ...], Any]:
    """Return each sample's bin, counted through; the grid's shape; whether it is in the grid."""
    shape = tuple(len(ends) - 1 for ends in edges)
    each = [np.searchsorted(e, values[:, k], side="right") - 1 for k, e in enumerate(edges)]
    for k, ends in enumerate(edges):  # the last edge belongs to the last bin
        each[k][values[:, k] == ends[-1]] = shape[k] - 1
    inside = np.all([(i >= 0) & (i < n) for i, n in zip(each, shape, strict=True)], axis=0)
    clipped = [np.clip(i, 0, n - 1) for i, n in zip(each, shape, strict=True)]
    return np.ravel_multi_index(clipped, shape), shape, inside


# -- windows -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Series:
    """The frames (T, V) of one run; the bias acts on column ``biased``."""

    label: str
    bias: Bias
    values: Floats
    biased: int = 0

    @property
    def s(self) -> Floats:
        """The biased variable along time."""
        return np.asarray(self.values[:, self.biased])


def join_windows(
    runs: Sequence[Series], temperature_k: float, n_resamples: int = N_RESAMPLES
) -> Weighted:
    """Join windows by MBAR; frames of each that depend on one another are thinned out first.

    Errors are those of a bootstrap over the independent frames of each window, f_k found anew.

    Raises:
        DataError: too few independent frames, or windows between which nothing is sampled.
        MissingExtraError: pymbar is not installed.
    """
    chosen = [_independent(run) for run in runs]
    windows, samples = [], []
    for run, (kept, g) in zip(runs, chosen, strict=True):
        if len(kept) < FEWEST:
            raise DataError(
                f"{run.label}: {len(kept)} independent frames of {len(run.values)}, at least "
                f"{FEWEST} are needed; run it longer"
            )
        windows.append(Window(run.label, run.bias, len(run.values), g, len(kept)))
        samples.append(run.values[kept])
    counts = np.array([len(rows) for rows in samples])
    joined = np.concatenate(samples)
    s = np.concatenate([run.s[kept] for run, (kept, _) in zip(runs, chosen, strict=True)])
    beta = 1.0 / (KB_EV_PER_K * temperature_k)
    reduced = beta * np.stack([run.bias.fixed_energy(s) for run in runs])  # [K, n]
    _check_connected(runs, s, counts)
    f = solve(reduced, counts)
    overlaps = _overlaps(reduced, counts, f, s)
    weights = _weights(reduced, counts, f)
    rng, starts = np.random.default_rng(SEED), np.cumsum([0, *counts[:-1]])
    replicates = np.zeros((n_resamples, len(s)))
    for k in range(n_resamples):
        each = [a + rng.integers(0, n, n) for a, n in zip(starts, counts, strict=True)]
        drawn = np.concatenate(each)
        some = reduced[:, drawn]
        of_drawn = _weights(some, counts, solve(some, counts, f))
        replicates[k] = np.bincount(drawn, of_drawn, len(s))
    told = tuple(
        replace(window, free_energy_kt=float(f_k), overlap=float(overlap))
        for window, f_k, overlap in zip(windows, f, overlaps, strict=True)
    )
    return Weighted(joined, weights, replicates, temperature_k, told)


def solve(reduced: Floats, counts: Ints, start: Floats | None = None) -> Floats:
    """Return f_k of windows, (K,), from the reduced biases (K, n) of all samples; f_0 is 0."""
    if len(counts) == 1:
        return np.zeros(1)
    return np.asarray(_mbar(reduced, counts, start).f_k)


def _overlaps(reduced: Floats, counts: Ints, f: Floats, s: Floats) -> Floats:
    """Return each window's overlap with the next one along s, (K,); NaN for the last.

    It is the smaller of O_kl and O_lk, O_kl being the probability that a sample of window k is
    taken for one of window l: Σ_n N_l W_nk W_nl with MBAR's weights. Equal windows of K have 1/K.
    [Klimovich, Shirts and Mobley, J. Comput. Aided Mol. Des. 29, 397 (2015), DOI
    10.1007/s10822-015-9840-9]
    """
    found = np.full(len(counts), np.nan)
    if len(counts) == 1:
        return found
    matrix = np.asarray(_mbar(reduced, counts, f).compute_overlap()["matrix"])  # [K, K]
    owner = np.repeat(np.arange(len(counts)), counts)
    order = np.argsort(np.bincount(owner, s) / counts)
    here, following = order[:-1], order[1:]
    found[here] = np.minimum(matrix[here, following], matrix[following, here])
    return found


def _mbar(reduced: Floats, counts: Ints, start: Floats | None = None) -> Any:
    try:
        from pymbar import MBAR
    except ImportError as error:
        raise MissingExtraError("pymbar", "sampling") from error
    return MBAR(reduced, counts, initial_f_k=start, verbose=False)


def _weights(reduced: Floats, counts: Ints, f: Floats) -> Floats:
    """Return the weights (n,) of samples in the free system; their sum is 1."""
    exponent = f[:, None] - reduced  # [K, n]
    highest = exponent.max(axis=0)
    log_weight = -highest - np.log(counts @ np.exp(exponent - highest))
    weights = np.exp(log_weight - log_weight.max())
    return np.asarray(weights / weights.sum())


def _independent(run: Series) -> tuple[Ints, float]:
    """Return frames that do not depend on one another, and their statistical inefficiency."""
    try:
        from pymbar import timeseries
    except ImportError as error:
        raise MissingExtraError("pymbar", "sampling") from error
    s = run.s
    if len(s) < FEWEST or float(np.ptp(s)) == 0.0:
        return np.arange(len(s)), 1.0
    g = float(timeseries.statistical_inefficiency(s))
    return np.array(timeseries.subsample_correlated_data(s, g=g), dtype=np.int64), g


def _check_connected(runs: Sequence[Series], s: Floats, counts: Ints) -> None:
    """Refuse windows between which there is a gap that none of them has sampled."""
    owner = np.repeat(np.arange(len(runs)), counts)
    each = [s[owner == k] for k in range(len(runs))]
    ends = sorted((float(own.min()), float(own.max()), k) for k, own in enumerate(each))
    reached, last = ends[0][1], ends[0][2]
    for low, high, k in ends[1:]:
        if low > reached:
            raise DataError(
                f"{runs[last].label} ends at {reached:.3f} Å and {runs[k].label} begins at "
                f"{low:.3f} Å: nothing joins them; add a window between with the command that "
                f"began them, --resume and {_missing(runs[last], runs[k])}"
            )
        if high > reached:
            reached, last = high, k


def _missing(one: Series, other: Series) -> str:
    """Return the options of a window between two: in the middle of their centres, as stiff."""
    springs = [run.bias.spring for run in (one, other) if run.bias.spring]
    places = [spring.centre_ang for spring in springs]
    if len(places) < 2:
        places = [float(one.s.mean()), float(other.s.mean())]
    stiff = f" --spring {springs[0].spring_ev_per_ang2:.4g}" if springs else ""
    return f"--windows {np.mean(places):.4g}{stiff}"


# -- hills ---------------------------------------------------------------------------------------


def weigh_metadynamics(
    run: Series, steps: Ints, hills: Hills, n_resamples: int = N_RESAMPLES
) -> Weighted:
    """Weigh the frames, taken at ``steps`` (T,), of a well-tempered run; errors by block bootstrap.

    Raises:
        DataError: too short for errors, or no hills.
    """
    growth = run.bias.growth
    if growth is None or not len(hills):
        raise DataError(f"{run.label}: no hills; has the run been longer than --hill-every?")
    s = run.s
    before = np.searchsorted(np.array(hills.steps), steps, side="left")  # hills at each frame, [T]
    bias = np.array([hills.energy(s[k : k + 1], n)[0] for k, n in enumerate(before)])
    exponent = (bias + run.bias.fixed_energy(s) - offsets(hills, growth)[before]) / growth.kt_ev
    weights = np.exp(exponent - exponent.max())
    length = correlation.block_length(s)
    if length is None:
        raise DataError(f"{run.label}: too short a run for errors; make it longer")
    blocks = np.arange(len(s)) // length
    n_blocks = int(blocks[-1]) + 1
    rng = np.random.default_rng(SEED)
    drawn = rng.multinomial(n_blocks, np.full(n_blocks, 1.0 / n_blocks), size=n_resamples)
    replicates = drawn[:, blocks] * weights
    window = Window(run.label, run.bias, len(s), correlation.inefficiency(s), n_blocks)
    return Weighted(
        run.values,
        weights / weights.sum(),
        replicates / replicates.sum(axis=1, keepdims=True),
        growth.temperature_k,
        (window,),
        length,
    )


def offsets(hills: Hills, growth: WellTempered) -> Floats:
    """Return c, eV, of no hill, one, two, … all hills, (n + 1,)."""
    places = _places(hills)
    inner, outer = 1.0 / (growth.bias_factor - 1.0), growth.bias_factor / (growth.bias_factor - 1.0)
    found, so_far = np.zeros(len(hills) + 1), np.zeros(len(places))
    rows = zip(hills.centres_ang, hills.heights_ev, strict=True)
    for k, (centre, height) in enumerate(rows, start=1):
        so_far += height * np.exp(-0.5 * ((places - centre) / hills.width_ang) ** 2)
        reduced = so_far / growth.kt_ev
        top = reduced.max()
        above = np.log(np.exp(outer * (reduced - top)).sum()) + outer * top
        below = np.log(np.exp(inner * (reduced - top)).sum()) + inner * top
        found[k] = growth.kt_ev * (above - below)
    return found


def _places(hills: Hills) -> Floats:
    reach = MARGIN * hills.width_ang
    low, high = hills.centres_ang.min() - reach, hills.centres_ang.max() + reach
    return np.linspace(max(0.0, low), high, GRID)


def sum_of_hills(hills: Hills, bias: Bias, places: Floats) -> Floats:
    """Return F(s) = −γ/(γ−1) V(s) − U_wall(s), eV, of a run that has converged; lowest is 0."""
    assert bias.growth is not None
    gamma = bias.growth.bias_factor
    free = -gamma / (gamma - 1.0) * hills.energy(places) - bias.fixed_energy(places)
    return np.asarray(free - free.min())
