"""Which solver, with how many columns for its preconditioner: by memory and time, before it starts.

Times are of one core at 2·10¹⁰ operations a second; they are for choosing, and for a first idea.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from deltaserver.errors import InputError
from deltaserver.training.iterative.tall import GRAM_ROWS
from deltaserver.training.matrix.memory import BASE_BYTES, Size, available_bytes, check_memory

Solver = Literal["exact", "iterative"]

RATE = 2e10  # operations a second and thread of matrix products
READ = 1.5e10  # bytes a second from memory
BLOCK_S = (1.4e-7, 4.2e-9)  # of a block, per atom², and per atom² and permutation
PAIR_S = (1.2e-9, 4e-8)  # of a product, per pair of points and descriptor entry, and permutation
USUAL_PRODUCTS = 300
SHARE = 0.08  # of the columns, where memory and time allow
PREPARE_S = 150.0  # that preparing the columns may take in any case
PREPARE_SHARE = 1.0  # of the products' time, that it may take where these take long
BLOCK_BYTES = 1.2e8  # temporary arrays of the geometries that are evaluated at once
COPIES = 7  # of training arrays in descriptor space that exist at once


@dataclass(frozen=True)
class Columns:
    """What preconditions: columns of K.

    Attributes:
        points: training points whose columns are used; 0 for the exact solver.
        single: they are stored in single precision, so that more of them fit into the memory.
    """

    points: int
    single: bool = False

    @property
    def size(self) -> float:
        """Return the bytes of a number."""
        return 4.0 if self.single else 8.0


LEAST = Columns(1, single=True)


@dataclass(frozen=True)
class Choice:
    """How a system is to be solved.

    Attributes:
        solver: which way.
        columns: that precondition.
        bytes_: peak memory.
        seconds: a first idea of the time, for one σ.
    """

    solver: Solver
    columns: Columns
    bytes_: float
    seconds: float

    def __str__(self) -> str:
        minutes = self.seconds / 60.0
        duration = f"{minutes:.0f} min" if minutes >= 1.0 else "a minute or less"
        points = self.columns.points
        columns = f", columns of {points} points precondition" if points else ""
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
    exact = Choice("exact", Columns(0), size.bytes_for(n_train), _exact_seconds(size, n_train))
    if solver == "exact":
        check_memory(size, n_train, max_bytes, what)
        return exact
    columns = _columns_within(size, n_train, limit)
    fits = exact.bytes_ <= limit
    if columns.points == 0:
        if solver == "auto" and fits:
            return exact
        raise InputError(
            f"{what}: {n_train} training points of {size.n_atoms} atoms need "
            f"{iterative_bytes(size, n_train, LEAST) / 1e9:.2f} GB even without the kernel matrix, "
            f"and {limit / 1e9:.2f} GB may be used; at most {_most(size, limit)} points fit"
        )
    seconds = iterative_seconds(size, n_train, columns, min(max_products, USUAL_PRODUCTS))
    iterative = Choice("iterative", columns, iterative_bytes(size, n_train, columns), seconds)
    return exact if solver == "auto" and fits and exact.seconds <= seconds else iterative


def iterative_bytes(size: Size, n_train: int, columns: Columns) -> float:
    """Return the peak memory of the iterative solver with such columns.

    And those of every point's energy, which are given back while the others are filled in.
    """
    dim, pairs = size.n_rows, size.n_atoms * (size.n_atoms - 1) // 2
    n, rank = float(dim * n_train), float(dim * columns.points + n_train)
    tall = max(columns.size * rank, 8.0 * n_train) * n + 8.0 * n * dim
    square = 8.0 * 2.0 * rank**2
    working = 8.0 * rank * (3 * size.threads * dim + GRAM_ROWS)
    fields = 8.0 * n_train * size.n_atoms**2 * (4 + 3)  # gone before the products begin
    arrays = 8.0 * n_train * pairs * COPIES
    blocks = 8.0 * size.threads * (3 * size.n_perms * dim + 3 * dim**2)
    return (
        BASE_BYTES
        + BLOCK_BYTES
        + tall
        + square
        + working
        + max(fields, arrays)
        + 8.0 * 10 * n
        + blocks
    )


def _columns_within(size: Size, n_train: int, limit: float) -> Columns:
    """Return which columns to use: of a share of points, as far as memory and time allow."""
    seconds = max(PREPARE_S, PREPARE_SHARE * USUAL_PRODUCTS * _product_seconds(size, n_train))
    wanted = min(n_train, max(1, round(SHARE * n_train)))
    while wanted > 1 and _prepare_seconds(size, n_train, wanted) > seconds:
        wanted -= 1
    if iterative_bytes(size, n_train, Columns(wanted)) <= limit:
        return Columns(wanted)
    while wanted and iterative_bytes(size, n_train, Columns(wanted, single=True)) > limit:
        wanted -= 1
    return Columns(wanted, single=True)


def _most(size: Size, limit: float) -> int:
    """Return the largest number of points that fits, with the columns of one."""
    low, high = 0, 1
    while iterative_bytes(size, high, LEAST) <= limit:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (middle, high) if iterative_bytes(size, middle, LEAST) <= limit else (low, middle)
        )
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
    size: Size, n_train: int, columns: Columns, n_products: int = USUAL_PRODUCTS
) -> float:
    """Return a first idea of the iterative solver's time for so many products."""
    n, rank = float(size.n_rows) * n_train, float(size.n_rows) * columns.points + n_train
    applied = 2.0 * columns.size * n * rank / READ
    products = n_products * (_product_seconds(size, n_train) + applied)
    return (_prepare_seconds(size, n_train, columns.points) + products) / size.threads
