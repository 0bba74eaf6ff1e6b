"""The kernel sum without permutations as compiled loops; see ``kernel.direct``.

Rows start on a cache line (:func:`aligned`): a vector that lies across two lines costs two loads.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Eight = tuple[float, float, float, float, float, float, float, float]

LINE = 8  # float64 numbers in a cache line
SHIFT = 1.5 * 2.0**52  # a sum with it is rounded to an integer, which stands in its last bits
LOG2_E = 1.4426950408889634
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # their sum is ln 2


@compiled
def aligned(n_rows: int, n_columns: int) -> Floats:
    """Return zeros (n_rows, n_columns) from the start of a cache line."""
    size = n_rows * n_columns
    raw = np.zeros(size + LINE)
    skip = (-(raw.ctypes.data // 8)) % LINE
    return raw[skip : skip + size].reshape((n_rows, n_columns))


@partial(compiled, reorder=False)
def exponential(x: float) -> float:
    """Return exp x for x ≤ 0, to two units in the last place, as vector instructions.

    The C library's is called number by number. exp x = 2ⁿ exp(x − n ln 2), the second by its
    series, which is short since |x − n ln 2| < 0.35.
    """
    x = max(x, -708.0)
    shifted = x * LOG2_E + SHIFT
    n = shifted - SHIFT
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    s = r * r
    even = 1.0 / 479001600.0
    even = even * s + 1.0 / 3628800.0
    even = even * s + 1.0 / 40320.0
    even = even * s + 1.0 / 720.0
    even = even * s + 1.0 / 24.0
    even = even * s + 0.5
    odd = 1.0 / 6227020800.0
    odd = odd * s + 1.0 / 39916800.0
    odd = odd * s + 1.0 / 362880.0
    odd = odd * s + 1.0 / 5040.0
    odd = odd * s + 1.0 / 120.0
    odd = odd * s + 1.0 / 6.0
    series = 1.0 + (r + s * (even + r * odd))
    power = np.int64((np.float64(shifted).view(np.int64) + 1023) << 52)
    return series * power.view(np.float64)


@partial(compiled, inline="always")
def eight(w: Floats) -> Eight:
    """Return eight numbers, to be kept in registers."""
    return w[0], w[1], w[2], w[3], w[4], w[5], w[6], w[7]


@partial(compiled, inline="always")
def weights(
    squared: float, delta_a: float, alpha: float, sigma: float
) -> tuple[float, float, float]:
    """Return w₁, w₂ and the term of E; names as in :mod:`deltaserver.model.kernel`.

    From |Δ|², Δ·a and the coefficient of the point's energy, 0 where there is none.
    """
    rate = 1.0 / sigma
    r = math.sqrt(5.0 * max(squared, 0.0))
    base = exponential(-r * rate)
    decay = base * (5.0 / 3.0 * rate * rate * rate)
    w2 = decay * (r + sigma)
    s = r * rate
    matern = base * (1.0 + s * (1.0 + s * (1.0 / 3.0)))
    return delta_a * decay * (5.0 * rate) + alpha * w2, w2, delta_a * w2 + alpha * matern


@partial(compiled, allocates=False)
def fused_sum(
    query: Floats, x: Floats, a: Floats, alphas: Floats, sigma: float, scratch: Floats, g: Floats
) -> float:
    """Sum over training points x and a (M, D) in one pass, four at a time, for one query (D,).

    ``alphas`` (M,) are the coefficients of energies. Fills g (D,) with Σ_m (w₁ Δ − w₂ a) and
    returns E. ``scratch`` is (4, 4).
    """
    n_train, n_desc = len(x), len(query)
    energy = 0.0
    squared, delta_a, w1, w2 = scratch[0], scratch[1], scratch[2], scratch[3]
    g[:] = 0.0
    for m in range(0, n_train, 4):
        n = min(4, n_train - m)
        # A short last group repeats its last point with no weight.
        m1, m2, m3 = m + min(1, n - 1), m + min(2, n - 1), m + min(3, n - 1)
        x0, x1, x2, x3 = x[m], x[m1], x[m2], x[m3]
        a0, a1, a2, a3 = a[m], a[m1], a[m2], a[m3]
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
            alpha = alphas[m + min(i, n - 1)]
            w1[i], w2[i], term = weights(squared[i], delta_a[i], alpha, sigma)
            if i >= n:
                w1[i] = w2[i] = term = 0.0
            energy += term
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


@partial(compiled, allocates=False)
def dots_of_eight(q: Floats, rows: Floats, sums: Floats) -> None:
    """Add the products of eight queries (8, C) with rows (R, C), R a multiple of 3, to (R, 8)."""
    q0, q1, q2, q3, q4, q5, q6, q7 = q[0], q[1], q[2], q[3], q[4], q[5], q[6], q[7]
    third = len(rows) // 3
    for r in range(third):
        x, y, z = rows[r], rows[r + third], rows[r + 2 * third]
        s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = 0.0
        t0 = t1 = t2 = t3 = t4 = t5 = t6 = t7 = 0.0
        u0 = u1 = u2 = u3 = u4 = u5 = u6 = u7 = 0.0
        for k in range(len(x)):
            xk, yk, zk = x[k], y[k], z[k]
            qk = q0[k]
            s0, t0, u0 = s0 + qk * xk, t0 + qk * yk, u0 + qk * zk
            qk = q1[k]
            s1, t1, u1 = s1 + qk * xk, t1 + qk * yk, u1 + qk * zk
            qk = q2[k]
            s2, t2, u2 = s2 + qk * xk, t2 + qk * yk, u2 + qk * zk
            qk = q3[k]
            s3, t3, u3 = s3 + qk * xk, t3 + qk * yk, u3 + qk * zk
            qk = q4[k]
            s4, t4, u4 = s4 + qk * xk, t4 + qk * yk, u4 + qk * zk
            qk = q5[k]
            s5, t5, u5 = s5 + qk * xk, t5 + qk * yk, u5 + qk * zk
            qk = q6[k]
            s6, t6, u6 = s6 + qk * xk, t6 + qk * yk, u6 + qk * zk
            qk = q7[k]
            s7, t7, u7 = s7 + qk * xk, t7 + qk * yk, u7 + qk * zk
        _add_eight(sums[r], (s0, s1, s2, s3, s4, s5, s6, s7))
        _add_eight(sums[r + third], (t0, t1, t2, t3, t4, t5, t6, t7))
        _add_eight(sums[r + 2 * third], (u0, u1, u2, u3, u4, u5, u6, u7))


@partial(compiled, inline="always")
def _add_eight(to: Floats, numbers: Eight) -> None:
    s0, s1, s2, s3, s4, s5, s6, s7 = numbers
    to[0], to[1], to[2], to[3] = to[0] + s0, to[1] + s1, to[2] + s2, to[3] + s3
    to[4], to[5], to[6], to[7] = to[4] + s4, to[5] + s5, to[6] + s6, to[7] + s7


@partial(compiled, allocates=False)
def axpys_of_eight(w: Floats, rows: Floats, g: Floats) -> None:
    """Subtract Σ_r w[r, i] rows[r] from g[i] for eight queries; w (R, 8), R a multiple of 3.

    Three rows at a time: their 24 weights stay in registers.
    """
    g0, g1, g2, g3, g4, g5, g6, g7 = g[0], g[1], g[2], g[3], g[4], g[5], g[6], g[7]
    third = len(rows) // 3
    for r in range(third):
        x, y, z = rows[r], rows[r + third], rows[r + 2 * third]
        p0, p1, p2, p3, p4, p5, p6, p7 = eight(w[r])
        s0, s1, s2, s3, s4, s5, s6, s7 = eight(w[r + third])
        t0, t1, t2, t3, t4, t5, t6, t7 = eight(w[r + 2 * third])
        for k in range(len(x)):
            xk, yk, zk = x[k], y[k], z[k]
            g0[k] = g0[k] - p0 * xk - s0 * yk - t0 * zk
            g1[k] = g1[k] - p1 * xk - s1 * yk - t1 * zk
            g2[k] = g2[k] - p2 * xk - s2 * yk - t2 * zk
            g3[k] = g3[k] - p3 * xk - s3 * yk - t3 * zk
            g4[k] = g4[k] - p4 * xk - s4 * yk - t4 * zk
            g5[k] = g5[k] - p5 * xk - s5 * yk - t5 * zk
            g6[k] = g6[k] - p6 * xk - s6 * yk - t6 * zk
            g7[k] = g7[k] - p7 * xk - s7 * yk - t7 * zk


@partial(compiled, allocates=False)
def weights_of_eight(
    sums: Floats,
    q_squared: Floats,
    known: Floats,
    sigma: float,
    scale: float,
    energy: Floats,
    w1_sum: Floats,
) -> None:
    """Turn sums, q·x and then q·a (2M, 8), into w₁ and w₂, and fill energy and Σ w₁ (8,).

    All of it times ``scale``. ``known`` (3, M) holds |x|², x·a and the coefficients of energies.
    """
    x_squared, x_dot_a, alphas = known[0], known[1], known[2]
    n_train = len(x_squared)
    energy[:] = 0.0
    w1_sum[:] = 0.0
    for m in range(n_train):
        at_x, at_a = sums[m], sums[n_train + m]
        for i in range(8):
            delta_a = at_a[i] - x_dot_a[m]
            squared = q_squared[i] + x_squared[m] - 2.0 * at_x[i]
            w1, w2, term = weights(squared, delta_a, alphas[m], sigma)
            w1, w2 = scale * w1, scale * w2
            energy[i] += scale * term
            w1_sum[i] += w1
            at_x[i], at_a[i] = w1, w2
