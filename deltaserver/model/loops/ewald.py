"""The near part of an Ewald sum as compiled loops; see :mod:`deltaserver.model.many.ewald`."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@compiled
def erfc(x: Floats, found: Floats) -> None:
    """Fill the complementary error function of x, both (n,)."""
    for k in range(len(x)):
        found[k] = math.erfc(x[k])


@compiled
def add_screened(
    x: tuple[Floats, Floats],
    charges: tuple[Floats, Floats],
    pairs: tuple[Ints, Ints, Floats],
    split: tuple[float, float],
    results: tuple[Floats, Floats, Floats, Floats],
) -> None:
    """Add Σ q q erfc(α r)/r of pairs of molecules, between atoms closer than the cutoff.

    ``x`` (n, m, 3) are all molecules that each of a pair may be, ``charges`` (m,) theirs, the
    first's in units in which q q/r is an energy; ``pairs`` is their numbers (P,) and what is to be
    added to the second's positions (P, 3), ``split`` α and the cutoff's square. Fills energies
    (P,), adds forces (n, m, 3) and the virial (3, 3).
    """
    one, other, shift = pairs
    energy, force, back, virial = results
    alpha, furthest = split
    slope = 2.0 * alpha / math.sqrt(math.pi)
    near, at = np.empty((4, x[1].shape[1])), np.empty(x[1].shape[1], dtype=np.int64)
    for p in range(len(one)):
        total = 0.0
        here, there = x[0][one[p]], x[1][other[p]]
        for a in range(len(here)):
            n = _gather_near(here[a], there, shift[p], furthest, near, at)
            fx, fy, fz = 0.0, 0.0, 0.0
            for k in range(n):
                square = near[3, k]
                r = math.sqrt(square)
                product = charges[0][a] * charges[1][at[k]]
                value = product * math.erfc(alpha * r) / r
                total += value
                pull = value + product * slope * math.exp(-alpha * alpha * square)
                pull /= square
                gx, gy, gz = pull * near[0, k], pull * near[1, k], pull * near[2, k]
                fx, fy, fz = fx + gx, fy + gy, fz + gz
                to = back[other[p], at[k]]
                to[0] += gx
                to[1] += gy
                to[2] += gz
                _add_stress(virial, gx, gy, gz, near[0, k], near[1, k], near[2, k])
            on = force[one[p], a]
            on[0] -= fx
            on[1] -= fy
            on[2] -= fz
        energy[p] = total


@partial(compiled, allocates=False)
def _gather_near(
    place: Floats, there: Floats, shift: Floats, furthest: float, near: Floats, at: Ints
) -> int:
    """Fill d and d² (4, n) from a place to a molecule's atoms that are near, and which they are."""
    x, y, z = place[0] - shift[0], place[1] - shift[1], place[2] - shift[2]
    n = 0
    for b in range(len(there)):
        dx, dy, dz = there[b, 0] - x, there[b, 1] - y, there[b, 2] - z
        square = dx * dx + dy * dy + dz * dz
        if square < furthest:
            near[0, n], near[1, n], near[2, n], near[3, n] = dx, dy, dz, square
            at[n] = b
            n += 1
    return n


@partial(compiled, allocates=False)
def _add_stress(
    virial: Floats, gx: float, gy: float, gz: float, dx: float, dy: float, dz: float
) -> None:
    virial[0, 0] += gx * dx
    virial[0, 1] += gx * dy
    virial[0, 2] += gx * dz
    virial[1, 0] += gy * dx
    virial[1, 1] += gy * dy
    virial[1, 2] += gy * dz
    virial[2, 0] += gz * dx
    virial[2, 1] += gz * dy
    virial[2, 2] += gz * dz
