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

import mmap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Floats, Ints
from deltaserver.compute.blas import one_blas_thread
from deltaserver.training.iterative.product import EnergyColumns
from deltaserver.training.iterative.tall import TallMatrix
from deltaserver.training.matrix.assembly import _FASTEST, Progress, quiet
from deltaserver.training.matrix.blocks import PairFields, PermutationGroup
from deltaserver.training.matrix.solver import NotPositiveDefiniteError

FLOOR = 1e-2  # of the mean of what the columns leave of K's diagonal
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
        threads: points worked on at once; of BLAS, the caller sets them.
        progress: called as work proceeds.
        energies: columns besides; None is none.
        single: B is stored in single precision.

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
        *,
        single: bool = False,
    ) -> None:
        from scipy.linalg.lapack import dpotrf

        columns = _Columns(fields, PermutationGroup.of(perms), sigma, points, energies)
        factor = _cholesky(columns.between(), lam)
        shape = (len(fields) * fields.n_rows, len(factor))
        self._basis = TallMatrix(shape, threads, single=single)
        blocks = _fill(self._basis, columns, factor, threads, progress)
        self._inverse = _inverse_factors(blocks, _floor(fields, blocks, lam))  # C⁻¹ of every point
        self._by_point(self._basis.rows)
        del factor, columns  # before another matrix of that size is made
        gram = self._basis.gram()
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
        inner, _ = dpotrs(self._factor, self._basis.transposed_times(u), lower=1)
        rest = (u - self._basis.times(inner)).reshape(by_point.shape)
        result: Floats = (self._inverse.transpose(0, 2, 1) @ rest).ravel()
        return result

    def _by_point(self, rows: NDArray[np.floating[Any]]) -> None:
        """Multiply the rows of every point by C⁻¹, in place."""
        dim = self._inverse.shape[1]
        for m, inverse in enumerate(self._inverse):
            some = slice(m * dim, (m + 1) * dim)
            rows[some] = inverse @ rows[some].astype(np.float64)


@dataclass
class _Columns:
    """K_nr, a few rows at a time: columns of some points, then those of energies.

    Attributes:
        fields: training points.
        group: permutations.
        sigma: length scale.
        points: whose columns.
        energies: columns besides; None is none.
    """

    fields: PairFields
    group: PermutationGroup
    sigma: float
    points: Ints
    energies: EnergyColumns | None
    _scale: float = 1.0

    def __post_init__(self) -> None:
        energies, dim = self.energies, self.fields.n_rows
        more = 0 if energies is None else len(energies)
        # An array for each point, given back as soon as it has been used.
        self._more = [_pages(dim, more) for _ in range(len(self.fields))]
        self._own = np.empty((more, more))
        if energies is None or not more:
            return
        self._own = energies.fill(self._more)
        # As large as the others: what is added against rounding is the same for all.
        least = np.mean([np.diagonal(self.block(int(p), int(p))) for p in self.points])
        self._scale = float(np.sqrt(least / np.diagonal(self._own).mean()))

    def block(self, m: int, p: int) -> Floats:
        """Return the block of K of points m and p, shape (3N, 3N)."""
        result: Floats = _FASTEST.block(self.fields, m, p, self.group, self.sigma).T
        return result

    def rows(self, m: int) -> Floats:
        """Return the rows of a point, shape (3N, rank)."""
        some = [self.block(m, int(p)) for p in self.points]
        return np.hstack([*some, self._scale * self._more[m]])

    def drop(self, m: int) -> None:
        """Give back what has been kept of the rows of a point."""
        self._more[m] = np.empty((0, 0))

    def between(self) -> Floats:
        """Return K_rr, Fortran order."""
        own = np.vstack([self.rows(int(p)) for p in self.points])
        result = np.empty((own.shape[1],) * 2, order="F")
        result[: len(own)] = own
        result[len(own) :, : len(own)] = own[:, len(own) :].T
        result[len(own) :, len(own) :] = self._scale**2 * self._own
        return result


def _pages(rows: int, columns: int) -> Floats:
    """Return an array of its own pages: what malloc has of middling size, it keeps when freed."""
    memory = mmap.mmap(-1, max(1, 8 * rows * columns))
    return np.frombuffer(memory, dtype=np.float64, count=rows * columns).reshape(rows, columns)


def choose_points(n_train: int, count: int) -> Ints:
    """Return which points' columns to use: spread at random, always the same."""
    chosen = np.random.default_rng(0).permutation(n_train)[:count]
    return np.sort(chosen).astype(np.int64)


def _fill(
    basis: TallMatrix, columns: _Columns, factor: Floats, threads: int, progress: Progress
) -> Floats:
    """Fill B = K_nr L⁻ᵀ; return the blocks of every point of K − B Bᵀ, shape (M, 3N, 3N)."""
    from scipy.linalg.blas import dtrsm

    dim, n_train = columns.fields.n_rows, len(columns.fields)
    blocks = np.empty((n_train, dim, dim))

    def fill(m: int) -> None:
        rows = dtrsm(1.0, factor, columns.rows(m).T, side=0, lower=1, overwrite_b=1)
        basis.rows[m * dim : (m + 1) * dim] = rows.T
        columns.drop(m)
        block = columns.block(m, m) - rows.T @ rows
        blocks[m] = 0.5 * (block + block.T)

    with one_blas_thread(), ThreadPoolExecutor(max_workers=threads) as pool:
        jobs = [pool.submit(fill, m) for m in range(n_train)]
        try:
            for done, job in enumerate(as_completed(jobs)):
                job.result()
                progress("preparing", 0.7 * (done + 1) / len(jobs))
        finally:
            pool.shutdown(cancel_futures=True)
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
