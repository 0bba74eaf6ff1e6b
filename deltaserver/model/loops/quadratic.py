"""A quadratic form, representation by representation, as compiled loops.

See :mod:`deltaserver.model.linear.quadratic_form`.

Sixteen geometries go by at once, side by side in vectors, so that every matrix is read once for all
of them and what comes between stays in a core's second cache.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled
from deltaserver.model.loops import eights
from deltaserver.model.loops.eights import add_place, apart, everywhere, load, root, store
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


@compiled
def distance_products(
    x: Floats,
    distances: tuple[Ints, Ints, Ints, Ints],
    functions: tuple[Floats, Ints, Floats],
    bases: tuple[Basis, Basis],
    blocks: tuple[Ints, Ints, Floats],
    results: tuple[Floats, Floats, Floats],
) -> None:
    """Fill energies (B,), forces (B, N, 3) and virials (B, 3, 3) of x (B, N, 3).

    y are functions of distances between fragments, x those within less their means: atoms i and j
    of the first (I,), then of the second (W,), both orbit by orbit. ``functions`` is (decays,
    multiples, means): decays that are one more multiple of the first than the one before are its
    product with the first, others an exponential of their own.
    """
    energy, forces, virial = results
    between, within = bases
    decays, n_y, n_x = functions[0], len(functions[0]) * len(distances[0]), len(distances[2])
    n_atoms = x.shape[1]
    y, slope = aligned(1, n_y * LANES)[0], aligned(1, n_y * LANES)[0]
    rows, scratch = aligned(1, n_y * LANES)[0], aligned(1, max(n_y, n_x) * LANES)[0]
    others, more = aligned(1, n_x * LANES)[0], aligned(1, n_x * LANES)[0]
    pulls, total = aligned(1, n_x * LANES)[0], aligned(1, LANES)[0]
    at, pull = aligned(2, 3 * n_atoms * HALF), aligned(2, 3 * n_atoms * HALF)
    stress = aligned(1, 6 * HALF)[0]
    for start in range(0, len(x), LANES):
        n = min(LANES, len(x) - start)
        eights.gather(x[start : start + HALF], at[0])
        # Of eight or fewer the second half is a copy that nobody reads.
        eights.gather(x[min(start + HALF, start + n - 1) : start + LANES], at[1])
        for h in range(2):
            _functions(at[h], HALF * h, distances, functions, y, more)
        _to_rows(more, within, scratch, others)
        _to_rows(y, between, scratch, rows)
        pulls[:] = 0.0
        total[:] = 0.0
        _multiply(rows, others, blocks, (slope, scratch, pulls, total))
        _from_rows(slope, between, scratch, rows)
        _from_rows(pulls, within, scratch, more)
        pull[:] = 0.0
        for h in range(2):
            _forces(at[h], HALF * h, distances, decays, (y, rows, more), pull[h])
            eights.fill_stress(at[h], pull[h], stress)
            for lane in range(min(HALF, n - HALF * h)):
                to = start + HALF * h + lane
                energy[to] = total[HALF * h + lane]
                eights.spread(pull[h], lane, 1.0, forces[to])
                eights.spread_stress(stress, lane, virial[to])


@partial(compiled, allocates=False)
def _between(at: Floats, i: int, j: int) -> tuple[Any, Any, Any, Any]:
    """Return the displacement of two atoms of eight geometries, and its length."""
    dx, dy, dz, square = apart(at, i, j)
    return dx, dy, dz, root(square)


@partial(compiled, allocates=False)
def _functions(
    at: Floats,
    half: int,
    distances: tuple[Ints, Ints, Ints, Ints],
    functions: tuple[Floats, Ints, Floats],
    y: Floats,
    more: Floats,
) -> None:
    """Fill eight of the sixteen columns of y and of ``more``."""
    i, j, k, m = distances
    decays, multiples, means = functions
    for p in range(len(i)):
        r = _between(at, i[p], j[p])[3]
        one = term = eights.exponential(r * -decays[0])
        for f in range(len(decays)):
            if f > 0 and multiples[f] == multiples[f - 1] + 1 and multiples[f] > 1:
                term = term * one
            elif f > 0:
                term = eights.exponential(r * -decays[f])
            store(y, (f * len(i) + p) * LANES + half, term)
    for p in range(len(k)):
        store(more, p * LANES + half, _between(at, k[p], m[p])[3] - means[p])


@partial(compiled, allocates=False)
def _forces(
    at: Floats,
    half: int,
    distances: tuple[Ints, Ints, Ints, Ints],
    decays: Floats,
    slopes: tuple[Floats, Floats, Floats],
    pull: Floats,
) -> None:
    """Add forces (n, 3, 8) of y, its slopes and those of the distances within."""
    i, j, k, m = distances
    y, by_y, by_more = slopes
    for p in range(len(i)):
        dx, dy, dz, r = _between(at, i[p], j[p])
        along = everywhere(0.0)
        for f in range(len(decays)):
            here = (f * len(i) + p) * LANES + half
            along = along + load(y, here) * load(by_y, here) * decays[f]
        along = along / r
        x, y_, z = along * dx, along * dy, along * dz
        add_place(pull, i[p], 1.0, x, y_, z)
        add_place(pull, j[p], -1.0, x, y_, z)
    for p in range(len(k)):
        dx, dy, dz, r = _between(at, k[p], m[p])
        along = load(by_more, p * LANES + half) / r
        x, y_, z = along * dx, along * dy, along * dz
        add_place(pull, k[p], -1.0, x, y_, z)
        add_place(pull, m[p], 1.0, x, y_, z)


@partial(compiled, allocates=False)
def _to_rows(values: Floats, basis: Basis, scratch: Floats, turned: Floats) -> None:
    """Fill turned (n · 16,) with rows in the new basis of values (n · 16,), orbit by orbit."""
    order, kinds, _, transposed, take = basis
    for part in range(len(take) // len(order)):
        _change_basis(values, part * len(order), kinds, transposed, scratch)
    for row in range(len(take)):
        for lane in range(0, LANES, HALF):
            store(turned, row * LANES + lane, load(scratch, take[row] * LANES + lane))


@partial(compiled, allocates=False)
def _from_rows(turned: Floats, basis: Basis, scratch: Floats, values: Floats) -> None:
    """Fill values (n · 16,): the inverse of :func:`_to_rows`, and its adjoint."""
    order, kinds, straight, _, take = basis
    for row in range(len(take)):
        for lane in range(0, LANES, HALF):
            store(scratch, take[row] * LANES + lane, load(turned, row * LANES + lane))
    for part in range(len(take) // len(order)):
        _change_basis(scratch, part * len(order), kinds, straight, values)


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
