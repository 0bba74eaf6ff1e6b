"""Which solver, with how many columns for its preconditioner: by memory and time, before it starts.

Times are of one core at 2·10¹⁰ operations a second; they are for choosing, and for a first idea.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deltaserver.errors import InputError
from deltaserver.training.matrix.memory import BASE_BYTES, Size, available_bytes, check_memory

Solver = Literal["exact", "iterative"]

RATE = 2e10  # operations a second and thread of matrix products
BLOCK_S = (1.4e-7, 4.2e-9)  # of a block, per atom², and per atom² and permutation
PAIR_S = (1.2e-9, 4e-8)  # of a product, per pair of points and descriptor entry, and permutation
USUAL_PRODUCTS = 300
SHARE = 0.08  # of the columns, where memory and time allow
PREPARE_S = 150.0  # that preparing the columns may take in any case
PREPARE_SHARE = 0.5  # of the products' time, that it may take where these take long
BLOCK_BYTES = 1.2e8  # temporary arrays of the geometries that are evaluated at once
COPIES = 7  # of training arrays in descriptor space that exist at once


@dataclass(frozen=True)
class Choice:
    """How a system is to be solved.

    Attributes:
        solver: which way.
        points: those whose columns precondition; 0 for the exact solver.
        bytes_: peak memory.
        seconds: a first idea of the time, for one σ.
    """

    solver: Solver
    points: int
    bytes_: float
    seconds: float

    def __str__(self) -> str:
        minutes = self.seconds / 60.0
        duration = f"{minutes:.0f} min" if minutes >= 1.0 else "a minute or less"
        columns = f", columns of {self.points} points precondition" if self.points else ""
        return f"{self.solver} solver, about {duration} for each σ{columns}"


def decide(
    size: Size,
    n_train: int,
    solver: str,
    max_bytes: float | None,
    what: str,
    max_products: int = USUAL_PRODUCTS,
) -> Choice:
    """Choose between the solvers, or check the one that is asked for.

    Args:
        size: what memory depends on.
        n_train: number of training points.
        solver: ``"auto"`` is the exact one where it fits and is the faster.
        max_bytes: memory limit; None is what the machine has.
        what: is trained, for messages.
        max_products: after which the iterative one gives up.

    Raises:
        InputError: neither fits, or the one asked for does not.
    """
    available = available_bytes()
    limit = available if max_bytes is None else min(max_bytes, available)
    exact = Choice("exact", 0, size.bytes_for(n_train), _exact_seconds(size, n_train))
    if solver == "exact":
        check_memory(size, n_train, max_bytes, what)
        return exact
    points = _points_within(size, n_train, limit)
    fits = exact.bytes_ <= limit
    if points == 0:
        if solver == "auto" and fits:
            return exact
        raise InputError(
            f"{what}: {n_train} training points of {size.n_atoms} atoms need "
            f"{iterative_bytes(size, n_train, 1) / 1e9:.2f} GB even without the kernel matrix, "
            f"and {limit / 1e9:.2f} GB may be used; at most {_most(size, limit)} points fit"
        )
    seconds = iterative_seconds(size, n_train, points, min(max_products, USUAL_PRODUCTS))
    iterative = Choice("iterative", points, iterative_bytes(size, n_train, points), seconds)
    return exact if solver == "auto" and fits and exact.seconds <= seconds else iterative


def iterative_bytes(size: Size, n_train: int, points: int) -> float:
    """Return the peak memory of the iterative solver with the columns of so many points.

    And of every point's energy.
    """
    dim, pairs = size.n_rows, size.n_atoms * (size.n_atoms - 1) // 2
    n, rank = float(dim * n_train), float(dim * points + n_train)
    columns = 8.0 * (n * rank + 3.0 * rank**2 + n * dim)
    fields = 8.0 * n_train * size.n_atoms**2 * (4 + 3)  # gone before the products begin
    arrays = 8.0 * n_train * pairs * COPIES
    blocks = 8.0 * size.threads * (3 * size.n_perms * dim + 3 * dim**2)
    return BASE_BYTES + BLOCK_BYTES + columns + max(fields, arrays) + 8.0 * 10 * n + blocks


def _points_within(size: Size, n_train: int, limit: float) -> int:
    """Return how many points' columns to use: a share, as far as memory and time allow."""
    seconds = max(PREPARE_S, PREPARE_SHARE * USUAL_PRODUCTS * _product_seconds(size, n_train))
    wanted = min(n_train, max(1, round(SHARE * n_train)))
    while wanted > 1 and _prepare_seconds(size, n_train, wanted) > seconds:
        wanted -= 1
    while wanted and iterative_bytes(size, n_train, wanted) > limit:
        wanted -= 1
    return wanted


def _most(size: Size, limit: float) -> int:
    """Return the largest number of points that fits, with the columns of one."""
    low, high = 0, 1
    while iterative_bytes(size, high, 1) <= limit:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if iterative_bytes(size, middle, 1) <= limit else (low, middle)
    return low


def _block_seconds(size: Size) -> float:
    return size.n_atoms**2 * (BLOCK_S[0] + BLOCK_S[1] * size.n_perms)


def _exact_seconds(size: Size, n_train: int) -> float:
    n = float(size.n_rows) * n_train
    blocks = 0.5 * n_train * (n_train + 1) * _block_seconds(size)
    return (blocks + n**3 / 3.0 / RATE) / size.threads


def _prepare_seconds(size: Size, n_train: int, points: int) -> float:
    n, rank = float(size.n_rows) * n_train, float(size.n_rows) * points + n_train
    return n_train * points * _block_seconds(size) + 2.0 * n * rank**2 / RATE


def _product_seconds(size: Size, n_train: int) -> float:
    pairs = size.n_atoms * (size.n_atoms - 1) // 2
    return n_train**2 * (PAIR_S[0] * pairs + PAIR_S[1] * size.n_perms)


def iterative_seconds(
    size: Size, n_train: int, points: int, n_products: int = USUAL_PRODUCTS
) -> float:
    """Return a first idea of the iterative solver's time for so many products."""
    n, rank = float(size.n_rows) * n_train, float(size.n_rows) * points + n_train
    applied = 4.0 * n * rank / (RATE / 8.0)  # what memory delivers, not the arithmetic
    products = n_products * (_product_seconds(size, n_train) + applied)
    return (_prepare_seconds(size, n_train, points) + products) / size.threads
