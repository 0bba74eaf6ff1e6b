"""In which sense the neighbours of an atom are numbered: the sign of a triple product of bonds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import combinations

import numpy as np

from deltaserver.arrays import Floats, Ints

NEIGHBOURS = 3  # from so many on, a centre has a handedness
FLAT_ANG3 = 0.3  # a smaller triple product of bonds is that of a flat centre


def corners_of(around: Mapping[int, Iterable[int]]) -> Ints:
    """Return every centre with three of its neighbours, in rising order, shape (C, 4)."""
    found = [
        (centre, *three)
        for centre, others in sorted(around.items())
        for three in combinations(sorted(others), NEIGHBOURS)
    ]
    return np.array(found, dtype=np.int64).reshape(-1, 4)


def triple_products(x: Floats, corners: Ints) -> Floats:
    """Return (r₁ − r₀) · (r₂ − r₀) × (r₃ − r₀) of corners (C, 4) at x (N, 3), Å; Å³, (C,)."""
    centre, *three = corners.T
    result: Floats = np.linalg.det(np.stack([x[k] - x[centre] for k in three], axis=1))
    return result
