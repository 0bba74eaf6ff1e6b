"""Where the runs of a round start: at training frames, some with a fragment moved out."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.molecules.elements import ATOMIC_WEIGHT_U

APART_EVERY = 4  # one run in four starts apart
APART_ANG = (0.3, 1.5)  # moved out by so much, along the line of the centres of mass


def draw_starts(
    frames: LabelledFrames, train: Ints, count: int, rng: np.random.Generator
) -> Floats:
    """Return ``count`` structures (count, N, 3), Å, of training frames drawn at random.

    Of a pair, every fourth has its first fragment moved away from the second.
    """
    starts: Floats = frames.positions[rng.choice(train, count)].copy()
    if len(frames.fragments) != 2:
        return starts
    first, second = (np.array(fragment.atoms) for fragment in frames.fragments)
    for start in starts[APART_EVERY - 1 :: APART_EVERY]:
        way = _centre(frames, start, first) - _centre(frames, start, second)
        length = float(np.linalg.norm(way))
        if length > 0.0:
            start[first] += rng.uniform(*APART_ANG) * way / length
    return starts


def longest_centre_distance(frames: LabelledFrames, train: Ints) -> float:
    """Return the longest distance of two fragments' centres in the training frames, Å; or 0."""
    groups = [np.array(fragment.atoms) for fragment in frames.fragments]
    return max(
        (
            float(np.linalg.norm(_centre(frames, x, a) - _centre(frames, x, b)))
            for x in frames.positions[train]
            for a, b in combinations(groups, 2)
        ),
        default=0.0,
    )


def _centre(frames: LabelledFrames, x: Floats, atoms: Ints) -> Floats:
    masses = np.array([ATOMIC_WEIGHT_U[z] for z in frames.numbers[atoms]])
    centre: Floats = np.average(x[atoms], axis=0, weights=masses)
    return centre
