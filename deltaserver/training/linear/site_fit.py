"""Fit pair potentials between the sites of fragments to binding energies and forces.

Alike fragments share their classes, so that exchanging them changes nothing. What the prior
knows is taken off the labels first. The ridge is chosen by validation frames. It holds all
coefficients of one function to the same size: classes that hardly ever meet in the data, as a
guest and the outside of its host, get small ones, and the prior is left to speak for them. Scaled
each by its own norm, one of 80 held-out frames of C60 outside the catcher was 27 kcal/mol off; so
it is 1.3 at most. And geometries in contact that nobody has labelled ask for nothing, with a small
weight (:mod:`deltaserver.training.linear.contacts`). kcal/mol and Å.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.model.files.expansions import parse_between
from deltaserver.model.linear.expansion import Expansion, Together
from deltaserver.model.linear.radials import Radials
from deltaserver.model.linear.sites import SitePairs, Sites
from deltaserver.training.components import LabelledSet
from deltaserver.training.linear.contacts import contacts
from deltaserver.training.linear.embedding_terms import DECAYS, EmbeddingTerms
from deltaserver.training.linear.least_squares import LeastSquares, largest_alike
from deltaserver.training.linear.limit_terms import LimitTerms
from deltaserver.training.linear.product_terms import ProductTerms
from deltaserver.training.linear.topology import FragmentTopology
from deltaserver.training.matrix.assembly import Progress, quiet
from deltaserver.units import KCAL_PER_MOL_EV

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

RADIALS = Radials(DECAYS, ((6, 2.5), (8, 3.0)))
RIDGES = (1e-9, 1e-8, 1e-7, 1e-6)
WALL_EV = 1.0  # from here on frames count less
ENERGY_WEIGHT = 5.0  # 1/Å, as of the prior
N_CONTACTS, CONTACT_WEIGHT = 200, 0.1


def weight_on_the_wall(binding_energy: Floats) -> Floats:
    """Return w = 1 / (1 + (E_b / 1 eV)²) of frames with E_b > 0, else 1: how much they count.

    A wall must be there, but no run climbs it: its labels, as large as they are, must not decide
    over the well's, as of MB-pol [Babin, Leforestier, Paesani, J. Chem. Theory Comput. 9, 5395
    (2013), DOI 10.1021/ct400863t].
    """
    return less_the_higher(binding_energy, WALL_EV)


def less_the_higher(energy: Floats, scale: float) -> Floats:
    """Return w = 1 / (1 + (E / scale)²) of frames with E > 0, else 1."""
    height = np.maximum(energy, 0.0) / scale
    return 1.0 / (1.0 + height**2)


def sites_of(fragments: Sequence[FragmentTopology], n_atoms: int) -> Sites:
    """Return the sites of all fragments, classes of different species numbered on."""
    first: dict[int, int] = {}
    members: list[int] = []
    sizes: list[int] = []
    owner: list[int] = []
    kind: list[int] = []
    known = 0
    for k, fragment in enumerate(fragments):
        if fragment.species not in first:
            first[fragment.species] = known
            known += fragment.sites.n_kinds
        for atoms, label in zip(fragment.sites.atoms, fragment.sites.kind, strict=True):
            members += [fragment.atoms[i] for i in atoms]
            sizes.append(len(atoms))
            owner.append(k)
            kind.append(first[fragment.species] + int(label))
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Sites(np.array(members), starts, np.array(owner), np.array(kind), n_atoms)


@dataclass(frozen=True)
class SiteFit:
    """The least-squares problem of one complex.

    Attributes:
        data: binding labels, less the prior's, eV and Å.
        train: entries that are fitted to.
        valid: entries that decide.
        sites: of all fragments.
        embedding: what is fitted with them, beyond pairs.
        products: the same by products of distances.
        limit: what is fitted with them, of fragments however far apart.
        radials: the functions of the distances of sites.
        n_contacts: geometries in contact, without labels, that ask for nothing.
        weight: of the rows of every entry; None: all count the same.
        ridges: to choose from, rising.
    """

    data: LabelledSet
    train: Ints
    valid: Ints
    sites: Sites
    embedding: EmbeddingTerms | None = None
    products: ProductTerms | None = None
    limit: LimitTerms | None = None
    radials: Radials = RADIALS
    n_contacts: int = N_CONTACTS
    weight: Floats | None = None
    ridges: tuple[float, ...] = RIDGES

    def solve(self, progress: Progress = quiet, *, plainest: bool = False) -> Expansion:
        """Return the expansion that predicts the validation frames best.

        Args:
            progress: called as work proceeds.
            plainest: of those that predict them as well as can be told, take the one of the
                largest ridge: within one standard error of the best [Breiman, Friedman, Olshen,
                Stone, Classification and Regression Trees (1984), section 3.4.3].
        """
        problem = LeastSquares(self.n_columns)
        for k, frame in enumerate(self.train):
            energy, forces = self.rows(self.data.positions[frame])
            label = np.append(ENERGY_WEIGHT * self.data.energy[frame], self.data.forces[frame])
            rows = np.concatenate([ENERGY_WEIGHT * energy[None], forces])
            counts = self._counts[frame]
            problem.add(counts * rows, counts * label / KCAL_PER_MOL_EV)
            progress("fitting sites", 0.9 * (k + 1) / len(self.train))
        self._add_contacts(problem)
        scale = largest_alike(problem.norms, self.family)
        candidates = [self.expansion(problem.solve(ridge, None, scale)) for ridge in self.ridges]
        if not len(self.valid):
            return candidates[-1]
        squares = np.array([self._squares(one) for one in candidates])  # [ridges, n_valid]
        errors = squares.sum(axis=1)
        best = int(errors.argmin())
        if plainest:
            bound = errors[best] + squares[best].std() * np.sqrt(len(self.valid))
            best = int(np.flatnonzero(errors <= bound)[-1])
        return candidates[best]

    def _add_contacts(self, problem: LeastSquares) -> None:
        """Ask for nothing where fragments touch in ways that no frame knows."""
        some, first = self.data.positions[self.train], np.flatnonzero(self.sites.fragment == 0)
        for x in contacts(some, first, self.n_contacts):
            energy, forces = self.rows(x)
            rows = CONTACT_WEIGHT * np.concatenate([ENERGY_WEIGHT * energy[None], forces])
            rows[:, self._n_between :] = 0.0  # the limit is no less there than anywhere
            problem.add(rows, np.zeros(len(rows)))

    def parse(self, arrays: Mapping[str, Any], source: str) -> Expansion:
        """Return a solution that was kept as arrays."""
        found = parse_between(arrays, self.sites.fragment, source)
        assert found is not None
        return found

    @cached_property
    def _counts(self) -> Floats:
        return np.ones(len(self.data.energy)) if self.weight is None else self.weight

    @property
    def n_columns(self) -> int:
        """Return the number of coefficients."""
        return len(self.family)

    @cached_property
    def family(self) -> Ints:
        """Return which columns share their scale: those of one function, or of like densities."""
        found = np.repeat(np.arange(len(self.radials)), self._column_of[1])
        for terms in self._more:
            found = np.append(found, int(found.max(initial=-1)) + 1 + terms.family)
        return found

    @property
    def _more(self) -> list[EmbeddingTerms | ProductTerms | LimitTerms]:
        """Return what there is beside sites, in the order of the columns."""
        all_ = (self.embedding, self.products, self.limit)
        return [terms for terms in all_ if terms is not None]

    @property
    def _n_between(self) -> int:
        """Return the number of columns that vanish where fragments are far apart."""
        return self.n_columns - (0 if self.limit is None else len(self.limit))

    @cached_property
    def _column_of(self) -> tuple[Ints, int]:
        """Return which pair of classes, of different fragments, has which number; how many."""
        n = int(self.sites.kind.max()) + 1
        meets = np.zeros((n, n), dtype=bool)
        for a, b in combinations_with_replacement(range(n), 2):
            first = np.unique(self.sites.owner[self.sites.kind == a])
            second = np.unique(self.sites.owner[self.sites.kind == b])
            meets[a, b] = len(np.union1d(first, second)) > 1
        table = np.full((n, n), -1)
        rows, columns = np.nonzero(meets)
        table[rows, columns] = table[columns, rows] = np.arange(len(rows))
        return table, len(rows)

    @cached_property
    def _pairs(self) -> tuple[Ints, Ints, Ints]:
        """Return the sites a, b of every pair of different fragments, and its number of classes."""
        owner, kind = self.sites.owner, self.sites.kind
        a, b = np.nonzero(owner[:, None] < owner)
        return a, b, self._column_of[0][kind[a], kind[b]]

    def rows(self, x: Floats) -> tuple[Floats, Floats]:
        """Return energies (n_columns,) and forces (3N, n_columns) of unit coefficients."""
        found = [self._of_sites(x), *(terms.rows(x) for terms in self._more)]
        energies, forces = zip(*found, strict=True)
        return np.concatenate(energies), np.concatenate(forces, axis=1)

    def _of_sites(self, x: Floats) -> tuple[Floats, Floats]:
        from scipy.sparse import csr_matrix

        a, b, column = self._pairs
        n_sites, n = len(self.sites), self._column_of[1]
        places = self.sites.places(x[None], None)[0]
        d = places[a] - places[b]
        row = np.concatenate([3 * a, 3 * a + 1, 3 * a + 2, 3 * b, 3 * b + 1, 3 * b + 2])
        energies, forces = [], []
        for value, pull in self.radials.each(np.sqrt(np.einsum("px,px->p", d, d))):
            energies.append(np.bincount(column, value, n))
            pulls = (pull[:, None] * d).T.ravel()
            on_sites = csr_matrix(
                (np.concatenate([pulls, -pulls]), (row, np.tile(column, 6))), (3 * n_sites, n)
            ).toarray()
            on_atoms = np.tensordot(
                self.sites.weights.T, on_sites.reshape(n_sites, 3, n), axes=1
            )  # [N, 3, n]
            forces.append(on_atoms.reshape(-1, n))
        return np.concatenate(energies), np.concatenate(forces, axis=1)

    def expansion(self, c: Floats) -> Expansion:
        """Return the expansion with coefficients (n_columns,)."""
        (table, n), k = self._column_of, len(self.radials)
        by_kind = np.append(c[: k * n].reshape(k, n), np.zeros((k, 1)), 1)
        sites: Expansion = SitePairs(
            self.sites, self.radials, np.ascontiguousarray(by_kind[:, table])
        )
        parts, start = [sites], k * n
        for terms in self._more:
            parts.append(terms.expansion(c[start : start + len(terms)]))
            start += len(terms)
        return parts[0] if len(parts) == 1 else Together(tuple(parts))

    def _squares(self, expansion: Expansion) -> Floats:
        """Return what was made least, of every validation frame: outliers count."""
        energy, forces, _ = expansion.evaluate(self.data.positions[self.valid])
        energy = energy - self.data.energy[self.valid] / KCAL_PER_MOL_EV
        forces = forces - self.data.forces[self.valid] / KCAL_PER_MOL_EV
        squares = ENERGY_WEIGHT**2 * energy**2 + (forces**2).sum(axis=(1, 2))
        return np.asarray(squares * self._counts[self.valid] ** 2)
