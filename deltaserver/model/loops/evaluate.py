"""Loops compiled by numba for what is bound by memory or by calls, not by arithmetic.

Optional, behind :mod:`deltaserver.compute.jit`: without numba (extra ``[fast]``) everything runs in
NumPy with the same results; tests hold the two equal. Sums may be reordered (that is what makes
them vector instructions); nothing else of IEEE arithmetic is given up: a NaN stays a NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled
from deltaserver.model.loops.groups.sums import Sectors, group_sum
from deltaserver.model.loops.pairs import (
    axes,
    collect,
    distances_between,
    pair_distances,
    pull_back,
    pull_between,
)
from deltaserver.model.loops.sum import (
    aligned,
    axpys_of_eight,
    dots_of_eight,
    fused_sum,
    weights_of_eight,
)

__all__ = [
    "direct",
    "direct_by_eights",
    "group_sum",
    "pair_distances",
    "pull_back",
    "small_group",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Numbers = NDArray[np.floating[Any]]
# Of kernel.base, as a plain tuple: numba looks at a named one in Python at every call.
Task = tuple[Floats, Floats | None, float, float, Floats, Floats, Floats]


@compiled
def direct(centre: Floats, x: Floats, a: Floats, alphas: Floats, sigma: float, task: Task) -> float:
    """Evaluate geometries (B, N, 3) in one call, with no permutations, one after the other.

    ``x``, ``a`` (M, ≥ D) and ``centre`` may end in zeros; ``alphas`` (M,) are the coefficients of
    energies. Fills energy (B,) with ``scale`` · E + ``shift``, and forces (B, N, 3) and virial
    (B, 3, 3) of that; returns what :func:`pair_distances` does.
    """
    positions, cell, scale, shift, energy, forces, virial = task
    size = len(centre)
    descriptor, g = aligned(1, size), aligned(1, size)
    query, scratch = aligned(1, size)[0], np.empty((4, 4))
    total = 0.0
    for b in range(len(positions)):
        here = slice(b, b + 1)
        total += pair_distances(positions[here], cell, descriptor)
        for k in range(size):
            query[k] = descriptor[0, k] - centre[k]
        energy[b] = scale * fused_sum(query, x, a, alphas, sigma, scratch, g[0]) + shift
        g *= scale
        pull_back(g, positions[here], cell, descriptor, forces[here], virial[here])
    return total


@compiled
def direct_by_eights(
    centre: Floats, panels: Floats, known: Floats, sigma: float, task: Task
) -> float:
    """Evaluate as :func:`direct`, eight geometries at a time: what is read serves all of them.

    ``panels`` (P, R, C) holds the training arrays, C columns of all of them after the next C: few
    enough for eight queries' C columns to stay in a core's first cache. Zeros fill R up to a
    multiple of three. ``centre`` is (P, C), ``known`` as in :func:`weights_of_eight`.
    """
    positions, cell, scale, shift, energy, forces, virial = task
    n_panels, n_rows, columns = panels.shape
    n_atoms = positions.shape[1]
    n_desc = n_atoms * (n_atoms - 1) // 2
    at, pull = np.empty((8, 3, n_atoms)), np.empty((8, 3, n_atoms))
    stress = np.empty((8, 6))
    sums, q = aligned(n_rows, 8), aligned(8, columns)
    q_squared, w1_sum, energies = np.empty(8), np.empty(8), np.empty(8)
    total = 0.0
    for first in range(0, len(positions), 8):
        n = min(8, len(positions) - first)
        for i in range(n):
            total += axes(positions[first + i], at[i])
        sums[:] = 0.0
        q_squared[:] = 0.0
        for p in range(n_panels):
            start, stop = p * columns, min((p + 1) * columns, n_desc)
            for i in range(n):
                here, squared = distances_between(at[i], cell, start, stop, centre[p], q[i])
                total += here
                q_squared[i] += squared
                q[i, stop - start :] = 0.0
            dots_of_eight(q, panels[p], sums)
        weights_of_eight(sums, q_squared, known, sigma, scale, energies, w1_sum)
        pull[:] = 0.0
        stress[:] = 0.0
        for p in range(n_panels - 1, -1, -1):  # the last ones are in the cache
            start, stop = p * columns, min((p + 1) * columns, n_desc)
            q[:] = 0.0
            axpys_of_eight(sums, panels[p], q)
            for i in range(n):
                g = q[i, : stop - start]
                pull_between(g, w1_sum[i], centre[p], at[i], cell, start, pull[i], stress[i])
        for i in range(n):
            energy[first + i] = energies[i] + shift
            collect(pull[i], stress[i], forces[first + i], virial[first + i])
    return total


@compiled
def small_group(
    centre: Floats,
    transform: tuple[Ints, Ints, Floats],
    xa: Numbers,
    known: Floats,
    components: Ints,
    sectors: Sectors,
    sigma: float,
    task: Task,
) -> float:
    """Evaluate as :func:`direct`, for a small group of permutations.

    ``transform`` is (starts, entries, basis): Fourier coefficient c is the sum of
    ``basis[k] · q[entries[k]]`` over k from ``starts[c]``. The rest is as in
    :func:`group_sum`.
    """
    starts, entries, basis = transform
    positions, cell, scale, shift, energy, forces, virial = task
    n_desc, n_coefficients = len(centre), len(starts) - 1
    descriptor, g = np.empty((1, n_desc)), np.empty((1, n_desc))
    coefficients, slopes = aligned(1, n_coefficients), aligned(1, n_coefficients)
    sums = np.empty((2, 1))
    total = 0.0
    for b in range(len(positions)):
        here = slice(b, b + 1)
        total += pair_distances(positions[here], cell, descriptor)
        query = descriptor[0] - centre
        for c in range(n_coefficients):
            coefficient = 0.0
            for k in range(starts[c], starts[c + 1]):
                coefficient += basis[k] * query[entries[k]]
            coefficients[0, c] = coefficient
        slopes[:] = 0.0
        sums[:] = 0.0
        group_sum(coefficients, xa, known, components, sectors, sigma, slopes, sums)
        energy[b] = scale * sums[0, 0] + shift
        g[0] = scale * sums[1, 0] * query
        for c in range(n_coefficients):
            slope = scale * slopes[0, c]
            for k in range(starts[c], starts[c + 1]):
                g[0, entries[k]] += basis[k] * slope
        pull_back(g, positions[here], cell, descriptor, forces[here], virial[here])
    return total
