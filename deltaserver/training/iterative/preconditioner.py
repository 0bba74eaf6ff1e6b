"""What makes conjugate gradients converge: a matrix that is like K, and easily inverted.

From all columns of some training points, r of them, Nyström's approximation is
K ≈ B Bᵀ, B = K_nr L⁻ᵀ, K_rr = L Lᵀ. What it leaves is largest between the coordinates of one
point, so that these blocks are kept: with D the block diagonal of K − B Bᵀ + λ, D = C Cᵀ,

    (B Bᵀ + D)⁻¹ v = C⁻ᵀ (u − G (GᵀG + 1)⁻¹ Gᵀ u),     u = C⁻¹ v,  G = C⁻¹ B

by Woodbury: the partially independent conditional of sparse Gaussian processes [Quiñonero-Candela
and Rasmussen, J. Mach. Learn. Res. 6, 1939 (2005)]. Going through B, not through K_rr⁻¹, squares no
condition number; a share of the mean of what is left, FLOOR, is added to D, since the blocks of
the chosen points are nothing but rounding. Measured on the binding of C60@buckycatcher, 60 points,
columns of four, σ = 1: the residual is 7e-3 after 10 products and 5e-4 after 20, where the mean of
the diagonal in the place of D had 0.25 and 0.13.

Energies of all points, labels or not, are columns too: they cost a column a point, in place of 3N,
and know what is smooth. Measured on the binding of H2O@benzene, 80 points, σ = 10, columns of six
points: the residual is 0.10 after 30 products and 9e-4 after 120, without them 0.96 and 0.04; with
energies as labels 0.14 and 3e-3, without 0.35 and 0.12. The catcher, 24 points, columns of two,
σ = 40, gains nothing: 1.5e-3 for 2.2e-3 after 120.

Columns of whole points are used since a block of K for one pair of points costs no more than a
few of its columns (with many permutations, most of it is finding the distances).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from types import ModuleType

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.compute.blas import one_blas_thread
from deltaserver.training.iterative.product import EnergyColumns
from deltaserver.training.matrix.assembly import _FASTEST, Progress, quiet
from deltaserver.training.matrix.blocks import PairFields, PermutationGroup
from deltaserver.training.matrix.solver import NotPositiveDefiniteError

FLOOR = 1e-2  # of the mean of what the columns leave of K's diagonal
ROWS = 4096  # rows solved for at once: bounds what is held besides B
JITTER = 1e-14  # of K_rr's trace: rounding makes what is almost singular indefinite
JITTER_STEPS = 4  # each a hundred times the one before


class Preconditioner:
    """(B Bᵀ + D)⁻¹ of the columns of some training points.

    Args:
        fields: training points, and the weight of their energies.
        perms: a permutation group of the atoms, shape (S, N).
        sigma: length scale of the kernel.
        points: those whose columns are used.
        lam: λ.
        threads: blocks computed at once; of BLAS, the caller sets them.
        progress: called as work proceeds.
        energies: columns besides; None is none.

    Raises:
        NotPositiveDefiniteError: K_rr has no Cholesky factor.
    """

    def __init__(
        self,
        fields: PairFields,
        perms: Ints,
        sigma: float,
        points: Ints,
        lam: float,
        threads: int = 1,
        progress: Progress = quiet,
        energies: EnergyColumns | None = None,
    ) -> None:
        from scipy.linalg.blas import dsyrk
        from scipy.linalg.lapack import dpotrf

        group = PermutationGroup.of(perms)
        more = 0 if energies is None else len(energies)
        self._basis = _columns(fields, group, sigma, points, threads, progress, more)
        rows = (points[:, None] * fields.n_rows + np.arange(fields.n_rows)).ravel()
        between = np.empty((len(rows) + more,) * 2, order="F")
        if energies is not None and more:
            columns = self._basis[:, len(rows) :]
            own = energies.fill(columns)
            # As large as the others: what is added against rounding is the same for all.
            least = self._basis[rows, np.arange(len(rows))].mean()
            scale = float(np.sqrt(least / np.diagonal(own).mean()))
            columns *= scale
            between[len(rows) :, len(rows) :] = scale**2 * own
        between[: len(rows)] = self._basis[rows]
        between[len(rows) :, : len(rows)] = self._basis[rows, len(rows) :].T
        _whiten(self._basis, between, lam)
        blocks = _left(fields, group, sigma, self._basis)
        self._inverse = _inverse_factors(blocks, _floor(fields, blocks, lam))  # C⁻¹ of every point
        self._by_point(self._basis)
        gram = dsyrk(1.0, self._basis, trans=1, lower=1)
        gram.ravel(order="K")[:: len(gram) + 1] += 1.0
        self._factor, info = dpotrf(gram, lower=1, clean=0, overwrite_a=1)
        if info:
            raise NotPositiveDefiniteError(int(info) - 1, lam)
        progress("preparing", 1.0)

    def __call__(self, v: Floats) -> Floats:
        """Return (B Bᵀ + D)⁻¹ v."""
        from scipy.linalg.lapack import dpotrs

        by_point = v.reshape(len(self._inverse), -1, 1)
        u = (self._inverse @ by_point).ravel()
        inner, _ = dpotrs(self._factor, self._basis.T @ u, lower=1)
        rest = (u - self._basis @ inner).reshape(by_point.shape)
        result: Floats = (self._inverse.transpose(0, 2, 1) @ rest).ravel()
        return result

    def _by_point(self, columns: Floats) -> None:
        """Multiply the rows of every point by C⁻¹, in place."""
        dim = self._inverse.shape[1]
        for m, inverse in enumerate(self._inverse):
            rows = slice(m * dim, (m + 1) * dim)
            columns[rows] = inverse @ columns[rows]


def choose_points(n_train: int, count: int) -> Ints:
    """Return which points' columns to use: spread at random, always the same."""
    chosen = np.random.default_rng(0).permutation(n_train)[:count]
    return np.sort(chosen).astype(np.int64)


