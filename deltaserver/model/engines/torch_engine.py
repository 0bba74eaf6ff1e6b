"""The sums of an sGDML model on torch tensors: ``--backend torch --device cuda``.

Needs the extra ``[gpu]``. float64 by default; float32 is faster on most GPUs and its error, which
depends on the model, is measured when the model is loaded (:meth:`TorchEngine.precision_loss`).
Positions go to the device once a batch, energies, forces and virials come back once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deltaserver.arrays import Floats
from deltaserver.errors import GeometryError, InputError
from deltaserver.model.descriptor import PairDescriptor, as_batch
from deltaserver.model.engines import Precision
from deltaserver.model.engines.base import Engine, Evaluated
from deltaserver.model.engines.torch_sum import on_device
from deltaserver.model.files.parameters import ModelParameters
from deltaserver.model.kernel.weighted import WeightedSum, sum_of

CHUNK_ELEMENTS = 1 << 26  # in the largest temporary array; fewer where the device runs out


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


class TorchEngine(Engine):
    """Evaluates a model with torch, on the processor or a GPU.

    Args:
        parameters: what the model file holds.
        device: where to compute.
        precision: of everything on the device.
    """

    def __init__(
        self, parameters: ModelParameters, device: str = "auto", precision: Precision = "float64"
    ) -> None:
        self.parameters = parameters
        self.device: torch.device = resolve_device(device)
        self._real = {"float64": torch.float64, "float32": torch.float32}[precision]
        self._pairs = PairDescriptor(len(parameters.numbers), compiled=False)
        self._i, self._j = self._tensor(self._pairs.i), self._tensor(self._pairs.j)
        self._host = sum_of(parameters, self._pairs)
        self._sum = on_device(self._host, self._tensor)
        self._chunk = max(1, CHUNK_ELEMENTS // max(1, self._sum.per_query))

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        kind = self._real if array.dtype.kind == "f" else torch.int64
        return torch.as_tensor(array, dtype=kind, device=self.device)

    def evaluate(self, x: Floats, cell: Floats | None, scale: float) -> Evaluated:
        """See :class:`Engine`.

        Raises:
            InputError: one geometry alone is too large for the device.
        """
        batch = as_batch(x, self._pairs.n_atoms, self.parameters.source)
        # Far from the origin float32 would lose the distances' digits.
        centred = batch - batch.mean(axis=1, keepdims=True)
        energy, forces, virial = self._with_linear(centred, cell)
        std, shift = self.parameters.std * scale, self.parameters.c * scale
        return energy * std + shift, forces * std, virial * std

    def precision_loss(self) -> float:
        """Return the largest relative error of the descriptor gradient at training points.

        Compares this device and precision with float64 NumPy, over at most 16 points.
        """
        q = self.parameters.x[:16]
        _, expected = self._host(q)
        _, found = self._sum(self._tensor(q))
        difference = found.cpu().numpy().astype(np.float64) - expected
        largest = float(np.abs(expected).max())  # 0 where there is no kernel
        return float(np.abs(difference).max()) / largest if largest else 0.0

    def _with_linear(self, x: Floats, cell: Floats | None) -> tuple[Floats, Floats, Floats]:
        """Evaluate in units of std; a linear expansion, which costs little, on the host."""
        linear, std = self.parameters.linear, self.parameters.std
        if linear is None:
            return self._in_chunks(x, cell)
        more, *slopes = (array / std for array in linear.evaluate(x, cell))
        if not isinstance(self._host, WeightedSum):
            found = self._in_chunks(x, cell)
            return found[0] + more, found[1] + slopes[0], found[2] + slopes[1]
        q = self._pairs.geometry(x, cell).descriptor
        share = self._host.blocks.share(q)[:, None, None]
        energy, forces, virial = self._in_chunks(x, cell, more)
        return energy, forces + share * slopes[0], virial + share * slopes[1]

    def _in_chunks(
        self, x: Floats, cell: Floats | None, more: Floats | None = None
    ) -> tuple[Floats, Floats, Floats]:
        """Evaluate as many geometries at once as fit, fewer where the device runs out."""
        parts: list[tuple[Floats, ...]] = []
        start = 0
        while start < len(x) or not parts:
            try:
                some = slice(start, start + self._chunk)
                parts.append(self._evaluate(x[some], cell, None if more is None else more[some]))
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

    def _evaluate(self, x: Floats, cell: Floats | None, more: Floats | None) -> tuple[Floats, ...]:
        positions = self._tensor(x)  # the one transfer in
        d = positions[:, self._i] - positions[:, self._j]  # [B, D, 3]
        if cell is not None:
            box, inverse = self._tensor(cell), self._tensor(np.linalg.inv(cell))
            d = d - torch.round(d @ inverse.T) @ box.T
        descriptor = 1.0 / torch.linalg.vector_norm(d, dim=-1)
        energy, g = self._sum(descriptor, *(() if more is None else (self._tensor(more),)))
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
