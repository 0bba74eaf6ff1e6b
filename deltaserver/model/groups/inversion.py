"""Values at a group's element and at its inverse, from the same sums.

A representation is orthogonal, ρ(t⁻¹) = ρ(t)ᵀ, and so the values Σ_ab z_ab ρ_ab at t and t⁻¹ are
u + v and u − v, with u of what is symmetric in z, (z_ab + z_ba)/√2 and z_aa, and v of what is
antisymmetric, (z_ab − z_ba)/√2. Elements that are their own inverses need u alone. That is half of
the arithmetic, whatever the group is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.model.groups.fourier import GroupFourier, Sector

NONE = 1e-9  # of what symmetry makes vanish
MANY = 1 << 10  # values times numbers of a sector, from which on that pays


@dataclass(frozen=True)
class Inversion:
    """The sectors of a group as compiled loops take them; K is the longest sector's length.

    Values of a sector come as u of P pairs of cosets, then Q cosets that are their own inverses,
    then v of the pairs. Its K numbers are what is symmetric, then what is antisymmetric. Of small
    sectors there are no pairs, and the numbers are the matrix elements as they are.

    Attributes:
        forth: from the K numbers to u, the Q cosets' values and v, shape (n_sectors, P + Q, K).
        back: the adjoint, shape (n_sectors, K, P + Q); of what is antisymmetric the Q come first.
        counts: of every sector, how many numbers are symmetric, how many antisymmetric, of how many
            the values of the Q are, and P, shape (n_sectors, 4).
        alone: where z_aa is in z, and where it goes to, shape (L, 2).
        pairs: where z_ab and z_ba are, and where what is symmetric and antisymmetric goes, (L, 4).
        numbers: where every matrix element of the components is in z.
    """

    forth: Floats
    back: Floats
    counts: Ints
    alone: Ints
    pairs: Ints
    numbers: Ints

    @classmethod
    def of(cls, fourier: GroupFourier) -> Inversion:
        """Lay out the sectors of a group."""
        length = max(sector.values.shape[1] for sector in fourier.sectors)
        n_cosets = len(fourier.sectors[0].values)
        n_pairs = fourier.n_pairs if n_cosets * length >= MANY else 0
        n_rows = n_cosets - n_pairs
        forth = np.zeros((len(fourier.sectors), n_rows, length))
        back = np.zeros((len(fourier.sectors), length, n_rows))
        counts, numbers = [], np.empty(fourier.n_elements, dtype=np.int64)
        all_alone, all_pairs = [], []
        for k, sector in enumerate(fourier.sectors):
            alone, pairs = _places(fourier, sector) if n_pairs else _as_they_are(sector)
            first, n, n_symmetric = k * length, sector.values.shape[1], len(alone) + len(pairs)
            table = _turned(sector.values[:n_rows], alone, pairs)
            forth[k, :, :n] = table
            back[k, :n] = table.T
            back[k, n_symmetric:n] = np.roll(table.T[n_symmetric:], n_rows - n_pairs, axis=1)
            own = n if (np.abs(table[n_pairs:, n_symmetric:]) > NONE).any() else n_symmetric
            counts.append((n_symmetric, len(pairs), own, n_pairs))
            numbers[sector.elements] = first + np.arange(n)
            to = np.arange(n)
            all_alone.append(first + np.column_stack([alone, to[: len(alone)]]))
            ends = to[len(alone) : n_symmetric], to[n_symmetric:]
            all_pairs.append(first + np.column_stack([pairs, *ends]))
        return cls(
            forth, back, np.array(counts), np.concatenate(all_alone), np.concatenate(all_pairs),
            numbers,
        )  # fmt: skip

    @property
    def arrays(self) -> tuple[Floats, Floats, Ints, Ints, Ints]:
        """Return what loops take: see ``loops.groups.sums.Sectors``."""
        return self.forth, self.back, self.counts, self.alone, self.pairs


def _places(fourier: GroupFourier, sector: Sector) -> tuple[Ints, Ints]:
    """Return where a sector's elements aa are, shape (L,), and ab and ba, a < b, shape (L, 2)."""
    alone, pairs = [], []
    for part in fourier.components:
        if not sector.elements.start <= part.first < sector.elements.stop:
            continue
        table = part.first - sector.elements.start + np.arange(part.dim**2)
        table = table.reshape(part.dim, part.dim)
        a, b = np.triu_indices(part.dim, k=1)
        alone.append(np.diagonal(table))
        pairs.append(np.column_stack([table[a, b], table[b, a]]))
    return np.concatenate(alone), np.concatenate(pairs)


def _as_they_are(sector: Sector) -> tuple[Ints, Ints]:
    """Return all of a sector's elements, in their order, and no pairs."""
    return np.arange(sector.values.shape[1]), np.zeros((0, 2), dtype=np.int64)


def _turned(values: Floats, alone: Ints, pairs: Ints) -> Floats:
    """Return values (…, K) of what is symmetric, then antisymmetric."""
    one, other = values[:, pairs[:, 0]], values[:, pairs[:, 1]]
    root = np.sqrt(0.5)
    return np.hstack([values[:, alone], root * (one + other), root * (one - other)])
