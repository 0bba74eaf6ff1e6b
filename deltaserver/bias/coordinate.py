"""The distance of two groups of atoms, and what it pulls at: the variable that a bias acts on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.errors import InputError

NEAREST_ANG = 1e-6  # of two centres: nearer than this, no direction is known


@dataclass(frozen=True)
class Coordinate:
    """s = |R₂ − R₁|, Å, with R = Σ w r / Σ w of each group.

    Attributes:
        name: as ``analysis.yaml`` calls it.
        groups: the atoms of both.
        weights: of those atoms: masses in u, or 1 for plain centres.
    """

    name: str
    groups: tuple[tuple[int, ...], tuple[int, ...]]
    weights: tuple[tuple[float, ...], tuple[float, ...]]

    def __post_init__(self) -> None:
        for atoms, weights in zip(self.groups, self.weights, strict=True):
            if len(atoms) != len(weights) or not atoms:
                raise InputError(f"variable {self.name}: its weights are not those of its atoms")
        if set(self.groups[0]) == set(self.groups[1]):
            raise InputError(f"variable {self.name}: a group's distance from itself is no variable")

    @cached_property
    def _n_atoms(self) -> int:
        """How many atoms there are at least."""
        return 1 + max(max(atoms) for atoms in self.groups)

    @cached_property
    def _pull(self) -> Floats:
        """∂(R₂ − R₁)/∂r, the same along x, y and z: a weight for each atom, [n]."""
        pull = np.zeros(self._n_atoms)
        for sign, atoms, weights in zip((-1.0, 1.0), self.groups, self.weights, strict=True):
            pull[list(atoms)] += sign * np.array(weights) / sum(weights)
        return pull

    def value(self, positions_ang: Floats) -> float:
        """Return s, Å, of positions (N, 3), Å."""
        return float(np.linalg.norm(self._between(positions_ang)))

    def gradient(self, positions_ang: Floats) -> tuple[float, Floats]:
        """Return s, Å, and ∂s/∂r = p (R₂ − R₁)/s, (N, 3), p being the weights of the atoms.

        Where the centres meet s has a cusp, and the gradient is given as zero.
        """
        between = self._between(positions_ang)
        value = float(np.linalg.norm(between))
        gradient = np.zeros_like(positions_ang)
        if value > NEAREST_ANG:
            gradient[: self._n_atoms] = self._pull[:, None] * (between / value)
        return value, gradient

    def _between(self, positions_ang: Floats) -> Floats:
        return np.asarray(self._pull @ positions_ang[: self._n_atoms])  # [3]
