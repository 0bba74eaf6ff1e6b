"""The products of :mod:`deltaserver.training.iterative.tall` in NumPy, which copies to convert."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Floats

Numbers = NDArray[np.floating[Any]]

NUMBERS = 2**18  # in double precision at once: 2 MB, which a core's cache holds


def add_rows(rows: Numbers, factors: Floats, total: Floats) -> None:
    """Add Σ_i factors_i rows_i to ``total``: rows (n, rank), factors (n,), total (rank,)."""
    for some in _some(rows):
        total += factors[some] @ rows[some].astype(np.float64)


def dot_rows(rows: Numbers, vector: Floats, result: Floats) -> None:
    """Fill ``result`` (n,) with the scalar products of rows (n, rank) and ``vector`` (rank,)."""
    for some in _some(rows):
        result[some] = rows[some].astype(np.float64) @ vector


def _some(rows: Numbers) -> Iterator[slice]:
    n, rank = rows.shape
    step = max(1, NUMBERS // max(1, rank))
    return (slice(start, start + step) for start in range(0, n, step))
