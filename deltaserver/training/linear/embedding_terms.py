"""Which stretches and products an embedding has, and the columns that they are fitted by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from deltaserver.model.linear.embedding import Densities, Embedding
from deltaserver.training.linear.topology import bonds_apart

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Some = NDArray[np.bool_]

DECAYS = (1.2, 2.4, 3.6)  # 1/Å, as of sites


@dataclass(frozen=True)
class MoleculeTerms:
    """Stretches (a, i, j) and products (a, b) of one molecule, by classes of equivalent ones.

    Attributes:
        stretches: distances over one and two bonds that end at a, and those between two atoms
            bound to a, shape (L, 3).
        of_stretch: class of each.
        products: the same atom twice, atoms one and two bonds apart, shape (M, 2).
        of_product: class of each.
    """

    stretches: Ints
    of_stretch: Ints
    products: Ints
    of_product: Ints

    @classmethod
    def of(cls, apart: Ints, perms: Ints) -> MoleculeTerms:
        """Find them by the bonds between every two atoms (N, N) and the symmetries (S, N)."""
        n = len(apart)
        near = np.argwhere((apart == 1) | (apart == 2))  # (a, j), both ways
        ends = np.column_stack([near[:, 0], near])
        bound = apart == 1
        a, i, j = np.nonzero(bound[:, :, None] & bound[:, None, :] & np.tri(n, k=-1, dtype=bool))
        stretches = np.concatenate([ends, np.column_stack([a, i, j])])
        same = np.repeat(np.arange(n)[:, None], 2, axis=1)
        products = np.concatenate([same, near[near[:, 0] > near[:, 1]]])
        return cls(stretches, _classes(stretches, perms, n), products, _classes(products, perms, n))

    @classmethod
    def of_molecule(cls, graph: object, perms: Ints) -> MoleculeTerms:
        """Find them in a bonded graph (networkx)."""
        return cls.of(bonds_apart(graph), perms)


LONE_ATOM = MoleculeTerms(
    np.zeros((0, 3), dtype=np.int64), np.zeros(0, dtype=np.int64),
    np.zeros((1, 2), dtype=np.int64), np.zeros(1, dtype=np.int64),
)  # fmt: skip


def _classes(terms: Ints, perms: Ints, n: int) -> Ints:
    """Return the class of each: the first atom is told apart where there are three."""
    keys = np.full(len(terms), np.iinfo(np.int64).max)
    for p in perms:
        moved = p[terms]
        alike = moved[:, 1:] if terms.shape[1] == 3 else moved
        key = alike.min(axis=1) * n + alike.max(axis=1)
        keys = np.minimum(keys, moved[:, 0] * n * n + key if terms.shape[1] == 3 else key)
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)


@dataclass(frozen=True)
class EmbeddingTerms:
    """Everything of a complex but the coefficients, which are numbered here.

    Attributes:
        empty: the expansion with coefficients zero.
    """

    empty: Embedding

    @classmethod
    def of(
        cls, numbers: Ints, fragments: Sequence[tuple[int, tuple[int, ...], MoleculeTerms]],
        frames: Floats,
    ) -> EmbeddingTerms:  # fmt: skip
        """Put molecules together; alike ones, of one species, share their classes.

        Args:
            numbers: atomic numbers, shape (N,).
            fragments: species, atoms and terms of each.
            frames: geometries (M, N, 3) whose mean lengths stretches are counted from.
        """
        fragment, group = np.zeros_like(numbers), np.zeros_like(numbers)
        for k, (species, atoms, _) in enumerate(fragments):
            fragment[list(atoms)] = k
            group[list(atoms)] = 200 * species + numbers[list(atoms)]
        group = np.unique(group, return_inverse=True)[1].astype(np.int64)
        densities = Densities(fragment, group, DECAYS)
        stretches, of_stretch = _together(fragments, "stretches", "of_stretch")
        products, of_product = _together(fragments, "products", "of_product")
        lengths = np.linalg.norm(frames[:, stretches[:, 1]] - frames[:, stretches[:, 2]], axis=-1)
        count, n = np.bincount(of_stretch), len(densities)
        mean = np.bincount(of_stretch, lengths.mean(axis=0)) / count
        return cls(
            Embedding(
                densities, stretches, of_stretch, mean, np.zeros((len(count), n)), products,
                of_product, np.zeros((int(of_product.max()) + 1, n, n)),
            )
        )  # fmt: skip

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self.family)

    @cached_property
    def felt(self) -> Some:
        """Return which densities an atom can feel: those of other fragments, (N, P)."""
        d = self.empty.densities
        others = d.fragment[:, None] != d.fragment
        members = d.group[:, None] == np.arange(d.n_groups)
        return np.repeat(others @ members, len(d.decays), axis=1)

    @cached_property
    def _stretch_columns(self) -> tuple[Ints, Ints]:
        """Return the class and p of every column of a stretch, p by p."""
        felt = self._of_class(self.empty.of_stretch, self.empty.stretches[:, 0])
        p, of = np.nonzero(felt.T)
        return of, p

    @cached_property
    def _product_columns(self) -> tuple[Ints, Ints, Ints]:
        """Return the class and p ≥ q of every column of a product, p and q by p and q."""
        felt = self._of_class(self.empty.of_product, self.empty.products[:, 0]).T
        p, q, of = np.nonzero(felt[:, None] & felt & np.tri(len(felt), dtype=bool)[..., None])
        return of, p, q

    def _of_class(self, of: Ints, atom: Ints) -> Some:
        table = np.zeros((int(of.max()) + 1 if len(of) else 0, len(self.empty.densities)), bool)
        np.logical_or.at(table, of, self.felt[atom])
        return table

    @cached_property
    def family(self) -> Ints:
        """Return which columns share their scale: those of the same densities, by number."""
        n = len(self.empty.densities)
        (_, p), (_, one, other) = self._stretch_columns, self._product_columns
        return np.concatenate([p, n + one * n + other])

    def expansion(self, c: Floats) -> Embedding:
        """Return the expansion with coefficients (columns,)."""
        linear, quadratic = self.empty.linear.copy(), self.empty.quadratic.copy()
        n = len(self._stretch_columns[0])
        linear[self._stretch_columns] = c[:n]
        of, p, q = self._product_columns
        quadratic[of, p, q] += 0.5 * c[n:]
        quadratic[of, q, p] += 0.5 * c[n:]
        return replace(self.empty, linear=linear, quadratic=quadratic)

    def rows(self, x: Floats) -> tuple[Floats, Floats]:
        """Return energies (columns,) and forces (3N, columns) of unit coefficients at x (N, 3)."""
        table = _Table(self.empty.densities, x)
        parts = [*self._of_stretches(table), *self._of_products(table)]
        return np.concatenate([e for e, _ in parts]), np.concatenate([f for _, f in parts]).T

    def _of_stretches(self, table: _Table) -> Iterator[tuple[Floats, Floats]]:
        e = self.empty
        of, p = self._stretch_columns
        a, i, j = e.stretches.T
        d = table.x[i] - table.x[j]
        length = np.linalg.norm(d, axis=1)
        more, unit = length - e.mean[e.of_stretch], d / length[:, None]
        n_classes = len(e.linear)
        for k in np.unique(p):
            some = of[p == k]
            stretched = np.zeros((n_classes, len(table.x)))
            np.add.at(stretched, (e.of_stretch, a), more)
            forces = np.zeros((n_classes, len(table.x), 3))
            pull = table.rho[a, k][:, None] * unit
            np.subtract.at(forces, (e.of_stretch, i), pull)
            np.add.at(forces, (e.of_stretch, j), pull)
            forces += table.forces(stretched, int(k))
            energy = stretched @ table.rho[:, k]
            yield energy[some], forces[some].reshape(len(some), -1)

    def _of_products(self, table: _Table) -> Iterator[tuple[Floats, Floats]]:
        e, rho = self.empty, table.rho
        of, p, q = self._product_columns
        a, b = e.products.T
        n_classes = len(e.quadratic)
        for one, other in np.unique(np.column_stack([p, q]), axis=0):
            some = of[(p == one) & (q == other)]
            value = 0.5 * (rho[a, one] * rho[b, other] + rho[a, other] * rho[b, one])
            forces = np.zeros((n_classes, len(table.x), 3))
            for which, partner in ((one, other), (other, one)):
                weight = np.zeros((n_classes, len(table.x)))
                np.add.at(weight, (e.of_product, a), 0.5 * rho[b, partner])
                np.add.at(weight, (e.of_product, b), 0.5 * rho[a, partner])
                forces += table.forces(weight, int(which))
            energy = np.bincount(e.of_product, value, n_classes)
            yield energy[some], forces[some].reshape(len(some), -1)


class _Table:
    """Densities of one geometry and what they pull at."""

    def __init__(self, densities: Densities, x: Floats) -> None:
        self.x, self.densities = x, densities
        a, b = densities.pairs
        d = x[a] - x[b]
        r = np.linalg.norm(d, axis=1)
        rho, phi = densities.of(r[None])
        self.rho = rho[0]
        n, k = len(x), len(densities.decays)
        slope = np.zeros((k, n, n, 3))  # −∂φ/∂x_a of a's distance to b
        pull = (phi[0] * np.array(densities.decays)).T[..., None] * (d / r[:, None])
        slope[:, a, b], slope[:, b, a] = pull, -pull
        self._slope = slope

    def forces(self, weight: Floats, p: int) -> Floats:
        """Return forces (classes, N, 3) for ∂E/∂ρ_p = weight (classes, N)."""
        group, k = divmod(p, len(self.densities.decays))
        members = self.densities.group == group
        slope = self._slope[k][:, members]  # [N, members, 3]
        result: Floats = weight[..., None] * slope.sum(axis=1)
        result[:, members] -= np.tensordot(weight, slope, axes=(1, 0))
        return result


def _together(
    fragments: Sequence[tuple[int, tuple[int, ...], MoleculeTerms]], terms: str, of: str
) -> tuple[Ints, Ints]:
    """Return the terms of all fragments in the complex's atoms, and their classes."""
    first: dict[int, int] = {}
    atoms, label, known = [], [], 0
    for species, own, molecule in fragments:
        found = getattr(molecule, of)
        if species not in first:
            first[species] = known
            known += int(found.max()) + 1 if len(found) else 0
        atoms.append(np.array(own)[getattr(molecule, terms)])
        label.append(first[species] + found)
    return np.concatenate(atoms).astype(np.int64), np.concatenate(label).astype(np.int64)
