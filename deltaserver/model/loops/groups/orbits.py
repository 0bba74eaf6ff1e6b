"""Compiled ways from positions into a group's Fourier space, and from slopes there to forces.

Of a model whose descriptor may be weighted by fragments, and whose share may fade out: see
:mod:`deltaserver.model.kernel.ways`. Pairs of atoms go by in runs of consecutive j of one i, which
become vector instructions. The change of basis takes orbits of one kind together. Zeros fill rows
up to sixteen numbers: an orbit's values, or, where there are more orbits than values, all orbits'
first values, then all their second ones.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled
from deltaserver.model.loops.groups.sums import Sectors, group_sum
from deltaserver.model.loops.molecules import smooth_step
from deltaserver.model.loops.pairs import _nearest_image, add_stress, axes, collect
from deltaserver.model.loops.sum import aligned
from deltaserver.model.loops.vectors import EIGHT, products

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Numbers = NDArray[np.floating[Any]]
# Runs (i, first j, length) of pairs; of every pair its weight, its centre and whether it is one of
# two fragments.
Pairs = tuple[Ints, Floats, Floats, Floats]
# Where every pair's value is among the rows; (start, points, stride of rows, orbits, place of the
# basis, whether orbits lie side by side) of every kind; bases and their transposes, flat; where
# each number of Fourier space is among the rows, and where in Fourier space that is.
Basis = tuple[Ints, Ints, Floats, Floats, Ints, Ints]
Points = tuple[Numbers, Floats, Ints, Sectors]
Task = tuple[Floats, Floats | None, float, float, Floats, Floats, Floats]  # see loops.evaluate

POWER = 12  # of the smooth shortest distance, as in model.fragment_blocks


@compiled
def by_orbits(
    pairs: Pairs, basis: Basis, reach: Floats, points: Points, sigma: float,
    more: tuple[Floats, Floats], task: Task,
) -> float:  # fmt: skip
    """Evaluate geometries (B, N, 3), all three steps in one call; see ``loops.evaluate.direct``.

    ``more`` is what :func:`to_forces` takes of energies from elsewhere (B,), and s (B,), which is
    filled; ``points`` what :func:`group_sum` takes of the training points.
    """
    positions, cell, scale, shift, energy, forces, virial = task
    xa, known, components, sectors = points
    n_batch, width = len(positions), xa.shape[1]
    inverse = aligned(n_batch, len(pairs[1]))
    queries, slopes = aligned(n_batch, width), aligned(n_batch, width)
    sums = np.zeros((2, n_batch))
    total: float = to_queries(positions, cell, pairs, basis, inverse, queries)
    group_sum(queries, xa, known, components, sectors, sigma, slopes, sums)
    results = (energy, forces, virial, more[1])
    to_forces(
        positions, cell, pairs, basis, inverse, (slopes, sums), (scale, shift, more[0], reach),
        results,
    )  # fmt: skip
    return total


@compiled
def to_queries(
    positions: Floats, cell: Floats | None, pairs: Pairs, basis: Basis, inverse: Floats,
    queries: Floats,
) -> float:  # fmt: skip
    """Fill 1/r of pairs (B, P) and queries (B, W) of positions (B, N, 3).

    Returns the sum of all 1/r: not finite where atoms coincide or a position is not finite.
    """
    runs, weights, centre, _ = pairs
    place, kinds, straight, _, rows, columns = basis
    size = _size(kinds)
    values, mixed = aligned(2, size)
    at = np.empty((3, positions.shape[1]))
    total = 0.0
    for b in range(len(positions)):
        total += axes(positions[b], at)
        total += _distances(at, cell, runs, inverse[b])
        for p in range(len(place)):
            values[place[p]] = weights[p] * inverse[b, p] - centre[p]
        _change_basis(values, kinds, straight, mixed)
        for k in range(len(rows)):
            queries[b, columns[k]] = mixed[rows[k]]
    return total


@compiled
def to_forces(
    positions: Floats, cell: Floats | None, pairs: Pairs, basis: Basis, inverse: Floats,
    found: tuple[Floats, Floats], task: tuple[float, float, Floats, Floats],
    results: tuple[Floats, Floats, Floats, Floats],
) -> None:  # fmt: skip
    """Fill energies (B,), forces (B, N, 3), virials (B, 3, 3) and s (B,).

    ``found`` is what ``group_sum`` gives for the queries: slopes (B, W) and sums (2, B). ``task``
    is (scale, shift, more, reach): E = s · (scale · sum + shift + more), ``more`` (B,). ``reach``
    is empty, or over which ρ the share s rises, and over which it falls, (4,).
    """
    runs, weights, centre, _ = pairs
    place, kinds, _, transposed, rows, columns = basis
    slopes, sums = found
    scale, shift, more, reach = task
    energy, forces, virial, share = results
    values, mixed = aligned(2, _size(kinds))
    g = aligned(1, len(place))[0]
    at, pull, stress = np.empty((3, forces.shape[1])), np.empty((3, forces.shape[1])), np.empty(6)
    for b in range(len(positions)):
        for k in range(len(rows)):
            mixed[rows[k]] = slopes[b, columns[k]]
        _change_basis(mixed, kinds, transposed, values)
        energy[b], share[b] = scale * sums[0, b] + shift + more[b], 1.0
        for p in range(len(place)):
            query = weights[p] * inverse[b, p] - centre[p]
            g[p] = scale * weights[p] * (sums[1, b] * query + values[place[p]])
        if len(reach) > 0:
            share[b] = _fade(energy[b], inverse[b], pairs, reach, g)
            energy[b] *= share[b]
        pull[:] = 0.0
        stress[:] = 0.0
        axes(positions[b], at)
        _pull(g, inverse[b], at, cell, runs, pull, stress)
        collect(pull, stress, forces[b], virial[b])


@partial(compiled, allocates=False)
def _size(kinds: Ints) -> int:
    """Return how many numbers all values take, and one row beyond them, for pairs of no weight."""
    start, points, stride, orbits, _, abreast = kinds[-1]
    return int(start + stride * (points if abreast else orbits) + 2 * EIGHT)


@partial(compiled, allocates=False)
def _change_basis(values: Floats, kinds: Ints, matrices: Floats, changed: Floats) -> None:
    """Multiply the values of every orbit, kind by kind, with the kind's matrix from the right."""
    for kind in range(len(kinds)):
        start, points, stride, orbits, place, abreast = kinds[kind]
        if abreast:
            for orbit in range(0, stride, 2 * EIGHT):
                products(
                    points, values, start + orbit, stride, EIGHT, matrices, place, points, points,
                    changed, start + orbit, stride, EIGHT,
                )  # fmt: skip
        else:
            for column in range(0, stride, 2 * EIGHT):
                products(
                    orbits, matrices, place + column, stride, EIGHT, values, start, stride, points,
                    changed, start + column, stride, EIGHT,
                )  # fmt: skip


