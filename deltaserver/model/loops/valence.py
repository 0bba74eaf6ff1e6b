"""Threefold products as compiled loops; see :mod:`deltaserver.model.linear.valence`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@compiled
def add_triples(
    z: Floats, triples: Ints, coefficients: Floats, energy: Floats, slope: Floats
) -> None:
    """Add Σ t z_p z_q z_r to energies (B,), its derivatives to slopes (B, P), of z (B, P)."""
    for m in range(len(z)):
        at, towards, total = z[m], slope[m], 0.0
        for k in range(len(triples)):
            p, q, r = triples[k, 0], triples[k, 1], triples[k, 2]
            a, b, c = at[p], at[q], coefficients[k] * at[r]
            total += a * b * c
            towards[p] += b * c
            towards[q] += a * c
            towards[r] += coefficients[k] * a * b
        energy[m] += total
