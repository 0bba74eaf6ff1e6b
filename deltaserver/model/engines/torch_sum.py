"""The kernel sums of :mod:`deltaserver.model.kernel` on torch tensors, from the same arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import NDArray

from deltaserver.model.fragment_blocks import POWER
from deltaserver.model.groups.fourier import GroupFourier
from deltaserver.model.kernel.base import SQRT5
from deltaserver.model.kernel.training_sum import (
    DirectSum,
    FourierSum,
    NoSum,
    TrainingSum,
    Weights,
)
from deltaserver.model.kernel.weighted import WeightedSum

ToDevice = Callable[[NDArray[Any]], torch.Tensor]


def on_device(
    host: TrainingSum | WeightedSum, to_device: ToDevice
) -> TorchDirectSum | TorchFourierSum | TorchNoSum | TorchWeightedSum:
    """Move a kernel sum to a device."""
    if isinstance(host, WeightedSum):
        return TorchWeightedSum(host, to_device)
    if isinstance(host, FourierSum):
        return TorchFourierSum(host, to_device)
    if isinstance(host, NoSum):
        return TorchNoSum()
    assert isinstance(host, DirectSum)
    return TorchDirectSum(host, to_device)


class TorchWeights:
    """See :class:`deltaserver.model.kernel.base.Weights`."""

    def __init__(self, host: Weights, to_device: ToDevice) -> None:
        self.sigma = host.sigma
        alphas = host.alphas_energy
        self.alphas = None if alphas is None else to_device(alphas[:, None])

    def __call__(
        self, squared: torch.Tensor, delta_a: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return w₁, w₂ and each term of E."""
        sigma = self.sigma
        r = float(SQRT5) * torch.sqrt(torch.clamp(squared, min=0.0))
        exponential = torch.exp(-r / sigma)
        decay = exponential * (5.0 / (3.0 * sigma**3))
        w1 = delta_a * decay * (5.0 / sigma)
        w2 = decay * (r + sigma)
        terms = delta_a * w2
        if self.alphas is not None:
            w1 = w1 + w2 * self.alphas
            matern = 1.0 + r / sigma * (1.0 + r / (3.0 * sigma))
            terms = terms + matern * exponential * self.alphas
        return w1, w2, terms


