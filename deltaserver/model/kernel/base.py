"""What all kernel sums share: weights, chunks, threads; see :mod:`deltaserver.model.kernel`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.compute.thread_pool import ThreadPool

SQRT5 = np.sqrt(5.0)
CHUNK_ELEMENTS = 1 << 22  # numbers in the largest temporary array: 32 MiB of float64
SHARED_NUMBERS = 1 << 20  # of the training arrays; with fewer, one thread is done before another
SHARES = 3  # for each thread, so that one that comes late takes fewer


class Task(NamedTuple):
    """What compiled loops take besides the model: see ``loops.evaluate.direct``.

    Attributes:
        positions: shape (B, N, 3), the model's length.
        cell: see :func:`deltaserver.model.descriptor.compiled_cell`.
        scale, shift: from E to the energies that are asked for.
        energy, forces, virial: to be filled, shape (B,), (B, N, 3), (B, 3, 3).
    """

    positions: Floats
    cell: Floats | None
    scale: float
    shift: float
    energy: Floats
    forces: Floats
    virial: Floats

    def part(self, some: slice) -> Task:
        """Return the task of some of the geometries."""
        filled = (self.energy[some], self.forces[some], self.virial[some])
        return Task(self.positions[some], *self[1:4], *filled)

    def addend(self) -> Task:
        """Return a task whose results are to be added to this one's."""
        filled = [np.empty_like(array) for array in self[4:]]
        return Task(*self[:3], 0.0, *filled)


Evaluator = Callable[[Task], float]
Share = Callable[[slice, Task], float]


@dataclass(frozen=True)
class Weights:
    """w₁ and w₂, and the energy they give: all from |Δ|² and Δ·a.

    Attributes:
        sigma: kernel length scale.
        alphas_energy: coefficients of energy constraints, shape (M,), or None.
    """

    sigma: float
    alphas_energy: Floats | None

    def of_energies(self, n_train: int) -> Floats:
        """Return the coefficients of energies as compiled loops take them: zeros for none."""
        return np.zeros(n_train) if self.alphas_energy is None else self.alphas_energy

    def __call__(self, squared: Floats, delta_a: Floats, w1: Floats, w2: Floats) -> Floats:
        """Fill w₁ and w₂; return each term of E. The axis before the last is the M points."""
        sigma = self.sigma
        r = np.maximum(squared, 0.0, out=squared)
        np.sqrt(r, out=r)
        r *= SQRT5
        exponential = np.exp(r / -sigma)
        decay = exponential * (5.0 / (3.0 * sigma**3))
        np.multiply(delta_a * (5.0 / sigma), decay, out=w1)
        np.multiply(decay, r + sigma, out=w2)
        terms = delta_a * w2
        if self.alphas_energy is not None:
            alphas = self.alphas_energy[:, None]
            w1 += w2 * alphas
            terms += (1.0 + r / sigma * (1.0 + r / (3.0 * sigma))) * exponential * alphas
        return terms


class TrainingSum(ABC):
    """The training arrays of one model, laid out for the kernel sum.

    Build with :func:`deltaserver.model.kernel.training_sum.training_sum`. All quantities are in the
    model's own units.
    """

    per_query: int  # numbers in the largest temporary array, for one query
    weights: Weights
    pool: ThreadPool

    def __call__(self, q: Floats) -> tuple[Floats, Floats]:
        """Return E (B,) and g = −∂E/∂q (B, D) for query descriptors q (B, D)."""
        step = max(1, CHUNK_ELEMENTS // max(1, self.per_query))
        parts = [self.contract(q[k : k + step]) for k in range(0, len(q), step)]
        if not parts:
            return np.zeros(0), np.zeros_like(q)
        if len(parts) == 1:
            return parts[0]
        energies, gradients = zip(*parts, strict=True)
        return np.concatenate(energies), np.concatenate(gradients)

    @property
    @abstractmethod
    def compiled(self) -> bool:
        """Whether it runs in compiled loops, and not in matrix products that BLAS shares out."""

    @property
    def in_loops(self) -> bool:
        """Whether :meth:`contract` is a compiled loop, which leaves threads to who calls it."""
        return False

    @abstractmethod
    def single(self) -> TrainingSum:
        """Return the same sum of training points that are stored in single precision.

        What is known of them follows from the rounded ones, and all sums are of float64: it is
        another model, a little beside this one, whose forces are its energy's derivatives as
        exactly as before.
        """

    def evaluator(self) -> Evaluator | None:
        """Return the compiled way from positions to forces, None where there is none."""
        return None

    @abstractmethod
    def contract(self, q: Floats) -> tuple[Floats, Floats]:
        """Return E and g of queries that fit into memory at once."""

    def _shares(self, n: int, numbers: int) -> list[slice]:
        """Cut n groups of training points, of so many numbers together, into threads' shares."""
        n_threads = self.pool.n_threads
        n_shares = min(n, SHARES * n_threads) if n_threads > 1 and numbers > SHARED_NUMBERS else 1
        ends = [n * k // n_shares for k in range(n_shares + 1)]
        return [slice(a, b) for a, b in pairwise(ends)]

    def _by_points(self, run: Share, shares: list[slice], task: Task) -> float:
        """Evaluate in shares of the training points: energies and forces are sums over them."""
        if len(shares) == 1:
            return run(shares[0], task)
        tasks = [task] + [task.addend() for _ in shares[1:]]
        totals = self.pool.map(lambda pair: run(*pair), list(zip(shares, tasks, strict=True)))
        for other in tasks[1:]:
            for array, more in zip(task[4:], other[4:], strict=True):
                array += more
        return totals[0]


def row_products(xa: Floats) -> tuple[Floats, Floats]:
    """Return |x|² and x·a of rows x, then a; columns, shape (M, 1)."""
    x, a = np.split(xa, 2)
    return np.einsum("md,md->m", x, x)[:, None], np.einsum("md,md->m", x, a)[:, None]