def _left(fields: PairFields, group: PermutationGroup, sigma: float, basis: Floats) -> Floats:
    """Return the blocks of every point of K − B Bᵀ, shape (M, 3N, 3N)."""
    dim = fields.n_rows
    blocks = np.empty((len(fields), dim, dim))
    for m in range(len(fields)):
        rows = basis[m * dim : (m + 1) * dim]
        block = _FASTEST.block(fields, m, m, group, sigma) - rows @ rows.T
        blocks[m] = 0.5 * (block + block.T)
    return blocks


def _floor(fields: PairFields, blocks: Floats, lam: float) -> Floats:
    """Return what is added to the diagonal of every block: forces and energies have their own."""
    left = np.einsum("mii->i", blocks) / len(blocks)
    n = 3 * fields.n_atoms
    floor = np.concatenate([np.full(n, left[:n].mean()), left[n:]])
    result: Floats = np.maximum(lam, FLOOR * floor)
    return result


def _inverse_factors(blocks: Floats, floor: Floats) -> Floats:
    """Return C⁻¹ of C Cᵀ = block + floor, in place of the blocks, shape (M, 3N, 3N)."""
    from scipy.linalg.lapack import dpotrf, dtrtri

    diagonal = np.arange(blocks.shape[1])
    for block in blocks:
        block[diagonal, diagonal] += floor
        factor, info = dpotrf(block, lower=1, clean=1)
        while info:  # rounding of what should be nothing
            block[diagonal, diagonal] += floor
            factor, info = dpotrf(block, lower=1, clean=1)
        block[:] = dtrtri(factor, lower=1)[0]
    return blocks


def _columns(
    fields: PairFields,
    group: PermutationGroup,
    sigma: float,
    points: Ints,
    threads: int,
    progress: Progress,
    more: int = 0,
    backend: ModuleType = _FASTEST,
) -> Floats:
    """Return K_nr, Fortran order, shape (3NM, 3N·len(points) + more): the last are to be filled."""
    dim = fields.n_rows
    result = np.empty((len(fields) * dim, len(points) * dim + more), order="F")

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


def _whiten(columns: Floats, between: Floats, lam: float) -> None:
    """Turn K_nr into B = K_nr L⁻ᵀ in place, K_rr = ``between`` = L Lᵀ."""
    from scipy.linalg.blas import dtrsm

    factor = _cholesky(between, lam)
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
