"""Columns of what the fragments feel however far apart they are: stretches within each of them.

A method that leaves a part of an electron with the wrong fragment changes the bonds of both, at
infinity too: the binding energy has the limit E_∞(x₁, x₂), not a constant. To second order in
each distance of atoms one to three bonds apart,

    E = Σ_p Σ_(k = 1, 2) c_pk z_p^k,      z_p = (r_p − r̄_p) / s_p

with r̄ and s of the training frames: a valence expansion of every fragment, without couplings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.model.linear.expansion import distances
from deltaserver.model.linear.valence import Valence, held
from deltaserver.training.linear.topology import FragmentTopology, mean_and_width

POWERS = 2


@dataclass(frozen=True)
class LimitTerms:
    """The expansion but for its coefficients, two of each class of distances.

    Attributes:
        pairs: atoms of every distance, both of one fragment, shape (P, 2).
        of_pair: class of each, shape (P,).
        mean: r̄ of each, the same for all of a class, Å.
        width: s of each, Å.
        n_atoms: N.
    """

    pairs: Ints
    of_pair: Ints
    mean: Floats
    width: Floats
    n_atoms: int

    @classmethod
    def of(cls, fragments: Sequence[FragmentTopology], frames: Floats) -> LimitTerms:
        """Take the distances of all fragments; alike ones share their classes.

        Args:
            fragments: of the complex, in their order.
            frames: geometries (M, N, 3) that mean and spread are taken of, Å.
        """
        first: dict[int, int] = {}
        pairs, label, known = [], [], 0
        for one in fragments:
            if one.species not in first:
                first[one.species] = known
                known += int(one.of_distance.max(initial=-1)) + 1
            pairs.append(np.array(one.atoms)[one.distances])
            label.append(first[one.species] + one.of_distance)
        atoms, of_pair = np.concatenate(pairs), np.concatenate(label)
        r = distances(frames, *atoms.T)[1]
        return cls(atoms, of_pair, *mean_and_width(r, of_pair), frames.shape[1])

    def __len__(self) -> int:
        """Return the number of columns."""
        return POWERS * (int(self.of_pair.max(initial=-1)) + 1)

    @cached_property
    def family(self) -> Ints:
        """Return which columns share their scale: those of one power."""
        return np.repeat(np.arange(POWERS), len(self) // POWERS)

    def expansion(self, c: Floats) -> Valence:
        """Return the expansion with coefficients (columns,)."""
        none = np.zeros((0, 2), dtype=np.int64)
        powers = np.ascontiguousarray(c.reshape(POWERS, -1)[:, self.of_pair].T)
        return Valence(
            self.pairs, self.mean, self.width, powers, none, np.zeros(0),
            np.zeros((0, 3), dtype=np.int64), np.zeros(0), np.zeros(len(self.pairs)),
            self.n_atoms,
        )  # fmt: skip

    def rows(self, x: Floats) -> tuple[Floats, Floats]:
        """Return energies (columns,) and forces (3N, columns) of unit coefficients at x (N, 3)."""
        n_classes = len(self) // POWERS
        i, j = self.pairs.T
        d, r = (some[0] for some in distances(x[None], i, j))
        z, bent = held((r - self.mean) / self.width)
        unit = (bent / (self.width * r))[:, None] * d
        energy, forces = [], []
        for k in range(1, POWERS + 1):
            energy.append(np.bincount(self.of_pair, z**k, n_classes))
            pull = (k * z ** (k - 1))[:, None] * unit
            on = np.zeros((n_classes, self.n_atoms, 3))
            np.subtract.at(on, (self.of_pair, i), pull)
            np.add.at(on, (self.of_pair, j), pull)
            forces.append(on.reshape(n_classes, -1))
        return np.concatenate(energy), np.concatenate(forces).T
