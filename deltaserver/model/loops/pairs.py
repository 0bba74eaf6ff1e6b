"""Pairs of atoms as compiled loops: to the descriptor, and from its slopes back to forces.

A pair's displacement is worked out twice, on the way to the descriptor and on the way back: that
costs less than to write it to memory and to read it again. Both ways can be gone for a range of
pairs alone, while what comes of it is still in a core's first cache.

``cell`` is what :func:`deltaserver.model.descriptor.compiled_cell` makes: lattice vectors and their
inverse, (2, 3, 3). Where it is None, or another argument that may be, numba compiles a loop without
the branch, which becomes vector instructions.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@partial(compiled, inline="always")
def _nearest_image(x: float, y: float, z: float, cell: Floats) -> tuple[float, float, float]:
    lattice, inverse = cell[0], cell[1]
    u = np.rint(inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2] * z)
    v = np.rint(inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2] * z)
    w = np.rint(inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2] * z)
    return (
        x - (lattice[0, 0] * u + lattice[0, 1] * v + lattice[0, 2] * w),
        y - (lattice[1, 0] * u + lattice[1, 1] * v + lattice[1, 2] * w),
        z - (lattice[2, 0] * u + lattice[2, 1] * v + lattice[2, 2] * w),
    )


@partial(compiled, inline="always")
def _row_of(pair: int) -> int:
    """Return i of the pair (i, j < i), which is number i (i − 1) / 2 + j."""
    return int((1.0 + math.sqrt(1.0 + 8.0 * pair)) / 2.0)


@partial(compiled, inline="always")
def add_stress(
    stress: Floats, xx: float, xy: float, xz: float, yy: float, yz: float, zz: float
) -> None:
    """Add the six numbers of a symmetric matrix to stress (6,)."""
    stress[0] += xx
    stress[1] += xy
    stress[2] += xz
    stress[3] += yy
    stress[4] += yz
    stress[5] += zz


@partial(compiled, allocates=False)
def add_virial(d: Floats, pull: Floats, virial: Floats) -> None:
    """Add Σ pull d ⊗ d of displacements d (3 or more, P) to the virial (3, 3)."""
    xx = xy = xz = yy = yz = zz = 0.0
    for p in range(len(pull)):
        x, y, z = d[0, p], d[1, p], d[2, p]
        fx, fy, fz = pull[p] * x, pull[p] * y, pull[p] * z
        xx += fx * x
        xy += fx * y
        xz += fx * z
        yy += fy * y
        yz += fy * z
        zz += fz * z
    virial[0, 0] += xx
    virial[0, 1] += xy
    virial[1, 0] += xy
    virial[0, 2] += xz
    virial[2, 0] += xz
    virial[1, 1] += yy
    virial[1, 2] += yz
    virial[2, 1] += yz
    virial[2, 2] += zz


@partial(compiled, inline="always")
def fill_virial(stress: Floats, virial: Floats) -> None:
    """Fill the virial (3, 3) with −stress (6,)."""
    virial[0, 0], virial[1, 1], virial[2, 2] = -stress[0], -stress[3], -stress[5]
    virial[0, 1] = virial[1, 0] = -stress[1]
    virial[0, 2] = virial[2, 0] = -stress[2]
    virial[1, 2] = virial[2, 1] = -stress[4]


@partial(compiled, allocates=False)
def axes(positions: Floats, at: Floats) -> float:
    """Fill at (3, N) with the positions (N, 3); return 0, or NaN where one is not finite."""
    x, y, z = at[0], at[1], at[2]
    total = 0.0
    for i in range(len(positions)):
        x[i], y[i], z[i] = positions[i, 0], positions[i, 1], positions[i, 2]
        total += 0.0 * (x[i] + y[i] + z[i])
    return total


@partial(compiled, allocates=False)
def distances_between(
    at: Floats, cell: Floats | None, start: int, stop: int, centre: Floats | None, row: Floats
) -> tuple[float, float]:
    """Fill row (≥ stop − start,) with 1/|r_i − r_j| of these pairs, less the centre if any.

    Returns their sum before that, and |row|² if there is a centre.
    """
    x, y, z = at[0], at[1], at[2]
    total = squared = 0.0
    k, i = start, _row_of(start)
    while k < stop:
        first = k - i * (i - 1) // 2
        n = min(i - first, stop - k)
        to = row[k - start : k - start + n]
        origin = to if centre is None else centre[k - start : k - start + n]
        xj, yj, zj = x[first : first + n], y[first : first + n], z[first : first + n]
        xi, yi, zi = x[i], y[i], z[i]
        for j in range(n):
            dx, dy, dz = xi - xj[j], yi - yj[j], zi - zj[j]
            if cell is not None:
                dx, dy, dz = _nearest_image(dx, dy, dz, cell)
            value = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
            total += value
            if centre is not None:
                value -= origin[j]
                squared += value * value
            to[j] = value
        k += n
        i += 1
    return total, squared


@partial(compiled, allocates=False)
def pull_between(
    g: Floats,
    w1_sum: float | None,
    known: Floats,
    at: Floats,
    cell: Floats | None,
    start: int,
    pull: Floats,
    stress: Floats,
) -> None:
    """Add Jᵀg of the pairs from ``start`` to pull (3, N), and Σ c d ⊗ d, c = g D³, to stress (6,).

    ``known`` is their descriptor D. With a number ``w1_sum`` it is the descriptor's centre, and the
    centred descriptor times that number is added to g. The descriptor is worked out again then:
    that costs less than to have it out of the third cache.
    """
    x, y, z = at[0], at[1], at[2]
    pull_x, pull_y, pull_z = pull[0], pull[1], pull[2]
    xx = xy = xz = yy = yz = zz = 0.0
    k, stop, i = start, start + len(g), _row_of(start)
    while k < stop:
        first = k - i * (i - 1) // 2
        n = min(i - first, stop - k)
        slopes, given = g[k - start : k - start + n], known[k - start : k - start + n]
        xj, yj, zj = x[first : first + n], y[first : first + n], z[first : first + n]
        to_x, to_y = pull_x[first : first + n], pull_y[first : first + n]
        to_z = pull_z[first : first + n]
        xi, yi, zi = x[i], y[i], z[i]
        fx = fy = fz = 0.0
        for j in range(n):
            dx, dy, dz = xi - xj[j], yi - yj[j], zi - zj[j]
            if cell is not None:
                dx, dy, dz = _nearest_image(dx, dy, dz, cell)
            slope, value = slopes[j], given[j]
            if w1_sum is not None:
                value = 1.0 / math.sqrt(dx * dx + dy * dy + dz * dz)
                slope += w1_sum * (value - given[j])
            c = slope * value * value * value
            cx, cy, cz = c * dx, c * dy, c * dz
            to_x[j] += cx
            to_y[j] += cy
            to_z[j] += cz
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
        k += n
        i += 1
    add_stress(stress, xx, xy, xz, yy, yz, zz)


@partial(compiled, allocates=False)
def collect(pull: Floats, stress: Floats, forces: Floats, virial: Floats) -> None:
    """Turn pull and stress of all pairs into forces (N, 3) and the virial (3, 3)."""
    pull_x, pull_y, pull_z = pull[0], pull[1], pull[2]
    for i in range(len(forces)):
        forces[i, 0], forces[i, 1], forces[i, 2] = pull_x[i], pull_y[i], pull_z[i]
    fill_virial(stress, virial)


@compiled
def pair_distances(positions: Floats, cell: Floats | None, descriptor: Floats) -> float:
    """Fill 1/|r_i − r_j| into (B, ≥ D) for positions (B, N, 3); return their sum.

    The sum is not finite where two atoms coincide or a position is not finite.
    """
    n_atoms = positions.shape[1]
    n_desc = n_atoms * (n_atoms - 1) // 2
    at = np.empty((3, n_atoms))
    total = 0.0
    for b in range(len(positions)):
        total += axes(positions[b], at)
        total += distances_between(at, cell, 0, n_desc, None, descriptor[b])[0]
    return total


@compiled
def pull_back(
    g: Floats,
    positions: Floats,
    cell: Floats | None,
    descriptor: Floats,
    forces: Floats,
    virial: Floats,
) -> None:
    """Fill forces (B, N, 3) = Jᵀg and virial (B, 3, 3) = −Σ c d ⊗ d, c = g D³."""
    n_atoms = positions.shape[1]
    n_desc = n_atoms * (n_atoms - 1) // 2
    at, pull, stress = np.empty((3, n_atoms)), np.empty((3, n_atoms)), np.empty(6)
    for b in range(len(positions)):
        axes(positions[b], at)
        pull[:] = 0.0
        stress[:] = 0.0
        pull_between(g[b, :n_desc], None, descriptor[b], at, cell, 0, pull, stress)
        collect(pull, stress, forces[b], virial[b])
