"""The kernel sum of a model that has none: its expansion is all of it."""

from __future__ import annotations

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.compute.thread_pool import ONE_THREAD, ThreadPool
from deltaserver.model.kernel.base import TrainingSum, Weights


class NoSum(TrainingSum):
    """Zero everywhere, which all coefficients zero would give at the price of a sum."""

    per_query = 0
    compiled = False

    def __init__(self, weights: Weights, pool: ThreadPool = ONE_THREAD) -> None:
        self.weights = weights
        self.pool = pool

    def single(self) -> NoSum:
        """See :class:`TrainingSum`."""
        return self

    def contract(self, q: Floats) -> tuple[Floats, Floats]:
        """Return E (B,) and g (B, D)."""
        return np.zeros(len(q)), np.zeros_like(q)
