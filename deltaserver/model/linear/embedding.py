"""The binding beyond pairs: what other fragments do to the bonds of an atom, and together.

    ρ_gk(a) = Σ_(b of group g, of another fragment) exp(−β_k |r_a − r_b|)
    E = Σ_(a,i,j) Σ_p C_p ρ_p(a) (|r_i − r_j| − d)  +  Σ_(a,b) Σ_pq C_pq ρ_p(a) ρ_q(b)

with i, j atoms of a's fragment, and a, b equal or near each other in one fragment;
p and q stand for a group and a decay. A contact changes the bonds around it, which no pair
potential between fragments can say: of what sites left of the binding forces of C60 in its catcher
more than 99 % was within the molecules. And two neighbours weigh other than twice as one: densities
as of the embedded atom [Daw and Baskes, Phys. Rev. B 29, 6443 (1984), DOI
10.1103/PhysRevB.29.6443], to second order. Linear in C; energies and lengths are the model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Floats, Ints
from deltaserver.compute import jit
from deltaserver.model import loops
from deltaserver.model.descriptor import compiled_cell
from deltaserver.model.linear.expansion import Evaluated, chunks, distances, join, summed
from deltaserver.model.linear.radials import Radials


@dataclass(frozen=True)
class Densities:
    """What every atom feels of the other fragments.

    Attributes:
        fragment: which one each atom is of, shape (N,).
        group: which group of neighbours it counts to, shape (N,).
        decays: β_k.
    """

    fragment: Ints
    group: Ints
    decays: tuple[float, ...]

    @property
    def n_groups(self) -> int:
        """Return the number of groups."""
        return int(self.group.max()) + 1

    def __len__(self) -> int:
        """Return the number P of densities of an atom: groups by decays."""
        return self.n_groups * len(self.decays)

    @cached_property
    def pairs(self) -> tuple[Ints, Ints]:
        """Return the atoms a < b of every pair of different fragments."""
        a, b = np.nonzero(np.triu(self.fragment[:, None] != self.fragment))
        return a, b

    @cached_property
    def radials(self) -> Radials:
        """Return exp(−β_k r) as loops take them."""
        return Radials(self.decays, ())

    @cached_property
    def places(self) -> tuple[Ints, Ints]:
        """Return where every pair counts in a table of atoms by groups: of a, and of b."""
        (a, b), n = self.pairs, self.n_groups
        return a * n + self.group[b], b * n + self.group[a]

    def of(self, r: Floats) -> tuple[Floats, Floats]:
        """Return ρ (B, N, P) and exp(−β_k r) (B, pairs, K) for distances r (B, pairs)."""
        phi = np.exp(-r[..., None] * np.array(self.decays))
        n_atoms, n_groups = len(self.fragment), self.n_groups
        where = np.concatenate(self.places)
        rho = np.empty((len(r), n_atoms, n_groups, len(self.decays)))
        for one, values in zip(rho, phi, strict=True):
            for k in range(len(self.decays)):
                twice = np.concatenate([values[:, k], values[:, k]])
                one[..., k] = np.bincount(where, twice, n_atoms * n_groups).reshape(-1, n_groups)
        return rho.reshape(len(r), n_atoms, -1), phi

    def pulls(self, weight: Floats, phi: Floats) -> Floats:
        """Return −(∂E/∂r)(B, pairs) of pairs for ∂E/∂ρ = ``weight`` (B, N, P)."""
        flat = weight.reshape(len(weight), -1, len(self.decays))
        there, here = self.places
        acts = flat[:, there] + flat[:, here]  # [B, pairs, K]
        pull: Floats = np.einsum("bpk,bpk,k->bp", acts, phi, np.array(self.decays))
        return pull


@dataclass(frozen=True)
class Embedding:
    """The expansion of one complex.

    Attributes:
        densities: ρ.
        stretches: atoms a, i, j, shape (L, 3).
        of_stretch: class of each, shape (L,).
        mean: d of each class.
        linear: C_p of each class, shape (classes, P).
        products: atoms a, b, shape (M, 2).
        of_product: class of each, shape (M,).
        quadratic: C_pq of each class, symmetric, shape (classes, P, P).
        compiled: evaluate in loops.
    """

    densities: Densities
    stretches: Ints
    of_stretch: Ints
    mean: Floats
    linear: Floats
    products: Ints
    of_product: Ints
    quadratic: Floats
    compiled: bool = jit.AVAILABLE

    def evaluate(self, positions: Floats, cell: Floats | None = None) -> Evaluated:
        """See :class:`deltaserver.model.linear.expansion.Expansion`."""
        if self.compiled:
            return self._in_loops(np.ascontiguousarray(positions), cell)
        n_pairs = len(self.densities.pairs[0])
        numbers = (3 * len(self.densities.decays) + 6) * n_pairs
        parts = [self._chunk(positions[s], cell) for s in chunks(len(positions), numbers)]
        return join(parts, positions.shape)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what a model file holds of it."""
        return {
            "embedding_groups": self.densities.group,
            "embedding_decays": np.array(self.densities.decays, dtype=np.float64),
            "embedding_stretches": np.column_stack([self.stretches, self.of_stretch]),
            "embedding_mean": self.mean, "embedding_linear": self.linear,
            "embedding_products": np.column_stack([self.products, self.of_product]),
            "embedding_quadratic": self.quadratic,
        }  # fmt: skip

    @cached_property
    def _of_terms(self) -> tuple[Floats, Floats]:
        """Return C_p of every stretch (L, P) and C_pq of every product (M, P, P)."""
        return self.linear[self.of_stretch], self.quadratic[self.of_product]

    @cached_property
    def _rows(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Return pairs and their places, stretches and products with their class, as loops read."""
        one = self.densities
        return (
            np.stack(one.pairs, axis=1), np.stack(one.places, axis=1),
            np.column_stack([self.stretches, self.of_stretch]),
            np.column_stack([self.products, self.of_product]),
        )  # fmt: skip

    def _in_loops(self, positions: Floats, cell: Floats | None) -> Evaluated:
        loop, lattice = loops.load("embedding"), compiled_cell(cell)
        (pairs, places, stretches, products), one = self._rows, self.densities
        decays, n = one.radials.arrays[0], len(one.fragment)
        energy, virial = np.zeros(len(positions)), np.zeros((len(positions), 3, 3))
        forces = np.zeros(positions.shape)
        phi, between = np.empty((len(pairs), len(decays))), np.empty((len(pairs), 4))
        for k, x in enumerate(positions):
            by_group, weights = np.zeros((2, n * one.n_groups, len(decays)))
            rho, weight = by_group.reshape(n, -1), weights.reshape(n, -1)
            loop.densities(
                x, (pairs, places), decays, one.radials.multiples, lattice, by_group, phi, between
            )
            energy[k] = loop.stretch(
                x, stretches, self.mean, self.linear, lattice, rho, (weight, forces[k], virial[k])
            ) + loop.product(products, self.quadratic, rho, weight)
            loop.pull(pairs, places, decays, weights, phi, between, forces[k], virial[k])
        return energy, forces, virial

    def _chunk(self, x: Floats, cell: Floats | None) -> Evaluated:
        a, b = self.densities.pairs
        d, r = distances(x, a, b, cell)
        rho, phi = self.densities.of(r)
        stretched, i, j = self.stretches.T
        bond, length = distances(x, i, j, cell)
        more = length - self.mean[self.of_stretch]  # [B, L]
        c, table = self._of_terms
        tension = np.einsum("blp,lp->bl", rho[:, stretched], c)
        one, other = self.products.T
        meets = np.einsum("mpq,bmq->bmp", table, rho[:, other])
        energy = (tension * more).sum(axis=1) + np.einsum("bmp,bmp->b", rho[:, one], meets)
        n = len(self.densities.fragment)
        weight = summed(more[..., None] * c, stretched, n) + summed(meets, one, n)
        weight += summed(np.einsum("mpq,bmp->bmq", table, rho[:, one]), other, n)
        between = (self.densities.pulls(weight, phi) / r)[..., None] * d
        within = (-tension / length)[..., None] * bond
        forces = summed(between, a, n) - summed(between, b, n)
        forces += summed(within, i, n) - summed(within, j, n)
        virial = np.einsum("bpx,bpy->bxy", between, d) + np.einsum("blx,bly->bxy", within, bond)
        return energy, forces, virial