class TorchNoSum:
    """See :class:`deltaserver.model.kernel.nothing.NoSum`."""

    per_query = 0

    def __call__(self, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E (B,) and g (B, D)."""
        return torch.zeros_like(q[:, 0]), torch.zeros_like(q)


class TorchDirectSum:
    """See :class:`deltaserver.model.kernel.direct.DirectSum`."""

    def __init__(self, host: DirectSum, to_device: ToDevice) -> None:
        self.weights = TorchWeights(host.weights, to_device)
        self.n_train = host.n_train
        self.centre = to_device(host.centre)
        self.xa = to_device(host.xa)
        self.x_squared, self.x_dot_a = to_device(host.x_squared), to_device(host.x_dot_a)
        self.gather = to_device(host.gather)
        self.per_query = host.per_query

    def __call__(self, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E (B,) and g (B, D)."""
        m = self.n_train
        permuted = q[:, self.gather] - self.centre  # [B, S, D]
        rows = permuted.flatten(0, 1)
        products = self.xa @ rows.T  # [2M, B·S]
        squared = (rows**2).sum(1) + self.x_squared - 2.0 * products[:m]
        w1, w2, terms = self.weights(squared, products[m:] - self.x_dot_a)
        pull = w1.sum(0)[:, None] * rows - torch.cat([w1, w2]).T @ self.xa
        g = torch.zeros_like(q).index_add_(
            1, self.gather.flatten(), pull.reshape(len(q), self.gather.numel())
        )
        return terms.reshape(m, len(q), -1).sum((0, 2)), g


class TorchFourierSum:
    """See :class:`deltaserver.model.kernel.group.FourierSum`."""

    def __init__(self, host: FourierSum, to_device: ToDevice) -> None:
        self.weights = TorchWeights(host.weights, to_device)
        self.n_train = host.n_train
        self.centre = to_device(host.centre)
        self.x_squared, self.x_dot_a = to_device(host.x_squared), to_device(host.x_dot_a)
        self.parts = [to_device(part) for part in host.parts]
        self.per_query = host.per_query
        self._layout: GroupFourier = host.fourier
        self._kinds = [(to_device(k.entries), to_device(k.basis)) for k in host.fourier.kinds]
        self._gather = to_device(host.fourier.gather)
        self._values = [to_device(sector.values) for sector in host.fourier.sectors]
        self._signs = to_device(host.fourier.signs)

    def __call__(self, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E (B,) and g (B, D)."""
        m, n_batch = self.n_train, len(q)
        centred = q - self.centre
        z = self._correlate(self._forward(centred))
        products = self._at_elements(z).reshape(-1, 2 * m, n_batch)  # [S, 2M, B]
        squared = (centred**2).sum(1) + self.x_squared - 2.0 * products[:, :m]
        w1, w2, terms = self.weights(squared, products[:, m:] - self.x_dot_a)
        z = self._from_elements(torch.cat([w1, w2], dim=1).flatten(1))
        g = w1.sum((0, 1))[:, None] * centred - self._backward(self._spread(z, n_batch))
        return terms.sum((0, 1)), g

    def _forward(self, values: torch.Tensor) -> torch.Tensor:
        parts = [
            (values[:, entries].transpose(1, 2) @ basis).flatten(1)
            for entries, basis in self._kinds
        ]
        return torch.cat(parts, dim=1)[:, self._gather]

    def _backward(self, coefficients: torch.Tensor) -> torch.Tensor:
        mixed = torch.empty_like(coefficients)
        mixed[:, self._gather] = coefficients
        values = torch.empty_like(coefficients)
        start = 0
        for entries, basis in self._kinds:
            part = mixed[:, start : start + entries.numel()]
            start += entries.numel()
            n_points, n_orbits = entries.shape
            points = part.reshape(len(part), n_orbits, n_points) @ basis.T
            values[:, entries] = points.transpose(1, 2)
        return values

    def _correlate(self, y: torch.Tensor) -> torch.Tensor:
        n_batch, rows = len(y), 2 * self.n_train
        elements = []
        for part, x in zip(self._layout.components, self.parts, strict=True):
            d = part.dim
            product = x @ y[:, part.rows].reshape(n_batch * d, part.copies).T
            sorted_ = product.reshape(d, rows, n_batch, d).permute(0, 3, 1, 2)
            elements.append(sorted_.reshape(d * d, rows * n_batch))
        return torch.cat(elements)

    def _spread(self, z: torch.Tensor, n_batch: int) -> torch.Tensor:
        rows = 2 * self.n_train
        parts = []
        for part, x in zip(self._layout.components, self.parts, strict=True):
            d = part.dim
            w = z[part.elements].reshape(d, d, rows, n_batch).permute(3, 1, 0, 2)
            parts.append((w.reshape(n_batch * d, d * rows) @ x).reshape(n_batch, d * part.copies))
        return torch.cat(parts, dim=1)

    def _at_elements(self, z: torch.Tensor) -> torch.Tensor:
        sectors = zip(self._values, self._layout.sectors, strict=True)
        values = torch.stack([v @ z[sector.elements] for v, sector in sectors])
        return (self._signs @ values.flatten(1)).reshape(-1, z.shape[1])

    def _from_elements(self, w: torch.Tensor) -> torch.Tensor:
        mixed = self._signs.T @ w.reshape(len(self._signs), -1)
        parts = mixed.reshape(len(self._values), -1, w.shape[1])
        return torch.cat([v.T @ part for v, part in zip(self._values, parts, strict=True)])


class TorchWeightedSum:
    """See :class:`deltaserver.model.kernel.weighted.WeightedSum`."""

    def __init__(self, host: WeightedSum, to_device: ToDevice) -> None:
        blocks = host.blocks
        self.sum: TorchDirectSum | TorchFourierSum | TorchNoSum | TorchWeightedSum
        self.sum = on_device(host.sum, to_device)
        self.per_query: int = self.sum.per_query + 2 * len(blocks.by_pair)
        self.offset, self.reach = host.offset, blocks.reach
        self.kept, self.scale = to_device(blocks.kept), to_device(blocks.scale)
        self.between = to_device(blocks.between)

    def __call__(
        self, q: torch.Tensor, more: torch.Tensor | float = 0.0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return E (B,) and g (B, D) for query descriptors (B, D); ``more`` energy fades as E."""
        energy, reduced = self.sum(q[:, self.kept] * self.scale)
        g = torch.zeros_like(q)
        g[:, self.kept] = reduced * self.scale
        if self.reach is None:
            return energy + more, g
        energy = energy + self.offset + more
        near = q[:, self.between]
        # In float32 no power of twelve must leave the range: divided by the largest entry.
        largest = near.amax(dim=1, keepdim=True)
        ratio = near / largest
        rho = (ratio**POWER).sum(dim=1, keepdim=True) ** (-1.0 / POWER) / largest  # [B, 1]
        s, slope = self.reach(rho)
        g = s * g
        g[:, self.between] += slope * energy[:, None] * rho**2 * (rho * near) ** (POWER - 1)
        return s[:, 0] * energy - self.offset, g
