"""The products of :mod:`deltaserver.training.iterative.tall`, compiled.

Imported only where numba is installed; a test holds the two equal. Every number is read once and is
double precision from there on; some rows at a time, so that the sums over them are read and written
once for all of these.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled

Floats = NDArray[np.float64]
Numbers = NDArray[np.floating[Any]]

EIGHT, FOUR = 8, 4


@compiled
def add_rows(rows: Numbers, factors: Floats, total: Floats) -> None:
    """Add Σ_i factors_i rows_i to ``total``: rows (n, rank), factors (n,), total (rank,)."""
    n, rank = rows.shape
    whole = n - n % EIGHT
    for i in range(0, whole, EIGHT):
        f0, f1, f2, f3 = factors[i], factors[i + 1], factors[i + 2], factors[i + 3]
        f4, f5, f6, f7 = factors[i + 4], factors[i + 5], factors[i + 6], factors[i + 7]
        for j in range(rank):
            one = f0 * rows[i, j] + f1 * rows[i + 1, j] + f2 * rows[i + 2, j] + f3 * rows[i + 3, j]
            two = f4 * rows[i + 4, j] + f5 * rows[i + 5, j]
            total[j] += one + (two + f6 * rows[i + 6, j] + f7 * rows[i + 7, j])
    for i in range(whole, n):
        for j in range(rank):
            total[j] += factors[i] * rows[i, j]


@compiled
def dot_rows(rows: Numbers, vector: Floats, result: Floats) -> None:
    """Fill ``result`` (n,) with the scalar products of rows (n, rank) and ``vector`` (rank,)."""
    n, rank = rows.shape
    whole = n - n % FOUR
    for i in range(0, whole, FOUR):
        s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
        for j in range(rank):
            s0 += rows[i, j] * vector[j]
            s1 += rows[i + 1, j] * vector[j]
            s2 += rows[i + 2, j] * vector[j]
            s3 += rows[i + 3, j] * vector[j]
        result[i], result[i + 1], result[i + 2], result[i + 3] = s0, s1, s2, s3
    for i in range(whole, n):
        s0 = 0.0
        for j in range(rank):
            s0 += rows[i, j] * vector[j]
        result[i] = s0
