"""Loops compiled by numba for what is bound by memory or by calls, not by arithmetic.

Optional, behind :mod:`deltaserver.model.jit`: without numba (extra ``[fast]``) everything runs in
NumPy with the same results; tests hold the two equal. Sums may be reordered (that is what makes
them vector instructions); nothing else of IEEE arithmetic is given up: a NaN stays a NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def _compile(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile on the first call and keep the machine code beside the module."""
    result: Callable[..., Any] = njit(
        cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"}
    )(function)
    return result


@_compile
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


@_compile
def pair_displacements(
    positions: Floats, cell: Floats, inverse: Floats, periodic: bool, d: Floats, descriptor: Floats
) -> float:
    """Fill d (3, B, D) and 1/|d| (B, D) for positions (B, N, 3); return the smallest |d|²."""
    n_batch, n_atoms, _ = positions.shape
    smallest = np.inf
    for b in range(n_batch):
        k = 0
        for i in range(n_atoms):
            x, y, z = positions[b, i, 0], positions[b, i, 1], positions[b, i, 2]
            for j in range(i):
                d[0, b, k + j] = x - positions[b, j, 0]
                d[1, b, k + j] = y - positions[b, j, 1]
                d[2, b, k + j] = z - positions[b, j, 2]
            k += i
        if periodic:
            _wrap(d[0, b], d[1, b], d[2, b], cell, inverse)
        for k in range(d.shape[2]):
            squared = d[0, b, k] ** 2 + d[1, b, k] ** 2 + d[2, b, k] ** 2
            smallest = min(smallest, squared)
            descriptor[b, k] = 1.0 / math.sqrt(squared) if squared > 0.0 else np.inf
    return smallest


@_compile
def _wrap(x: Floats, y: Floats, z: Floats, cell: Floats, inverse: Floats) -> None:
    for k in range(len(x)):
        u = np.rint(inverse[0, 0] * x[k] + inverse[0, 1] * y[k] + inverse[0, 2] * z[k])
        v = np.rint(inverse[1, 0] * x[k] + inverse[1, 1] * y[k] + inverse[1, 2] * z[k])
        w = np.rint(inverse[2, 0] * x[k] + inverse[2, 1] * y[k] + inverse[2, 2] * z[k])
        x[k] -= cell[0, 0] * u + cell[0, 1] * v + cell[0, 2] * w
        y[k] -= cell[1, 0] * u + cell[1, 1] * v + cell[1, 2] * w
        z[k] -= cell[2, 0] * u + cell[2, 1] * v + cell[2, 2] * w


@_compile
def pull_back(
    g: Floats, d: Floats, descriptor: Floats, n_atoms: int, forces: Floats, virial: Floats
) -> None:
    """Fill forces (B, N, 3) = Jᵀg and virial (B, 3, 3) = −Σ c d ⊗ d, c = g D³."""
    for b in range(len(g)):
        forces[b] = 0.0
        virial[b] = 0.0
        k = 0
        for i in range(n_atoms):
            fx = fy = fz = 0.0
            xx = xy = xz = yy = yz = zz = 0.0
            for j in range(i):
                inverse = descriptor[b, k + j]
                c = g[b, k + j] * inverse * inverse * inverse
                x, y, z = d[0, b, k + j], d[1, b, k + j], d[2, b, k + j]
                cx, cy, cz = c * x, c * y, c * z
                forces[b, j, 0] += cx
                forces[b, j, 1] += cy
                forces[b, j, 2] += cz
                fx += cx
                fy += cy
                fz += cz
                xx += cx * x
                xy += cx * y
                xz += cx * z
                yy += cy * y
                yz += cy * z
                zz += cz * z
            k += i
            forces[b, i, 0] -= fx
            forces[b, i, 1] -= fy
            forces[b, i, 2] -= fz
            virial[b, 0, 0] -= xx
            virial[b, 1, 1] -= yy
            virial[b, 2, 2] -= zz
            virial[b, 0, 1] -= xy
            virial[b, 0, 2] -= xz
            virial[b, 1, 2] -= yz
        virial[b, 1, 0] = virial[b, 0, 1]
        virial[b, 2, 0] = virial[b, 0, 2]
        virial[b, 2, 1] = virial[b, 1, 2]
