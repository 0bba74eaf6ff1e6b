"""Errors of averages over a correlated series: correlation times and blocks.

Frames of a trajectory resemble those before them. The statistical inefficiency g says how many
frames are worth one independent one; blocks of several g are as good as independent, and their
scatter, or resampling them with replacement, gives errors (Flyvbjerg and Petersen,
DOI 10.1063/1.457480; Künsch, DOI 10.1214/aos/1176347265).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Floats, Ints

MIN_BLOCKS = 5  # fewer say nothing about the spread
MAX_BLOCKS = 100
INEFFICIENCIES_A_BLOCK = 3.0
SOKAL_WINDOW = 5.0


def autocorrelation(series: Floats, n_lags: int | None = None) -> Floats:
    """Return ρ(k) = ⟨δx(i) δx(i+k)⟩ / ⟨δx²⟩ for k below ``n_lags``, by FFT.

    A series that never changes has ρ = 1 at k = 0 and 0 beyond.
    """
    n = len(series)
    n_lags = min(n, n_lags or n)
    deviation = series - series.mean()
    spectrum = np.fft.rfft(deviation, 1 << (2 * n - 1).bit_length())
    products = np.fft.irfft(spectrum * spectrum.conj())[:n_lags] / (n - np.arange(n_lags))
    if products[0] <= 1e-24 * max(1.0, float(np.abs(series).max()) ** 2):
        return np.asarray(np.arange(n_lags) == 0, np.float64)
    return np.asarray(products / products[0])


def inefficiency(series: Floats) -> float:
    """Return g = 1 + 2 Σ ρ(k) of a series (T,), in frames, at least 1.

    Twice the integrated correlation time, (1 + φ)/(1 − φ) where ρ(k) = φᵏ.

    The sum ends at the first k ≥ 5 · g/2, where what is left is noise (Sokal 1997,
    DOI 10.1007/978-1-4899-0319-8_6).
    """
    if len(series) < 4:
        return 1.0
    correlation = autocorrelation(series, max(2, len(series) // 2))
    g = 2.0 * np.cumsum(correlation) - 1.0
    enough = np.flatnonzero(np.arange(len(g)) >= SOKAL_WINDOW * np.maximum(g, 1.0) / 2.0)
    return float(max(1.0, g[enough[0] if len(enough) else -1]))


@dataclass(frozen=True)
class Mean:
    """An average, its standard error, and how many independent frames it is worth."""

    value: float
    error: float
    n_independent: float


def mean_of(series: Floats) -> Mean:
    """Return ⟨x⟩ and its standard error √(g σ²/n); the error is NaN below four g."""
    return _mean_with(series, inefficiency(series))


def _mean_with(series: Floats, g: float) -> Mean:
    n_independent = len(series) / g
    error = series.std(ddof=1) / np.sqrt(n_independent) if len(series) > 1 else np.nan
    return Mean(
        float(series.mean()), float(error if n_independent >= 4.0 else np.nan), float(n_independent)
    )


def circular_mean(values: Floats, period: float) -> float:
    """Return the direction of ⟨exp(2πi x/period)⟩, in (−period/2, period/2]."""
    turns = np.exp(2j * np.pi * values / period).mean()
    return float(np.angle(turns) * period / (2.0 * np.pi))


def around(values: Floats, centre: float, period: float) -> Floats:
    """Return the images of periodic values that are nearest to ``centre``."""
    return np.asarray(values - period * np.rint((values - centre) / period))


def circular_mean_of(values: Floats, period: float) -> Mean:
    """Return the mean of a periodic series (T, P), P values a frame, and its standard error.

    The mean is within half a period of the circular one, about which deviations are taken; the
    correlation is that of cosine and sine, which know no seam.
    """
    centre = circular_mean(values, period)
    deviation = (around(values, centre, period) - centre).mean(axis=1)
    turns = np.exp(2j * np.pi * values / period).mean(axis=1)
    g = max(inefficiency(turns.real), inefficiency(turns.imag))
    mean = _mean_with(deviation, g)
    value = float(around(np.array(centre + mean.value), 0.0, period))
    return Mean(value, mean.error, mean.n_independent)


def block_length(series: Floats) -> int | None:
    """Return the length of blocks, in frames, for (T,) or (T, n) series; None if T is too short.

    It is three inefficiencies of the slowest column, and at least T/100.
    """
    columns = series.reshape(len(series), -1)
    g = max((inefficiency(columns[:, k]) for k in range(columns.shape[1])), default=1.0)
    n = len(series)
    length = max(int(np.ceil(INEFFICIENCIES_A_BLOCK * g)), -(-n // MAX_BLOCKS))
    if n // length < MIN_BLOCKS:
        length = n // MIN_BLOCKS
    return length if length >= max(1.0, g) else None


def resample(sums: Floats, n_resamples: int, seed: int) -> Floats:
    """Return (n_resamples, …) sums over blocks drawn with replacement from (n_blocks, …) ones."""
    n_blocks = len(sums)
    drawn = np.random.default_rng(seed).multinomial(
        n_blocks, np.full(n_blocks, 1.0 / n_blocks), size=n_resamples
    )
    flat = drawn.astype(np.float64) @ sums.reshape(n_blocks, -1)
    return np.asarray(flat.reshape(n_resamples, *sums.shape[1:]))


def later_wins(steps: Ints | Floats) -> NDArray[np.bool_]:
    """Tell which rows of joined pieces count: those before the first step of every later piece.

    ``steps`` is the order of writing. Where a run went on from a checkpoint, the steps go back,
    and what had been written beyond the checkpoint is void.
    """
    if len(steps) == 0:
        return np.zeros(0, bool)
    least_after = np.minimum.accumulate(steps[::-1])[::-1]
    kept = np.ones(len(steps), bool)
    kept[:-1] = steps[:-1] < least_after[1:]
    return kept
