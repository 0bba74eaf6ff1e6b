"""Pair potentials as compiled loops; see :mod:`deltaserver.model.linear.radials`."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled
from deltaserver.model.loops.pairs import _nearest_image

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

    ``pairs`` is (first, second, coefficients): the places of each (P,), and C (P, K).
    ``radials`` is (decays, multiples, powers): decays that are multiples of the first are powers of
    one exponential; 0 is no multiple.
    """
    first, second, coefficients = pairs
    decays, multiples, powers = radials
    energy, forces, virial = results
    n_decays = len(decays)
    decay = decays[0] if n_decays else 0.0
    exponent = powers[:, 0].astype(np.int64)
    shift = np.empty(len(powers))
    for k in range(len(powers)):
        shift[k] = powers[k, 1] ** exponent[k]
    for m in range(len(places)):
        at, total = places[m], 0.0
        v = np.zeros(6)
        for p in range(len(first)):
            a, b = first[p], second[p]
            x, y, z = at[a, 0] - at[b, 0], at[a, 1] - at[b, 1], at[a, 2] - at[b, 2]
            if cell is not None:
                x, y, z = _nearest_image(x, y, z, cell)
            squared = x * x + y * y + z * z
            r = np.sqrt(squared)
            inverse_squared = 1.0 / squared
            value, pull = 0.0, 0.0  # φ and −φ′ r, divided by r² at the end
            one = np.exp(-decay * r)
            for k in range(n_decays):
                n = multiples[k]
                term = coefficients[p, k] * (_power(one, n) if n else np.exp(-decays[k] * r))
                value += term
                pull += decays[k] * r * term
            for k in range(len(shift)):
                raised = _power(r, exponent[k])
                whole = 1.0 / (raised + shift[k])
                term = coefficients[p, n_decays + k] * whole
                value -= term
                pull -= exponent[k] * raised * whole * term
            pull *= inverse_squared
            total += value
            fx, fy, fz = pull * x, pull * y, pull * z
            forces[m, a, 0] += fx
            forces[m, a, 1] += fy
            forces[m, a, 2] += fz
            forces[m, b, 0] -= fx
            forces[m, b, 1] -= fy
            forces[m, b, 2] -= fz
            v[0] += fx * x
            v[1] += fx * y
            v[2] += fx * z
            v[3] += fy * y
            v[4] += fy * z
            v[5] += fz * z
        energy[m] += total
        virial[m, 0, 0] += v[0]
        virial[m, 0, 1] += v[1]
        virial[m, 1, 0] += v[1]
        virial[m, 0, 2] += v[2]
        virial[m, 2, 0] += v[2]
        virial[m, 1, 1] += v[3]
        virial[m, 1, 2] += v[4]
        virial[m, 2, 1] += v[4]
        virial[m, 2, 2] += v[5]
