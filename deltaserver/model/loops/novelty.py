"""The novelty of one structure in a compiled pass; see :mod:`deltaserver.model.trust.novelty`.

Optional, behind :mod:`deltaserver.compute.jit`, as :mod:`deltaserver.model.loops`: in NumPy the
calls would cost more than the arithmetic.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled

Floats = NDArray[np.float64]
Singles = NDArray[np.float32]
Ints = NDArray[np.int64]


@compiled
def nearest_squared(f: Singles, points: Singles) -> float:
    """Return the squared distance of features (F,) from the nearest of ``points`` (M, F)."""
    best = np.float32(np.inf)
    for m in range(len(points)):
        point = points[m]
        distance = np.float32(0.0)
        for k in range(len(f)):
            d = f[k] - point[k]
            distance += d * d
        best = min(best, distance)
    return float(best)


@compiled
def _inverse_distances(positions: Floats, first: Ints, second: Ints) -> Floats:
    at = positions.T.copy()
    x, y, z = at[0], at[1], at[2]
    values = np.empty(len(first))
    for k in range(len(first)):
        i, j = first[k], second[k]
        dx, dy, dz = x[i] - x[j], y[i] - y[j], z[i] - z[j]
        values[k] = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
    return values


@compiled
def features_of(
    positions: Floats, first: Ints, second: Ints, starts: Ints, size: Ints, centre: Floats
) -> Singles:
    """Return the features of positions (N, 3) in the model's length, less the centre.

    Args:
        positions: (N, 3), in the model's length.
        first, second: the atoms of every pair of the kept orbits, orbit by orbit.
        starts, size: where each orbit begins and how many pairs it has.
        centre: of the training points' features, (F,).
    """
    values = _inverse_distances(positions, first, second)
    f: Singles = _features(values, starts, size, centre)
    return f


@compiled
def _features(values: Floats, starts: Ints, size: Ints, centre: Floats) -> Singles:
    """Return the features, less the centre, of inverse distances, orbit by orbit."""
    n_orbits = len(size)
    f = np.empty(len(centre), dtype=np.float32)
    n_more = n_many = 0
    for o in range(n_orbits):
        n_more += size[o] > 1
        n_many += size[o] > 2
    more, many, most = n_orbits, n_orbits + n_more, n_orbits + n_more + n_many
    for o in range(n_orbits):
        low, high, total, square = np.inf, -np.inf, 0.0, 0.0
        for k in range(starts[o], starts[o] + size[o]):
            value = values[k]
            low, high = min(low, value), max(high, value)
            total += value
            square += value * value
        f[o] = low - centre[o]
        if size[o] > 1:
            f[more] = high - centre[more]
            more += 1
        if size[o] > 2:
            rest = size[o] - 2.0
            mean = (total - low - high) / rest
            f[many] = math.sqrt(rest) * mean - centre[many]
            many += 1
            if size[o] > 3:
                variance = (square - low * low - high * high) / rest - mean * mean
                f[most] = math.sqrt(rest * max(variance, 0.0)) - centre[most]
                most += 1
    return f
