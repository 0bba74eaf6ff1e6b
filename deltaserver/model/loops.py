"""Loops compiled by numba for what is bound by memory or by calls, not by arithmetic.

Optional, behind :mod:`deltaserver.model.jit`: without numba (extra ``[fast]``) everything runs in
NumPy with the same results; tests hold the two equal. Sums may be reordered (that is what makes
them vector instructions); nothing else of IEEE arithmetic is given up: a NaN stays a NaN.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from deltaserver.model.jit import compiled
from deltaserver.model.loops_sum import (
    fused_batch,
    fused_group_sum,
    fused_sum,
    group_axpys,
    group_dots,
    weigh,
)

__all__ = [
    "fused_batch",
    "group_axpys",
    "group_dots",
    "pair_displacements",
    "pull_back",
    "single_direct",
    "single_group",
    "weigh",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@compiled
def pair_displacements(
    positions: Floats, cell: Floats, inverse: Floats, periodic: bool, d: Floats, descriptor: Floats
) -> float:
    """Fill d (3, B, D) and 1/|d| (B, D) for positions (B, N, 3); return the smallest |d|²."""
    n_batch, n_atoms, _ = positions.shape
    smallest = np.inf
    for b in range(n_batch):
        k = 0
        for i in range(n_atoms):
            x, y, z = positions[b, i, 0], positions[b, i, 1], positions[b, i, 2]
            for j in range(i):
                d[0, b, k + j] = x - positions[b, j, 0]
                d[1, b, k + j] = y - positions[b, j, 1]
                d[2, b, k + j] = z - positions[b, j, 2]
            k += i
        if periodic:
            _wrap(d[0, b], d[1, b], d[2, b], cell, inverse)
        for k in range(d.shape[2]):
            squared = d[0, b, k] ** 2 + d[1, b, k] ** 2 + d[2, b, k] ** 2
            smallest = min(smallest, squared)
            descriptor[b, k] = 1.0 / math.sqrt(squared) if squared > 0.0 else np.inf
    return smallest


@compiled
def _wrap(x: Floats, y: Floats, z: Floats, cell: Floats, inverse: Floats) -> None:
    for k in range(len(x)):
        u = np.rint(inverse[0, 0] * x[k] + inverse[0, 1] * y[k] + inverse[0, 2] * z[k])
        v = np.rint(inverse[1, 0] * x[k] + inverse[1, 1] * y[k] + inverse[1, 2] * z[k])
        w = np.rint(inverse[2, 0] * x[k] + inverse[2, 1] * y[k] + inverse[2, 2] * z[k])
        x[k] -= cell[0, 0] * u + cell[0, 1] * v + cell[0, 2] * w
        y[k] -= cell[1, 0] * u + cell[1, 1] * v + cell[1, 2] * w
        z[k] -= cell[2, 0] * u + cell[2, 1] * v + cell[2, 2] * w


@compiled
def pull_back(
    g: Floats, d: Floats, descriptor: Floats, n_atoms: int, forces: Floats, virial: Floats
) -> None:
    """Fill forces (B, N, 3) = Jᵀg and virial (B, 3, 3) = −Σ c d ⊗ d, c = g D³."""
    for b in range(len(g)):
        forces[b] = 0.0
        virial[b] = 0.0
        k = 0
        for i in range(n_atoms):
            fx = fy = fz = 0.0
            xx = xy = xz = yy = yz = zz = 0.0
            for j in range(i):
                inverse = descriptor[b, k + j]
                c = g[b, k + j] * inverse * inverse * inverse
                x, y, z = d[0, b, k + j], d[1, b, k + j], d[2, b, k + j]
                cx, cy, cz = c * x, c * y, c * z
                forces[b, j, 0] += cx
                forces[b, j, 1] += cy
                forces[b, j, 2] += cz
                fx += cx
                fy += cy
                fz += cz
                xx += cx * x
                xy += cx * y
                xz += cx * z
                yy += cy * y
                yz += cy * z
                zz += cz * z
            k += i
            forces[b, i, 0] -= fx
            forces[b, i, 1] -= fy
            forces[b, i, 2] -= fz
            virial[b, 0, 0] -= xx
            virial[b, 1, 1] -= yy
            virial[b, 2, 2] -= zz
            virial[b, 0, 1] -= xy
            virial[b, 0, 2] -= xz
            virial[b, 1, 2] -= yz
        virial[b, 1, 0] = virial[b, 0, 1]
        virial[b, 2, 0] = virial[b, 0, 2]
        virial[b, 2, 1] = virial[b, 1, 2]


@compiled
def single_direct(
    centre: Floats,
    xa: Floats,
    sigma: float,
    positions: Floats,
    cell: Floats,
    inverse: Floats,
    periodic: bool,
    forces: Floats,
    virial: Floats,
) -> tuple[float, float]:
    """Evaluate one geometry (1, N, 3) in one call, with no permutations.

    Fills forces (1, N, 3) and virial (1, 3, 3); returns E and the smallest squared distance.
    """
    n_desc = len(centre)
    d, descriptor = np.empty((3, 1, n_desc)), np.empty((1, n_desc))
    g = np.empty((1, n_desc))
    smallest = pair_displacements(positions, cell, inverse, periodic, d, descriptor)
    energy = fused_sum(descriptor[0] - centre, xa, sigma, g[0])
    pull_back(g, d, descriptor, positions.shape[1], forces, virial)
    return energy, smallest


@compiled
def single_group(
    centre: Floats,
    starts: Ints,
    entries: Ints,
    basis: Floats,
    xa: Floats,
    x_squared: Floats,
    x_dot_a: Floats,
    components: Ints,
    values: Floats,
    sigma: float,
    positions: Floats,
    cell: Floats,
    inverse: Floats,
    periodic: bool,
    forces: Floats,
    virial: Floats,
) -> tuple[float, float]:
    """Do :func:`single_direct` for a group of permutations.

    Fourier coefficient c is the sum of ``basis[k] · q[entries[k]]`` over k from ``starts[c]``.
    """
    n_desc = len(centre)
    d, descriptor = np.empty((3, 1, n_desc)), np.empty((1, n_desc))
    g, coefficients, slopes = np.empty((1, n_desc)), np.empty(n_desc), np.empty(n_desc)
    smallest = pair_displacements(positions, cell, inverse, periodic, d, descriptor)
    query = descriptor[0] - centre
    for c in range(n_desc):
        total = 0.0
        for k in range(starts[c], starts[c + 1]):
            total += basis[k] * query[entries[k]]
        coefficients[c] = total
    energy, w1_sum = fused_group_sum(
        coefficients, xa, x_squared, x_dot_a, components, values, sigma, slopes
    )
    g[0] = w1_sum * query
    for c in range(n_desc):
        for k in range(starts[c], starts[c + 1]):
            g[0, entries[k]] += basis[k] * slopes[c]
    pull_back(g, d, descriptor, positions.shape[1], forces, virial)
    return energy, smallest
