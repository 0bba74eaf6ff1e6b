"""The binding as products of two distances: all that is of second degree, and symmetric.

    φ_km = exp(−β_k r_m)  of every pair m of atoms of different fragments,
    E = ½ Σ_mn Σ_kl P_kl[(m, n)] φ_km φ_ln  +  Σ_mw Σ_k M_k[(m, w)] φ_km (r_w − r̄_w)

with [·] the class of a pair of pairs, and w the pairs of atoms within fragments: how two contacts
weigh together, and what each does to every distance within the molecules. Ordered pairs of pairs
that a symmetry of the complex takes into each other are of one class and share their coefficients,
so that the energy has that symmetry: it is the part of second degree of a permutationally invariant
polynomial [Braams and Bowman, Int. Rev. Phys. Chem. 28, 577 (2009), DOI
10.1080/01442350903234923]. Linear in P and M; energies and lengths are the model's. Of a batch it
is two matrix products, which costs a hundredth of a kernel's sum over training points and
permutations; the matrices have the square of the number of pairs, so that it is for small
molecules.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Floats, Ints
from deltaserver.model import loops
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.linear.expansion import Evaluated, chunks, join
from deltaserver.model.linear.quadratic_form import ForLoops, QuadraticForm, quadratic_form
from deltaserver.model.linear.radials import Radials


@dataclass(frozen=True)
class DistancePairs:
    """Which distances there are, and which pairs of them are alike.

    Attributes:
        fragment: which one each atom is of, shape (N,).
        perms: symmetries of the complex, shape (S, N).
    """

    fragment: Ints
    perms: Ints

    @cached_property
    def classes(self) -> Ints:
        """Return the class of every ordered pair of descriptor entries, shape (D, D).

        The least number of all that symmetries take a pair to names its class.
        """
        n = self.descriptor.dim
        least = np.full((n, n), n * n)
        for image in self._images:
            np.minimum(least, image[:, None] * n + image, out=least)
        found = np.unique(least, return_inverse=True)[1].reshape(least.shape)
        return found.astype(np.int64)

    @cached_property
    def _images(self) -> Ints:
        """Return what the symmetries do to descriptor entries, shape (S, D)."""
        return self.descriptor.permutations(self.perms)

    @property
    def moved(self) -> tuple[Ints, Ints]:
        """Return what they do to the entries between and to those within, (S, I) and (S, W)."""
        place = np.empty(self.descriptor.dim, dtype=np.int64)
        for some in (self.between, self.within):
            place[some] = np.arange(len(some))
        return place[self._images[:, self.between]], place[self._images[:, self.within]]

    @cached_property
    def descriptor(self) -> PairDescriptor:
        """Return the pairs of atoms in their order."""
        return PairDescriptor(len(self.fragment))

    @cached_property
    def between(self) -> Ints:
        """Return the descriptor entries m of two fragments, shape (I,)."""
        i, j = self.descriptor.i, self.descriptor.j
        return np.flatnonzero(self.fragment[i] != self.fragment[j])

    @cached_property
    def within(self) -> Ints:
        """Return the entries w of one fragment, shape (W,)."""
        return np.setdiff1d(np.arange(self.descriptor.dim), self.between)

    @property
    def both(self) -> Ints:
        """Return the classes of (m, n), shape (I, I)."""
        return self.classes[np.ix_(self.between, self.between)]

    @property
    def mixed(self) -> Ints:
        """Return the classes of (m, w), shape (I, W)."""
        return self.classes[np.ix_(self.between, self.within)]


@dataclass(frozen=True)
class Products:
    """The expansion of one complex.

    Attributes:
        pairs: the distances, and which pairs of them are alike.
        decays: β_k, shape (K,).
        mean: r̄ of the distances within fragments, shape (W,).
        quadratic: P, shape (K, K, n_classes).
        coupling: M, shape (K, n_classes).
    """

    pairs: DistancePairs
    decays: Floats
    mean: Floats
    quadratic: Floats
    coupling: Floats

    def evaluate(self, positions: Floats, cell: Floats | None = None) -> Evaluated:
        """See :class:`deltaserver.model.linear.expansion.Expansion`."""
        if cell is None and self._form.for_loops is not None:
            return self._in_loops(np.ascontiguousarray(positions), self._form.for_loops)
        numbers = 6 * len(self.decays) * self.pairs.descriptor.dim
        parts = [self._chunk(positions[s], cell) for s in chunks(len(positions), numbers)]
        return join(parts, positions.shape)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what a model file holds of it."""
        return {
            "product_perms": self.pairs.perms, "product_decays": self.decays,
            "product_mean": self.mean, "product_quadratic": self.quadratic,
            "product_coupling": self.coupling,
        }  # fmt: skip

    @cached_property
    def _form(self) -> QuadraticForm:
        p = self.quadratic[:, :, self.pairs.both].transpose(0, 2, 1, 3)
        return quadratic_form(p, self.coupling[:, self.pairs.mixed], self.pairs.moved)

    def _in_loops(self, x: Floats, form: ForLoops) -> Evaluated:
        results = np.empty(len(x)), np.empty(x.shape), np.empty((len(x), 3, 3))
        loops.load("quadratic").distance_products(x, *self._by_orbits, *form, results)
        return results

    @cached_property
    def _by_orbits(self) -> tuple[tuple[Ints, ...], tuple[Floats, Ints, Floats]]:
        """Atoms of the distances between and within orbit by orbit; the functions of them."""
        assert self._form.for_loops is not None
        orders = [basis[0] for basis in self._form.for_loops[0]]
        entries = self.pairs.between[orders[0]], self.pairs.within[orders[1]]
        descriptor = self.pairs.descriptor
        atoms = tuple(side[some] for some in entries for side in (descriptor.i, descriptor.j))
        return atoms, (self.decays, self._multiples, self.mean[orders[1]])

    @cached_property
    def _multiples(self) -> Ints:
        return Radials(tuple(self.decays.tolist()), ()).multiples

    def _chunk(self, x: Floats, cell: Floats | None) -> Evaluated:
        descriptor = self.pairs.descriptor
        between, within = self.pairs.between, self.pairs.within
        geometry = descriptor.geometry(x, cell)
        r = 1.0 / geometry.descriptor  # [B, D]
        phi = self.functions(r.take(between, axis=1))  # [B, K, I]
        more = r.take(within, axis=1)
        more -= self.mean
        energy, slope, pull = self._form(phi, more)
        slope *= phi
        slope *= -self.decays[:, None]
        g = np.empty_like(r)  # ∂E/∂r
        g[:, between] = slope.sum(axis=1)
        g[:, within] = pull
        g *= r
        g *= r  # −∂E/∂D of D = 1/r
        return energy, *descriptor.pull_back(g, geometry)

    def functions(self, r: Floats) -> Floats:
        """Return φ (B, K, I) of distances r (B, I); multiples of the first decay are its powers."""
        phi = np.empty((len(r), len(self.decays), r.shape[1]))
        for k, (decay, multiple) in enumerate(zip(self.decays, self._multiples, strict=True)):
            if k and multiple == self._multiples[k - 1] + 1 > 1:
                np.multiply(phi[:, k - 1], phi[:, 0], out=phi[:, k])
            else:
                np.exp(-decay * r, out=phi[:, k])
        return phi
