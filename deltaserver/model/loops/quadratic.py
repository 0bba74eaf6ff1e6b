"""A quadratic form, representation by representation, as compiled loops.

See :mod:`deltaserver.model.linear.quadratic_form`.

Sixteen geometries go by at once, side by side in vectors, so that every matrix is read once for all
of them and what comes between stays in a core's second cache.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled
from deltaserver.model.loops.sum import aligned
from deltaserver.model.loops.vectors import products

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LANES, HALF = 16, 8
# Of one of the two changes of basis: entries orbit by orbit; (start, points, orbits, place of its
# basis) of every kind of orbit; the bases and their transposes, flat; where each row of the new
# basis is taken from.
Basis = tuple[Ints, Ints, Floats, Floats, Ints]


@compiled
def quadratic_form(
    y: Floats,
    x: Floats,
    bases: tuple[Basis, Basis],
    blocks: tuple[Ints, Ints, Floats],
    results: tuple[Floats, Floats, Floats],
) -> None:
    """Fill energies (B,) and slopes (B, K·I) and (B, W) of y (B, K·I) and x (B, W).

    ``blocks`` is rows (first row, d, size, place of A), couplings (block, first row of x, copies,
    place of M, place of Mᵀ), and all matrices, flat.
    """
    energy, slope, pull = results
    between, within = bases
    n_y, n_x = y.shape[1], x.shape[1]
    scratch = aligned(4, max(n_y, n_x) * LANES)
    first, second, steep = scratch[0], scratch[1], scratch[2]
    others, pulls = aligned(1, n_x * LANES)[0], aligned(1, n_x * LANES)[0]
    along, total = aligned(1, n_y * LANES)[0], aligned(1, LANES)[0]
    for start in range(0, len(y), LANES):
        n = min(LANES, len(y) - start)
        _turn(x[start : start + n], within, first, second, others)
        _turn(y[start : start + n], between, first, second, steep)
        pulls[:] = 0.0
        total[:] = 0.0
        _multiply(steep, others, blocks, (first, along, pulls, total))
        for lane in range(n):
            energy[start + lane] = total[lane]
        _turn_back(first, between, second, steep, slope[start : start + n])
        _turn_back(pulls, within, second, steep, pull[start : start + n])


@partial(compiled, allocates=False)
def _change_basis(rows: Floats, shift: int, kinds: Ints, matrices: Floats, changed: Floats) -> None:
    """Multiply the part of rows from ``shift`` on, orbit by orbit, with its kind's matrix."""
    for k in range(len(kinds)):
        start, points, orbits, place = kinds[k]
        for orbit in range(orbits):
            here = (shift + start + orbit * points) * LANES
            products(
                points, rows, here, LANES, HALF, matrices, place, points, points,
                changed, here, LANES, HALF,
            )  # fmt: skip


@partial(compiled, allocates=False)
def _turn(values: Floats, basis: Basis, first: Floats, second: Floats, turned: Floats) -> None:
    """Fill turned (n · 16,) with rows in the new basis of values (≤ 16, n)."""
    order, kinds, _, transposed, gather = basis
    size = len(order)
    for part in range(values.shape[1] // size):
        shift = part * size
        for lane in range(LANES):
            if lane < len(values):
                for t in range(size):
                    first[(shift + t) * LANES + lane] = values[lane, shift + order[t]]
            else:
                for t in range(size):
                    first[(shift + t) * LANES + lane] = 0.0
        _change_basis(first, shift, kinds, transposed, second)
    for row in range(len(gather)):
        for lane in range(LANES):
            turned[row * LANES + lane] = second[gather[row] * LANES + lane]


@partial(compiled, allocates=False)
def _turn_back(turned: Floats, basis: Basis, first: Floats, second: Floats, values: Floats) -> None:
    """Fill values (≤ 16, n): the inverse of :func:`_turn`, and its adjoint."""
    order, kinds, straight, _, gather = basis
    size = len(order)
    for row in range(len(gather)):
        for lane in range(LANES):
            first[gather[row] * LANES + lane] = turned[row * LANES + lane]
    for part in range(values.shape[1] // size):
        shift = part * size
        _change_basis(first, shift, kinds, straight, second)
        for lane in range(len(values)):
            for t in range(size):
                values[lane, shift + order[t]] = second[(shift + t) * LANES + lane]


@partial(compiled, allocates=False)
def _multiply(
    rows: Floats,
    others: Floats,
    blocks: tuple[Ints, Ints, Floats],
    results: tuple[Floats, Floats, Floats, Floats],
) -> None:
    """Fill the slopes of rows, add those of others and the energies, block by block."""
    parts, couplings, matrices = blocks
    slope, along, pulls, total = results
    for b in range(len(parts)):
        first, dim, size, place = parts[b]
        for a in range(dim):
            here = (first + a * size) * LANES
            products(
                size, rows, here, LANES, HALF, matrices, place, size, size, slope, here, LANES,
                HALF,
            )  # fmt: skip
            for t in range(size):
                for lane in range(LANES):
                    at = here + t * LANES + lane
                    total[lane] += 0.5 * rows[at] * slope[at]
    for c in range(len(couplings)):
        b, start, copies, place, transposed = couplings[c]
        first, dim, size, _ = parts[b]
        for a in range(dim):
            here, there = (first + a * size) * LANES, (start + a * copies) * LANES
            products(
                size, others, there, LANES, HALF, matrices, place, copies, copies, along, 0,
                LANES, HALF,
            )  # fmt: skip
            for t in range(size):
                for lane in range(LANES):
                    at = here + t * LANES + lane
                    total[lane] += rows[at] * along[t * LANES + lane]
                    slope[at] += along[t * LANES + lane]
            products(
                copies, rows, here, LANES, HALF, matrices, transposed, size, size, along, 0,
                LANES, HALF,
            )  # fmt: skip
            for t in range(copies * LANES):
                pulls[there + t] += along[t]
