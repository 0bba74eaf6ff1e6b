"""A matrix of many rows and few columns, whose products are double precision.

The preconditioner's columns are most of the memory that the iterative solver takes, and the more of
them, the fewer products. Rounding them to single precision costs little: with G′ = G + εN, of
G's largest singular value g and a random N, (G′G′ᵀ + 1)⁻¹ is still the inverse of a positive
matrix, exactly, and its directions are turned by ε. For the largest eigenvalue of
(G′G′ᵀ + 1)⁻¹(GGᵀ + 1) that is 1 + ε²g²: of the second order, as long as all sums are those of
float64, which single precision in the sums themselves would not be. Measured on the whole
C60@buckycatcher, 32 points without symmetry, columns of four, σ = 20: after 150 products the
residual is 3.7e-4, in double precision 3.6e-4; of eight, for which the same memory is enough,
3.1e-5.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Floats
from deltaserver.compute.thread_pool import ThreadPool
from deltaserver.training.iterative import tall_numpy

try:
    from deltaserver.training.iterative import tall_numba
except ImportError:  # numba is an extra; NumPy gives the same, more slowly
    _LOOPS: ModuleType = tall_numpy
else:
    _LOOPS = tall_numba

PIECES = 32  # that rows are shared out in, whatever the threads: sums have the same digits
LEAST = 512  # rows a piece
GRAM_ROWS = 4096  # in double precision at once


class TallMatrix:
    """G, shape (n, rank).

    Args:
        shape: (n, rank).
        threads: that share its products.
        single: stored in single precision.

    Attributes:
        rows: to be filled.
    """

    def __init__(self, shape: tuple[int, int], threads: int = 1, *, single: bool = False) -> None:
        n, _ = shape
        self.rows: NDArray[np.floating[Any]] = np.empty(
            shape, dtype=np.float32 if single else np.float64
        )
        self._pool = ThreadPool(threads)
        size = max(LEAST, -(-n // PIECES))
        self._pieces = [slice(start, min(start + size, n)) for start in range(0, n, size)]

    def transposed_times(self, u: Floats) -> Floats:
        """Return Gᵀu of u (n,)."""

        def part(piece: slice) -> Floats:
            total = np.zeros(self.rows.shape[1])
            _LOOPS.add_rows(self.rows[piece], u[piece], total)
            return total

        result: Floats = np.sum(self._pool.map(part, self._pieces), axis=0)
        return result

    def times(self, t: Floats) -> Floats:
        """Return G t of t (rank,)."""
        result = np.empty(len(self.rows))

        def part(piece: slice) -> None:
            _LOOPS.dot_rows(self.rows[piece], t, result[piece])

        self._pool.map(part, self._pieces)
        return result

    def gram(self) -> Floats:
        """Return GᵀG, its lower triangle, in Fortran order."""
        from scipy.linalg.blas import dsyrk

        rank = self.rows.shape[1]
        result: Floats = np.zeros((rank, rank), order="F")
        for start in range(0, len(self.rows), GRAM_ROWS):
            part = self.rows[start : start + GRAM_ROWS].astype(np.float64)
            result = dsyrk(1.0, part.T, beta=1.0, c=result, lower=1, overwrite_c=1)
        return result
