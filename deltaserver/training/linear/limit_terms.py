"""Columns of what the fragments feel however far apart they are: stretches within each of them.

A method that leaves a part of an electron with the wrong fragment changes the bonds of both, at
infinity too: the binding energy has the limit E_∞(x₁, x₂), not a constant. To second order in
distances of atoms one to three bonds apart,

    E = Σ_p Σ_(k = 1, 2) c_pk z_p^k + Σ_pq b_pq z_p z_q,      z_p = (r_p − r̄_p) / s_p

with r̄ and s of the training frames, and p and q sharing an atom or a bond apart: a valence
expansion of every fragment. Of NO3⁻ over 7 Å from its host, whose tetrazines take the charge, the
forces on the host left are 0.60 kcal/mol/Å in place of 0.73 without couplings; threefold products
bring no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

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
        couplings: numbers p, q of the distances of every product, shape (C, 2).
        of_coupling: class of each, shape (C,).
        n_atoms: N.
    """

    pairs: Ints
    of_pair: Ints
    mean: Floats
    width: Floats
    couplings: Ints
    of_coupling: Ints
    n_atoms: int

    @classmethod
    def of(cls, fragments: Sequence[FragmentTopology], frames: Floats) -> LimitTerms:
        """Take the distances of all fragments; alike ones share their classes.

        Args:
            fragments: of the complex, in their order.
            frames: geometries (M, N, 3) that mean and spread are taken of, Å.
        """
        first: dict[int, tuple[int, int]] = {}
        known = (0, 0)
        atoms: list[Ints] = []
        of_pair, factors, of_coupling = [], [], []
        for one in fragments:
            if one.species not in first:
                first[one.species] = known
                known = (
                    known[0] + int(one.of_distance.max(initial=-1)) + 1,
                    known[1] + one.couplings.levels[-1],
                )
            factors.append(sum(len(some) for some in atoms) + one.couplings.factors)
            atoms.append(np.array(one.atoms)[one.distances])
            of_pair.append(first[one.species][0] + one.of_distance)
            of_coupling.append(first[one.species][1] + one.couplings.of)
        pairs, of = np.concatenate(atoms), np.concatenate(of_pair)
        scale = mean_and_width(distances(frames, *pairs.T)[1], of)
        both = np.concatenate(factors), np.concatenate(of_coupling)
        return cls(pairs, of, *scale, *both, frames.shape[1])

    def __len__(self) -> int:
        """Return the number of columns."""
        return POWERS * self._n_classes + int(self.of_coupling.max(initial=-1)) + 1

    @property
    def _n_classes(self) -> int:
        return int(self.of_pair.max(initial=-1)) + 1

    @cached_property
    def family(self) -> Ints:
        """Return which columns share their scale: those of one power, and the couplings."""
        powers = np.repeat(np.arange(POWERS), self._n_classes)
        return np.append(powers, np.full(len(self) - len(powers), POWERS))

    def expansion(self, c: Floats) -> Valence:
        """Return the expansion with coefficients (columns,)."""
        n = POWERS * self._n_classes
        powers = np.ascontiguousarray(c[:n].reshape(POWERS, -1)[:, self.of_pair].T)
        return Valence(
            self.pairs, self.mean, self.width, powers, self.couplings, c[n:][self.of_coupling],
            np.zeros((0, 3), dtype=np.int64), np.zeros(0), np.zeros(len(self.pairs)),
            self.n_atoms,
        )  # fmt: skip

    def rows(self, x: Floats) -> tuple[Floats, Floats]:
        """Return energies (columns,) and forces (3N, columns) of unit coefficients at x (N, 3)."""
        from scipy.sparse import csr_matrix

        n, start = self._n_classes, POWERS * self._n_classes
        d, r = (some[0] for some in distances(x[None], *self.pairs.T))
        z, bent = held((r - self.mean) / self.width)
        p, q = self.couplings.T
        energy = [np.bincount(self.of_pair, z**k, n) for k in range(1, POWERS + 1)]
        energy.append(np.bincount(self.of_coupling, z[p] * z[q], len(self) - start))
        slopes = [k * z ** (k - 1) for k in range(1, POWERS + 1)] + [z[q], z[p]]
        column = [k * n + self.of_pair for k in range(POWERS)] + 2 * [start + self.of_coupling]
        row = [np.arange(len(z))] * POWERS + [p, q]
        of_columns = csr_matrix(
            (np.concatenate(slopes), (np.concatenate(row), np.concatenate(column))),
            (len(z), len(self)),
        )
        pulls = -(bent / (self.width * r))[:, None] * d
        forces = pull_back(pulls, self.pairs, self.n_atoms, of_columns)
        return np.concatenate(energy), forces.reshape(-1, len(self))


def pull_back(pulls: Floats, pairs: Ints, n_atoms: int, slopes: Any) -> Floats:
    """Return forces (N, 3, n_columns) of slopes ∂E/∂z (P, n_columns), which are sparse.

    Args:
        pulls: −∂z/∂r of the first atoms, shape (P, 3).
        pairs: atoms of every distance, shape (P, 2).
        n_atoms: N.
        slopes: scipy's csr_matrix.
    """
    from scipy.sparse import csr_matrix

    n = len(pairs)
    axis = np.arange(3)
    row = np.concatenate([3 * pairs[:, :1] + axis, 3 * pairs[:, 1:] + axis])  # [2P, 3]
    value = np.concatenate([pulls, -pulls])
    column = np.repeat(np.tile(np.arange(n), 2), 3)
    jacobian = csr_matrix((value.ravel(), (row.ravel(), column)), (3 * n_atoms, n))
    forces: Floats = (jacobian @ slopes).toarray()
    return forces.reshape(n_atoms, 3, -1)
