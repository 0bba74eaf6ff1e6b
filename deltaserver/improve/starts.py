"""Where the runs of a round start: at training frames, with one fragment turned, some moved out.

Short runs keep the orientation that they begin with: C60 takes 10 ps to turn in its catcher at
300 K. Of frames of one trajectory all runs would stay in the orientation of that one. Turned are
all: with half of them the binding of C60 needed 80 labels where it needs 40 now, and the benzene
dimer, at the 150 K of its first model, is none the worse for it.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.complexes import random_rotation, shortest_distance
from deltaserver.datasets.coverage import shortest_distances
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.molecules.elements import ATOMIC_WEIGHT_U

EVERY = 4  # of so many runs in a row
APART = 3  # one starts apart
APART_ANG = (0.3, 1.5)  # moved out by so much, along the line of the centres of mass
TURNS = 50  # that are tried before it stays as it was


def draw_starts(
    frames: LabelledFrames, train: Ints, count: int, rng: np.random.Generator
) -> Floats:
    """Return ``count`` structures (count, N, 3), Å, of training frames drawn at random.

    Of a pair, the smaller fragment is turned at random about its centre of mass, if no atoms come
    closer than in training, and every fourth has the first one moved away from the second before.
    """
    starts: Floats = frames.positions[rng.choice(train, count)].copy()
    if len(frames.fragments) != 2:
        return starts
    first, second = (np.array(fragment.atoms) for fragment in frames.fragments)
    for start in starts[APART::EVERY]:
        way = _centre(frames, start, first) - _centre(frames, start, second)
        length = float(np.linalg.norm(way))
        if length > 0.0:
            start[first] += rng.uniform(*APART_ANG) * way / length
    guest, host = sorted((first, second), key=len)
    if len(guest) == 1:  # a lone atom looks the same from all sides
        guest, host = host, guest
    if len(guest) > 1:
        closest = float(shortest_distances(frames.select(train)).min())
        for start in starts:
            start[guest] = _turned(frames, start, (guest, host), closest, rng)
    return starts


def _turned(
    frames: LabelledFrames,
    start: Floats,
    groups: tuple[Ints, Ints],
    closest: float,
    rng: np.random.Generator,
) -> Floats:
    """Return the positions of the first group, turned so that it stays ``closest`` Å away."""
    guest, host = groups
    centre = _centre(frames, start, guest)
    for _ in range(TURNS):
        turned: Floats = centre + (start[guest] - centre) @ random_rotation(rng)
        if shortest_distance(turned, start[host]) >= closest:
            return turned
    return start[guest]


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
