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
from deltaserver.model.loops.blocks import block_products, block_pulls
from deltaserver.model.loops.eights import everywhere, exponential, larger, load, root, store
from deltaserver.model.loops.sum import aligned
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


@partial(compiled, allocates=False)
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
    """Turn the sectors' values (n_sectors, 2, P, 8) of eight training points into weights.

    Element c of the centre times coset p has q_s·x = Σ_k signs[c, k] at[k, 0, p], q_s·a likewise;
    w gets the adjoint of that. ``known`` (3, 8) and ``scratch`` (n_centre + 1, 2, 8), and ``at``
    and ``w``, are flat. Returns the points' E and Σ w₁.
    """
    n_centre, n_sectors = signs.shape
    n = len(at) // (2 * n_sectors)
    both, shift, alphas = load(known, 0) + q_squared, load(known, POINTS), load(known, ROWS)
    energy, w1_sum = everywhere(0.0), everywhere(0.0)
    for p in range(0, n, POINTS):
        for c in range(n_centre):
            at_x, at_a = everywhere(0.0), everywhere(0.0)
            for k in range(n_sectors):
                at_x = at_x + load(at, 2 * k * n + p) * signs[c, k]
                at_a = at_a + load(at, (2 * k + 1) * n + p) * signs[c, k]
            w1, w2, term = _weights(both - at_x * 2.0, at_a - shift, alphas, sigma)
            energy, w1_sum = energy + term, w1_sum + w1
            store(scratch, c * ROWS, w1)
            store(scratch, c * ROWS + POINTS, w2)
        for k in range(n_sectors):
            w1s, w2s = everywhere(0.0), everywhere(0.0)
            for c in range(n_centre):
                w1s = w1s + load(scratch, c * ROWS) * signs[c, k]
                w2s = w2s + load(scratch, c * ROWS + POINTS) * signs[c, k]
            store(w, 2 * k * n + p, w1s)
            store(w, (2 * k + 1) * n + p, w2s)
    end = n_centre * ROWS
    store(scratch, end, energy)
    store(scratch, end + POINTS, w1_sum)
    return scratch[end : end + POINTS].sum(), scratch[end + POINTS : end + ROWS].sum()


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
    copy of each component; ``known`` (G, 24) the points' |x|², x·a and coefficients of energies,
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
    plain = table == 1  # a value at the identity is its matrix element
    at, w = aligned(1, 2 * n_sectors * n)[0], aligned(1, 2 * n_sectors * n)[0]
    scratch = aligned(1, (len(signs) + 1) * ROWS)[0]
    forth, back = values.reshape(-1), transposed.reshape(-1)
    q_squared = np.empty(n_batch)
    for b in range(n_batch):
        q_squared[b] = (queries[b] * queries[b]).sum()
    for group in range(len(xa)):
        rows = xa[group].reshape(-1)
        for b in range(n_batch):
            elements = z[b]
            _correlate(rows, queries[b], components, elements)
            if plain:
                energy, w1 = _weigh(
                    elements, signs, q_squared[b], known[group], sigma, scratch, elements
                )
            else:
                for k in range(n_sectors):
                    products(
                        n_cosets, elements, k * n_elements * ROWS, ROWS, POINTS, forth, k * table,
                        n_elements, n_elements, at, 2 * k * n, POINTS, n,
                    )  # fmt: skip
                energy, w1 = _weigh(at, signs, q_squared[b], known[group], sigma, scratch, w)
                for k in range(n_sectors):
                    products(
                        n_elements, w, 2 * k * n, POINTS, n, back, k * table, n_cosets, n_cosets,
                        elements, k * n_elements * ROWS, ROWS, POINTS,
                    )  # fmt: skip
            sums[0, b] += energy
            sums[1, b] += w1
            _spread(rows, elements, components, g[b])
