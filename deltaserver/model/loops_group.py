"""The kernel sum over a group of permutations as compiled loops; see ``loops`` and ``fourier``.

Training points go by in fours, as eight rows: four x, four a. They are read from memory once:
when they are needed again, with their weights known, they are still in a core's second cache.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from deltaserver.model.jit import compiled
from deltaserver.model.loops_sum import aligned, weights

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@partial(compiled, allocates=False)
def _dots(rows: Floats, queries: Floats, components: Ints, z: Floats) -> None:
    """Fill z (B, n_elements, 8) with Z_ab = Σ_i X_ai Y_bi of eight rows X and queries Y."""
    for c in range(len(components)):
        start, dim, copies, first = components[c]
        for row in range(dim):
            i, j = start + row * copies, start + (row + 1) * copies
            x0, x1, x2, x3 = rows[0, i:j], rows[1, i:j], rows[2, i:j], rows[3, i:j]
            x4, x5, x6, x7 = rows[4, i:j], rows[5, i:j], rows[6, i:j], rows[7, i:j]
            for b in range(len(queries)):
                for col in range(dim):
                    q = queries[b, start + col * copies : start + (col + 1) * copies]
                    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
                    for k in range(copies):
                        s0 += x0[k] * q[k]
                        s1 += x1[k] * q[k]
                        s2 += x2[k] * q[k]
                        s3 += x3[k] * q[k]
                        s4 += x4[k] * q[k]
                        s5 += x5[k] * q[k]
                        s6 += x6[k] * q[k]
                        s7 += x7[k] * q[k]
                    to = z[b, first + row * dim + col]
                    to[0], to[1], to[2], to[3] = s0, s1, s2, s3
                    to[4], to[5], to[6], to[7] = s4, s5, s6, s7


@partial(compiled, allocates=False)
def _axpys(rows: Floats, w: Floats, components: Ints, g: Floats) -> None:
    """Subtract Σ_a W_ab X_ai of eight rows X from g_bi (B, D): the adjoint of :func:`_dots`."""
    for c in range(len(components)):
        start, dim, copies, first = components[c]
        for row in range(dim):
            i, j = start + row * copies, start + (row + 1) * copies
            x0, x1, x2, x3 = rows[0, i:j], rows[1, i:j], rows[2, i:j], rows[3, i:j]
            x4, x5, x6, x7 = rows[4, i:j], rows[5, i:j], rows[6, i:j], rows[7, i:j]
            for b in range(len(g)):
                for col in range(dim):
                    h = g[b, start + col * copies : start + (col + 1) * copies]
                    u = w[b, first + row * dim + col]
                    u0, u1, u2, u3, u4, u5, u6, u7 = u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7]
                    for k in range(copies):
                        h[k] -= (u0 * x0[k] + u1 * x1[k] + u2 * x2[k] + u3 * x3[k]) + (
                            u4 * x4[k] + u5 * x5[k] + u6 * x6[k] + u7 * x7[k]
                        )


@partial(compiled, allocates=False)
def _weigh_few(
    z: Floats,
    values: Floats,
    q_squared: float,
    x_squared: Floats,
    x_dot_a: Floats,
    sigma: float,
    scratch: Floats,
    w: Floats,
) -> tuple[float, float]:
    """Turn matrix elements z (n_elements, 8) of four points into those of their weights, w.

    One permutation of ``values`` (S, n_elements) after the other; ``scratch`` is (2, 8). Returns
    the points' E and Σ w₁.
    """
    order, n_elements = values.shape
    at, w12 = scratch[0], scratch[1]
    energy = w1_sum = 0.0
    w[:] = 0.0
    for p in range(order):
        at[:] = 0.0
        for e in range(n_elements):
            for r in range(8):
                at[r] += values[p, e] * z[e, r]
        for i in range(4):
            delta_a = at[4 + i] - x_dot_a[i]
            w1, w2 = weights(q_squared + x_squared[i] - 2.0 * at[i], delta_a, sigma)
            energy += delta_a * w2
            w1_sum += w1
            w12[i], w12[4 + i] = w1, w2
        for e in range(n_elements):
            for i in range(4):  # as halves: they were written so
                w[e, i] += values[p, e] * w12[i]
                w[e, 4 + i] += values[p, e] * w12[4 + i]
    return energy, w1_sum


@compiled
def group_sum_of_few(
    query: Floats,
    xa: Floats,
    x_squared: Floats,
    x_dot_a: Floats,
    components: Ints,
    values: Floats,
    sigma: float,
    g: Floats,
) -> tuple[float, float]:
    """Sum over training points and a small group, for one query in Fourier space (1, D).

    ``xa`` (G, 8, D) holds four x, then four a, in Fourier space too, ``x_squared`` and ``x_dot_a``
    (4G,) what the points are known by, ``components`` (first row, dim, copies, first matrix
    element) of each, ``values`` (S, n_elements) the matrix elements of all permutations; see
    :mod:`deltaserver.model.fourier`. Points of zeros, which fill the last four, add nothing.
    Subtracts Σ (w₁ x + w₂ a) from g (1, D); returns E and Σ w₁, which is what q has to be
    multiplied by.
    """
    n_elements = values.shape[1]
    z = aligned(n_elements, 8).reshape((1, n_elements, 8))
    w = aligned(n_elements, 8).reshape((1, n_elements, 8))
    scratch = aligned(2, 8)
    q_squared = (query * query).sum()
    energy = w1_sum = 0.0
    for group in range(len(xa)):
        points = slice(4 * group, 4 * group + 4)
        _dots(xa[group], query, components, z)
        here, sums = _weigh_few(
            z[0], values, q_squared, x_squared[points], x_dot_a[points], sigma, scratch, w[0]
        )
        energy += here
        w1_sum += sums
        _axpys(xa[group], w, components, g)
    return energy, w1_sum


@partial(compiled, allocates=False)
def _multiply(a: Floats, v: Floats, out: Floats) -> None:
    """Fill out (8, N) with a (8, K) times v (K, N); K and N are multiples of 8."""
    out[:] = 0.0
    for k in range(0, len(v), 8):
        v0, v1, v2, v3 = v[k], v[k + 1], v[k + 2], v[k + 3]
        v4, v5, v6, v7 = v[k + 4], v[k + 5], v[k + 6], v[k + 7]
        for r in range(8):
            p, to = a[r, k : k + 8], out[r]
            p0, p1, p2, p3, p4, p5, p6, p7 = p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7]
            for n in range(len(to)):
                to[n] += ((p0 * v0[n] + p1 * v1[n]) + (p2 * v2[n] + p3 * v3[n])) + (
                    (p4 * v4[n] + p5 * v5[n]) + (p6 * v6[n] + p7 * v7[n])
                )


@partial(compiled, allocates=False)
def _weigh_cosets(
    at: Floats,
    signs: Floats,
    n_cosets: int,
    q_squared: float,
    x_squared: Floats,
    x_dot_a: Floats,
    sigma: float,
    scratch: Floats,
    w: Floats,
) -> tuple[float, float]:
    """Turn the sectors' values (n_sectors, 8, P) of four training points into weights.

    Element c of the centre times coset p has q_s·x = Σ_k signs[c, k] at[k, :, p]; w gets the
    adjoint of that. Returns the points' E and Σ w₁.
    """
    energy = w1_sum = 0.0
    at_x, at_a = scratch[0], scratch[1]
    w[:] = 0.0
    for c in range(len(signs)):
        for i in range(4):
            at_x[:] = 0.0
            at_a[:] = 0.0
            for k in range(len(at)):
                x, a, sign = at[k, i], at[k, 4 + i], signs[c, k]
                for p in range(n_cosets):
                    at_x[p] += sign * x[p]
                    at_a[p] += sign * a[p]
            both, shift = q_squared + x_squared[i], x_dot_a[i]
            for p in range(n_cosets):
                delta_a = at_a[p] - shift
                w1, w2 = weights(both - 2.0 * at_x[p], delta_a, sigma)
                energy += delta_a * w2
                w1_sum += w1
                at_x[p], at_a[p] = w1, w2
            for k in range(len(at)):
                w1s, w2s, sign = w[k, i], w[k, 4 + i], signs[c, k]
                for p in range(n_cosets):
                    w1s[p] += sign * at_x[p]
                    w2s[p] += sign * at_a[p]
    return energy, w1_sum


@compiled
def group_sum(
    queries: Floats,
    xa: Floats,
    x_squared: Floats,
    x_dot_a: Floats,
    components: Ints,
    values: Floats,
    transposed: Floats,
    signs: Floats,
    n_cosets: int,
    sigma: float,
    g: Floats,
    energy: Floats,
    w1_sum: Floats,
) -> None:
    """Do :func:`group_sum_of_few` for a large group, sector by sector of its centre.

    For queries (B, D) at once: what is read serves all of them. Subtracts from g (B, D), adds to
    energy (B,) and Σ w₁ (B,). ``values`` (n_sectors, K, P) are the matrix elements at the cosets
    of the centre, ``transposed`` (n_sectors, P, K) the same; zeros fill K and P up to multiples
    of eight, and the elements' numbers in ``components`` count sectors of K.
    """
    n_batch = len(queries)
    n_sectors, n_elements, n_padded = values.shape
    n_all = n_sectors * n_elements
    z = aligned(n_batch * n_all, 8).reshape((n_batch, n_all, 8))  # then those of the weights
    one = aligned(8, n_elements)  # sector of z
    at = aligned(8 * n_sectors, n_padded).reshape((n_sectors, 8, n_padded))
    w = aligned(8 * n_sectors, n_padded).reshape((n_sectors, 8, n_padded))
    scratch = aligned(2, n_padded)
    q_squared = np.empty(n_batch)
    for b in range(n_batch):
        q_squared[b] = (queries[b] * queries[b]).sum()
    for group in range(len(xa)):
        points = slice(4 * group, 4 * group + 4)
        _dots(xa[group], queries, components, z)
        for b in range(n_batch):
            for k in range(n_sectors):
                one[:] = z[b, k * n_elements : (k + 1) * n_elements].T
                _multiply(one, values[k], at[k])
            here, sums = _weigh_cosets(
                at, signs, n_cosets, q_squared[b], x_squared[points], x_dot_a[points], sigma,
                scratch, w,
            )  # fmt: skip
            energy[b] += here
            w1_sum[b] += sums
            for k in range(n_sectors):
                _multiply(w[k], transposed[k], one)
                z[b, k * n_elements : (k + 1) * n_elements] = one.T
        _axpys(xa[group], z, components, g)
