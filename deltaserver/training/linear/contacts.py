"""Geometries in contact that no dynamics goes to: where an expansion has to say nothing.

A guest outside its host, turned anyhow, two atoms at each other's wall. Without labels there,
coefficients of sites that hardly ever meet are whatever the other data make them: C60 fell 4 eV
deep into the rim of its catcher.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

GAPS_ANG = (1.5, 2.8)  # between the nearest atoms of different fragments
FAR_ANG = 30.0  # from where the first fragment comes, beyond the others' extent
STEP_ANG = 0.25


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
        molecule = (x[first] - x[first].mean(axis=0)) @ _rotation(rng)
        towards = rng.normal(size=3)
        towards /= np.linalg.norm(towards)
        aim = x[others][rng.integers(len(others))]  # so that every atom is met, not a centre alone
        gap = rng.uniform(*GAPS_ANG)
        x[first] = molecule + aim + towards * _first_touch(molecule + aim, x[others], towards, gap)
    return result


def _first_touch(molecule: Floats, others: Floats, towards: Floats, gap: float) -> float:
    """Return how far along ``towards`` the nearest atoms are ``gap`` apart, coming from afar."""

    def nearest(shift: float) -> float:
        d = (molecule + shift * towards)[:, None] - others
        return float(np.sqrt(np.einsum("ijx,ijx->ij", d, d).min()))

    shift = FAR_ANG
    while nearest(shift) > gap and shift > -FAR_ANG:
        shift -= STEP_ANG
    inside, outside = shift, shift + STEP_ANG
    for _ in range(12):
        middle = 0.5 * (inside + outside)
        inside, outside = (middle, outside) if nearest(middle) < gap else (inside, middle)
    return outside


def _rotation(rng: np.random.Generator) -> Floats:
    """Return a random rotation matrix, all alike likely (by a random quaternion)."""
    w, x, y, z = (q := rng.normal(size=4)) / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
