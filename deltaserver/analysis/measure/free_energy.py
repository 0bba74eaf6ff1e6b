"""Free energy surfaces from sampled variables: F = −kT ln P + c.

P is the density of the variables as they are. For a distance that includes the Jacobian 4πR²: a
free particle at any place has P(R) ∝ R². With ``remove`` the density is divided by R² (distance)
or sin θ (angle, that of planes too) first, F = −kT ln[P(R)/R²], the potential of mean force. F is
zero in its lowest bin; bins that nothing has visited are NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.errors import DataError
from deltaserver.statistics import correlation
from deltaserver.units import KB_EV_PER_K

Jacobian = Literal["keep", "remove"]
JACOBIANS: tuple[Jacobian, ...] = ("keep", "remove")
N_RESAMPLES = 200
SEED = 20251
FARTHEST = 5.0  # interquartile ranges
LARGEST_DEG = {"angle": 180.0, "plane_angle": 90.0}  # of what has the factor sin θ
FEW = 5  # resamples that visit a bin, below which it has no error


@dataclass(frozen=True)
class Surface:
    """F on a grid of bins, in eV; ``edges`` holds one array a variable, in its own unit.

    ``free_energy_ev`` and ``error_ev`` have one axis a variable. ``n_blocks`` is 0 if the run is
    too short for errors, which are NaN then. ``kept`` is the part of the samples within the grid.
    """

    edges: tuple[Floats, ...]
    free_energy_ev: Floats
    error_ev: Floats
    temperature_k: float
    jacobian: Jacobian
    n_samples: int
    kept: float
    n_blocks: int
    block_frames: int

    @property
    def centres(self) -> tuple[Floats, ...]:
        """Middles of the bins."""
        return tuple((edges[1:] + edges[:-1]) / 2.0 for edges in self.edges)


def bin_edges(samples: Floats, n_bins: int, limits: tuple[float, float] | None = None) -> Floats:
    """Return the edges of ``n_bins`` bins over the samples' range, or over ``limits``.

    Raises:
        DataError: there is nothing to span.
    """
    low, high = limits or (float(samples.min()), float(samples.max()))
    if not (np.isfinite(low) and np.isfinite(high)) or low > high:
        raise DataError(f"bins from {low:g} to {high:g} span nothing")
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    margin = 0.0 if limits else 1e-9 * (high - low)
    return np.linspace(low - margin, high + margin, n_bins + 1)


def usual_range(runs: Sequence[Floats]) -> tuple[float, float]:
    """Return the range of several runs' samples, without a few that are very far from the rest.

    It ends at most five interquartile ranges (of the run that has the widest) beyond the quartiles
    of all: seven standard deviations of a well, which a guest that leaves its host goes beyond.
    """
    quartiles = np.array([np.percentile(samples, (25, 75)) for samples in runs])
    reach = FARTHEST * float(np.diff(quartiles, axis=1).max())
    low, high = float(quartiles[:, 0].min()) - reach, float(quartiles[:, 1].max()) + reach
    least = min(float(samples.min()) for samples in runs)
    most = max(float(samples.max()) for samples in runs)
    if reach <= 0.0:
        return least, most
    return max(least, low), min(most, high)


def free_energy(
    samples: Floats,
    edges: tuple[Floats, ...],
    temperature_k: float,
    kinds: tuple[str, ...] = (),
    jacobian: Jacobian = "keep",
) -> Surface:
    """Return F on the grid of ``edges`` from samples of 1, 2 or more variables.

    Args:
        samples: (T, V), or (T, P, V) for P beads of a path at every frame, all in P.
        edges: of every variable's bins.
        temperature_k: of the ensemble that was sampled.
        kinds: what each variable is (``distance``, ``angle``, …), for the Jacobian.
        jacobian: whether its factor stays in the density.

    The error of a bin is the standard deviation of −kT ln P over block-bootstrap resamples, with
    blocks longer than the variables remember.

    Raises:
        DataError: no sample within the grid, or no temperature.
    """
    if not temperature_k > 0.0:
        raise DataError(f"temperature {temperature_k:g} K; expected one above 0")
    by_frame = samples.reshape(len(samples), -1, samples.shape[-1])
    length = correlation.block_length(_memory(by_frame, kinds)) if len(samples) else None
    starts = np.arange(0, len(samples), length or max(1, len(samples)))
    counts = np.array(
        [
            np.histogramdd(by_frame[a:b].reshape(-1, by_frame.shape[-1]), bins=list(edges))[0]
            for a, b in zip(starts, [*starts[1:], len(samples)], strict=True)
        ]
    )
    if not counts.sum():
        raise DataError("no frame lies within the bins; widen their range")
    total = counts.sum(axis=0)
    free = minus_kt_ln(total, edges, temperature_k, kinds, jacobian)
    n_blocks = len(counts) if length else 0
    error = np.full_like(free, np.nan)
    if length:
        drawn = correlation.resample(counts, N_RESAMPLES, SEED)
        error = spread_of_rows(_minus_kt_ln_rows(drawn, temperature_k))
    return Surface(
        edges=edges,
        free_energy_ev=free - np.nanmin(free),
        error_ev=np.where(np.isnan(free), np.nan, error),
        temperature_k=temperature_k,
        jacobian=jacobian,
        n_samples=by_frame.shape[0] * by_frame.shape[1],
        kept=float(total.sum() / (by_frame.shape[0] * by_frame.shape[1])),
        n_blocks=n_blocks,
        block_frames=length or 0,
    )


def _memory(by_frame: Floats, kinds: tuple[str, ...]) -> Floats:
    """Return the series (T, n) whose correlation sets the blocks: of dihedrals cosine and sine."""
    columns = []
    for k in range(by_frame.shape[-1]):
        values = by_frame[..., k]
        if kinds[k : k + 1] == ("dihedral",):
            radians = np.radians(values)
            columns += [np.cos(radians).mean(axis=1), np.sin(radians).mean(axis=1)]
        else:
            columns.append(values.mean(axis=1))
    return np.stack(columns, axis=-1)


def minus_kt_ln(
    counts: Floats,
    edges: tuple[Floats, ...],
    temperature_k: float,
    kinds: tuple[str, ...],
    jacobian: Jacobian,
) -> Floats:
    """Return −kT ln of the density, NaN where nothing is; a constant is left to the caller."""
    density = counts.copy()
    for axis, bins in enumerate(edges):
        shape = [-1 if k == axis else 1 for k in range(counts.ndim)]
        measure = np.diff(bins)
        if jacobian == "remove" and axis < len(kinds):
            measure = shell(bins, kinds[axis])
        density /= np.where(measure > 0.0, measure, np.nan).reshape(shape)
    return np.asarray(_minus_kt_ln_rows(density[None], temperature_k)[0])


def _minus_kt_ln_rows(density: Floats, temperature_k: float) -> Floats:
    totals = density.reshape(len(density), -1)
    sums = np.nansum(totals, axis=1).reshape(-1, *[1] * (density.ndim - 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        free = -KB_EV_PER_K * temperature_k * np.log(density / sums)
    return np.where(density > 0.0, free, np.nan)


def spread_of_rows(rows: Floats) -> Floats:
    """Return the standard deviation of the rows that are numbers, NaN where they are few."""
    known = np.isfinite(rows)
    n = known.sum(axis=0)
    values = np.where(known, rows, 0.0)
    mean = values.sum(axis=0) / np.maximum(n, 1)
    squares = np.where(known, (rows - mean) ** 2, 0.0).sum(axis=0)
    return np.where(n >= FEW, np.sqrt(squares / np.maximum(n - 1, 1)), np.nan)


def shell(edges: Floats, kind: str) -> Floats:
    """Return the volume that a bin stands for, up to a constant: ∫R²dR, ∫sin θ dθ (degrees).

    Two normals at random have P(θ) ∝ sin θ from 0 to 180°. Planes do not tell a normal from its
    opposite, and sin(180° − θ) = sin θ: theirs is sin θ from 0 to 90°.
    """
    if kind == "distance":
        return np.asarray(np.diff(edges**3) / 3.0)
    if kind in LARGEST_DEG:
        there = np.clip(edges, 0.0, LARGEST_DEG[kind])
        return np.asarray(-np.diff(np.cos(np.radians(there))))
    return np.diff(edges)
