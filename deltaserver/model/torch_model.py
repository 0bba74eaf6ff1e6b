"""The same sums on torch tensors: ``--backend torch --device cuda``.

Needs the extra ``[gpu]``. float64 by default; float32 is faster on most GPUs and its error, which
depends on the model, is measured when the model is loaded (:meth:`TorchModel.precision_loss`).
Positions go to the device once a batch, energies, forces and virials come back once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from deltaserver.errors import GeometryError, InputError
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.files import ModelParameters
from deltaserver.model.kernel import SQRT5, TrainingSum
from deltaserver.model.sgdml import Evaluation, NativeUnits, Precision, as_batch, as_cell

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CHUNK_ELEMENTS = 1 << 26  # permuted queries held at once; halved where the device runs out


def resolve_device(name: str) -> torch.device:
    """Turn ``auto``, ``cpu``, ``cuda`` or ``cuda:1`` into a device that is there.

    Raises:
        InputError: no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name}: not available ({reason})") from error
    return device


@dataclass(frozen=True)
class _Block:
    columns: slice
    gather: torch.Tensor  # [n_distinct, n_columns]
    member: torch.Tensor  # [n_perms]
    xa: torch.Tensor  # [2 n_train, n_columns]
    x_squared: torch.Tensor
    x_dot_a: torch.Tensor


