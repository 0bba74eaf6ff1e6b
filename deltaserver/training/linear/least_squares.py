"""Many rows, some thousand columns: least squares through the normal equations, rows as they come.

Columns are brought to norm 1, or as near as scales that some of them share allow, and a little of
|c|² is added, the ridge: with double precision and a ridge of 1e-9 the squared condition number
does no harm that a validation error would show.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def largest_alike(norms: Floats, family: Ints) -> Floats:
    """Return for every column (n,) the largest norm of those of its family."""
    largest = np.zeros(int(family.max()) + 1)
    np.maximum.at(largest, family, norms)
    return largest[family]


class LeastSquares:
    """AᵀA and Aᵀy of A c = y, of which only rows at a time need to exist.

    Args:
        n_columns: of A.
    """

    def __init__(self, n_columns: int) -> None:
        self._gram = np.zeros((n_columns, n_columns), order="F")
        self._aim = np.zeros(n_columns)

    def add(self, rows: Floats, y: Floats) -> None:
        """Take rows (n, n_columns) and their right-hand sides (n,) into account."""
        from scipy.linalg.blas import dsyrk

        a = np.asfortranarray(rows)
        self._gram = dsyrk(1.0, a, 1.0, self._gram, trans=1, lower=1, overwrite_c=1)
        self._aim += a.T @ y

    @property
    def norms(self) -> Floats:
        """Return the norm of every column, shape (n_columns,)."""
        norms: Floats = np.sqrt(np.diagonal(self._gram))
        return norms

    def solve(
        self, ridge: float, n_first: int | None = None, scale: Floats | None = None
    ) -> Floats:
        """Return c (n_columns,) with the least |A c − y|² + ridge |scale c|².

        Args:
            ridge: relative to the columns' squared norms.
            n_first: so many of the first columns alone, the others' coefficients zero.
            scale: of every column; its norm if not given.
        """
        from scipy.linalg import LinAlgError, cho_factor, cho_solve

        n = len(self._aim) if n_first is None else n_first
        norms = (self.norms if scale is None else scale)[:n]
        norms = np.where(norms > 0.0, norms, 1.0)
        while True:
            scaled = np.asfortranarray(self._gram[:n, :n] / norms[:, None] / norms)
            scaled.ravel(order="K")[:: n + 1] += ridge
            try:
                factor = cho_factor(scaled, lower=True, overwrite_a=True, check_finite=False)
                break
            except LinAlgError:  # rounding, where columns depend on each other
                ridge = max(10.0 * ridge, 1e-15)
        result = np.zeros(len(self._aim))
        result[:n] = cho_solve(factor, self._aim[:n] / norms) / norms
        return result

    def solve_non_negative(self, columns: Ints, ridge: float = 1e-9) -> Floats:
        """Return c ≥ 0 of some columns alone, shape (len(columns),); ``ridge`` as of ``solve``."""
        from scipy.linalg import cholesky, solve_triangular
        from scipy.optimize import nnls

        low, high = np.sort(np.broadcast_arrays(columns, columns[:, None]), axis=0)
        norms = np.where(self.norms > 0.0, self.norms, 1.0)[columns]
        gram = self._gram[high, low] / norms / norms[:, None]
        root = cholesky(gram + ridge * np.eye(len(columns)))  # gram = rootᵀ root
        aim = solve_triangular(root, self._aim[columns] / norms, trans="T")
        found: Floats = nnls(root, aim)[0] / norms
        return found
