"""Which products of distances a complex has, and the columns that they are fitted by."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import InputError
from deltaserver.model.files.expansions import MAX_PRODUCT_ATOMS
from deltaserver.model.linear.products import DistancePairs, Products

# 1/Å: multiples of the first need one exponential. Of 160 validation frames of two benzenes 0.7
# left 0.0355 kcal/mol/Å, 0.9 0.0366, and three of 0.9 0.0368.
DECAYS = (0.7, 1.4, 2.1, 2.8)
MAX_COLUMNS = 8000  # 512 MB of normal equations


@dataclass(frozen=True)
class ProductTerms:
    """Everything of a complex but the coefficients, which are numbered here.

    Attributes:
        empty: the expansion with coefficients zero.
    """

    empty: Products

    @classmethod
    def of(cls, fragment: Ints, perms: Ints, frames: Floats, what: str) -> ProductTerms:
        """Find what is alike.

        Args:
            fragment: which one each atom is of, shape (N,).
            perms: symmetries of the complex, shape (S, N).
            frames: geometries (M, N, 3) whose mean distances within fragments are counted from.
            what: is fitted, for messages.

        Raises:
            InputError: the complex is too large, or has too few symmetries.
        """
        if len(fragment) > MAX_PRODUCT_ATOMS:
            raise InputError(
                f"{what}: {len(fragment)} atoms, too many for products of all distances; "
                f"expected {MAX_PRODUCT_ATOMS} at most: take --linear distances"
            )
        pairs = DistancePairs(fragment, perms)
        i, j = pairs.descriptor.i, pairs.descriptor.j
        alike = np.diagonal(pairs.classes)[pairs.within]
        lengths = np.linalg.norm(frames[:, i[pairs.within]] - frames[:, j[pairs.within]], axis=-1)
        of = np.unique(alike, return_inverse=True)[1]
        mean = (np.bincount(of, lengths.mean(axis=0)) / np.bincount(of))[of]
        k, n = len(DECAYS), int(pairs.classes.max()) + 1
        found = cls(Products(pairs, np.array(DECAYS), mean, np.zeros((k, k, n)), np.zeros((k, n))))
        if len(found) > MAX_COLUMNS:
            raise InputError(
                f"{what}: {len(found)} products of distances that no symmetry makes alike; "
                f"expected {MAX_COLUMNS} at most: take --symmetry product, or --linear distances"
            )
        return found

    def __len__(self) -> int:
        """Return the number of columns."""
        return len(self.family)

    @cached_property
    def _table(self) -> tuple[Ints, Ints]:
        """Return the column of every product of two z, (Z, Z), −1 for none; each's functions.

        z are φ_km, function by function, and then the distances within fragments.
        """
        pairs, k = self.empty.pairs, len(self.empty.decays)
        n, size, n_classes = len(pairs.between), len(self.empty.mean), self.empty.coupling.shape[1]
        table = np.full((k * n + size, k * n + size), -1)
        both, mixed = pairs.both, pairs.mixed
        for a in range(k):
            rows = slice(a * n, (a + 1) * n)
            for b in range(a, k):
                # Of one function twice (m, n) is no other product than (n, m).
                one = np.minimum(both, both.T) if a == b else both
                columns = slice(b * n, (b + 1) * n)
                table[rows, columns] = (a * (k + 1) + b) * n_classes + one
                table[columns, rows] = table[rows, columns].T
            table[rows, k * n :] = (a * (k + 1) + k) * n_classes + mixed
            table[k * n :, rows] = table[rows, k * n :].T
        known, number = np.unique(table, return_inverse=True)
        first = int(known[0] == -1)
        return number.reshape(table.shape) - first, known[first:] // n_classes

    @cached_property
    def family(self) -> Ints:
        """Return which columns share their scale: those of the same two functions, by number."""
        found: Ints = np.unique(self._table[1], return_inverse=True)[1]
        return found

    @cached_property
    def _places(self) -> tuple[Ints, Ints]:
        """Return where in a table (Z, columns) every factor goes, and which z it is."""
        row, factor = np.nonzero(self._table[0] >= 0)
        return row * len(self) + self._table[0][row, factor], factor

    def expansion(self, c: Floats) -> Products:
        """Return the expansion with coefficients (columns,)."""
        e, table = self.empty, self._table[0]
        k, n = len(e.decays), len(e.pairs.between)
        quadratic, coupling = e.quadratic.copy(), e.coupling.copy()
        for a in range(k):
            rows = slice(a * n, (a + 1) * n)
            for b in range(k):
                quadratic[a, b, e.pairs.both] = c[table[rows, b * n : (b + 1) * n]]
            coupling[a, e.pairs.mixed] = c[table[rows, k * n :]]
        return Products(e.pairs, e.decays, e.mean, quadratic, coupling)

    def rows(self, x: Floats) -> tuple[Floats, Floats]:
        """Return energies (columns,) and forces (3N, columns) of unit coefficients at x (N, 3)."""
        e, descriptor = self.empty, self.empty.pairs.descriptor
        d = x[descriptor.i] - x[descriptor.j]
        r = np.linalg.norm(d, axis=1)
        phi = e.functions(r[None, e.pairs.between])[0]  # [K, I]
        z = np.concatenate([phi.ravel(), r[e.pairs.within] - e.mean])
        places, factor = self._places
        table = np.bincount(places, z[factor], len(z) * len(self)).reshape(len(z), len(self))
        entry = np.concatenate([np.tile(e.pairs.between, len(phi)), e.pairs.within])
        slope = np.concatenate([(-e.decays[:, None] * phi).ravel(), np.ones(len(e.mean))])
        pull = (slope / r[entry])[:, None] * d[entry]  # ∂z/∂x_i
        forces = np.zeros((len(z), len(x), 3))
        number = np.arange(len(z))
        forces[number, descriptor.i[entry]] = -pull
        forces[number, descriptor.j[entry]] = pull
        return 0.5 * (z @ table), forces.reshape(len(z), -1).T @ table
