"""The kernel sum over a group of permutations as compiled loops; see ``groups.fourier``.

Training points go by in eights, as sixteen rows: eight x, eight a, which lie side by side in
vectors. They are read from memory once: when they are needed again, with their weights known, they
are still in a core's second cache. What is brought from memory ahead of that, while the weights
are worked out, costs more than it saves: it was tried.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled
from deltaserver.model.loops.sum import aligned, weights
from deltaserver.model.loops.vectors import products, pulls

Floats = NDArray[np.float64]
Numbers = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]

POINTS = 8  # at a time
ROWS = 2 * POINTS


@partial(compiled, allocates=False)
def _correlate(rows: Numbers, query: Floats, components: Ints, z: Floats) -> None:
    """Fill z (n_elements · 16,) with Z_ab = Σ_i X_ai Y_bi of sixteen rows X and a query Y."""
    for c in range(len(components)):
        start, dim, copies, first, n_copies = components[c]
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
        pulls(rows, start * ROWS, dim, copies, w, first * ROWS, g, start)


@partial(compiled, allocates=False)
def _weigh(
    at: Floats,
    signs: Floats,
    q_squared: float,
    known: Floats,
    sigma: float,
    scratch: Floats,
    w: Floats,
) -> tuple[float, float]:
    """Turn the sectors' values (n_sectors, 2, 8 P) of eight training points into weights.

    Element c of the centre times coset p has q_s·x = Σ_k signs[c, k] at[k, 0, p], q_s·a likewise;
    w gets the adjoint of that. ``scratch`` is (5, 8 P). Returns the points' E and Σ w₁.
    """
    n = at.shape[2]
    at_x, at_a = scratch[0], scratch[1]
    both, shift, alphas = scratch[2], scratch[3], scratch[4]
    for p in range(0, n, POINTS):
        for i in range(POINTS):
            both[p + i], shift[p + i] = q_squared + known[0, i], known[1, i]
            alphas[p + i] = known[2, i]
    energy = w1_sum = 0.0
    w[:] = 0.0
    for c in range(len(signs)):
        at_x[:] = 0.0
        at_a[:] = 0.0
        for k in range(len(at)):
            x, a, sign = at[k, 0], at[k, 1], signs[c, k]
            for p in range(n):
                at_x[p] += sign * x[p]
                at_a[p] += sign * a[p]
        for p in range(n):
            squared, delta_a = both[p] - 2.0 * at_x[p], at_a[p] - shift[p]
            w1, w2, term = weights(squared, delta_a, alphas[p], sigma)
            energy += term
            w1_sum += w1
            at_x[p], at_a[p] = w1, w2
        for k in range(len(at)):
            w1s, w2s, sign = w[k, 0], w[k, 1], signs[c, k]
            for p in range(n):
                w1s[p] += sign * at_x[p]
                w2s[p] += sign * at_a[p]
    return energy, w1_sum


@compiled
def group_sum(
    queries: Floats,
    xa: Numbers,
    known: Floats,
    components: Ints,
    sectors: tuple[Floats, Floats, Floats],
    sigma: float,
    g: Floats,
    sums: Floats,
) -> None:
    """Sum over training points and a group, sector by sector of its centre.

    For queries (B, W) in Fourier space at once: what is read serves all of them. ``xa`` (G, W, 16)
    holds eight x, then eight a, in Fourier space too, in either precision, row by row and copy by
    copy of each component; ``known`` (3, G, 8) the points' |x|², x·a and coefficients of energies,
    ``components`` (start, dim, copies, first matrix element, copies that are not zeros) of each;
    see :mod:`deltaserver.model.groups.fourier`. Points of zeros, which fill the last eight, add
    nothing. Subtracts Σ (w₁ x + w₂ a) from g (B, W), adds energies, and Σ w₁, which is what q has
    to be multiplied by, to the rows of ``sums`` (2, B). ``sectors`` is (values, transposed,
    signs): matrix elements at the cosets of the centre (n_sectors, P, K), the same as (n_sectors,
    K, P), and those of the centre's elements. The elements' numbers in ``components`` count sectors
    of K.
    """
    values, transposed, signs = sectors
    n_batch = len(queries)
    n_sectors, n_cosets, n_elements = values.shape
    n_all, table = n_sectors * n_elements, n_cosets * n_elements
    z = aligned(n_batch, n_all * ROWS)  # then those of the weights
    n = POINTS * n_cosets
    at = aligned(2 * n_sectors, n).reshape((n_sectors, 2, n))
    w = aligned(2 * n_sectors, n).reshape((n_sectors, 2, n))
    scratch = aligned(5, n)
    flat_at, flat_w = at.reshape(-1), w.reshape(-1)
    forth, back = values.reshape(-1), transposed.reshape(-1)
    q_squared = np.empty(n_batch)
    for b in range(n_batch):
        q_squared[b] = (queries[b] * queries[b]).sum()
    for group in range(len(xa)):
        rows = xa[group].reshape(-1)
        for b in range(n_batch):
            elements = z[b]
            _correlate(rows, queries[b], components, elements)
            for k in range(n_sectors):
                products(
                    n_cosets, elements, k * n_elements * ROWS, ROWS, POINTS, forth, k * table,
                    n_elements, n_elements, flat_at, 2 * k * n, POINTS, n,
                )  # fmt: skip
            energy, w1 = _weigh(at, signs, q_squared[b], known[:, group], sigma, scratch, w)
            sums[0, b] += energy
            sums[1, b] += w1
            for k in range(n_sectors):
                products(
                    n_elements, flat_w, 2 * k * n, POINTS, n, back, k * table, n_cosets, n_cosets,
                    elements, k * n_elements * ROWS, ROWS, POINTS,
                )  # fmt: skip
            _spread(rows, elements, components, g[b])
