"""The kernel matrix times a vector, without the matrix.

Forces that a model predicts at its own training points are K times its coefficients. So K v is one
evaluation of a model with coefficients v at M geometries: in the Fourier space of the permutation
group (:mod:`deltaserver.model.kernel.fourier`), with what it takes of the training arrays read once
for a block of geometries, blocks shared out among threads. All in the units of the training points.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.team import Team
from deltaserver.model.descriptor import Geometry, PairDescriptor
from deltaserver.model.fragment_blocks import FragmentBlocks
from deltaserver.model.kernel.fourier import GroupFourier
from deltaserver.model.kernel.training_sum import DirectSum, FourierSum, TrainingSum, Weights

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BLOCK = 16  # geometries that compiled loops evaluate at once
TORCH_NUMBERS = 1 << 26  # in the largest temporary array on a device


class KernelProduct:
    """K v for the kernel matrix of :func:`deltaserver.training.matrix.assembly.assemble`.

    Args:
        positions: training points, shape (M, N, 3).
        perms: a permutation group of the atoms, shape (S, N).
        sigma: length scale of the kernel.
        threads: blocks of geometries evaluated at once; of BLAS, the caller sets them.
        device: ``"cpu"``; ``"cuda"`` (or ``"torch:cpu"``, for tests) is torch.
        blocks: weights of the descriptor's entries by fragment; None is sGDML's own.

    Raises:
        GeometryError: two atoms of a training point coincide.
    """

    def __init__(
        self, positions: Floats, perms: Ints, sigma: float, threads: int = 1,
        device: str = "cpu", blocks: FragmentBlocks | None = None,
    ) -> None:  # fmt: skip
        self._pairs = PairDescriptor(positions.shape[1])
        self._geometry = self._pairs.geometry(positions)
        self._shape = positions.shape
        self._blocks = blocks
        self._x = self._entries(self._geometry.descriptor)
        self._pair_perms = self._pairs.permutations(perms)
        if blocks is not None:
            self._pair_perms = blocks.permutations(self._pair_perms)
        self._fourier = GroupFourier.of(self._pair_perms) if len(perms) > 1 else None
        self._weights = Weights(sigma, None)
        self._team = Team(threads)
        self._device = device

    def __call__(self, v: Floats) -> Floats:
        """Return K v, shape (3NM,)."""
        return self._forces(v, self._geometry).ravel()

    def predict(self, v: Floats, positions: Floats) -> Floats:
        """Return the forces of coefficients v at other geometries, shape (B, N, 3)."""
        return self._forces(v, self._pairs.geometry(positions))

    def in_descriptor_space(self, v: Floats) -> Floats:
        """Return −J v of every training point, shape (M, D): what a model's file holds."""
        projected: Floats = -self._pairs.project(self._geometry, v.reshape(self._shape))
        return projected

    def _entries(self, descriptor: Floats) -> Floats:
        """Return what the kernel sees of descriptors."""
        return descriptor if self._blocks is None else self._blocks.reduce(descriptor)

    def _forces(self, v: Floats, geometry: Geometry) -> Floats:
        total = self._sum(self._entries(self.in_descriptor_space(v)))
        q = self._entries(geometry.descriptor)
        g = self._on_cpu(total, q) if self._device == "cpu" else self._on_torch(total, q)
        if self._blocks is not None:
            g = self._blocks.expand(g)
        return self._pairs.pull_back(g, geometry)[0]

    def _sum(self, a: Floats) -> TrainingSum:
        if self._fourier is None:
            return DirectSum(self._weights, self._x, a, self._pair_perms)
        return FourierSum(self._weights, self._x, a, self._pair_perms, self._fourier)

    def _on_cpu(self, total: TrainingSum, q: Floats) -> Floats:
        """Evaluate in blocks of the same size whatever the threads, so that sums are the same."""
        in_loops = total.compiled and total.evaluator() is None
        if not in_loops:  # small groups and none: matrix products, which BLAS shares out
            return total(q)[1]
        total.contract(q[:1])  # lays the training arrays out, before threads ask for that
        parts = self._team.map(lambda block: total.contract(q[block])[1], _blocks(len(q), BLOCK))
        return np.concatenate(parts)

    def _on_torch(self, total: TrainingSum, q: Floats) -> Floats:
        import torch

        from deltaserver.model.engines.torch_model import resolve_device
        from deltaserver.model.engines.torch_sum import on_device

        device = resolve_device(self._device.removeprefix("torch:"))

        def to_device(array: NDArray[Any]) -> torch.Tensor:
            kind = torch.float64 if array.dtype.kind == "f" else torch.int64
            return torch.as_tensor(array, dtype=kind, device=device)

        there, queries = on_device(total, to_device), to_device(q)
        step = max(1, TORCH_NUMBERS // max(1, there.per_query))
        parts = [there(queries[k : k + step])[1] for k in range(0, len(q), step)]
        g: Floats = torch.cat(parts).cpu().numpy()
        return g


def _blocks(n: int, size: int) -> list[slice]:
    ends = [*range(0, n, size), n]
    return [slice(a, b) for a, b in pairwise(ends)]
