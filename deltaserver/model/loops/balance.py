"""What should vanish of energies and forces, in one compiled pass.

See :mod:`deltaserver.model.trust.evaluation`, which judges it.

Optional, behind :mod:`deltaserver.compute.jit`: in NumPy the calls cost more than the arithmetic.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled

Floats = NDArray[np.float64]


@compiled
def balance(
    energies: Floats,
    forces: Floats,
    positions: Floats,
    sum_relative: float,
    relative: float,
    floor_ev_per_ang: float,
    left_over: Floats,
    allowed: Floats,
) -> float:
    """Fill what should vanish and its limits, (4, K, B), of energies (K, B), forces (K, B, N, 3).

    Row k = 0 is the total, the others its contributions; positions are (B, N, 3). Returns 0, or
    NaN where a force is not finite.
    """
    n_parts, n_batch, n_atoms, _ = forces.shape
    finite = 0.0
    left_over[:] = 0.0
    for b in range(n_batch):
        origin = positions[b, 0]
        reach = 1.0
        for i in range(n_atoms):
            for axis in range(3):
                reach = max(reach, abs(positions[b, i, axis] - origin[axis]))
        energy, magnitude, sizes = energies[0, b], abs(energies[0, b]), 0.0
        for k in range(n_parts):
            fx = fy = fz = tx = ty = tz = squared = 0.0
            for i in range(n_atoms):
                x, y, z = forces[k, b, i, 0], forces[k, b, i, 1], forces[k, b, i, 2]
                u, v = positions[b, i, 0] - origin[0], positions[b, i, 1] - origin[1]
                w = positions[b, i, 2] - origin[2]
                fx, fy, fz = fx + x, fy + y, fz + z
                tx, ty, tz = tx + v * z - w * y, ty + w * x - u * z, tz + u * y - v * x
                squared += x * x + y * y + z * z
            finite += 0.0 * squared
            left_over[2, k, b] = max(abs(fx), abs(fy), abs(fz))
            left_over[3, k, b] = max(abs(tx), abs(ty), abs(tz)) / reach
            size = math.sqrt(squared * n_atoms) + floor_ev_per_ang * n_atoms  # ≥ Σ|F_i|
            allowed[2, k, b] = allowed[3, k, b] = relative * size
            sizes += size
            if k > 0:
                energy -= energies[k, b]
                magnitude += abs(energies[k, b])
        left_over[0, 0, b] = abs(energy)
        left_over[1, 0, b] = _norm_of_remainder(forces, b)
        for k in range(n_parts):
            allowed[0, k, b], allowed[1, k, b] = sum_relative * magnitude, sum_relative * sizes
    return finite


@compiled
def _norm_of_remainder(forces: Floats, b: int) -> float:
    """Return the norm of the total's forces less their contributions'."""
    squared = 0.0
    for i in range(forces.shape[2]):
        for axis in range(3):
            rest = forces[0, b, i, axis]
            for k in range(1, len(forces)):
                rest -= forces[k, b, i, axis]
            squared += rest * rest
    return math.sqrt(squared)
