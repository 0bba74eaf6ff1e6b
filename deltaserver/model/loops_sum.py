"""The kernel sum as compiled loops; see :mod:`deltaserver.model.loops` and ``kernel``."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from deltaserver.model.jit import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@compiled
def fused_sum(query: Floats, xa: Floats, sigma: float, g: Floats) -> float:
    """Sum over the training points in one pass, four at a time, for one query (D,).

    Fills g (D,) with Σ_m (w₁ Δ − w₂ a) and returns E = Σ_m w₂ Δ·a; names as in
    :mod:`deltaserver.model.kernel`.
    """
    n_train = len(xa) // 2
    n_desc = len(query)
    energy = 0.0
    squared = np.empty(4)
    delta_a = np.empty(4)
    w1 = np.zeros(4)
    w2 = np.zeros(4)
    g[:] = 0.0
    for m in range(0, n_train, 4):
        n = min(4, n_train - m)
        # A short last group repeats its last point with no weight.
        m1, m2, m3 = m + min(1, n - 1), m + min(2, n - 1), m + min(3, n - 1)
        x0, x1, x2, x3 = xa[m], xa[m1], xa[m2], xa[m3]
        a0, a1, a2, a3 = xa[n_train + m], xa[n_train + m1], xa[n_train + m2], xa[n_train + m3]
        s0 = s1 = s2 = s3 = 0.0
        t0 = t1 = t2 = t3 = 0.0
        for k in range(n_desc):
            qk = query[k]
            d0, d1, d2, d3 = qk - x0[k], qk - x1[k], qk - x2[k], qk - x3[k]
            s0 += d0 * d0
            s1 += d1 * d1
            s2 += d2 * d2
            s3 += d3 * d3
            t0 += d0 * a0[k]
            t1 += d1 * a1[k]
            t2 += d2 * a2[k]
            t3 += d3 * a3[k]
        squared[0], squared[1], squared[2], squared[3] = s0, s1, s2, s3
        delta_a[0], delta_a[1], delta_a[2], delta_a[3] = t0, t1, t2, t3
        for i in range(4):
            w1[i] = w2[i] = 0.0
            if i < n:
                r = math.sqrt(5.0 * squared[i])
                decay = math.exp(-r / sigma) * 5.0 / (3.0 * sigma**3)
                w1[i] = delta_a[i] * decay * 5.0 / sigma
                w2[i] = decay * (r + sigma)
                energy += delta_a[i] * w2[i]
        u0, u1, u2, u3 = w1[0], w1[1], w1[2], w1[3]
        v0, v1, v2, v3 = w2[0], w2[1], w2[2], w2[3]
        u = u0 + u1 + u2 + u3
        for k in range(n_desc):
            g[k] += (
                u * query[k]
                - (u0 * x0[k] + u1 * x1[k] + u2 * x2[k] + u3 * x3[k])
                - (v0 * a0[k] + v1 * a1[k] + v2 * a2[k] + v3 * a3[k])
            )
    return energy


@compiled
def _dots(q: Floats, xa: Floats, i: int, j: int, at_x: Floats, at_a: Floats) -> None:
    """Add q·x_m and q·a_m of eight queries, over columns i to j, to (M, 8) arrays."""
    n_train = len(xa) // 2
    q0, q1, q2, q3 = q[0, i:j], q[1, i:j], q[2, i:j], q[3, i:j]
    q4, q5, q6, q7 = q[4, i:j], q[5, i:j], q[6, i:j], q[7, i:j]
    for m in range(n_train):
        x, a = xa[m, i:j], xa[n_train + m, i:j]
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
        t0 = t1 = t2 = t3 = t4 = t5 = t6 = t7 = 0.0
        for k in range(len(x)):
            xk, ak = x[k], a[k]
            s0 += q0[k] * xk
            s1 += q1[k] * xk
            s2 += q2[k] * xk
            s3 += q3[k] * xk
            s4 += q4[k] * xk
            s5 += q5[k] * xk
            s6 += q6[k] * xk
            s7 += q7[k] * xk
            t0 += q0[k] * ak
            t1 += q1[k] * ak
            t2 += q2[k] * ak
            t3 += q3[k] * ak
            t4 += q4[k] * ak
            t5 += q5[k] * ak
            t6 += q6[k] * ak
            t7 += q7[k] * ak
        s, t = at_x[m], at_a[m]
        s[0], s[1], s[2], s[3] = s[0] + s0, s[1] + s1, s[2] + s2, s[3] + s3
        s[4], s[5], s[6], s[7] = s[4] + s4, s[5] + s5, s[6] + s6, s[7] + s7
        t[0], t[1], t[2], t[3] = t[0] + t0, t[1] + t1, t[2] + t2, t[3] + t3
        t[4], t[5], t[6], t[7] = t[4] + t4, t[5] + t5, t[6] + t6, t[7] + t7


@compiled
def _axpys(w1: Floats, w2: Floats, xa: Floats, i: int, j: int, g: Floats) -> None:
    """Subtract Σ_m (w₁ x_m + w₂ a_m) from columns i to j of g (8, D), for weights (M, 8)."""
    n_train = len(xa) // 2
    g0, g1, g2, g3 = g[0, i:j], g[1, i:j], g[2, i:j], g[3, i:j]
    g4, g5, g6, g7 = g[4, i:j], g[5, i:j], g[6, i:j], g[7, i:j]
    for m in range(0, n_train, 2):  # two points at a time: g is read and written half as often
        last = m + 1 == n_train
        n = m if last else m + 1
        x, a = xa[m, i:j], xa[n_train + m, i:j]
        y, c = xa[n, i:j], xa[n_train + n, i:j]
        u, v = w1[m], w2[m]
        s, t = (np.zeros(8), np.zeros(8)) if last else (w1[n], w2[n])
        u0, u1, u2, u3, u4, u5, u6, u7 = u[0], u[1], u[2], u[3], u[4], u[5], u[6], u[7]
        v0, v1, v2, v3, v4, v5, v6, v7 = v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]
        s0, s1, s2, s3, s4, s5, s6, s7 = s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7]
        t0, t1, t2, t3, t4, t5, t6, t7 = t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]
        for k in range(len(x)):
            xk, ak, yk, ck = x[k], a[k], y[k], c[k]
            g0[k] -= u0 * xk + v0 * ak + s0 * yk + t0 * ck
            g1[k] -= u1 * xk + v1 * ak + s1 * yk + t1 * ck
            g2[k] -= u2 * xk + v2 * ak + s2 * yk + t2 * ck
            g3[k] -= u3 * xk + v3 * ak + s3 * yk + t3 * ck
            g4[k] -= u4 * xk + v4 * ak + s4 * yk + t4 * ck
            g5[k] -= u5 * xk + v5 * ak + s5 * yk + t5 * ck
            g6[k] -= u6 * xk + v6 * ak + s6 * yk + t6 * ck
            g7[k] -= u7 * xk + v7 * ak + s7 * yk + t7 * ck


@compiled
def fused_batch(
    queries: Floats,
    xa: Floats,
    x_squared: Floats,
    x_dot_a: Floats,
    sigma: float,
    columns: int,
    g: Floats,
    energy: Floats,
) -> None:
    """Do :func:`fused_sum` for queries (B, D), eight at a time: what is read serves all eight.

    A short last eight repeats its last query. ``columns`` entries of all eight are gone through
    at a time, few enough to stay in a core's first cache.
    """
    n_batch, n_desc = queries.shape
    n_train = len(xa) // 2
    q, rest = np.empty((8, n_desc)), np.empty((8, n_desc))
    q_squared, w1_sum = np.empty(8), np.empty(8)
    sums = np.empty((2, n_train, 8))  # q·x and q·a, then w₁ and w₂
    for first in range(0, n_batch, 8):
        n = min(8, n_batch - first)
        for i in range(8):
            q[i] = queries[first + min(i, n - 1)]
            q_squared[i] = (q[i] * q[i]).sum()
        sums[:] = 0.0
        for k in range(0, n_desc, columns):  # what eight queries need at once fits into the cache
            _dots(q, xa, k, min(k + columns, n_desc), sums[0], sums[1])
        for i in range(n):
            energy[first + i] = 0.0
        w1_sum[:] = 0.0
        for m in range(n_train):
            for i in range(8):
                squared = q_squared[i] + x_squared[m] - 2.0 * sums[0, m, i]
                delta_a = sums[1, m, i] - x_dot_a[m]
                r = math.sqrt(5.0 * max(squared, 0.0))
                decay = math.exp(-r / sigma) * 5.0 / (3.0 * sigma**3)
                w1, w2 = delta_a * decay * 5.0 / sigma, decay * (r + sigma)
                if i < n:
                    energy[first + i] += delta_a * w2
                sums[0, m, i], sums[1, m, i] = w1, w2
                w1_sum[i] += w1
        for i in range(8):
            rest[i] = w1_sum[i] * q[i]
        for k in range(0, n_desc, columns):
            _axpys(sums[0], sums[1], xa, k, min(k + columns, n_desc), rest)
        g[first : first + n] = rest[:n]


@partial(compiled, inline="always")
def _weigh_four(
    z: Floats,
    values: Floats,
    at_q: Floats,
    x_dot_a: Floats,
    sigma: float,
    w: Floats,
    w1_sum: Floats,
    scratch: Floats,
) -> float:
    """From the matrix elements z of up to four training points to those of their weights, w.

    ``at_q`` holds |q|² + |x|²; ``scratch`` is (3, 8). Adds to ``w1_sum`` (4,) and
    returns the points' energy.
    """
    n = len(x_dot_a)
    order, n_elements = values.shape
    scale, rate = 5.0 / (3.0 * sigma**3), 1.0 / sigma
    at, w1, w2 = scratch[0], scratch[1], scratch[2]
    energy = 0.0
    w1[:] = 0.0
    w2[:] = 0.0
    w[:] = 0.0
    for p in range(order):
        s0 = s1 = s2 = s3 = 0.0
        t0 = t1 = t2 = t3 = 0.0
        for e in range(n_elements):
            v = values[p, e]
            s0 += v * z[e, 0]
            s1 += v * z[e, 1]
            s2 += v * z[e, 2]
            s3 += v * z[e, 3]
            t0 += v * z[e, 4]
            t1 += v * z[e, 5]
            t2 += v * z[e, 6]
            t3 += v * z[e, 7]
        at[0], at[1], at[2], at[3], at[4], at[5], at[6], at[7] = s0, s1, s2, s3, t0, t1, t2, t3
        for i in range(n):
            delta_a = at[4 + i] - x_dot_a[i]
            r = math.sqrt(5.0 * max(at_q[i] - 2.0 * at[i], 0.0))
            decay = scale * math.exp(-r * rate)
            w1[i] = 5.0 * rate * delta_a * decay
            w2[i] = decay * (r + sigma)
            energy += delta_a * w2[i]
            w1_sum[i] += w1[i]
        u0, u1, u2, u3, v0, v1, v2, v3 = w1[0], w1[1], w1[2], w1[3], w2[0], w2[1], w2[2], w2[3]
        for e in range(n_elements):
            v = values[p, e]
            w[e, 0] += v * u0
            w[e, 1] += v * u1
            w[e, 2] += v * u2
            w[e, 3] += v * u3
            w[e, 4] += v * v0
            w[e, 5] += v * v1
            w[e, 6] += v * v2
            w[e, 7] += v * v3
    return energy


@partial(compiled, inline="always")
def _eight_dots(
    xa: Floats, rows: Ints, query: Floats, components: Ints, z: Floats, column: int
) -> None:
    """Fill eight columns of z (n_elements, ·) with Z_ab = Σ_i X_ai Y_bi of eight rows X."""
    r0, r1, r2, r3, r4, r5, r6, r7 = rows
    for c in range(len(components)):
        start, dim, copies, e = components[c]
        for row in range(dim):
            i, j = start + row * copies, start + (row + 1) * copies
            x0, x1, x2, x3 = xa[r0, i:j], xa[r1, i:j], xa[r2, i:j], xa[r3, i:j]
            x4, x5, x6, x7 = xa[r4, i:j], xa[r5, i:j], xa[r6, i:j], xa[r7, i:j]
            for col in range(dim):
                q = query[start + col * copies : start + (col + 1) * copies]
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
                z[e, column], z[e, column + 1] = s0, s1
                z[e, column + 2], z[e, column + 3] = s2, s3
                z[e, column + 4], z[e, column + 5] = s4, s5
                z[e, column + 6], z[e, column + 7] = s6, s7
                e += 1


@partial(compiled, inline="always")
def _eight_axpys(
    xa: Floats, rows: Ints, w: Floats, column: int, components: Ints, g: Floats
) -> None:
    """Subtract Σ_a W_ab X_ai of eight rows X from g_bi: the adjoint of :func:`_eight_dots`."""
    r0, r1, r2, r3, r4, r5, r6, r7 = rows
    for c in range(len(components)):
        start, dim, copies, e = components[c]
        for row in range(dim):
            i, j = start + row * copies, start + (row + 1) * copies
            x0, x1, x2, x3 = xa[r0, i:j], xa[r1, i:j], xa[r2, i:j], xa[r3, i:j]
            x4, x5, x6, x7 = xa[r4, i:j], xa[r5, i:j], xa[r6, i:j], xa[r7, i:j]
            for col in range(dim):
                h = g[start + col * copies : start + (col + 1) * copies]
                u0, u1, u2, u3 = (
                    w[e, column],
                    w[e, column + 1],
                    w[e, column + 2],
                    w[e, column + 3],
                )
                u4, u5, u6, u7 = (
                    w[e, column + 4],
                    w[e, column + 5],
                    w[e, column + 6],
                    w[e, column + 7],
                )
                for k in range(copies):
                    h[k] -= (u0 * x0[k] + u1 * x1[k] + u2 * x2[k] + u3 * x3[k]) + (
                        u4 * x4[k] + u5 * x5[k] + u6 * x6[k] + u7 * x7[k]
                    )
                e += 1


@compiled
def fused_group_sum(
    query: Floats,
    xa: Floats,
    x_squared: Floats,
    x_dot_a: Floats,
    components: Ints,
    values: Floats,
    sigma: float,
    g: Floats,
) -> tuple[float, float]:
    """Sum over training points and a group, one pass, for one query in Fourier space (D,).

    ``xa`` (2M, D) is in Fourier space too, ``components`` holds (first row, dim, copies, first
    matrix element) of each, ``values`` (S, n_elements) the matrix elements of all permutations;
    see :mod:`deltaserver.model.fourier`. Fills g (D,) with −Σ (w₁ x + w₂ a) and returns E and
    Σ w₁, which is what q has to be multiplied by.
    """
    n_train = len(xa) // 2
    n_elements = values.shape[1]
    z, w = np.empty((n_elements, 8)), np.empty((n_elements, 8))  # of four x, then of four a
    at_q, w1_sum, scratch = np.empty(4), np.zeros(4), np.empty((3, 8))
    q_squared = 0.0
    for k in range(len(query)):
        q_squared += query[k] * query[k]
    energy = 0.0
    g[:] = 0.0
    for m in range(0, n_train, 4):
        n = min(4, n_train - m)
        # A short last group repeats its last point with no weight.
        m1, m2, m3 = m + min(1, n - 1), m + min(2, n - 1), m + min(3, n - 1)
        rows = (m, m1, m2, m3, n_train + m, n_train + m1, n_train + m2, n_train + m3)
        _eight_dots(xa, rows, query, components, z, 0)
        at_q[0], at_q[1] = q_squared + x_squared[m], q_squared + x_squared[m1]
        at_q[2], at_q[3] = q_squared + x_squared[m2], q_squared + x_squared[m3]
        energy += _weigh_four(z, values, at_q, x_dot_a[m : m + n], sigma, w, w1_sum, scratch)
        _eight_axpys(xa, rows, w, 0, components, g)
    return energy, w1_sum.sum()


@compiled
def group_dots(xa: Floats, query: Floats, components: Ints, z: Floats) -> None:
    """Fill z (n_elements, R) with the matrix elements of R rows, a multiple of eight."""
    for r in range(0, len(xa), 8):
        rows = (r, r + 1, r + 2, r + 3, r + 4, r + 5, r + 6, r + 7)
        _eight_dots(xa, rows, query, components, z, r)


@compiled
def group_axpys(xa: Floats, w: Floats, components: Ints, g: Floats) -> None:
    """Subtract Σ_r Σ_a W_ab X_ai from g (D,): the adjoint of :func:`group_dots`."""
    for r in range(0, len(xa), 8):
        rows = (r, r + 1, r + 2, r + 3, r + 4, r + 5, r + 6, r + 7)
        _eight_axpys(xa, rows, w, r, components, g)


@compiled
def weigh(products: Floats, at_q: Floats, x_dot_a: Floats, sigma: float) -> tuple[float, float]:
    """Turn q_s·x, then q_s·a in (S, ≥ 2M) products into w₁, then w₂; return E and Σ w₁.

    ``at_q`` (M,) holds |q|² + |x|².
    """
    n_train = len(at_q)
    scale, rate = 5.0 / (3.0 * sigma**3), 1.0 / sigma
    energy = w1_sum = 0.0
    for s in range(len(products)):
        x, a = products[s, :n_train], products[s, n_train : 2 * n_train]
        for m in range(n_train):
            delta_a = a[m] - x_dot_a[m]
            r = math.sqrt(5.0 * max(at_q[m] - 2.0 * x[m], 0.0))
            decay = scale * math.exp(-r * rate)
            w1, w2 = 5.0 * rate * delta_a * decay, decay * (r + sigma)
            energy += delta_a * w2
            w1_sum += w1
            x[m], a[m] = w1, w2
    return energy, w1_sum
