"""Geometries in contact that no dynamics goes to: where an expansion has to say nothing.

A guest outside its host, turned anyhow, two atoms at each other's wall. Without labels there,
coefficients of sites that hardly ever meet are whatever the other data make them: C60 fell 4 eV
deep into the rim of its catcher.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deltaserver.datasets.complexes import random_direction, random_rotation
from deltaserver.datasets.sampling.separations import approach

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

GAPS_ANG = (1.5, 2.8)  # between the nearest atoms of different fragments


def contacts(frames: Floats, first: Ints, count: int, seed: int = 0) -> Floats:
    """Return geometries in which one fragment, turned at random, touches the others, (count, N, 3).

    Args:
        frames: geometries to take the molecules from, Å, shape (M, N, 3).
        first: atoms of the fragment that is moved.
        count: how many.
        seed: of everything random.
    """
    rng = np.random.default_rng(seed)
    others = np.setdiff1d(np.arange(frames.shape[1]), first)
    result = frames[rng.integers(len(frames), size=count)].copy()
    for x in result:
        molecule = (x[first] - x[first].mean(axis=0)) @ random_rotation(rng)
        towards = random_direction(rng)
        aim = x[others][rng.integers(len(others))]  # so that every atom is met, not a centre alone
        gap = rng.uniform(*GAPS_ANG)
        x[first] = molecule + aim + towards * approach(x[others] - aim, molecule, towards, gap)
    return result