@partial(compiled, allocates=False)
def _distances(at: Floats, cell: Floats | None, runs: Ints, inverse: Floats) -> float:
    """Fill 1/r of all pairs, and return their sum."""
    x, y, z = at[0], at[1], at[2]
    total, start = 0.0, 0
    for run in range(len(runs)):
        i, first, n = runs[run]
        to = inverse[start : start + n]
        xj, yj, zj = x[first : first + n], y[first : first + n], z[first : first + n]
        xi, yi, zi = x[i], y[i], z[i]
        for j in range(n):
            dx, dy, dz = xi - xj[j], yi - yj[j], zi - zj[j]
            if cell is not None:
                dx, dy, dz = _nearest_image(dx, dy, dz, cell)
            to[j] = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
            total += to[j]
        start += n
    return total


@partial(compiled, allocates=False)
def _pull(
    g: Floats, inverse: Floats, at: Floats, cell: Floats | None, runs: Ints, pull: Floats,
    stress: Floats,
) -> None:  # fmt: skip
    """Add Jᵀg of all pairs to pull (3, N), and Σ c d ⊗ d, c = g/r³, to stress (6,)."""
    x, y, z = at[0], at[1], at[2]
    xx = xy = xz = yy = yz = zz = 0.0
    start = 0
    for run in range(len(runs)):
        i, first, n = runs[run]
        slopes, known = g[start : start + n], inverse[start : start + n]
        xj, yj, zj = x[first : first + n], y[first : first + n], z[first : first + n]
        to_x, to_y = pull[0, first : first + n], pull[1, first : first + n]
        to_z = pull[2, first : first + n]
        xi, yi, zi = x[i], y[i], z[i]
        fx = fy = fz = 0.0
        for j in range(n):
            dx, dy, dz = xi - xj[j], yi - yj[j], zi - zj[j]
            if cell is not None:
                dx, dy, dz = _nearest_image(dx, dy, dz, cell)
            c = slopes[j] * known[j] * known[j] * known[j]
            cx, cy, cz = c * dx, c * dy, c * dz
            to_x[j] += cx
            to_y[j] += cy
            to_z[j] += cz
            fx += cx
            fy += cy
            fz += cz
            xx += cx * dx
            xy += cx * dy
            xz += cx * dz
            yy += cy * dy
            yz += cy * dz
            zz += cz * dz
        pull[0, i] -= fx
        pull[1, i] -= fy
        pull[2, i] -= fz
        start += n
    add_stress(stress, xx, xy, xz, yy, yz, zz)


@partial(compiled, allocates=False)
def _fade(energy: float, inverse: Floats, pairs: Pairs, reach: Floats, g: Floats) -> float:
    """Turn g = −∂E/∂D of pairs into −∂(s E)/∂D, and return s: see ``model.fragment_blocks``."""
    between = pairs[3]
    largest = total = 0.0
    for p in range(len(between)):
        largest = max(largest, between[p] * inverse[p])
    for p in range(len(between)):
        ratio = between[p] * inverse[p] / largest
        square = ratio * ratio
        sixth = square * square * square
        total += sixth * sixth
    rho = total ** (-1.0 / POWER) / largest
    rise, rises = smooth_step(rho, reach[0], reach[1])
    fall, falls = smooth_step(rho, reach[2], reach[3])
    share: float = rise * (1.0 - fall)
    towards = (rises * (1.0 - fall) - rise * falls) * energy * rho * rho
    for p in range(len(between)):
        ratio = rho * inverse[p]
        square = ratio * ratio
        fifth = square * square * ratio
        g[p] = share * g[p] + between[p] * towards * fifth * fifth * ratio
    return share
