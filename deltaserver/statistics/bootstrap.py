"""Confidence intervals of averages over correlated frames: the circular block bootstrap.

Neighbouring frames err alike, so resampling single frames gives intervals that are far too
narrow. Whole blocks of consecutive frames are drawn instead, trajectory by trajectory, each
trajectory closed to a ring so that every frame is drawn equally often [Politis & Romano, in
Exploring the Limits of Bootstrap, 1992; Künsch, Ann. Stat. 17, 1217 (1989),
DOI 10.1214/aos/1176347265].
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
        index: frames of every resample, shape (B, T).
        block_length: frames per block.
        n_blocks: blocks per resample.
        confidence: of the intervals.
        seed: of the draw.
    """

    index: Ints
    block_length: int
    n_blocks: int
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
        parts, n_blocks = [], 0
        for index in np.unique(trajectory):
            inside = np.flatnonzero(trajectory == index)
            length = min(block_length, len(inside))
            count = -(-len(inside) // length)
            starts = rng.integers(0, len(inside), (n_resamples, count))
            places = (starts[:, :, None] + np.arange(length)) % len(inside)
            parts.append(inside[places.reshape(n_resamples, -1)[:, : len(inside)]])
            n_blocks += count
        return cls(np.concatenate(parts, axis=1), block_length, n_blocks, confidence, seed)

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
        result: Floats = values[self.index].mean(axis=1)
        return result

    def estimate(self, value: float, replicates: Floats) -> Estimate:
        """Return ``value`` with the widened percentile interval of its ``replicates`` (B,)."""
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


def choose_block_length(series: Iterable[Floats], trajectory: Ints) -> int:
    """Return a block length for all ``series`` (T,) of errors, in frames.

    The larger of T^(1/3), which is what the bootstrap wants of weakly correlated frames, and
    three times the longest correlation time of any series in any trajectory, but so short that the
    longest trajectory still falls into five blocks.
    """
    longest = max(int((trajectory == index).sum()) for index in np.unique(trajectory))
    taus = [
        inefficiency(values[trajectory == index])
        for values in series
        for index in np.unique(trajectory)
    ]
    wanted = max(np.ceil(np.cbrt(longest)), np.ceil(3.0 * max(taus, default=1.0)))
    return int(max(1, min(wanted, longest // MIN_BLOCKS)))
