"""The near part of an Ewald sum as compiled loops.

See :mod:`deltaserver.model.many.electrostatics.ewald`.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled
from deltaserver.model.loops.pairs import add_virial
from deltaserver.model.loops.sum import exponential

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

AT_ONCE = 256  # pairs of atoms that are gathered: they stay in a core's cache


@compiled
def add_screened(
    x: tuple[Floats, Floats],
    charges: tuple[Floats, Floats],
    pairs: tuple[Ints, Ints, Floats],
    split: tuple[float, float, Floats],
    results: tuple[Floats, Floats, Floats, Floats],
) -> None:
    """Add Σ q q erfc(α r)/r of pairs of molecules, between atoms closer than the cutoff.

    ``x`` (n, m, 3) are all molecules that each of a pair may be, ``charges`` (m,) theirs, the
    first's in units in which q q/r is an energy; ``pairs`` is their numbers (P,) and what is to be
    added to the second's positions (P, 3), ``split`` α, the cutoff and the series of erfc. Fills
    energies (P,), adds forces (n, m, 3) and the virial (3, 3).
    """
    one, other, shift = pairs
    most = AT_ONCE + x[0].shape[1] * x[1].shape[1]
    found = np.empty((3, most), dtype=np.int64), np.empty((4, most)), np.empty((5, most))
    results[0][:] = 0.0
    n = 0
    for p in range(len(one)):
        here, there = x[0][one[p]], x[1][other[p]]
        n = _gather_near((here, there), shift[p], split[1] * split[1], charges, (found, n, p))
        if n >= AT_ONCE:
            _add_some(found, n, (one, other), split, results)
            n = 0
    _add_some(found, n, (one, other), split, results)


@partial(compiled, allocates=False)
def _gather_near(
    x: tuple[Floats, Floats],
    shift: Floats,
    furthest: float,
    charges: tuple[Floats, Floats],
    to: tuple[tuple[Ints, Floats, Floats], int, int],
) -> int:
    """Append atoms of pair p that are near, d and the product of charges; return how many."""
    (where, d, _), n, p = to
    for a in range(len(x[0])):
        ax, ay, az = x[0][a, 0] - shift[0], x[0][a, 1] - shift[1], x[0][a, 2] - shift[2]
        for b in range(len(x[1])):
            dx, dy, dz = x[1][b, 0] - ax, x[1][b, 1] - ay, x[1][b, 2] - az
            where[0, n], where[1, n], where[2, n] = p, a, b
            d[0, n], d[1, n], d[2, n] = dx, dy, dz
            d[3, n] = charges[0][a] * charges[1][b]
            # The next one takes its place unless it is near: no branch to be guessed.
            n += dx * dx + dy * dy + dz * dz < furthest
    return n


@partial(compiled, allocates=False)
def _add_some(
    found: tuple[Ints, Floats, Floats],
    n: int,
    pairs: tuple[Ints, Ints],
    split: tuple[float, float, Floats],
    results: tuple[Floats, Floats, Floats, Floats],
) -> None:
    """Add what the first n of the atoms that were gathered give."""
    where, d, work = found
    energy, force, back, virial = results
    _screened(d[:, :n], work[:, :n], split)
    pull, value = work[1], work[3]
    for k in range(n):
        p, a, b = where[0, k], where[1, k], where[2, k]
        energy[p] += value[k]
        on, to = force[pairs[0][p]], back[pairs[1][p]]
        fx, fy, fz = pull[k] * d[0, k], pull[k] * d[1, k], pull[k] * d[2, k]
        on[a, 0] -= fx
        on[a, 1] -= fy
        on[a, 2] -= fz
        to[b, 0] += fx
        to[b, 1] += fy
        to[b, 2] += fz
    add_virial(d[:, :n], pull[:n], virial)


@partial(compiled, allocates=False)
def _screened(d: Floats, work: Floats, split: tuple[float, float, Floats]) -> None:
    """Fill φ = q q erfc(α r)/r into ``work[3]`` and −φ′/r into ``work[1]``, of (…, n)."""
    alpha, cutoff, series = split
    r, pull, place, value, gauss = work[0], work[1], work[2], work[3], work[4]
    n, slope = d.shape[1], 2.0 * alpha / math.sqrt(math.pi)
    x, y, z, product = d[0], d[1], d[2], d[3]
    stretch = 2.0 / ((alpha * cutoff - 4.0) / (alpha * cutoff + 4.0) + 1.0)
    for p in range(n):  # a loop for every array: with more the compiler sees no vectors
        r[p] = math.sqrt(x[p] * x[p] + y[p] * y[p] + z[p] * z[p])
    for p in range(n):
        scaled = alpha * r[p]
        place[p] = ((scaled - 4.0) / (scaled + 4.0) + 1.0) * stretch - 1.0
    for p in range(n):
        gauss[p] = exponential(-(alpha * r[p]) * (alpha * r[p]))
    value[:] = series[0]
    for k in range(1, len(series)):
        for p in range(n):
            value[p] = value[p] * place[p] + series[k]
    for p in range(n):
        by_r = 1.0 / r[p]
        term = product[p] * gauss[p]
        energy = term * value[p] * by_r
        value[p] = energy
        pull[p] = (energy + term * slope) * by_r * by_r
