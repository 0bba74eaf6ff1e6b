"""The kernel sum over a group of permutations as compiled loops; see ``kernel.fourier``.

Training points go by in fours, as eight rows: four x, four a. They are read from memory once:
when they are needed again, with their weights known, they are still in a core's second cache.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled
from deltaserver.model.loops.sum import Eight, aligned, eight, weights

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@partial(compiled, allocates=False)
def _dots(rows: Floats, queries: Floats, components: Ints, z: Floats) -> None:
    """Fill z (B, n_elements, 8) with Z_ab = Σ_i X_ai Y_bi of eight rows X and queries Y.

    Two b at a time: what is read of X serves both.
    """
    for c in range(len(components)):
        start, dim, copies, first = components[c]
        for row in range(dim):
            i, j = start + row * copies, start + (row + 1) * copies
            x0, x1, x2, x3 = rows[0, i:j], rows[1, i:j], rows[2, i:j], rows[3, i:j]
            x4, x5, x6, x7 = rows[4, i:j], rows[5, i:j], rows[6, i:j], rows[7, i:j]
            for b in range(len(queries)):
                for col in range(0, dim - 1, 2):
                    at = start + col * copies
                    p, q = queries[b, at : at + copies], queries[b, at + copies : at + 2 * copies]
                    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
                    t0 = t1 = t2 = t3 = t4 = t5 = t6 = t7 = 0.0
                    for k in range(copies):
                        pk, qk = p[k], q[k]
                        s0, t0 = s0 + x0[k] * pk, t0 + x0[k] * qk
                        s1, t1 = s1 + x1[k] * pk, t1 + x1[k] * qk
                        s2, t2 = s2 + x2[k] * pk, t2 + x2[k] * qk
                        s3, t3 = s3 + x3[k] * pk, t3 + x3[k] * qk
                        s4, t4 = s4 + x4[k] * pk, t4 + x4[k] * qk
                        s5, t5 = s5 + x5[k] * pk, t5 + x5[k] * qk
                        s6, t6 = s6 + x6[k] * pk, t6 + x6[k] * qk
                        s7, t7 = s7 + x7[k] * pk, t7 + x7[k] * qk
                    place = first + row * dim + col
                    _put_eight(z[b, place], (s0, s1, s2, s3, s4, s5, s6, s7))
                    _put_eight(z[b, place + 1], (t0, t1, t2, t3, t4, t5, t6, t7))
                if dim % 2:
                    at = start + (dim - 1) * copies
                    q = queries[b, at : at + copies]
                    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
                    for k in range(copies):
                        qk = q[k]
                        s0 += x0[k] * qk
                        s1 += x1[k] * qk
                        s2 += x2[k] * qk
                        s3 += x3[k] * qk
                        s4 += x4[k] * qk
                        s5 += x5[k] * qk
                        s6 += x6[k] * qk
                        s7 += x7[k] * qk
                    place = first + row * dim + dim - 1
                    _put_eight(z[b, place], (s0, s1, s2, s3, s4, s5, s6, s7))


@partial(compiled, inline="always")
def _put_eight(to: Floats, numbers: Eight) -> None:
    to[0], to[1], to[2], to[3], to[4], to[5], to[6], to[7] = numbers


@partial(compiled, allocates=False)
def _axpys(rows: Floats, w: Floats, components: Ints, g: Floats) -> None:
    """Subtract Σ_a W_ab X_ai of eight rows X from g_bi (B, D): the adjoint of :func:`_dots`."""
    for c in range(len(components) - 1, -1, -1):  # the last ones are in the cache
        start, dim, copies, first = components[c]
        for row in range(dim - 1, -1, -1):
            i, j = start + row * copies, start + (row + 1) * copies
            x0, x1, x2, x3 = rows[0, i:j], rows[1, i:j], rows[2, i:j], rows[3, i:j]
            x4, x5, x6, x7 = rows[4, i:j], rows[5, i:j], rows[6, i:j], rows[7, i:j]
            for b in range(len(g)):
                for col in range(0, dim - 1, 2):
                    at, place = start + col * copies, first + row * dim + col
                    g0, g1 = g[b, at : at + copies], g[b, at + copies : at + 2 * copies]
                    u0, u1, u2, u3, u4, u5, u6, u7 = eight(w[b, place])
                    v0, v1, v2, v3, v4, v5, v6, v7 = eight(w[b, place + 1])
                    for k in range(copies):
                        a0, a1, a2, a3, a4, a5 = x0[k], x1[k], x2[k], x3[k], x4[k], x5[k]
                        a6, a7 = x6[k], x7[k]
                        g0[k] = (
                            g0[k] - u0 * a0 - u1 * a1 - u2 * a2 - u3 * a3
                            - u4 * a4 - u5 * a5 - u6 * a6 - u7 * a7
                        )  # fmt: skip
                        g1[k] = (
                            g1[k] - v0 * a0 - v1 * a1 - v2 * a2 - v3 * a3
                            - v4 * a4 - v5 * a5 - v6 * a6 - v7 * a7
                        )  # fmt: skip
                if dim % 2:
                    at, place = start + (dim - 1) * copies, first + row * dim + dim - 1
                    g0 = g[b, at : at + copies]
                    u0, u1, u2, u3, u4, u5, u6, u7 = eight(w[b, place])
                    for k in range(copies):
                        g0[k] -= (u0 * x0[k] + u1 * x1[k] + u2 * x2[k] + u3 * x3[k]) + (
                            u4 * x4[k] + u5 * x5[k] + u6 * x6[k] + u7 * x7[k]
                        )


@partial(compiled, allocates=False)
def _weigh_few(
    z: Floats,
    values: Floats,
    q_squared: float,
    known: Floats,
    sigma: float,
    scratch: Floats,
    w: Floats,
) -> tuple[float, float]:
    """Turn matrix elements z (n_elements, 8) of four points into those of their weights, w.

    One permutation of ``values`` (S, n_elements) after the other; ``scratch`` is (2, 8). Returns
    the points' E and Σ w₁.
    """
    x_squared, x_dot_a, alphas = known[0], known[1], known[2]
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
            squared = q_squared + x_squared[i] - 2.0 * at[i]
            w1, w2, term = weights(squared, delta_a, alphas[i], sigma)
            energy += term
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
    known: Floats,
    components: Ints,
    values: Floats,
    sigma: float,
    g: Floats,
) -> tuple[float, float]:
    """Sum over training points and a small group, for one query in Fourier space (1, D).

    ``xa`` (G, 8, D) holds four x, then four a, in Fourier space too, ``known`` (3, 4G) the points'
    |x|², x·a and coefficients of energies, ``components`` (first row, dim, copies, first matrix
    element) of each, ``values`` (S, n_elements) the matrix elements of all permutations; see
    :mod:`deltaserver.model.kernel.fourier`. Points of zeros, which fill the last four, add nothing.
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
        here, sums = _weigh_few(z[0], values, q_squared, known[:, points], sigma, scratch, w[0])
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
        for r in range(0, 8, 2):  # two rows: what is read of v serves both
            to, other = out[r], out[r + 1]
            p0, p1, p2, p3, p4, p5, p6, p7 = eight(a[r, k : k + 8])
            q0, q1, q2, q3, q4, q5, q6, q7 = eight(a[r + 1, k : k + 8])
            for n in range(len(to)):
                b0, b1, b2, b3, b4, b5 = v0[n], v1[n], v2[n], v3[n], v4[n], v5[n]
                b6, b7 = v6[n], v7[n]
                to[n] = (
                    to[n] + p0 * b0 + p1 * b1 + p2 * b2 + p3 * b3
                    + p4 * b4 + p5 * b5 + p6 * b6 + p7 * b7
                )  # fmt: skip
                other[n] = (
                    other[n] + q0 * b0 + q1 * b1 + q2 * b2 + q3 * b3
                    + q4 * b4 + q5 * b5 + q6 * b6 + q7 * b7
                )  # fmt: skip


