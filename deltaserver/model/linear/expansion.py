"""What every linear expansion offers, and the distances that all of them begin with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Floats, Ints
from deltaserver.model.descriptor import nearest_images

Evaluated = tuple[Floats, Floats, Floats]

CHUNK_NUMBERS = 1 << 21  # in the largest temporary array


class Expansion(Protocol):
    """A linear expansion in distances, in the units of the model that stands on it."""

    def evaluate(self, positions: Floats, cell: Floats | None = None) -> Evaluated:
        """Return energies (B,), forces (B, N, 3) and virials −∂E/∂ε (B, 3, 3).

        Args:
            positions: shape (B, N, 3).
            cell: lattice vectors in columns; distances are then those of nearest images.
        """

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what a model file holds of it."""


@dataclass(frozen=True)
class Together:
    """Several expansions of one component, added up."""

    parts: tuple[Expansion, ...]

    def evaluate(self, positions: Floats, cell: Floats | None = None) -> Evaluated:
        """See :class:`Expansion`."""
        found = [part.evaluate(positions, cell) for part in self.parts]
        energy, forces, virial = (sum(some[1:], some[0]) for some in zip(*found, strict=True))
        return energy, forces, virial

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what a model file holds of them."""
        return {key: array for part in self.parts for key, array in part.arrays().items()}


@dataclass(frozen=True)
class OfUnits(Together):
    """What is within a molecule, and between its stiff units as if they were fragments.

    Attributes:
        units: which unit each atom belongs to, shape (N,).
    """

    units: Ints

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what a model file holds of it."""
        return {**super().arrays(), "units": self.units}


def distances(x: Floats, i: Ints, j: Ints, cell: Floats | None = None) -> tuple[Floats, Floats]:
    """Return x_i − x_j (B, P, 3), nearest images where there is a cell, and their lengths."""
    d = nearest_images(x[:, i] - x[:, j], cell)
    return d, np.sqrt(np.einsum("bpx,bpx->bp", d, d))


def summed(values: Floats, index: Ints, n: int) -> Floats:
    """Return sums (B, n, …) of values (B, L, …) that go to ``index`` (L,)."""
    flat = values.reshape(*values.shape[:2], -1)
    result = np.empty((len(flat), n, flat.shape[2]))
    for one, some in zip(result, flat, strict=True):
        for k in range(flat.shape[2]):
            one[:, k] = np.bincount(index, some[:, k], n)
    return result.reshape(len(flat), n, *values.shape[2:])


def chunks(n: int, numbers: int) -> Iterator[slice]:
    """Cut n geometries, of so many numbers each, into parts that fit into memory at once."""
    step = max(1, CHUNK_NUMBERS // max(1, numbers))
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def join(parts: list[Evaluated], shape: tuple[int, ...]) -> Evaluated:
    """Concatenate evaluations of chunks of a batch of ``shape`` (B, N, 3)."""
    if not parts:
        return np.zeros(0), np.zeros(shape), np.zeros((0, 3, 3))
    energy, forces, virial = (np.concatenate(part) for part in zip(*parts, strict=True))
    return energy, forces, virial
