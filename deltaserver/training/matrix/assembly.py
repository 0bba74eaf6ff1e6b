"""The whole kernel matrix K, block by block into one array, lower triangle only.

K is n × n with n = 3NM: the only large array there is. Nothing of that size is copied, and only
its lower triangle is ever written or read: memory that the operating system has not been asked
to fill costs nothing, so 8 n² bytes are reserved and little more than half of them used.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from types import ModuleType

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.compute.blas import one_blas_thread
from deltaserver.errors import InputError
from deltaserver.training.matrix import blocks
from deltaserver.training.matrix.blocks import PairFields, PermutationGroup

Progress = Callable[[str, float], None]  # what is being done, and how much of it (0 to 1)

try:
    from deltaserver.training.matrix import blocks_numba
except ImportError:  # numba is an extra; NumPy gives the same matrix, more slowly
    _FASTEST: ModuleType = blocks
else:
    _FASTEST = blocks_numba


def quiet(what: str, fraction: float) -> None:
    """Report progress to nobody."""


def allocate_matrix(n: int) -> Floats:
    """Return an n × n Fortran-ordered array whose untouched pages cost no memory.

    Huge pages are declined: they would each span several columns, the unused upper parts
    included, and double the memory in use.

    Raises:
        InputError: the operating system refuses to reserve 8 n² bytes.
    """
    try:
        memory = mmap.mmap(-1, max(1, 8 * n * n))
    except (OSError, OverflowError) as error:
        raise InputError(
            f"a kernel matrix of {n} x {n} ({8 * n * n / 1e9:.1f} GB) cannot be reserved "
            f"({error}); use fewer training points"
        ) from None
    if hasattr(mmap, "MADV_NOHUGEPAGE"):
        with contextlib.suppress(OSError):  # a kernel built without huge pages
            memory.madvise(mmap.MADV_NOHUGEPAGE)
    return np.frombuffer(memory, dtype=np.float64, count=n * n).reshape((n, n), order="F")


def assemble(
    positions: Floats,
    perms: Ints,
    sigma: float,
    threads: int = 1,
    progress: Progress = quiet,
    backend: ModuleType = _FASTEST,
    weights: Floats | None = None,
    energy: float = 0.0,
) -> Floats:
    """Return the positive definite kernel matrix of training points ``positions`` (M, N, 3).

    Args:
        positions: in the length unit in which ``sigma`` and the model are to be.
        perms: a permutation group of the atoms, shape (S, N). A group, because only then is
            K(m, m') = K(m', m)ᵀ, so that half the blocks suffice.
        sigma: length scale of the kernel, in 1/length.
        threads: blocks computed at once.
        progress: called as work proceeds.
        backend: the module whose ``block`` is used.
        weights: of the descriptor's entries, by atoms, shape (N, N).
        energy: weight of energies as labels; 0 is forces alone.

    Returns:
        K (n, n), Fortran order, n = 3NM; row 3N m + 3 i + α belongs to coordinate α of atom i of
        point m. With energies n = (3N + 1)M, and each point's −E follows its forces. Only the
        lower triangle is defined.

    Raises:
        InputError: the matrix cannot be reserved.
        DataError: two atoms of a training point coincide.
    """
    fields, group = PairFields.of(positions, weights, energy), PermutationGroup.of(perms)
    n_train, dim = len(fields), fields.n_rows
    matrix = allocate_matrix(n_train * dim)

    def column(n: int) -> int:
        for m in range(n, n_train):
            block = backend.block(fields, m, n, group, sigma)
            matrix[m * dim : (m + 1) * dim, n * dim : (n + 1) * dim] = block.T
        return n_train - n

    total = n_train * (n_train + 1) // 2
    done = 0
    with one_blas_thread(), ThreadPoolExecutor(max_workers=threads) as pool:
        jobs = [pool.submit(column, n) for n in range(n_train)]
        try:
            for job in as_completed(jobs):
                done += job.result()
                progress("assembling", done / total)
        finally:
            pool.shutdown(cancel_futures=True)
    return matrix
