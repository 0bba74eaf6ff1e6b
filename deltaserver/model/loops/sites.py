"""Pair potentials as compiled loops; see :mod:`deltaserver.model.linear.radials`."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled
from deltaserver.model.loops import eights
from deltaserver.model.loops.eights import LANES, add_place, everywhere, place, root, store
from deltaserver.model.loops.pairs import _nearest_image, add_virial
from deltaserver.model.loops.sum import aligned, exponential

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@partial(compiled, inline="always")
def _power(r: float, n: int) -> float:
    """Return rⁿ of a whole number n ≥ 0 by squaring."""
    result, factor = 1.0, r
    while n > 0:
        if n & 1:
            result *= factor
        factor *= factor
        n >>= 1
    return result


@compiled
def add_pairs(
    places: Floats,
    pairs: tuple[Ints, Ints, Floats],
    radials: tuple[Floats, Ints, Floats],
    cell: Floats | None,
    results: tuple[Floats, Floats, Floats],
) -> None:
    """Add energies (B,), forces on places (B, n, 3) and virials (B, 3, 3) of places (B, n, 3).

    ``pairs`` is (first, second, coefficients): the places of each (P,), and C (K, P).
    ``radials`` is (decays, multiples, powers): decays that are multiples of the first are powers of
    one exponential; 0 is no multiple. All pairs go through one function after another, which makes
    vector instructions of it.
    """
    first, second, coefficients = pairs
    energy, forces, virial = results
    d, work = np.empty((3, len(first))), np.empty((6, len(first)))
    for m in range(len(places)):
        at, force = places[m], forces[m]
        for p in range(len(first)):
            a, b = first[p], second[p]
            x, y, z = at[a, 0] - at[b, 0], at[a, 1] - at[b, 1], at[a, 2] - at[b, 2]
            if cell is not None:
                x, y, z = _nearest_image(x, y, z, cell)
            d[0, p], d[1, p], d[2, p] = x, y, z
        energy[m] += _values(d, coefficients, radials, work)
        pull = work[1]
        add_virial(d, pull, virial[m])
        for p in range(len(first)):
            a, b = first[p], second[p]
            fx, fy, fz = pull[p] * d[0, p], pull[p] * d[1, p], pull[p] * d[2, p]
            force[a, 0] += fx
            force[a, 1] += fy
            force[a, 2] += fz
            force[b, 0] -= fx
            force[b, 1] -= fy
            force[b, 2] -= fz


@partial(compiled, allocates=False)
def _values(
    d: Floats, coefficients: Floats, radials: tuple[Floats, Ints, Floats], work: Floats
) -> float:
    """Return Σ C φ of displacements d (3, P); fill −Σ C φ′/r into ``work[1]`` of (6, P)."""
    decays, multiples, powers = radials
    r, pull, one, term, by_r = work[0], work[1], work[2], work[3], work[4]
    n, n_decays, total = d.shape[1], len(decays), 0.0
    x, y, z = d[0], d[1], d[2]
    for p in range(n):  # a loop for every array: with more the compiler sees no vectors
        r[p] = math.sqrt(x[p] * x[p] + y[p] * y[p] + z[p] * z[p])
    for p in range(n):
        by_r[p] = 1.0 / r[p]
    pull[:] = 0.0
    for k in range(n_decays):
        decay, c = decays[k], coefficients[k]
        if k == 0 or multiples[k] == 0:
            for p in range(n):
                term[p] = exponential(-decay * r[p])
                if k == 0:
                    one[p] = term[p]
        elif multiples[k - 1] > 0 and multiples[k] > multiples[k - 1]:
            for _ in range(multiples[k] - multiples[k - 1]):
                for p in range(n):
                    term[p] *= one[p]
        else:
            for p in range(n):
                term[p] = _power(one[p], multiples[k])
        for p in range(n):
            value = c[p] * term[p]
            total += value
            pull[p] += decay * value * by_r[p]
    for k in range(len(powers)):
        exponent, c = int(powers[k, 0]), coefficients[n_decays + k]
        shift = powers[k, 1] ** exponent
        raised = work[5]
        raised[:] = 1.0
        for _ in range(exponent):
            for p in range(n):
                raised[p] *= r[p]
        for p in range(n):
            whole = 1.0 / (raised[p] + shift)
            value = c[p] * whole
            total -= value
            pull[p] -= exponent * raised[p] * whole * value * by_r[p] * by_r[p]
    return total


@compiled
def add_pairs_by_eights(
    x: Floats,
    sites: tuple[Ints, Ints],
    pairs: tuple[Ints, Ints, Floats],
    radials: tuple[Floats, Ints, Floats],
    results: tuple[Floats, Floats, Floats],
) -> None:
    """Fill energies (B,), forces (B, N, 3) and virials (B, 3, 3) of x (B, N, 3), eight at a time.

    ``sites`` is (members, starts): each is the mean of some atoms. The rest is as in
    :func:`add_pairs`, without a cell; pairs stand in the order of their first sites.
    """
    members, starts = sites
    energy, forces, virial = results
    n_sites, n_atoms = len(starts) - 1, x.shape[1]
    at, pull = aligned(1, 3 * n_atoms * LANES)[0], aligned(1, 3 * n_atoms * LANES)[0]
    places, on_sites = aligned(1, 3 * n_sites * LANES)[0], aligned(1, 3 * n_sites * LANES)[0]
    total, stress = aligned(1, LANES)[0], aligned(1, 6 * LANES)[0]
    decays, multiples, powers = radials
    shifts = np.empty(len(powers))
    for k in range(len(powers)):
        shifts[k] = powers[k, 1] ** powers[k, 0]
    for start in range(0, len(x), LANES):
        some = x[start : start + LANES]
        eights.gather(some, at)
        places[:] = 0.0
        pull[:] = 0.0
        on_sites[:] = 0.0
        for s in range(n_sites):
            share = 1.0 / (starts[s + 1] - starts[s])
            for k in range(starts[s], starts[s + 1]):
                add_place(places, s, share, *place(at, members[k]))
        _values_of_eight(places, pairs, (decays, multiples, powers, shifts), (total, on_sites))
        for s in range(n_sites):
            share = 1.0 / (starts[s + 1] - starts[s])
            for k in range(starts[s], starts[s + 1]):
                add_place(pull, members[k], share, *place(on_sites, s))
        eights.fill_stress(places, on_sites, stress)
        for lane in range(len(some)):
            energy[start + lane] = total[lane]
            eights.spread(pull, lane, 1.0, forces[start + lane])
            eights.spread_stress(stress, lane, virial[start + lane])


@partial(compiled, allocates=False)
def _values_of_eight(
    at: Floats,
    pairs: tuple[Ints, Ints, Floats],
    radials: tuple[Floats, Ints, Floats, Floats],
    results: tuple[Floats, Floats],
) -> None:
    """Fill energies (8,) and add forces (n, 3, 8) of places at (n, 3, 8)."""
    first, second, coefficients = pairs
    energy, pull = results
    total, p = everywhere(0.0), 0
    while p < len(first):
        a = first[p]
        x, y, z = place(at, a)
        fx, fy, fz = everywhere(0.0), everywhere(0.0), everywhere(0.0)
        while p < len(first) and first[p] == a:
            b = second[p]
            x_, y_, z_ = place(at, b)
            dx, dy, dz = x - x_, y - y_, z - z_
            value, along = _radial(dx * dx + dy * dy + dz * dz, coefficients, p, radials)
            total = total + value
            gx, gy, gz = along * dx, along * dy, along * dz
            fx, fy, fz = fx + gx, fy + gy, fz + gz
            add_place(pull, b, -1.0, gx, gy, gz)
            p += 1
        add_place(pull, a, 1.0, fx, fy, fz)
    store(energy, 0, total)


@partial(compiled, allocates=False)
def _radial(
    square: Any, coefficients: Floats, p: int, radials: tuple[Floats, Ints, Floats, Floats]
) -> tuple[Any, Any]:
    """Return Σ C φ and −Σ C φ′/r of the pair p of eight geometries, of the square of r."""
    decays, multiples, powers, shifts = radials
    n_decays = len(decays)
    r = root(square)
    total, pull = everywhere(0.0), everywhere(0.0)
    one = term = everywhere(1.0)
    for k in range(n_decays):
        if k == 0 or multiples[k] == 0:
            term = eights.exponential(r * -decays[k])
            if k == 0:
                one = term
        else:
            gone = multiples[k - 1] if 0 < multiples[k - 1] <= multiples[k] else 0
            if gone == 0:
                term = everywhere(1.0)
            for _ in range(multiples[k] - gone):
                term = term * one
        value = term * coefficients[k, p]
        total = total + value
        pull = pull + value * decays[k]
    if n_decays:
        pull = pull / r
    for k in range(len(powers)):
        exponent, c = int(powers[k, 0]), coefficients[n_decays + k, p]
        lowered = r if exponent % 2 else everywhere(1.0)  # r^(n − 2), but for n = 1
        for _ in range((exponent - 1) // 2 if exponent % 2 == 0 else (exponent - 3) // 2):
            lowered = lowered * square
        if exponent == 1:
            lowered = 1.0 / r
        whole = 1.0 / (lowered * square + shifts[k])
        value = whole * c
        total = total - value
        pull = pull - value * whole * lowered * float(exponent)
    return total, pull
