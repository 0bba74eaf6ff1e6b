"""Which stretches and products an embedding has, and the columns that they are fitted by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from deltaserver.model.linear.embedding import Densities, Embedding
from deltaserver.training.linear.topology import FragmentTopology

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Some = NDArray[np.bool_]

DECAYS = (1.2, 2.4, 3.6)  # 1/Å, of sites too: multiples of the first need one exponential


@dataclass(frozen=True)
class EmbeddingTerms:
    """Everything of a complex but the coefficients, which are numbered here.

    Attributes:
        empty: the expansion with coefficients zero.
    """

    empty: Embedding

    @classmethod
    def of(
        cls, numbers: Ints, fragments: Sequence[FragmentTopology], frames: Floats
    ) -> EmbeddingTerms:
        """Put molecules together; alike ones, of one species, share their classes.

        Args:
            numbers: atomic numbers, shape (N,).
            fragments: of the complex, in their order.
            frames: geometries (M, N, 3) whose mean lengths stretches are counted from.
        """
        fragment, group = np.zeros_like(numbers), np.zeros_like(numbers)
        for k, one in enumerate(fragments):
            atoms = list(one.atoms)
            fragment[atoms] = k
            group[atoms] = 200 * one.species + numbers[atoms]
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
        table = np.zeros((int(of.max(initial=-1)) + 1, len(self.empty.densities)), dtype=bool)
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
        stretched = np.zeros((n_classes, len(table.x)))
        np.add.at(stretched, (e.of_stretch, a), more)
        for k in np.unique(p):
            some = of[p == k]
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


def _together(fragments: Sequence[FragmentTopology], terms: str, of: str) -> tuple[Ints, Ints]:
    """Return the terms of all fragments in the complex's atoms, and their classes."""
    first: dict[int, int] = {}
    atoms, label, known = [], [], 0
    for one in fragments:
        found = getattr(one.terms, of)
        if one.species not in first:
            first[one.species] = known
            known += int(found.max(initial=-1)) + 1
        atoms.append(np.array(one.atoms)[getattr(one.terms, terms)])
        label.append(first[one.species] + found)
    return np.concatenate(atoms).astype(np.int64), np.concatenate(label).astype(np.int64)
