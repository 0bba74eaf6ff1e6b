"""Draws from a set: shares in proportion, and those that differ most from those that are taken."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Floats, Ints


def allocate(population: Ints, count: int) -> Ints:
    """Share ``count`` among bins in proportion, none above its population."""
    exact = population * (count / population.sum())
    share: Ints = np.minimum(np.maximum(np.floor(exact).astype(np.int64), 1), population)
    while share.sum() != count:
        missing = count - share.sum()
        # The bin that is furthest from its exact share and can still give or take.
        gap = np.where(share < population, exact - share, -np.inf)
        if missing < 0:
            gap = np.where(share > (1 if len(share) <= count else 0), share - exact, -np.inf)
        share[int(np.argmax(gap))] += 1 if missing > 0 else -1
    return share


def draw_farthest(
    features: Floats, trajectory: Ints, count: int, seed: int, known: NDArray[np.bool_]
) -> Ints:
    """Return ``count`` rows of ``features`` (K, F), ascending, those that are ``known`` (K,) too.

    The first one, where none is known, is drawn at random.
    """
    group = _groups(trajectory)
    taken = known.copy()
    left = np.zeros(group.max() + 1, dtype=np.int64)  # that a trajectory may still give
    there, population = np.unique(group[~taken], return_counts=True)
    left[there] = allocate(population, count - int(taken.sum()))
    distance = np.full(len(features), np.inf)

    def take(row: int) -> None:
        change = features - features[row]
        np.minimum(distance, np.einsum("kf,kf->k", change, change), out=distance)
        taken[row] = True

    for row in np.flatnonzero(known):
        take(int(row))
    while taken.sum() < count:
        free = ~taken & (left[group] > 0)
        if taken.any():
            row = int(np.argmax(np.where(free, distance, -1.0)))
        else:
            row = int(np.random.default_rng(seed).choice(np.flatnonzero(free)))
        take(row)
        left[group[row]] -= 1
    return np.flatnonzero(taken)


def _groups(trajectory: Ints) -> Ints:
    """Number trajectories from 0 on; those of one frame have one number together."""
    _, number, size = np.unique(trajectory, return_inverse=True, return_counts=True)
    numbers = np.where(size == 1, len(size), np.arange(len(size)))[number]
    result: Ints = np.unique(numbers, return_inverse=True)[1]
    return result
