"""Functions of a distance, and their sum over many pairs: of atoms in a prior, of sites.

    φ = exp(−b r),  −1/(rⁿ + Rⁿ)

A charge's 1/r is n = 1 and R = 0 but for the sign.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.model import loops
from deltaserver.model.descriptor import compiled_cell
from deltaserver.model.linear.expansion import Evaluated, chunks, distances, join, summed

Pairs = tuple[Ints, Ints, Floats]
MANY = 4  # geometries from which on eight side by side cost less than one after the other


@dataclass(frozen=True)
class Radials:
    """The functions φ_k of the distance, in the model's length.

    Attributes:
        decays: b of exp(−b r).
        powers: n and R of −1/(rⁿ + Rⁿ).
    """

    decays: tuple[float, ...]
    powers: tuple[tuple[int, float], ...]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self.decays) + len(self.powers)

    @cached_property
    def arrays(self) -> tuple[Floats, Floats]:
        """Return decays (n,), and powers with their R (n, 2), as files and loops take them."""
        powers = np.array(self.powers, dtype=np.float64).reshape(-1, 2)
        return np.array(self.decays, dtype=np.float64), powers

    @cached_property
    def multiples(self) -> Ints:
        """Return how many times the first decay every one is, (n,); 0 where it is no multiple."""
        ratio = np.array(self.decays) / self.decays[0] if self.decays else np.zeros(0)
        whole = np.rint(ratio)
        near = np.abs(ratio - whole) <= 4 * np.finfo(np.float64).eps * whole
        return np.where(near, whole, 0).astype(np.int64)

    def each(self, r: Floats) -> list[tuple[Floats, Floats]]:
        """Return φ and −φ′/r of every function at distances r."""
        found = []
        for decay in self.decays:
            value = np.exp(-decay * r)
            found.append((value, decay * value / r))
        for n, radius in self.powers:
            whole = 1.0 / (r**n + radius**n)
            found.append((-whole, -n * r ** (n - 2) * whole * whole))
        return found

    def summed(
        self, places: Floats, pairs: Pairs, cell: Floats | None, compiled: bool
    ) -> Evaluated:
        """Return Σ C φ of all pairs (B,), forces on places (B, n, 3) and virials (B, 3, 3).

        Args:
            places: shape (B, n, 3).
            pairs: the first and second place of each (P,), and C (P, K).
            cell: lattice vectors in columns: distances are then those of nearest images.
            compiled: in loops.
        """
        if not compiled:
            numbers = 10 * len(pairs[0])
            parts = [self._chunk(places[s], pairs, cell) for s in chunks(len(places), numbers)]
            return join(parts, places.shape)
        if cell is None and len(places) >= MANY:
            each = np.arange(places.shape[1] + 1)
            return self.summed_of_sites(places, (each[:-1], each), pairs)
        energy, virial = np.zeros(len(places)), np.zeros((len(places), 3, 3))
        forces, (decays, powers) = np.zeros(places.shape), self.arrays
        loops.load("sites").add_pairs(
            places,
            (pairs[0], pairs[1], np.ascontiguousarray(pairs[2].T)),
            (decays, self.multiples, powers),
            compiled_cell(cell),
            (energy, forces, virial),
        )
        return energy, forces, virial

    def summed_of_sites(self, x: Floats, sites: tuple[Ints, Ints], pairs: Pairs) -> Evaluated:
        """Return the same of sites of atoms x (B, n, 3), eight geometries at a time in loops.

        ``sites`` is the members of each, and where they begin.
        """
        results = np.empty(len(x)), np.empty(x.shape), np.empty((len(x), 3, 3))
        decays, powers = self.arrays
        some = pairs[0], pairs[1], np.ascontiguousarray(pairs[2].T)
        loops.load("sites").add_pairs_by_eights(
            x, sites, some, (decays, self.multiples, powers), results
        )
        return results

    def _chunk(self, places: Floats, pairs: Pairs, cell: Floats | None) -> Evaluated:
        a, b, coefficients = pairs
        d, r = distances(places, a, b, cell)
        energy, pull = np.zeros(len(places)), np.zeros_like(r)
        for (value, slope), some in zip(self.each(r), coefficients.T, strict=True):
            energy += value @ some
            pull += slope * some
        pulls, n = pull[..., None] * d, places.shape[1]  # on a, and its opposite on b
        forces = summed(pulls, a, n) - summed(pulls, b, n)
        return energy, forces, np.einsum("bpx,bpy->bxy", pulls, d)
