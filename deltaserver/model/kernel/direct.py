"""The kernel sum over any set of permutations; see :mod:`deltaserver.model.kernel`."""

from __future__ import annotations

import copy
from functools import cached_property
from itertools import pairwise

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.compute import jit
from deltaserver.compute.alignment import aligned, lasting, round_up
from deltaserver.compute.thread_pool import ONE_THREAD, ThreadPool
from deltaserver.model import loops
from deltaserver.model.kernel.base import Evaluator, Task, TrainingSum, Weights, row_products

COLUMNS = 296  # descriptor entries of eight queries at a time in compiled loops


class DirectSum(TrainingSum):
    """The sum by matrix products over permuted queries, for any set of permutations."""

    def __init__(
        self,
        weights: Weights,
        x: Floats,
        a: Floats,
        pair_perms: Ints,
        pool: ThreadPool = ONE_THREAD,
    ) -> None:
        self.weights = weights
        self.pool = pool
        self.n_train = len(x)
        self.centre = x.mean(axis=0)  # [D]
        self._rows = lasting(2 * len(x), round_up(x.shape[1]))
        self.xa = self._rows[:, : x.shape[1]]  # [2M, D]
        np.subtract(x, self.centre, out=self.xa[: len(x)])
        self.xa[len(x) :] = a
        self.x_squared, self.x_dot_a = row_products(self.xa)  # [M, 1] each
        self._alphas = weights.of_energies(len(x))
        self.gather = np.argsort(pair_perms, axis=1)  # [S, D]: their inverses
        self.per_query = max(self.gather.size, 2 * self.n_train * len(pair_perms))

    def single(self) -> DirectSum:
        """See :class:`TrainingSum`."""
        found = copy.copy(self)
        for cached in ("_row_centre", "_panels"):
            found.__dict__.pop(cached, None)
        found._rows = lasting(*self._rows.shape, dtype=np.float32)
        found._rows[:] = self._rows
        found.xa = found._rows[:, : self.xa.shape[1]]
        found.x_squared, found.x_dot_a = row_products(found.xa.astype(np.float64))
        return found

    @property
    def compiled(self) -> bool:
        """Where there is but the identity."""
        return jit.AVAILABLE and len(self.gather) == 1

    def evaluator(self) -> Evaluator | None:
        """Return the compiled way, where there is one."""
        return self._evaluate if self.compiled else None

    def contract(self, q: Floats) -> tuple[Floats, Floats]:
        """Return E (B,) and g (B, D)."""
        m = self.n_train
        permuted = q.take(self.gather, axis=1)  # [B, S, D]
        permuted -= self.centre
        rows = permuted.reshape(-1, q.shape[1])  # [B·S, D]
        products = self.xa @ rows.T  # [2M, B·S]
        squared = np.einsum("rd,rd->r", rows, rows) + self.x_squared - 2.0 * products[:m]
        w = np.empty_like(products)
        terms = self.weights(squared, products[m:] - self.x_dot_a, w[:m], w[m:])
        rows *= w[:m].sum(axis=0)[:, None]
        rows -= w.T @ self.xa
        energy: Floats = terms.reshape(m, len(q), -1).sum(axis=(0, 2))
        return energy, self._permute_back(permuted)

    def _evaluate(self, task: Task) -> float:
        """Read the training arrays once for one geometry, or once for eight of many."""
        n_batch = len(task.positions)
        if n_batch == 1:
            shares = self._shares(self.n_train, self.xa.size)
            return self._by_points(self._evaluate_one, shares, task)
        n_eights = -(-n_batch // 8)
        n_parts = min(self.pool.n_threads, n_eights)
        ends = [8 * (n_eights * k // n_parts) for k in range(n_parts + 1)] if n_parts else []
        return sum(
            self.pool.map(self._evaluate_eights, [task.part(slice(*ab)) for ab in pairwise(ends)])
        )

    def _evaluate_one(self, points: slice, task: Task) -> float:
        m = self.n_train
        total: float = loops.load("evaluate").direct(
            self._row_centre,
            self._rows[:m][points],
            self._rows[m:][points],
            self._alphas[points],
            self.weights.sigma,
            tuple(task),
        )
        return total

    def _evaluate_eights(self, task: Task) -> float:
        panels, centre, known = self._panels
        total: float = loops.load("evaluate").direct_by_eights(
            centre, panels, known, self.weights.sigma, tuple(task)
        )
        return total

    @cached_property
    def _row_centre(self) -> Floats:
        centre = aligned(self._rows.shape[1])
        centre[: len(self.centre)] = self.centre
        return centre

    @cached_property
    def _panels(self) -> tuple[Floats, Floats, Floats]:
        """The training arrays (P, R, C), C columns of all rows after the next C, and the centre.

        And what is known of every training point: |x|², x·a, its energy's coefficient, (3, M).
        """
        n_rows, n_desc = self.xa.shape
        n_panels = max(1, -(-n_desc // COLUMNS))
        columns = round_up(-(-n_desc // n_panels))
        panels = lasting(n_panels, round_up(n_rows, 3), columns, dtype=self._rows.dtype)
        for p, panel in enumerate(panels):
            part = self.xa[:, p * columns : (p + 1) * columns]
            panel[:n_rows, : part.shape[1]] = part
        centre = aligned(n_panels, columns)
        centre.ravel()[:n_desc] = self.centre
        return panels, centre, np.stack([self.x_squared[:, 0], self.x_dot_a[:, 0], self._alphas])

    def _permute_back(self, values: Floats) -> Floats:
        """Sum ``values[b, s, k]`` into ``g[b, gather[s, k]]``."""
        g = np.empty((len(values), values.shape[2]))
        for row, value in zip(g, values, strict=True):
            row[:] = np.bincount(self.gather.ravel(), value.ravel(), minlength=len(row))
        return g
