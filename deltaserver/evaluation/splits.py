"""Which frames a model is tested on: along time or trajectories, at random only on demand.

Neighbouring frames of a trajectory are nearly the same geometry. A random split puts neighbours
of every training frame into the test, and its errors say how well the model interpolates between
two adjacent steps, not how good it is. What trains and validates is divided in one place, by
:func:`deltaserver.training.selection.split_in_time`; here the test frames are taken out of what
that has held out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from deltaserver.arrays import Ints
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.errors import DataError
from deltaserver.training.selection import TRAIN_FRACTION, Split, split_in_time

SplitKind = Literal["time", "trajectory", "random", "all"]
SPLIT_KINDS: tuple[SplitKind, ...] = ("time", "trajectory", "random", "all")
TEST_FRACTION = 0.16  # of a trajectory, its end; between it and the training part lies a gap


@dataclass(frozen=True)
class SplitRequest:
    """How to split a dataset.

    Attributes:
        kind: ``"time"`` within each trajectory, whole ``"trajectory"``, ``"random"``, or
            ``"all"`` frames, of a dataset that no model was trained on.
        test_trajectories: by number; for ``"trajectory"`` only.
        test_fraction: share of the frames, for the other two.
        seed: of the random split.
    """

    kind: SplitKind = "time"
    test_trajectories: tuple[int, ...] = ()
    test_fraction: float = TEST_FRACTION
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse options that contradict each other."""
        if self.kind not in SPLIT_KINDS:
            raise DataError(f"split {self.kind!r} is not known; use {', '.join(SPLIT_KINDS)}")
        if self.kind == "trajectory" and not self.test_trajectories:
            raise DataError("a split by trajectory needs a --test-trajectory to leave out")
        if self.kind != "trajectory" and self.test_trajectories:
            raise DataError(
                f"--test-trajectory contradicts --split {self.kind}; use --split trajectory"
            )
        if not 0.0 < self.test_fraction < 1.0:
            raise DataError(f"test fraction {self.test_fraction} is not between 0 and 1")

    def describe(self) -> str:
        """Return one sentence that says which frames are tested on."""
        if self.kind == "all":
            return "all frames of the dataset, none of which trained a model"
        share = f"{100 * self.test_fraction:g} %"
        if self.kind == "time":
            return (
                f"the last {share} in time of each trajectory; training and validation may use "
                f"the first {100 * self.train_fraction:g} %, frames between are used for nothing"
            )
        if self.kind == "trajectory":
            which = ", ".join(str(index) for index in self.test_trajectories)
            return f"all frames of trajectory {which}, none of which trained a model"
        return (
            f"{share} of the frames at random (seed {self.seed}): they have neighbours in time "
            "among the training frames, so these errors are too low"
        )

    @property
    def train_fraction(self) -> float:
        """Share of each trajectory that trains and validates in a split by time."""
        return min(TRAIN_FRACTION, 1.0 - self.test_fraction)


def choose_split(
    frames: LabelledFrames, request: SplitRequest, known_training: Ints | None = None
) -> Split:
    """Return which frames train, validate and are tested on (``held_out``).

    Args:
        frames: the dataset.
        request: how to split it.
        known_training: frames that models were trained on; a random split draws from the others.

    Raises:
        DataError: no frames are left for the test, no such trajectory, or frames that have no
            order in time.
    """
    if request.kind == "trajectory":
        _check_known(frames, request.test_trajectories)
    if request.kind == "all" or set(request.test_trajectories) == set(frames.trajectory.tolist()):
        none = np.zeros(0, dtype=np.int64)
        return Split(none, none, np.arange(len(frames)))
    if request.kind == "random":
        return _at_random(len(frames), request, known_training)
    _check_order(frames)
    if request.kind == "trajectory":
        return split_in_time(frames.trajectory, frames.step, 1.0, request.test_trajectories)
    split = split_in_time(frames.trajectory, frames.step, request.train_fraction)
    test = _last_of_each(frames, request.test_fraction)
    if not len(test):
        raise DataError(
            f"{frames.name}: {len(frames)} frames leave none to test on at the end of a "
            "trajectory; raise --test-fraction, leave out a --test-trajectory, or ask for "
            "--split random, which tests on neighbours of training frames"
        )
    return replace(split, held_out=test)


def _last_of_each(frames: LabelledFrames, fraction: float) -> Ints:
    """Return the last ``fraction`` of every trajectory, in order of trajectory and time."""
    parts = [np.zeros(0, dtype=np.int64)]
    for index in np.unique(frames.trajectory):
        inside = np.flatnonzero(frames.trajectory == index)
        inside = inside[np.argsort(frames.step[inside], kind="stable")]
        parts.append(inside[len(inside) - int(fraction * len(inside)) :])
    return np.concatenate(parts)


def _check_order(frames: LabelledFrames) -> None:
    """Refuse frames of which two are at the same step: their order in time is not known."""
    for index in np.unique(frames.trajectory):
        steps = frames.step[frames.trajectory == index]
        if len(np.unique(steps)) < len(steps):
            raise DataError(
                f"{frames.name}: trajectory {index} has several frames at one step, so it cannot "
                "be split in time; number the steps, or ask for --split random, which tests on "
                "neighbours of training frames"
            )


def _check_known(frames: LabelledFrames, test_trajectories: tuple[int, ...]) -> None:
    known = set(frames.trajectory.tolist())
    if missing := sorted(set(test_trajectories) - known):
        raise DataError(
            f"{frames.name}: no trajectory {missing[0]} to test on; the dataset has "
            f"{', '.join(map(str, sorted(known)))}"
        )


def _at_random(n_frames: int, request: SplitRequest, known_training: Ints | None) -> Split:
    rng = np.random.default_rng(request.seed)
    taken = np.zeros(0, dtype=np.int64) if known_training is None else known_training
    free = np.setdiff1d(np.arange(n_frames), taken)
    count = min(int(request.test_fraction * n_frames), len(free))
    if not count:
        raise DataError(f"{n_frames} frames leave none to test on; raise --test-fraction")
    test = np.sort(rng.choice(free, count, replace=False))
    rest = rng.permutation(np.setdiff1d(np.arange(n_frames), test))
    n_valid = len(rest) // 5
    return Split(np.sort(rest[n_valid:]), np.sort(rest[:n_valid]), test)
