"""Loops compiled by numba for what is bound by memory or by calls, not by arithmetic.

Optional, behind :mod:`deltaserver.model.jit`: without numba (extra ``[fast]``) everything runs in
NumPy with the same results; tests hold the two equal. Sums may be reordered (that is what makes
them vector instructions); nothing else of IEEE arithmetic is given up: a NaN stays a NaN.

A pair's displacement is worked out twice, on the way to the descriptor and on the way back: that
costs less than to write it to memory and to read it again.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from deltaserver.model.jit import compiled
from deltaserver.model.loops_group import group_sum, group_sum_of_few
from deltaserver.model.loops_sum import aligned, fused_sum, sum_of_eight

__all__ = [
    "direct",
    "direct_by_eights",
    "group_sum",
    "pair_distances",
    "pull_back",
    "small_group",
]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@partial(compiled, inline="always")
def _nearest_image(
    x: float, y: float, z: float, cell: Floats, inverse: Floats
) -> tuple[float, float, float]:
    u = np.rint(inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2] * z)
    v = np.rint(inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2] * z)
    w = np.rint(inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2] * z)
    return (
        x - (cell[0, 0] * u + cell[0, 1] * v + cell[0, 2] * w),
        y - (cell[1, 0] * u + cell[1, 1] * v + cell[1, 2] * w),
        z - (cell[2, 0] * u + cell[2, 1] * v + cell[2, 2] * w),
    )


@compiled
def pair_distances(
    positions: Floats, cell: Floats, inverse: Floats, periodic: bool, descriptor: Floats
) -> float:
    """Fill 1/|r_i − r_j| into (B, ≥ D) for positions (B, N, 3); return their sum.

    The sum is not finite where two atoms coincide or a position is not finite.
    """
    n_batch, n_atoms, _ = positions.shape
    x, y, z = np.empty(n_atoms), np.empty(n_atoms), np.empty(n_atoms)
    total = 0.0
    for b in range(n_batch):
        for i in range(n_atoms):
            x[i], y[i], z[i] = positions[b, i, 0], positions[b, i, 1], positions[b, i, 2]
            total += 0.0 * (x[i] + y[i] + z[i])  # no number where one of them is infinite
        k = 0
        for i in range(n_atoms):
            row = descriptor[b, k : k + i]
            xi, yi, zi = x[i], y[i], z[i]
            for j in range(i):
                dx, dy, dz = xi - x[j], yi - y[j], zi - z[j]
                if periodic:
                    dx, dy, dz = _nearest_image(dx, dy, dz, cell, inverse)
                row[j] = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
                total += row[j]
            k += i
    return total


@compiled
def pull_back(
    g: Floats,
    positions: Floats,
    cell: Floats,
    inverse: Floats,
    periodic: bool,
    descriptor: Floats,
    forces: Floats,
    virial: Floats,
) -> None:
    """Fill forces (B, N, 3) = Jᵀg and virial (B, 3, 3) = −Σ c d ⊗ d, c = g D³."""
    n_batch, n_atoms, _ = positions.shape
    x, y, z = np.empty(n_atoms), np.empty(n_atoms), np.empty(n_atoms)
    pull_x, pull_y, pull_z = np.empty(n_atoms), np.empty(n_atoms), np.empty(n_atoms)
    for b in range(n_batch):
        for i in range(n_atoms):
            x[i], y[i], z[i] = positions[b, i, 0], positions[b, i, 1], positions[b, i, 2]
        pull_x[:] = 0.0
        pull_y[:] = 0.0
        pull_z[:] = 0.0
        xx = xy = xz = yy = yz = zz = 0.0
        k = 0
        for i in range(n_atoms):
            slopes, inverses = g[b, k : k + i], descriptor[b, k : k + i]
            xi, yi, zi = x[i], y[i], z[i]
            fx = fy = fz = 0.0
            for j in range(i):
                dx, dy, dz = xi - x[j], yi - y[j], zi - z[j]
                if periodic:
                    dx, dy, dz = _nearest_image(dx, dy, dz, cell, inverse)
                c = slopes[j] * inverses[j] * inverses[j] * inverses[j]
                cx, cy, cz = c * dx, c * dy, c * dz
                pull_x[j] += cx
                pull_y[j] += cy
                pull_z[j] += cz
                fx += cx
                fy += cy
                fz += cz
                xx += cx * dx
                xy += cx * dy
                xz += cx * dz
                yy += cy * dy
                yz += cy * dz
                zz += cz * dz
            pull_x[i] -= fx
            pull_y[i] -= fy
            pull_z[i] -= fz
            k += i
        for i in range(n_atoms):
            forces[b, i, 0], forces[b, i, 1], forces[b, i, 2] = pull_x[i], pull_y[i], pull_z[i]
        virial[b, 0, 0], virial[b, 1, 1], virial[b, 2, 2] = -xx, -yy, -zz
        virial[b, 0, 1] = virial[b, 1, 0] = -xy
        virial[b, 0, 2] = virial[b, 2, 0] = -xz
        virial[b, 1, 2] = virial[b, 2, 1] = -yz


@compiled
def direct(
    centre: Floats,
    x: Floats,
    a: Floats,
    sigma: float,
    positions: Floats,
    cell: Floats,
    inverse: Floats,
    periodic: bool,
    scale: float,
    shift: float,
    energy: Floats,
    forces: Floats,
    virial: Floats,
) -> float:
    """Evaluate geometries (B, N, 3) in one call, with no permutations, one after the other.

    ``x``, ``a`` (M, ≥ D) and ``centre`` may end in zeros. Fills energy (B,) with ``scale`` · E +
    ``shift``, and forces (B, N, 3) and virial (B, 3, 3) of that; returns what
    :func:`pair_distances` does.
    """
    size = len(centre)
    descriptor, g = aligned(1, size), aligned(1, size)
    query, scratch = aligned(1, size)[0], np.empty((4, 4))
    total = 0.0
    for b in range(len(positions)):
        here = slice(b, b + 1)
        total += pair_distances(positions[here], cell, inverse, periodic, descriptor)
        for k in range(size):
            query[k] = descriptor[0, k] - centre[k]
        energy[b] = scale * fused_sum(query, x, a, sigma, scratch, g[0]) + shift
        g *= scale
        pull_back(
            g, positions[here], cell, inverse, periodic, descriptor, forces[here], virial[here]
        )
    return total


@compiled
def direct_by_eights(
    centre: Floats,
    panels: Floats,
    x_squared: Floats,
    x_dot_a: Floats,
    sigma: float,
    scratch: Floats,
    positions: Floats,
    cell: Floats,
    inverse: Floats,
    periodic: bool,
    scale: float,
    shift: float,
    energy: Floats,
    forces: Floats,
    virial: Floats,
) -> float:
    """Do :func:`direct` eight geometries at a time, with ``panels`` of :func:`sum_of_eight`.

    ``centre`` has P·C numbers, ``scratch`` (3, 8·P·C).
    """
    n_panels, _, columns = panels.shape
    size = len(centre)
    descriptor, g = scratch[0].reshape((8, size)), scratch[1].reshape((8, size))
    q = scratch[2].reshape((n_panels, 8, columns))
    energies = np.empty(8)
    descriptor[:] = centre  # where no descriptor comes, in the end and in a short last eight
    total = 0.0
    for first in range(0, len(positions), 8):
        n = min(8, len(positions) - first)
        here = slice(first, first + n)
        total += pair_distances(positions[here], cell, inverse, periodic, descriptor)
        for p in range(n_panels):
            for i in range(8):
                for k in range(columns):
                    q[p, i, k] = descriptor[i, p * columns + k] - centre[p * columns + k]
        sum_of_eight(q, panels, x_squared, x_dot_a, sigma, energies)
        for p in range(n_panels):
            for i in range(8):
                for k in range(columns):
                    g[i, p * columns + k] = scale * q[p, i, k]
        energy[here] = scale * energies[:n] + shift
        pull_back(
            g, positions[here], cell, inverse, periodic, descriptor, forces[here], virial[here]
        )
    return total


@compiled
def small_group(
    centre: Floats,
    starts: Ints,
    entries: Ints,
    basis: Floats,
    xa: Floats,
    x_squared: Floats,
    x_dot_a: Floats,
    components: Ints,
    values: Floats,
    sigma: float,
    positions: Floats,
    cell: Floats,
    inverse: Floats,
    periodic: bool,
    scale: float,
    shift: float,
    energy: Floats,
    forces: Floats,
    virial: Floats,
) -> float:
    """Do :func:`direct` for a small group of permutations.

    Fourier coefficient c is the sum of ``basis[k] · q[entries[k]]`` over k from ``starts[c]``.
    """
    n_desc, n_coefficients = len(centre), len(starts) - 1
    descriptor, g = np.empty((1, n_desc)), np.empty((1, n_desc))
    coefficients, slopes = aligned(1, n_coefficients), aligned(1, n_coefficients)
    total = 0.0
    for b in range(len(positions)):
        here = slice(b, b + 1)
        total += pair_distances(positions[here], cell, inverse, periodic, descriptor)
        query = descriptor[0] - centre
        for c in range(n_coefficients):
            coefficient = 0.0
            for k in range(starts[c], starts[c + 1]):
                coefficient += basis[k] * query[entries[k]]
            coefficients[0, c] = coefficient
        slopes[:] = 0.0
        here_energy, w1_sum = group_sum_of_few(
            coefficients, xa, x_squared, x_dot_a, components, values, sigma, slopes
        )
        energy[b] = scale * here_energy + shift
        g[0] = scale * w1_sum * query
        for c in range(n_coefficients):
            slope = scale * slopes[0, c]
            for k in range(starts[c], starts[c + 1]):
                g[0, entries[k]] += basis[k] * slope
        pull_back(
            g, positions[here], cell, inverse, periodic, descriptor, forces[here], virial[here]
        )
    return total
