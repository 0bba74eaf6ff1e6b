"""What makes conjugate gradients converge: a kernel matrix of low rank that is like K.

From all columns of some training points, r of them, Nyström's approximation is
K ≈ B Bᵀ, B = K_nr L⁻ᵀ, K_rr = L Lᵀ, and

    (B Bᵀ + μ)⁻¹ v = (v − B (BᵀB + μ)⁻¹ Bᵀ v) / μ

by Woodbury. Going through B, not through K_rr⁻¹, squares no condition number. μ is what the
approximation leaves of K's diagonal, on average, so that it follows the scale of the kernel and
the number of columns; at least λ.

Columns of whole points are used since a block of K for one pair of points costs no more than a
few of its columns (with many permutations, most of it is finding the distances). Measured on C60,
50 points, σ = 20, 900 of 9,000 columns: 78 products to a residual of 1e-6, where the same number
by pivoted Cholesky needs 70, by leverage scores 67, a few of every point 67; but those touch
44 to 50 points' columns, whole points 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from deltaserver.model.threads import one_blas_thread
from deltaserver.training.assembly import _FASTEST, Progress, quiet
from deltaserver.training.blocks import PairFields, PermutationGroup
from deltaserver.training.solver import NotPositiveDefiniteError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

ROWS = 4096  # rows solved for at once: bounds what is held besides B
JITTER = 1e-14  # of K_rr's trace: rounding makes what is almost singular indefinite
JITTER_STEPS = 4  # each a hundred times the one before


class Preconditioner:
    """(B Bᵀ + μ)⁻¹ of the columns of some training points.

    Args:
        positions: training points, shape (M, N, 3).
        perms: a permutation group of the atoms, shape (S, N).
        sigma: length scale of the kernel.
        points: those whose columns are used.
        lam: λ.
        threads: blocks computed at once; of BLAS, the caller sets them.
        progress: called as work proceeds.
        weights: of the descriptor's entries, by atoms, shape (N, N).

    Raises:
        NotPositiveDefiniteError: K_rr has no Cholesky factor.
        DataError: two atoms of a training point coincide.
    """

    def __init__(
        self, positions: Floats, perms: Ints, sigma: float, points: Ints, lam: float,
        threads: int = 1, progress: Progress = quiet, weights: Floats | None = None,
    ) -> None:  # fmt: skip
        from scipy.linalg.lapack import dpotrf

        fields, group = PairFields.of(positions, weights), PermutationGroup.of(perms)
        diagonal = _diagonal(fields, group, sigma)
        self._basis = _columns(fields, group, sigma, points, threads, progress)
        _whiten(self._basis, points, lam)
        left = diagonal - np.einsum("nr,nr->n", self._basis, self._basis)
        self.mu = max(lam, float(left.mean()), 1e-14 * float(diagonal.mean()))
        gram = np.asfortranarray(self._basis.T @ self._basis)
        gram.ravel(order="K")[:: len(gram) + 1] += self.mu
        self._factor, info = dpotrf(gram, lower=1, clean=0, overwrite_a=1)
        if info:
            raise NotPositiveDefiniteError(int(info) - 1, self.mu)
        progress("preparing", 1.0)

    def __call__(self, v: Floats) -> Floats:
        """Return (B Bᵀ + μ)⁻¹ v."""
        from scipy.linalg.lapack import dpotrs

        inner, _ = dpotrs(self._factor, self._basis.T @ v, lower=1)
        result: Floats = (v - self._basis @ inner) / self.mu
        return result


def choose_points(n_train: int, count: int) -> Ints:
    """Return which points' columns to use: spread at random, always the same."""
    chosen = np.random.default_rng(0).permutation(n_train)[:count]
    return np.sort(chosen).astype(np.int64)


def _diagonal(fields: PairFields, group: PermutationGroup, sigma: float) -> Floats:
    blocks = (_FASTEST.block(fields, m, m, group, sigma) for m in range(len(fields)))
    return np.concatenate([np.diagonal(block) for block in blocks])


def _columns(
    fields: PairFields, group: PermutationGroup, sigma: float, points: Ints, threads: int,
    progress: Progress, backend: ModuleType = _FASTEST,
) -> Floats:  # fmt: skip
    """Return K_nr, Fortran order, shape (3NM, 3N·len(points))."""
    dim = 3 * fields.n_atoms
    result = np.empty((len(fields) * dim, len(points) * dim), order="F")

    def fill(k: int) -> None:
        for m in range(len(fields)):
            block = backend.block(fields, m, int(points[k]), group, sigma)
            result[m * dim : (m + 1) * dim, k * dim : (k + 1) * dim] = block.T

    with one_blas_thread(), ThreadPoolExecutor(max_workers=threads) as pool:
        jobs = [pool.submit(fill, k) for k in range(len(points))]
        try:
            for done, job in enumerate(as_completed(jobs)):
                job.result()
                progress("preparing", 0.8 * (done + 1) / len(jobs))
        finally:
            pool.shutdown(cancel_futures=True)
    return result


def _whiten(columns: Floats, points: Ints, lam: float) -> None:
    """Turn K_nr into B = K_nr L⁻ᵀ in place."""
    from scipy.linalg.blas import dtrsm

    dim = columns.shape[1] // len(points)
    rows = (points[:, None] * dim + np.arange(dim)).ravel()
    factor = _cholesky(columns[rows], lam)
    for start in range(0, len(columns), ROWS):
        part = slice(start, start + ROWS)
        columns[part] = dtrsm(1.0, factor, columns[part], side=1, lower=1, trans_a=1)


def _cholesky(matrix: Floats, lam: float) -> Floats:
    from scipy.linalg.lapack import dpotrf

    for jitter in _jitters(float(np.trace(matrix))):
        shifted = np.asfortranarray(matrix)
        shifted = shifted.copy(order="F") if shifted is matrix else shifted
        shifted.ravel(order="K")[:: len(matrix) + 1] += jitter
        factor, info = dpotrf(shifted, lower=1, clean=1, overwrite_a=1)
        if not info:
            return np.asfortranarray(factor)
    raise NotPositiveDefiniteError(int(info) - 1, lam)


def _jitters(trace: float) -> Iterator[float]:
    for step in range(JITTER_STEPS):
        yield JITTER * 100.0**step * trace
