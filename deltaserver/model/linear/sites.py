"""The binding as pair potentials between sites: atoms, middles of bonds and of rings.

    E = Σ_(a in f, b in g ≠ f) Σ_k C_k[class a, class b] φ_k(|r_a − r_b|)

A pair potential between atoms does not know which way an atom faces: over a ring, a bond and an
atom it is alike. Sites between the atoms tell. A site is the mean of some atoms of one fragment,
so that its force goes to them in equal parts, and all is linear in the coefficients C. The
functions are φ = exp(−b r), −1/(rⁿ + Rⁿ), and 1/r with n = 1 and R = 0 but for the sign. They are
flexible, of either sign, and mean nothing beyond their data: the model that they belong to fades
them out there (:class:`deltaserver.model.fragment_blocks.Reach`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Floats, Ints
from deltaserver.compute import jit
from deltaserver.model.descriptor import nearest_images
from deltaserver.model.linear.expansion import Evaluated
from deltaserver.model.linear.radials import MANY, Radials


@dataclass(frozen=True)
class Sites:
    """Sites of all fragments of a complex.

    Attributes:
        members: the atoms of all sites, one site's after the other's, shape (L,).
        starts: where each site's atoms begin, and L, shape (n + 1,).
        owner: which fragment each is of, rising, shape (n,).
        kind: which class each is of, shape (n,).
        n_atoms: N.
    """

    members: Ints
    starts: Ints
    owner: Ints
    kind: Ints
    n_atoms: int

    def __len__(self) -> int:
        """Return the number of sites n."""
        return len(self.owner)

    @cached_property
    def weights(self) -> Floats:
        """Return W with r_site = W r_atoms, shape (n, N)."""
        sizes = np.diff(self.starts)
        table = np.zeros((len(self), self.n_atoms))
        table[np.repeat(np.arange(len(self)), sizes), self.members] = np.repeat(1.0 / sizes, sizes)
        return table

    @cached_property
    def fragment(self) -> Ints:
        """Return which fragment each atom is of, shape (N,): every atom is a site."""
        fragment = np.zeros(self.n_atoms, dtype=np.int64)
        fragment[self.members] = np.repeat(self.owner, np.diff(self.starts))
        return fragment

    def places(self, x: Floats, cell: Floats | None) -> Floats:
        """Return where the sites are, of whole molecules where there is a cell, (B, n, 3)."""
        if cell is None:
            sites: Floats = np.einsum("sn,bnx->bsx", self.weights, x, optimize=True)
            return sites
        sizes = np.diff(self.starts)
        first = x[:, self.members[self.starts[:-1]]]
        d = nearest_images(x[:, self.members] - np.repeat(first, sizes, axis=1), cell)
        mean: Floats = first + np.add.reduceat(d, self.starts[:-1], axis=1) / sizes[:, None]
        return mean


@dataclass(frozen=True)
class SitePairs:
    """The expansion of one complex; energies and lengths are the model's.

    Attributes:
        sites: of all fragments.
        radials: φ_k.
        coefficients: C, symmetric in the classes, shape (K, n_classes, n_classes).
    """

    sites: Sites
    radials: Radials
    coefficients: Floats
    compiled: bool = jit.AVAILABLE

    def evaluate(self, positions: Floats, cell: Floats | None = None) -> Evaluated:
        """See :class:`deltaserver.model.linear.expansion.Expansion`."""
        if self.compiled and cell is None and len(positions) >= MANY:
            sites, x = (self.sites.members, self.sites.starts), np.ascontiguousarray(positions)
            return self.radials.summed_of_sites(x, sites, (*self._pairs, self._of_pairs))
        places = np.ascontiguousarray(self.sites.places(positions, cell))
        pairs = (*self._pairs, self._of_pairs)
        energy, on_sites, virial = self.radials.summed(places, pairs, cell, self.compiled)
        forces = np.einsum("sn,bsx->bnx", self.sites.weights, on_sites, optimize=True)
        return energy, forces, virial

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what a model file holds of it."""
        sites, (decays, powers) = self.sites, self.radials.arrays
        return {
            "site_members": sites.members, "site_starts": sites.starts, "site_kinds": sites.kind,
            "site_decays": decays, "site_powers": powers, "site_coefficients": self.coefficients,
        }  # fmt: skip

    @cached_property
    def _pairs(self) -> tuple[Ints, Ints]:
        """Return the sites a, b of every pair of different fragments that exerts anything."""
        kind, owner = self.sites.kind, self.sites.owner
        acts = np.asarray(self.coefficients.any(axis=0))[kind[:, None], kind]
        a, b = np.nonzero((owner[:, None] < owner) & acts)
        return a, b

    @cached_property
    def _of_pairs(self) -> Floats:
        """Return the coefficients of every pair, shape (pairs, K)."""
        a, b = self._pairs
        kind = self.sites.kind
        return np.ascontiguousarray(self.coefficients[:, kind[a], kind[b]].T)
