"""Solve (K + λ) α = y by a Cholesky factorisation inside the one array that holds K.

The factorisation is tiled: each panel of columns takes what the columns to its left contribute
(one matrix product), its diagonal tile is factorised by LAPACK, and a triangular solve finishes
the panel. All of it is matrix products on views, so no second matrix is needed, array sizes
beyond 2³¹ elements meet no 32-bit index, and progress can be told.

On a GPU, torch factorises a copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.compute.blas import blas_threads
from deltaserver.errors import InputError, MissingExtraError
from deltaserver.training.matrix.assembly import Progress, quiet

PANEL = 768  # columns factorised at once
ROWS = 4096  # rows updated at once: bounds what is held besides the matrix to 25 MB


class UnsolvableError(InputError):
    """A σ with which no coefficients can be had."""


class NotPositiveDefiniteError(UnsolvableError):
    """The regularised kernel matrix has no Cholesky factor."""

    def __init__(self, row: int, lam: float) -> None:
        super().__init__(
            f"the kernel matrix is not positive definite at row {row} (lambda = {lam:g}): "
            "training frames are duplicates or nearly so, or sigma is too large for them; "
            "use a smaller sigma, frames further apart, or a larger lambda"
        )


def solve_in_place(
    matrix: Floats,
    y: Floats,
    lam: float,
    threads: int = 1,
    device: str = "cpu",
    progress: Progress = quiet,
) -> Floats:
    """Return α = (K + λ)⁻¹ y, destroying ``matrix``.

    Args:
        matrix: K, shape (n, n), Fortran order; only its lower triangle is read and written.
        y: shape (n,).
        lam: λ, added to the diagonal.
        threads: of BLAS; on the CPU only.
        device: ``"cpu"`` is LAPACK; ``"cuda"`` (or ``"torch:cpu"``, for tests) is torch.
        progress: called as work proceeds.

    Raises:
        NotPositiveDefiniteError: K + λ has no Cholesky factor.
        MissingExtraError: torch is asked for and not installed.
        InputError: torch sees no such device.
    """
    matrix.ravel(order="K")[:: len(matrix) + 1] += lam
    if device != "cpu":
        return _solve_with_torch(matrix, y, lam, device.removeprefix("torch:"))
    with blas_threads(threads):
        factorise_in_place(matrix, lam, progress)
        return _substitute(matrix, y)


def _panels(n: int) -> Iterator[slice]:
    for start in range(0, n, PANEL):
        yield slice(start, min(start + PANEL, n))


def factorise_in_place(matrix: Floats, lam: float = 0.0, progress: Progress = quiet) -> None:
    """Replace the lower triangle of K by L, K = L Lᵀ; ``lam`` is for the error's text.

    Raises:
        NotPositiveDefiniteError: K has no Cholesky factor.
    """
    from scipy.linalg.lapack import dpotrf

    n = len(matrix)
    for panel in _panels(n):
        for start in range(panel.start, n, ROWS):
            rows = slice(start, min(start + ROWS, n))
            matrix[rows, panel] -= matrix[rows, : panel.start] @ matrix[panel, : panel.start].T
        tile, info = dpotrf(matrix[panel, panel], lower=1, clean=1, overwrite_a=0)
        if info:
            raise NotPositiveDefiniteError(panel.start + int(info) - 1, lam)
        _finish_panel(matrix, tile, panel)
        # What is left of the work falls with the cube of the columns' share.
        done = panel.stop / n
        progress("factorising", done**2 * (3.0 - 2.0 * done))


def _finish_panel(matrix: Floats, tile: Floats, panel: slice) -> None:
    """Write L of the diagonal tile, and solve X Lᵀ = P for the rows below it."""
    from scipy.linalg.blas import dtrsm

    n = len(matrix)
    lower = np.tril_indices(len(tile))
    matrix[panel, panel][lower] = tile[lower]
    for start in range(panel.stop, n, ROWS):
        rows = slice(start, min(start + ROWS, n))
        matrix[rows, panel] = dtrsm(1.0, tile, matrix[rows, panel], side=1, lower=1, trans_a=1)


def _substitute(factor: Floats, y: Floats) -> Floats:
    """Solve L Lᵀ α = y."""
    from scipy.linalg import solve_triangular

    alphas = np.array(y, dtype=np.float64)
    panels = list(_panels(len(factor)))
    for panel in panels:
        tile = factor[panel, panel]
        alphas[panel] = solve_triangular(tile, alphas[panel], lower=True, check_finite=False)
        alphas[panel.stop :] -= factor[panel.stop :, panel] @ alphas[panel]
    for panel in reversed(panels):
        alphas[panel] -= factor[panel.stop :, panel].T @ alphas[panel.stop :]
        alphas[panel] = solve_triangular(
            factor[panel, panel], alphas[panel], lower=True, trans=1, check_finite=False
        )
    return alphas


def _solve_with_torch(matrix: Floats, y: Floats, lam: float, device: str) -> Floats:
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "gpu") from None
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device {device!r}: torch finds no GPU; use --device cpu")
    K: Any = torch.from_numpy(matrix).to(device)
    factor, info = torch.linalg.cholesky_ex(K)
    if int(info):
        raise NotPositiveDefiniteError(int(info) - 1, lam)
    solution = torch.cholesky_solve(torch.from_numpy(y).to(device)[:, None], factor)
    alphas: Floats = solution[:, 0].cpu().numpy()
    return alphas