@partial(compiled, allocates=False)
def _weigh_cosets(
    at: Floats,
    signs: Floats,
    n_cosets: int,
    q_squared: float,
    known: Floats,
    sigma: float,
    scratch: Floats,
    w: Floats,
) -> tuple[float, float]:
    """Turn the sectors' values (n_sectors, 8, P) of four training points into weights.

    Element c of the centre times coset p has q_s·x = Σ_k signs[c, k] at[k, :, p]; w gets the
    adjoint of that. Returns the points' E and Σ w₁.
    """
    x_squared, x_dot_a, alphas = known[0], known[1], known[2]
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
            both, shift, alpha = q_squared + x_squared[i], x_dot_a[i], alphas[i]
            for p in range(n_cosets):
                delta_a = at_a[p] - shift
                w1, w2, term = weights(both - 2.0 * at_x[p], delta_a, alpha, sigma)
                energy += term
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
    known: Floats,
    components: Ints,
    sectors: tuple[Floats, Floats, Floats, int],
    sigma: float,
    g: Floats,
    sums: Floats,
) -> None:
    """Sum as :func:`group_sum_of_few`, over a large group, sector by sector of its centre.

    For queries (B, D) at once: what is read serves all of them. Subtracts from g (B, D), adds
    energies and Σ w₁ to the rows of ``sums`` (2, B). ``sectors`` is (values, transposed, signs,
    n_cosets): matrix elements at the cosets of the centre (n_sectors, K, P), the same as
    (n_sectors, P, K), those of the centre's elements, and how many of P are no zeros. Zeros fill K
    and P up to multiples of eight, and the elements' numbers in ``components`` count sectors of K.
    """
    values, transposed, signs, n_cosets = sectors
    energy, w1_sum = sums[0], sums[1]
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
                sector = slice(k * n_elements, (k + 1) * n_elements)
                one[:] = z[b, sector].T
                _multiply(one, values[k], at[k])
            here, w1 = _weigh_cosets(
                at, signs, n_cosets, q_squared[b], known[:, points], sigma, scratch, w
            )
            energy[b] += here
            w1_sum[b] += w1
            for k in range(n_sectors):
                sector = slice(k * n_elements, (k + 1) * n_elements)
                _multiply(w[k], transposed[k], one)
                z[b, sector] = one.T
        _axpys(xa[group], z, components, g)