class TorchModel:
    """A trained sGDML force field on a torch device; see :class:`deltaserver.SGDMLModel`.

    Args:
        parameters: what the model file holds.
        native: its units.
        device: where to compute.
        precision: of everything on the device.
    """

    def __init__(
        self,
        parameters: ModelParameters,
        native: NativeUnits,
        device: str = "auto",
        precision: Precision = "float64",
    ) -> None:
        self.parameters = parameters
        self.native = native
        self.device = resolve_device(device)
        self._real = {"float64": torch.float64, "float32": torch.float32}[precision]
        self._pairs = PairDescriptor(len(parameters.numbers), compiled=False)
        self._i, self._j = self._tensor(self._pairs.i), self._tensor(self._pairs.j)
        self._host = TrainingSum.prepare(
            parameters.sigma,
            parameters.x,
            parameters.a,
            self._pairs.permutations(parameters.perms),
            parameters.alphas_energy,
            compiled=False,
        )
        self._to_device(self._host)

    def _to_device(self, host: TrainingSum) -> None:
        self._order = self._tensor(host.order)
        self._centre = self._tensor(host.centre)
        alphas = host.alphas_energy
        self._alphas_energy = None if alphas is None else self._tensor(alphas)
        every = np.arange(len(self.parameters.perms))
        self._blocks = [
            _Block(
                block.columns,
                self._tensor(block.gather),
                self._tensor(every if block.member is None else block.member),
                self._tensor(np.ascontiguousarray(host.xa[:, block.columns])),
                self._tensor(block.x_squared),
                self._tensor(block.x_dot_a),
            )
            for block in host.blocks
        ]
        widest = sum(block.gather.size for block in host.blocks)
        self._chunk = max(1, CHUNK_ELEMENTS // max(1, widest))

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        kind = self._real if array.dtype.kind == "f" else torch.int64
        return torch.as_tensor(array, dtype=kind, device=self.device)

    @property
    def numbers(self) -> Ints:
        """Atomic numbers, shape (N,)."""
        return self.parameters.numbers

    @property
    def lattice(self) -> Floats | None:
        """Lattice vectors in columns, Å, of a periodic model; None otherwise."""
        lattice = self.parameters.lattice
        return None if lattice is None else lattice * self.native.length_ang

    def evaluate(self, positions: ArrayLike, cell: ArrayLike | None = None) -> Evaluation:
        """Evaluate a batch in Å; see :meth:`deltaserver.SGDMLModel.evaluate`.

        Raises:
            GeometryError: wrong shape, non-finite coordinates, coinciding atoms, a flat cell.
            InputError: one geometry alone is too large for the device.
        """
        batch = as_batch(positions, len(self.numbers), self.parameters.source)
        box = self.lattice
        if box is not None and cell is not None:
            box = as_cell(cell, self.parameters.source)
        unit, std = self.native, self.parameters.std
        energy, forces, virial = self._in_chunks(
            # Far from the origin float32 would lose the distances' digits.
            (batch - batch.mean(axis=1, keepdims=True)) / unit.length_ang,
            None if box is None else box / unit.length_ang,
        )
        return Evaluation(
            energy=(energy * std + self.parameters.c) * unit.energy_ev,
            forces=forces * (std * unit.energy_ev / unit.length_ang),
            virial=virial * (std * unit.energy_ev),
        )

    def precision_loss(self) -> float:
        """Return the largest relative error of the descriptor gradient at training points.

        Compares this device and precision with float64 NumPy, over at most 16 points.
        """
        q = self.parameters.x[:16]
        _, expected = self._host(q)
        _, found = self._kernel_sum(self._tensor(q))
        difference = found.cpu().numpy().astype(np.float64) - expected
        return float(np.abs(difference).max() / np.abs(expected).max())

    def _in_chunks(self, x: Floats, cell: Floats | None) -> tuple[Floats, Floats, Floats]:
        """Evaluate as many geometries at once as fit, fewer where the device runs out."""
        parts: list[tuple[Floats, ...]] = []
        start = 0
        while start < len(x) or not parts:
            try:
                parts.append(self._evaluate(x[start : start + self._chunk], cell))
                start += self._chunk
            except torch.cuda.OutOfMemoryError as error:
                torch.cuda.empty_cache()
                if self._chunk == 1:
                    raise InputError(
                        f"{self.parameters.source}: one geometry needs more memory than "
                        f"{self.device} has; use a larger device, --precision float32 or the CPU"
                    ) from error
                self._chunk //= 2
        energy, forces, virial = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return energy, forces, virial

    def _evaluate(self, x: Floats, cell: Floats | None) -> tuple[Floats, ...]:
        positions = self._tensor(x)  # the one transfer in
        d = positions[:, self._i] - positions[:, self._j]  # [B, D, 3]
        if cell is not None:
            box, inverse = self._tensor(cell), self._tensor(np.linalg.inv(cell))
            d = d - torch.round(d @ inverse.T) @ box.T
        descriptor = 1.0 / torch.linalg.vector_norm(d, dim=-1)
        energy, g = self._kernel_sum(descriptor)
        pulls = (g * descriptor**3)[..., None] * d
        forces = torch.zeros_like(positions)
        forces.index_add_(1, self._j, pulls).index_add_(1, self._i, -pulls)
        virial = -torch.einsum("bka,bkc->bac", pulls, d)
        flat = torch.cat([energy[:, None], forces.flatten(1), virial.flatten(1)], dim=1)
        result = flat.cpu().numpy().astype(np.float64)  # the one transfer out
        if np.isinf(descriptor.amax().item() if len(x) else 0.0):
            raise GeometryError(f"{self.parameters.source}: two atoms are at the same place")
        n = x.shape[1]
        return result[:, 0], result[:, 1:-9].reshape(-1, n, 3), result[:, -9:].reshape(-1, 3, 3)

    def _kernel_sum(self, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """E (B,) and g (B, D), as in :meth:`deltaserver.model.kernel.TrainingSum.__call__`."""
        m = self._host.n_train
        ordered = q[:, self._order]
        shape = (len(q), len(self.parameters.perms), m)
        squared, delta_a = q.new_zeros(shape), q.new_zeros(shape)
        queries = []
        for block in self._blocks:
            permuted = ordered[:, block.gather] - self._centre[block.columns]
            queries.append(permuted)
            products = permuted @ block.xa.T  # [B, n_distinct, 2 n_train]
            here = (permuted**2).sum(-1, keepdim=True) + block.x_squared - 2.0 * products[..., :m]
            squared += here[:, block.member]
            delta_a += (products[..., m:] - block.x_dot_a)[:, block.member]
        energy, w = self._weights(squared, delta_a)
        g = torch.zeros_like(ordered)
        for block, permuted in zip(self._blocks, queries, strict=True):
            collected = q.new_zeros((len(q), len(block.gather), 2 * m))
            collected.index_add_(1, block.member, w)
            pull = collected[..., :m].sum(-1, keepdim=True) * permuted - collected @ block.xa
            g.index_add_(1, block.gather.flatten(), pull.flatten(1))
        result = torch.empty_like(g)
        result[:, self._order] = g
        return energy, result

    def _weights(
        self, squared: torch.Tensor, delta_a: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        sigma = self._host.sigma
        r = float(SQRT5) * torch.sqrt(torch.clamp(squared, min=0.0))
        decay = torch.exp(-r / sigma) * (5.0 / (3.0 * sigma**3))
        w1 = delta_a * decay * (5.0 / sigma)
        w2 = decay * (r + sigma)
        energy = (delta_a * w2).sum((1, 2))
        if self._alphas_energy is not None:
            w1 = w1 + w2 * self._alphas_energy
            k_ee = (1.0 + r / sigma * (1.0 + r / (3.0 * sigma))) * torch.exp(-r / sigma)
            energy = energy + (k_ee * self._alphas_energy).sum((1, 2))
        return energy, torch.cat([w1, w2], dim=-1)
