"""The kernel matrix times a vector, without the matrix.

Forces that a model predicts at its own training points are K times its coefficients (and −E, where
energies are labels too: see :mod:`deltaserver.training.matrix.blocks`). So K v is one
evaluation of a model with coefficients v at M geometries: in the Fourier space of the permutation
group (:mod:`deltaserver.model.groups.fourier`), with what it takes of the training arrays read once
for a block of geometries, blocks shared out among threads. All in the units of the training points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Floats, Ints
from deltaserver.compute.thread_pool import ThreadPool
from deltaserver.model.descriptor import Geometry, PairDescriptor
from deltaserver.model.fragment_blocks import FragmentBlocks
from deltaserver.model.groups.fourier import GroupFourier
from deltaserver.model.kernel.training_sum import DirectSum, FourierSum, TrainingSum, Weights

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
        energy: weight of energies as labels; 0 is forces alone.

    Raises:
        GeometryError: two atoms of a training point coincide.
    """

    def __init__(
        self,
        positions: Floats,
        perms: Ints,
        sigma: float,
        threads: int = 1,
        device: str = "cpu",
        blocks: FragmentBlocks | None = None,
        energy: float = 0.0,
    ) -> None:
        self._pairs = PairDescriptor(positions.shape[1])
        self._geometry = self._pairs.geometry(positions)
        self._shape = positions.shape
        self._blocks = blocks
        self._x = self._entries(self._geometry.descriptor)
        self._pair_perms = self._pairs.permutations(perms)
        if blocks is not None:
            self._pair_perms = blocks.permutations(self._pair_perms)
        self._fourier = GroupFourier.of(self._pair_perms) if len(perms) > 1 else None
        self._sigma, self._energy = sigma, energy
        self._pool = ThreadPool(threads)
        self._device = device

    def __call__(self, v: Floats) -> Floats:
        """Return K v, shape (3NM,), or ((3N + 1)M,) with energies."""
        energy, forces = self._evaluate(v, self._geometry)
        return self._rows(energy, forces)

    def rows(self, v: Floats, points: slice) -> Floats:
        """Return the rows of K v of some training points, from a multiple of BLOCK on.

        The same digits whatever else is asked for: always in the same blocks.
        """
        total = self._laid_out(v)
        some = _part(self._geometry, points)
        q = self._entries(some.descriptor)
        parts = [total.contract(q[block]) for block in _blocks(len(q), BLOCK)]
        energies, slopes = zip(*parts, strict=True)
        return self._rows(np.concatenate(energies), self._pull(np.concatenate(slopes), some))

    def _rows(self, energy: Floats, forces: Floats) -> Floats:
        return join(forces, -self._energy * energy) if self._energy else forces.ravel()

    def predict(self, v: Floats, positions: Floats) -> Floats:
        """Return the forces of coefficients v at other geometries, shape (B, N, 3)."""
        return self._evaluate(v, self._pairs.geometry(positions))[1]

    def energy_column(self, point: int) -> tuple[Floats, Floats]:
        """Return the column of K that −E of a point, of weight 1, has or would have.

        And what it has in common with −E of every point: shapes (3NM,), or ((3N + 1)M,) with
        energies, and (M,).
        """
        here = self._x[point : point + 1]
        total = self._sum(Weights(self._sigma, -np.ones(1)), here, np.zeros_like(here))
        energy, g = total(self._entries(self._geometry.descriptor))
        return self._rows(energy, self._pull(g, self._geometry)), -energy

    def in_descriptor_space(self, v: Floats) -> Floats:
        """Return −J v of every training point, shape (M, D): what a model's file holds."""
        forces, _ = self._split(v)
        projected: Floats = -self._pairs.project(self._geometry, forces)
        return projected

    def _split(self, v: Floats) -> tuple[Floats, Floats | None]:
        """Return the coefficients of forces (M, N, 3) and of energies (M,), None without these."""
        if not self._energy:
            return v.reshape(self._shape), None
        forces, energies = split(v, self._shape)
        return forces, -self._energy * energies

    def _entries(self, descriptor: Floats) -> Floats:
        """Return what the kernel sees of descriptors."""
        return descriptor if self._blocks is None else self._blocks.reduce(descriptor)

    def _evaluate(self, v: Floats, geometry: Geometry) -> tuple[Floats, Floats]:
        """Return E (B,) and forces (B, N, 3)."""
        total = self._laid_out(v)
        q = self._entries(geometry.descriptor)
        energy, g = self._on_cpu(total, q) if self._device == "cpu" else self._on_torch(total, q)
        return energy, self._pull(g, geometry)

    def _laid_out(self, v: Floats) -> TrainingSum:
        weights = Weights(self._sigma, self._split(v)[1])
        return self._sum(weights, self._x, self._entries(self.in_descriptor_space(v)))

    def _pull(self, g: Floats, geometry: Geometry) -> Floats:
        if self._blocks is not None:
            g = self._blocks.expand(g)
        return self._pairs.pull_back(g, geometry)[0]

    def _sum(self, weights: Weights, x: Floats, a: Floats) -> TrainingSum:
        if self._fourier is None:
            return DirectSum(weights, x, a, self._pair_perms)
        return FourierSum(weights, x, a, self._pair_perms, self._fourier)

    def _on_cpu(self, total: TrainingSum, q: Floats) -> tuple[Floats, Floats]:
        """Evaluate in blocks of the same size whatever the threads, so that sums are the same."""
        if not total.in_loops:  # small groups and none: matrix products, which BLAS shares out
            return total(q)
        total.contract(q[:1])  # lays the training arrays out, before threads ask for that
        parts = self._pool.map(lambda block: total.contract(q[block]), _blocks(len(q), BLOCK))
        energies, slopes = zip(*parts, strict=True)
        return np.concatenate(energies), np.concatenate(slopes)

    def _on_torch(self, total: TrainingSum, q: Floats) -> tuple[Floats, Floats]:
        import torch

        from deltaserver.model.engines.torch_engine import resolve_device
        from deltaserver.model.engines.torch_sum import on_device

        device = resolve_device(self._device.removeprefix("torch:"))

        def to_device(array: NDArray[Any]) -> torch.Tensor:
            kind = torch.float64 if array.dtype.kind == "f" else torch.int64
            return torch.as_tensor(array, dtype=kind, device=device)

        there, queries = on_device(total, to_device), to_device(q)
        step = max(1, TORCH_NUMBERS // max(1, there.per_query))
        parts = [there(queries[k : k + step]) for k in range(0, len(q), step)]
        energies, slopes = (torch.cat(some).cpu().numpy() for some in zip(*parts, strict=True))
        return energies, slopes


def _part(geometry: Geometry, some: slice) -> Geometry:
    return Geometry(geometry.positions[some], geometry.cell, geometry.descriptor[some])


def split(v: Floats, shape: tuple[int, ...]) -> tuple[Floats, Floats]:
    """Return what belongs to forces, of ``shape`` (M, N, 3), and to energies (M,)."""
    by_point = v.reshape(shape[0], -1)
    return by_point[:, :-1].reshape(shape), by_point[:, -1]


def join(forces: Floats, energies: Floats) -> Floats:
    """Return what :func:`split` takes apart, shape ((3N + 1)M,)."""
    return np.hstack([forces.reshape(len(forces), -1), energies[:, None]]).ravel()


@dataclass(frozen=True)
class EnergyColumns:
    """The columns of K of the energies of some points, whether these are labels or not.

    Attributes:
        product: with K.
        points: whose energies.
        threads: columns computed at once.
    """

    product: KernelProduct
    points: Ints
    threads: int = 1

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self.points)

    def fill(self, out: Sequence[Floats]) -> Floats:
        """Fill an array (3N, P) of every point with its rows; return the block between, (P, P)."""

        def column(k: int) -> Floats:
            whole, known = self.product.energy_column(int(self.points[k]))
            for rows, own in zip(out, whole.reshape(len(out), -1), strict=True):
                rows[:, k] = own
            return known[self.points]

        return np.array(ThreadPool(self.threads).map(column, list(range(len(self)))))


def _blocks(n: int, size: int) -> list[slice]:
    ends = [*range(0, n, size), n]
    return [slice(a, b) for a, b in pairwise(ends)]
