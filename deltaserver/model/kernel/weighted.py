"""The kernel sum of a binding model whose descriptor is weighted by fragments."""

from __future__ import annotations

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.compute.thread_pool import ONE_THREAD, ThreadPool
from deltaserver.errors import ModelFileError
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.files.parameters import ModelParameters
from deltaserver.model.fragment_blocks import FragmentBlocks
from deltaserver.model.kernel.group import FourierSum
from deltaserver.model.kernel.training_sum import NoSum, TrainingSum, training_sum
from deltaserver.model.kernel.ways import Ways


class WeightedSum:
    """E and g in all descriptor entries, from a sum over the kept and weighted ones.

    Args:
        sum_: of weighted descriptors.
        blocks: the weights, and where the model counts.
        offset: the integration constant in units of the sum: it fades out with the rest.
    """

    def __init__(self, sum_: TrainingSum, blocks: FragmentBlocks, offset: float) -> None:
        self.sum = sum_
        self.blocks = blocks
        self.offset = offset

    def single(self) -> WeightedSum:
        """See :class:`TrainingSum`."""
        return WeightedSum(self.sum.single(), self.blocks, self.offset)

    @property
    def compiled(self) -> bool:
        """See :class:`TrainingSum`."""
        return self.sum.compiled

    @property
    def has_sum(self) -> bool:
        """Whether there is a kernel sum at all."""
        return not isinstance(self.sum, NoSum)

    def evaluator(self) -> Ways | None:
        """Return the compiled way from positions to forces, of sums over groups."""
        if self.compiled and isinstance(self.sum, FourierSum):
            return Ways.of(self.sum, self.blocks)
        return None

    def __call__(self, q: Floats) -> tuple[Floats, Floats]:
        """Return E (B,) and g = −∂E/∂q (B, D) for query descriptors q (B, D)."""
        return self.with_more(q, 0.0)[:2]

    def with_more(self, q: Floats, more: Floats | float) -> tuple[Floats, Floats, Floats]:
        """Return E and g with energies (B,) from elsewhere that fade out as the sum does, and s.

        The forces of these, times s (B,), come to those that g pulls back to.
        """
        if not self.has_sum:
            energy, g = np.zeros(len(q)), np.zeros_like(q)
        else:
            energy, reduced = self.sum(self.blocks.reduce(q))
            g = self.blocks.expand(reduced)
        energy, g, share = self.blocks.fade(energy + self.offset + more, g, q)
        return energy - self.offset, g, share


def sum_of(
    parameters: ModelParameters, pairs: PairDescriptor, pool: ThreadPool = ONE_THREAD
) -> TrainingSum | WeightedSum:
    """Lay out a model's kernel sum.

    Raises:
        ModelFileError: permutations and weights contradict each other.
    """
    perms, blocks = pairs.permutations(parameters.perms), parameters.blocks
    x, a = parameters.x, parameters.a
    if blocks is not None:
        try:
            perms = blocks.permutations(perms)
        except ValueError as error:
            raise ModelFileError(f"{parameters.source}: {error}") from None
        x, a = blocks.reduce(x), blocks.reduce(a)
    found = training_sum(parameters.sigma, x, a, perms, parameters.alphas_energy, pool)
    if blocks is None:
        return found
    return WeightedSum(found, blocks, parameters.c / parameters.std)
