"""The kernel sum over a group of permutations as compiled loops; see ``groups.fourier``.

Training points go by in eights, as sixteen rows: eight x, eight a, which lie side by side in
vectors. They are read from memory once: when they are needed again, with their weights known, they
are still in a core's second cache. What is brought from memory ahead of that, while the weights
are worked out, costs more than it saves: it was tried.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled
from deltaserver.model.loops.eights import everywhere, exponential, larger, load, root, store
from deltaserver.model.loops.groups.blocks import block_products, block_pulls
from deltaserver.model.loops.sum import aligned
from deltaserver.model.loops.vectors import products, pulls

Floats = NDArray[np.float64]
Numbers = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]

# Of model.groups.inversion: forth, back, counts, alone, pairs; and signs (n_centre, n_sectors).
Sectors = tuple[Floats, Floats, Ints, Ints, Ints, Floats]
FlatSectors = Sectors  # with forth and back flat
Shape = tuple[int, int, int]  # K numbers of a sector, P + Q rows of its table, P pairs of cosets

POINTS = 8  # at a time
ROWS = 2 * POINTS
ROOT = math.sqrt(0.5)


@partial(compiled, allocates=False)
def _correlate(rows: Numbers, query: Floats, components: Ints, z: Floats) -> None:
    """Fill z (n_elements · 16,) with Z_ab = Σ_i X_ai Y_bi of sixteen rows X and a query Y."""
    for c in range(len(components)):
        start, dim, copies, first, n_copies = components[c]
        if dim == 1:
            block_products(rows, start * ROWS, copies, query, start, z, first * ROWS)
            continue
        for a in range(dim):
            products(
                dim, rows, (start + a * copies) * ROWS, ROWS, POINTS, query, start, copies,
                n_copies, z, (first + a * dim) * ROWS, ROWS, POINTS,
            )  # fmt: skip


@partial(compiled, allocates=False)
def _spread(rows: Numbers, w: Floats, components: Ints, g: Floats) -> None:
    """Subtract Σ_a W_ab X_ai of sixteen rows X from g_bi: the adjoint of :func:`_correlate`."""
    for c in range(len(components) - 1, -1, -1):  # the last ones are in the cache
        start, dim, copies, first, _ = components[c]
        if dim == 1:
            block_pulls(rows, start * ROWS, copies, w, first * ROWS, g, start)
            continue
        pulls(rows, start * ROWS, dim, copies, w, first * ROWS, g, start)


@partial(compiled, inline="always")
def _weights(squared: Any, delta_a: Any, alpha: Any, sigma: float) -> tuple[Any, Any, Any]:
    """Return w₁, w₂ and the terms of E of eight points: see ``loops.sum.weights``."""
    rate = 1.0 / sigma
    r = root(larger(squared, everywhere(0.0)) * 5.0)
    base = exponential(r * -rate)
    decay = base * (5.0 / 3.0 * rate * rate * rate)
    w2 = decay * (r + sigma)
    s = r * rate
    matern = base * (s * (s * (1.0 / 3.0) + 1.0) + 1.0)
    return delta_a * decay * (5.0 * rate) + alpha * w2, w2, delta_a * w2 + alpha * matern


@partial(compiled, inline="always")
def _value(at: Floats, signs: Floats, c: int, here: int, n: int) -> tuple[Any, Any]:
    """Return Σ_k signs[c, k] at[k] of x and of a, eight training points."""
    x, a = everywhere(0.0), everywhere(0.0)
    for k in range(signs.shape[1]):
        x = x + load(at, 2 * k * n + here) * signs[c, k]
        a = a + load(at, (2 * k + 1) * n + here) * signs[c, k]
    return x, a


@partial(compiled, inline="always")
def _share_out(weights: Floats, start: int, signs: Floats, here: int, n: int, w: Floats) -> None:
    """Fill w[k] with Σ_c signs[c, k] weights[c]: the adjoint of :func:`_value` of all c."""
    for k in range(signs.shape[1]):
        w1, w2 = everywhere(0.0), everywhere(0.0)
        for c in range(len(signs)):
            w1 = w1 + load(weights, start + c * ROWS) * signs[c, k]
            w2 = w2 + load(weights, start + c * ROWS + POINTS) * signs[c, k]
        store(w, 2 * k * n + here, w1)
        store(w, (2 * k + 1) * n + here, w2)


@partial(compiled, allocates=False)
def _weigh(
    at: Floats, signs: Floats, n_pairs: int, q_squared: float, known: Floats, sigma: float,
    scratch: Floats, w: Floats,
) -> tuple[float, float]:  # fmt: skip
    """Turn the sectors' values (n_sectors, 2, n) of eight training points into weights.

    Element c of the centre times a coset has q_s·x = Σ_k signs[c, k] at[k, 0], q_s·a likewise; w
    gets the adjoint of that. Values of ``n_pairs`` cosets and their inverses come as u and v, the
    first and the last of n. ``known`` (3, 8), ``scratch`` (2 n_centre + 1, 2, 8), ``at`` and ``w``
    are flat. Returns the points' E and Σ w₁.
    """
    n_centre, n = len(signs), len(at) // (2 * signs.shape[1])
    both, shift, alphas = load(known, 0) + q_squared, load(known, POINTS), load(known, ROWS)
    energy, w1_sum = everywhere(0.0), everywhere(0.0)
    end, last = n_centre * ROWS, n - n_pairs * POINTS
    for here in range(0, last, POINTS):
        paired = here < n_pairs * POINTS
        for c in range(n_centre):
            x, a = _value(at, signs, c, here, n)
            if paired:
                more_x, more_a = _value(at, signs, c, last + here, n)
                other = both - (x - more_x) * 2.0, a - more_a - shift
                x, a = x + more_x, a + more_a
            w1, w2, term = _weights(both - x * 2.0, a - shift, alphas, sigma)
            energy, w1_sum = energy + term, w1_sum + w1
            if paired:
                u1, u2, term = _weights(other[0], other[1], alphas, sigma)
                energy, w1_sum = energy + term, w1_sum + u1
                store(scratch, end + c * ROWS, w1 - u1)
                store(scratch, end + c * ROWS + POINTS, w2 - u2)
                w1, w2 = w1 + u1, w2 + u2
            store(scratch, c * ROWS, w1)
            store(scratch, c * ROWS + POINTS, w2)
        _share_out(scratch, 0, signs, here, n, w)
        if paired:
            _share_out(scratch, end, signs, last + here, n, w)
    store(scratch, 0, energy)
    store(scratch, POINTS, w1_sum)
    return scratch[:POINTS].sum(), scratch[POINTS:ROWS].sum()


@partial(compiled, allocates=False)
def _turn(z: Floats, alone: Ints, pairs: Ints, back: int, y: Floats) -> None:
    """Fill y with what is symmetric and antisymmetric in matrix elements z, of sixteen rows.

    With ``back`` 1 in place of 0 the other way, from these to matrix elements: the inverse, and the
    adjoint.
    """
    here, there = 2 * back, 2 - 2 * back
    for k in range(len(alone)):
        for lane in range(0, ROWS, POINTS):
            store(y, alone[k, 1 - back] * ROWS + lane, load(z, alone[k, back] * ROWS + lane))
    for k in range(len(pairs)):
        for lane in range(0, ROWS, POINTS):
            one = load(z, pairs[k, here] * ROWS + lane)
            other = load(z, pairs[k, here + 1] * ROWS + lane)
            store(y, pairs[k, there] * ROWS + lane, (one + other) * ROOT)
            store(y, pairs[k, there + 1] * ROWS + lane, (one - other) * ROOT)


@partial(compiled, allocates=False)
def _to_values(y: Floats, forth: Floats, shape: Shape, counts: Ints, at: Floats) -> None:
    """Fill the values at all cosets (n_sectors, 2, n) of y (n_sectors, K, 16)."""
    length, n_rows, n_pairs = shape
    n = (n_rows + n_pairs) * POINTS
    n_own, table = n_rows - n_pairs, n_rows * length
    for k in range(len(counts)):
        n_even, n_odd, n_both, _ = counts[k]
        y_at, to = k * length * ROWS, 2 * k * n
        products(
            n_own, y, y_at, ROWS, POINTS, forth, k * table + n_pairs * length, length, n_both,
            at, to + n_pairs * POINTS, POINTS, n,
        )  # fmt: skip
        if n_pairs == 0:
            continue
        products(
            n_pairs, y, y_at, ROWS, POINTS, forth, k * table, length, n_even, at, to, POINTS, n
        )  # fmt: skip
        products(
            n_pairs, y, y_at + n_even * ROWS, ROWS, POINTS, forth, k * table + n_even, length,
            n_odd, at, to + n_rows * POINTS, POINTS, n,
        )  # fmt: skip


@partial(compiled, allocates=False)
def _from_values(w: Floats, back: Floats, shape: Shape, counts: Ints, y: Floats) -> None:
    """Fill y (n_sectors, K, 16) of weights (n_sectors, 2, n): the adjoint of the above."""
    length, n_rows, n_pairs = shape
    n, table = (n_rows + n_pairs) * POINTS, n_rows * length
    for k in range(len(counts)):
        n_even, n_odd, n_both, _ = counts[k]
        y_at, at = k * length * ROWS, 2 * k * n
        skipped = 0 if n_both > n_even else n_rows - n_pairs
        products(
            n_even, w, at, POINTS, n, back, k * table, n_rows, n_rows, y, y_at, ROWS, POINTS
        )  # fmt: skip
        if n_odd == 0:
            continue
        products(
            n_odd, w, at + (n_pairs + skipped) * POINTS, POINTS, n, back,
            k * table + n_even * n_rows + skipped, n_rows, n_rows - skipped,
            y, y_at + n_even * ROWS, ROWS, POINTS,
        )  # fmt: skip


@partial(compiled, allocates=False)
def _eight_points(
    rows: Numbers, query: Floats, known: Floats, components: Ints, sectors: FlatSectors,
    shape: Shape, sigma: float, buffers: tuple[Floats, Floats, Floats, Floats, Floats], g: Floats,
) -> tuple[float, float]:  # fmt: skip
    """Return E and Σ w₁ of eight training points and a query, and subtract the rest from g."""
    forth, back, counts, alone, pairs, signs = sectors
    z, y, at, w, scratch = buffers
    q_squared = 0.0
    for k in range(len(query)):
        q_squared += query[k] * query[k]
    _correlate(rows, query, components, z)
    if shape[0] * shape[1] == 1:  # a value at the identity is its matrix element
        energy, w1 = _weigh(z, signs, 0, q_squared, known, sigma, scratch, z)
    else:
        if shape[2]:
            _turn(z, alone, pairs, 0, y)
        _to_values(y, forth, shape, counts, at)
        energy, w1 = _weigh(at, signs, shape[2], q_squared, known, sigma, scratch, w)
        _from_values(w, back, shape, counts, y)
        if shape[2]:
            _turn(y, alone, pairs, 1, z)
    _spread(rows, z, components, g)
    return energy, w1


@compiled
def group_sum(
    queries: Floats,
    xa: Numbers,
    known: Floats,
    components: Ints,
    sectors: Sectors,
    sigma: float,
    g: Floats,
    sums: Floats,
) -> None:
    """Sum over training points and a group, sector by sector of its centre.

    For queries (B, W) in Fourier space at once: what is read serves all of them. ``xa`` (G, W, 16)
    holds eight x, then eight a, in Fourier space too, in either precision, row by row and copy by
    copy of each component, those of one dimension as ``loops.groups.blocks`` has it; ``known``
    (G, 24) the points' |x|², x·a and coefficients of energies, ``components`` (start, dim, copies,
    first matrix element, copies that are not zeros) of each; ``sectors`` as in
    :mod:`deltaserver.model.groups.inversion`. Points of zeros, which fill the last eight, add
    nothing. Subtracts Σ (w₁ x + w₂ a) from g (B, W), adds energies, and Σ w₁, which is what q has
    to be multiplied by, to the rows of ``sums`` (2, B).
    """
    forth, back, counts, alone, pairs, signs = sectors
    n_sectors, n_rows, length = forth.shape
    shape = (length, n_rows, counts[0, 3])
    n = (n_rows + counts[0, 3]) * POINTS
    z, numbers = aligned(2, n_sectors * length * ROWS)
    y = numbers if shape[2] else z  # without pairs the numbers are the matrix elements
    at, w = aligned(2, 2 * n_sectors * n)
    scratch = aligned(1, 2 * len(signs) * ROWS)[0]
    tables = (forth.reshape(-1), back.reshape(-1), counts, alone, pairs, signs)
    buffers = (z, y, at, w, scratch)
    for group in range(len(xa)):
        rows = xa[group].reshape(-1)
        for b in range(len(queries)):
            energy, w1 = _eight_points(
                rows, queries[b], known[group], components, tables, shape, sigma, buffers, g[b]
            )
            sums[0, b] += energy
            sums[1, b] += w1
