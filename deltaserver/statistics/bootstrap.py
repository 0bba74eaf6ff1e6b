"""Confidence intervals of averages over correlated frames: the circular block bootstrap.

Neighbouring frames err alike, so resampling single frames gives intervals that are far too
narrow. Whole blocks of consecutive frames are drawn instead, trajectory by trajectory, each
trajectory closed to a ring so that every frame is drawn equally often [Politis & Romano, in
Exploring the Limits of Bootstrap, 1992; Künsch, Ann. Stat. 17, 1217 (1989),
DOI 10.1214/aos/1176347265].

Trajectories that are no longer than a block are blocks themselves, drawn as a whole among each
other: all that is known of the scatter is how they differ [Field & Welsh, J. R. Stat. Soc. B 69,
369 (2007), DOI 10.1111/j.1467-9868.2007.00593.x].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError
from deltaserver.statistics.correlation import MIN_BLOCKS, inefficiency

N_RESAMPLES = 2000
CONFIDENCE = 0.95
MANY_TRAJECTORIES = 10  # their own scatter is known well enough


@dataclass(frozen=True)
class Estimate:
    """A number and its confidence interval."""

    value: float
    low: float
    high: float

    def scaled(self, factor: float) -> Estimate:
        """Return the same in another unit; ``factor`` is positive."""
        return Estimate(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class BlockBootstrap:
    """Resampled frames, the same for every quantity, so that differences are paired.

    Attributes:
        times: how often every resample has every frame, shape (B, T).
        block_length: frames per block.
        n_blocks: blocks per resample, whole trajectories counted.
        n_whole: trajectories that are drawn as a whole.
        confidence: of the intervals.
        seed: of the draw.
    """

    times: Floats
    block_length: int
    n_blocks: int
    n_whole: int
    confidence: float
    seed: int

    @classmethod
    def draw(
        cls,
        trajectory: Ints,
        block_length: int,
        n_resamples: int = N_RESAMPLES,
        confidence: float = CONFIDENCE,
        seed: int = 0,
    ) -> BlockBootstrap:
        """Draw resamples of frames that stand in order of time within each ``trajectory`` (T,).

        Raises:
            DataError: no frames, a block shorter than a frame, or too few resamples.
        """
        if not len(trajectory):
            raise DataError("no frames to resample")
        if block_length < 1 or n_resamples < 2:
            raise DataError(
                f"block length {block_length} and {n_resamples} resamples; "
                "expected at least 1 and 2"
            )
        rng = np.random.default_rng(seed)
        numbers, sizes = np.unique(trajectory, return_counts=True)
        times = np.zeros((n_resamples, len(trajectory)))
        n_blocks = 0
        for index in numbers[sizes > block_length]:
            inside = np.flatnonzero(trajectory == index)
            times[:, inside] = _ring(rng, len(inside), block_length, n_resamples)
            n_blocks += -(-len(inside) // block_length)
        short = numbers[sizes <= block_length]
        if n_whole := len(short):
            drawn = rng.multinomial(n_whole, np.full(n_whole, 1.0 / n_whole), n_resamples)
            inside = np.flatnonzero(np.isin(trajectory, short))
            times[:, inside] = drawn[:, np.searchsorted(short, trajectory[inside])]
        return cls(times, block_length, n_blocks + n_whole, n_whole, confidence, seed)

    @cached_property
    def widening(self) -> float:
        """√(k/(k − 1)) t/z for k blocks, with the quantiles t of Student (k − 1) and z of Gauss.

        Percentiles know nothing of how few blocks they come from; this does.
        """
        from scipy import stats

        quantile, freedom = 0.5 + 0.5 * self.confidence, max(self.n_blocks - 1, 1)
        wider = stats.t.ppf(quantile, freedom) / stats.norm.ppf(quantile)
        return float(np.sqrt(1.0 + 1.0 / freedom) * wider)

    def means(self, values: Floats) -> Floats:
        """Return the mean of per-frame ``values`` (T,) in every resample, shape (B,)."""
        result: Floats = self.times @ values / self.times.sum(axis=1)
        return result

    def estimate(self, value: float, replicates: Floats) -> Estimate:
        """Return ``value`` with the widened percentile interval of its ``replicates`` (B,).

        It has no ends where there is one block, which says nothing about the spread.
        """
        if self.n_blocks < 2:
            return Estimate(float(value), -np.inf, np.inf)
        tail = 50.0 * (1.0 - self.confidence)
        low, high = np.percentile(replicates, [tail, 100.0 - tail])
        below, above = self.widening * (value - low), self.widening * (high - value)
        return Estimate(float(value), float(value - below), float(value + above))

    def estimate_positive(self, value: float, replicates: Floats) -> Estimate:
        """Return what cannot be negative, a mean error or a ratio, with its interval.

        The interval is that of the logarithm: it ends above zero, and widened it stays there.
        """
        if not (value > 0.0 and (replicates > 0.0).all()):
            interval = self.estimate(value, replicates)
            return Estimate(interval.value, max(interval.low, 0.0), interval.high)
        of_log = self.estimate(float(np.log(value)), np.log(replicates))
        with np.errstate(over="ignore"):  # of two blocks it may end at infinity: nothing is known
            return Estimate(float(value), float(np.exp(of_log.low)), float(np.exp(of_log.high)))

    def mean(self, values: Floats) -> Estimate:
        """Return the mean of per-frame ``values`` (T,) with its interval."""
        return self.estimate(float(values.mean()), self.means(values))


def _ring(rng: np.random.Generator, n_frames: int, length: int, n_resamples: int) -> Floats:
    """Draw blocks of a trajectory closed to a ring; return how often each frame, (B, n_frames)."""
    starts = rng.integers(0, n_frames, (n_resamples, -(-n_frames // length)))
    places = (starts[:, :, None] + np.arange(length)) % n_frames
    places = places.reshape(n_resamples, -1)[:, :n_frames]
    rows = n_frames * np.arange(n_resamples)[:, None]
    times = np.bincount((rows + places).ravel(), minlength=n_resamples * n_frames)
    return times.reshape(n_resamples, n_frames).astype(np.float64)


def choose_block_length(series: Iterable[Floats], trajectory: Ints) -> int:
    """Return a block length for all ``series`` (T,) of errors, in frames.

    The larger of T^(1/3), which is what the bootstrap wants of weakly correlated frames, and
    three times the longest correlation time of any series in any trajectory, but so short that the
    longest trajectory still falls into five blocks. Many trajectories, or more than one of them
    has pairs of frames, are blocks as they are: how they differ then says more than what is within.
    """
    numbers, sizes = np.unique(trajectory, return_counts=True)
    longest = int(sizes.max())
    if len(numbers) >= MANY_TRAJECTORIES or longest < 2 * len(numbers):
        return longest
    taus = [inefficiency(values[trajectory == index]) for values in series for index in numbers]
    wanted = max(np.ceil(np.cbrt(longest)), np.ceil(3.0 * max(taus, default=1.0)))
    return int(max(1, min(wanted, longest // MIN_BLOCKS)))
