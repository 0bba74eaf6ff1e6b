"""Which frames train, which validate, which are left for the test.

Frames of one trajectory are correlated, so they are divided in time: the first part of each
trajectory trains, what follows validates, the last part is held out and never looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError
from deltaserver.statistics.draws import allocate

TRAIN_FRACTION = 0.8  # of a trajectory; the rest is held out
VALID_SHARE = 0.2  # of that, at its end


@dataclass(frozen=True)
class Split:
    """Frames by their use, ascending."""

    train: Ints
    valid: Ints
    held_out: Ints


def split_in_time(
    trajectory: Ints,
    step: Ints,
    train_fraction: float = TRAIN_FRACTION,
    held_out_trajectories: tuple[int, ...] = (),
    trained_trajectories: tuple[int, ...] = (),
) -> Split:
    """Divide frames along their trajectories; those of one frame alone as wholes.

    Args:
        trajectory: of every frame, shape (K,).
        step: time within the trajectory, shape (K,).
        train_fraction: share of each trajectory, from its start, that trains and validates.
        held_out_trajectories: left for the test as a whole.
        trained_trajectories: trained on as a whole: frames that were chosen for it.

    Raises:
        DataError: no frames are left to train on, or no such trajectory.
    """
    if not 0.0 < train_fraction <= 1.0:
        raise DataError(f"train fraction {train_fraction} is not between 0 and 1")
    known = set(trajectory.tolist())
    if missing := sorted(set(held_out_trajectories) - known):
        raise DataError(f"no trajectory {missing[0]} to hold out; the dataset has {sorted(known)}")
    singles = count()
    parts: dict[str, list[Ints]] = {"train": [], "valid": [], "held_out": []}
    for index in sorted(known):
        frames = np.flatnonzero(trajectory == index)
        frames = frames[np.argsort(step[frames], kind="stable")]
        end = int(train_fraction * len(frames))
        start = end - int(VALID_SHARE * end)
        if len(frames) == 1:
            start, end = _single(next(singles), train_fraction)
        if index in held_out_trajectories:
            start = end = 0
        if index in trained_trajectories:
            start = end = len(frames)
        parts["train"].append(frames[:start])
        parts["valid"].append(frames[start:end])
        parts["held_out"].append(frames[end:])
    split = Split(**{name: np.sort(np.concatenate(some)) for name, some in parts.items()})
    if not len(split.train) or not len(split.valid):
        used = len(trajectory) - len(split.held_out)
        raise DataError(
            f"{used} of {len(trajectory)} frames are left to train and validate on, in "
            f"{len(known) - len(held_out_trajectories)} trajectories: too few; hold out less, or "
            "add frames"
        )
    return split


def _single(place: int, train_fraction: float) -> tuple[int, int]:
    """Return where training and validation end of the one frame of a trajectory: 0 or 1.

    Frames of windows along a separation are trajectories of their own. Multiples of the golden
    ratio, modulo 1, are spread evenly, so that each use has its share, at all separations.
    """
    share = (place * 0.6180339887498949) % 1.0
    return int(share < (1.0 - VALID_SHARE) * train_fraction), int(share < train_fraction)


def draw_stratified(energy: Floats, count: int, seed: int, what: str = "frames") -> Ints:
    """Draw ``count`` entries that follow the distribution of ``energy`` (K,), ascending.

    As sgdml does: a histogram with the bin width of Freedman and Diaconis
    [DOI 10.1007/BF01025868], each bin giving its share, rounded to the largest remainders, and
    every bin that is not empty at least one where ``count`` allows. The same seed gives the same.

    Raises:
        DataError: there are fewer entries than ``count``, or ``count`` is not positive.
    """
    if not 0 < count <= len(energy):
        raise DataError(
            f"{count} {what} are wanted and {len(energy)} are there; "
            f"ask for 1 to {len(energy)}, or add frames"
        )
    rng = np.random.default_rng(seed)
    bins = _bins(energy, count)
    occupied, population = np.unique(bins, return_counts=True)
    share = allocate(population, count)
    drawn = [
        rng.choice(np.flatnonzero(bins == index), take, replace=False)
        for index, take in zip(occupied, share, strict=True)
    ]
    return np.sort(np.concatenate(drawn)).astype(np.int64)


def _bins(energy: Floats, count: int) -> Ints:
    spread = np.subtract(*np.percentile(energy, [75, 25]))
    width = 2.0 * spread / np.cbrt(count)
    most = max(1, count // 2)  # two of each bin at least
    n_bins = 1
    if width > 0:  # and maybe so small that the range divided by it is no number
        n_bins = most if np.ptp(energy) >= most * width else int(np.ceil(np.ptp(energy) / width))
    edges = np.linspace(energy.min(), energy.max(), n_bins + 1)[1:-1]
    result: Ints = np.digitize(energy, edges)
    return result
