"""Fit bonds, angles and torsions of one molecule, as distances, to energies and forces.

Equivalent distances share mean, spread and coefficients, equivalent products theirs. How many of
the products are used, and how much ridge, is chosen by validation frames. What stiff units of the
molecule do to each other (:mod:`deltaserver.training.linear.units`) is fitted with them, its
columns before the others. kcal/mol and Å.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.model.files.expansions import parse_molecule
from deltaserver.model.linear.expansion import Expansion, OfUnits, distances
from deltaserver.model.linear.valence import Valence, held
from deltaserver.training.components import LabelledSet
from deltaserver.training.linear.least_squares import LeastSquares, largest_alike
from deltaserver.training.linear.limit_terms import pull_back
from deltaserver.training.linear.site_fit import SiteFit
from deltaserver.training.linear.topology import Distances, mean_and_width
from deltaserver.training.matrix.assembly import Progress, quiet
from deltaserver.units import KCAL_PER_MOL_EV

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

POWERS = 4
RIDGES = (1e-9, 1e-7, 1e-5)
MAX_COLUMNS = 10_000  # 800 MB of normal equations, and the same to solve them
ROWS_A_COLUMN = (4, 12)  # fewer products where frames are fewer; more frames say nothing new
ROWS_BETWEEN = 100  # of a column, where units turn: they meet in many ways
ENERGY_WEIGHT = 5.0  # 1/Å: an energy counts as much as so many force components, squared
BATCH = 8  # frames whose rows are made at once
FEW = 200  # frames that are used in any case


@dataclass(frozen=True)
class ValenceFit:
    """The least-squares problem of one molecule.

    Attributes:
        data: labelled frames, eV and Å.
        train: entries that are fitted to.
        valid: entries that decide.
        graph: bonded graph of the molecule (networkx).
        perms: its symmetries, shape (S, N).
        energies: whether energies are fitted too. Those of several molecules hold their binding,
            of which no distance within a molecule knows: forces alone then.
        between: terms between stiff units of the molecule, as of fragments; None is none.
        weight: of the rows of every entry; None: all count the same.
    """

    data: LabelledSet
    train: Ints
    valid: Ints
    graph: Any
    perms: Ints
    energies: bool = True
    between: SiteFit | None = None
    weight: Floats | None = None

    def solve(self, progress: Progress = quiet) -> Expansion:
        """Return the expansion that predicts the validation forces best."""
        problem = LeastSquares(self._n_columns)
        energies, frames = [], self._frames
        for start in range(0, len(frames), BATCH):
            some = frames[start : start + BATCH]
            energy, rows = self._rows(self.data.positions[some])
            counts = np.repeat(self._counts[some], rows.shape[0] // len(some))
            label = self.data.forces[some].ravel() / KCAL_PER_MOL_EV
            problem.add(counts[:, None] * rows, counts * label)
            energies.append(energy)
            progress("fitting distances", 0.9 * (start + len(some)) / len(frames))
        energy, label = np.concatenate(energies), self.data.energy[frames] / KCAL_PER_MOL_EV
        if self.energies:  # the constant is free: only differences count
            counts = self._counts[frames]
            of_mean, w = counts**2 / (counts**2).sum(), ENERGY_WEIGHT * counts
            problem.add(w[:, None] * (energy - of_mean @ energy), w * (label - of_mean @ label))
        springs, scale = self._springs(problem), self._scales(problem)
        candidates = [
            self._expansion(problem.solve(ridge, self._n_between + n, scale), springs)
            for n in self._prefixes for ridge in RIDGES
        ]  # fmt: skip
        return min(candidates, key=self._error) if len(self.valid) else candidates[-1]

    def parse(self, arrays: Mapping[str, Any], source: str) -> Expansion:
        """Return a solution that was kept as arrays."""
        found = parse_molecule(arrays, len(self.data.numbers), source)
        assert found is not None
        return found

    @cached_property
    def _distances(self) -> Distances:
        return Distances.of(self.graph, self.perms, in_rings=self.between is not None)

    @cached_property
    def _scale(self) -> tuple[Floats, Floats]:
        """Return mean and spread of every distance, the same for all of a class."""
        found = self._distances
        r = distances(self.data.positions[self.train], *found.pairs.T)[1]
        return mean_and_width(r, found.of_pair)

    @cached_property
    def _prefixes(self) -> list[int]:
        """Return how many columns there are up to each level of products that can be fitted.

        Those between units are not counted, but leave the others less room.
        """
        first = POWERS * (int(self._distances.of_pair.max()) + 1)
        second, third = self._distances.couplings.levels, self._distances.triples.levels
        ends = [first, *(first + n for n in second), *(first + second[-1] + n for n in third)]
        rows = 3 * self.data.positions.shape[1] * len(self.train)
        most = min(MAX_COLUMNS, rows // ROWS_A_COLUMN[0]) - self._n_between
        return [n for n in dict.fromkeys(ends) if n <= most] or [first]

    @cached_property
    def _n_between(self) -> int:
        return 0 if self.between is None else self.between.n_columns

    @property
    def _n_columns(self) -> int:
        return self._n_between + self._prefixes[-1]

    @cached_property
    def _counts(self) -> Floats:
        return np.ones(len(self.data.energy)) if self.weight is None else self.weight

    @property
    def _frames(self) -> Ints:
        """Return the training frames that are used, evenly chosen."""
        rows = ROWS_A_COLUMN[1] if self.between is None else ROWS_BETWEEN
        enough = -(-rows * self._n_columns // (3 * self.data.positions.shape[1]))
        count = min(len(self.train), max(enough, FEW))
        chosen: Ints = self.train[np.linspace(0, len(self.train) - 1, count).astype(int)]
        return chosen

    @cached_property
    def _products(self) -> tuple[tuple[Ints, Ints], tuple[Ints, Ints]]:
        """Return the factors of couplings and of triples that are used, and their columns."""
        found, start = self._distances, self._prefixes[0]
        used = []
        for products in (found.couplings, found.triples):
            column = start + products.of
            some = np.flatnonzero(column < self._prefixes[-1])
            used.append((products.factors[some], column[some]))
            start += products.levels[-1]
        return used[0], used[1]

    def _rows(self, x: Floats) -> tuple[Floats, Floats]:
        """Return energies (B, n_columns) and forces (B·3N, n_columns) of unit coefficients."""
        found, (mean, spread) = self._distances, self._scale
        d, r = distances(x, *found.pairs.T)
        z, bent = held((r - mean) / spread)  # the springs beyond are no columns
        pulls = -(bent / (spread * r))[..., None] * d  # [B, P, 3]
        energy = np.zeros((len(x), self._n_columns))
        rows = np.zeros((len(x), 3 * x.shape[1], self._n_columns))
        start = self._n_between
        for frame in range(len(x)):
            slopes = self._slopes(z[frame], energy[frame, start:])
            forces = pull_back(pulls[frame], found.pairs, x.shape[1], slopes)
            rows[frame, :, start:] = forces.reshape(-1, slopes.shape[1])
            if self.between is not None:
                energy[frame, :start], rows[frame, :, :start] = self.between.rows(x[frame])
        return energy, rows.reshape(-1, self._n_columns)

    def _slopes(self, z: Floats, energy: Floats) -> Any:
        """Return ∂E/∂z of every column, sparse (P, n_columns); add the energies to ``energy``."""
        from scipy.sparse import csr_matrix

        n, powers = len(z), np.arange(1, POWERS + 1)
        (couplings, of_coupling), (triples, of_triple) = self._products
        own = POWERS * self._distances.of_pair[:, None] + powers - 1  # [P, K]
        a, b = z[couplings.T]
        p, q, r = z[triples.T]
        energy += np.bincount(own.ravel(), (z[:, None] ** powers).ravel(), len(energy))
        energy += np.bincount(of_coupling, a * b, len(energy))
        energy += np.bincount(of_triple, p * q * r, len(energy))
        single = (powers * z[:, None] ** (powers - 1)).ravel()
        value = np.concatenate([single, b, a, q * r, p * r, p * q])
        row = [np.repeat(np.arange(n), POWERS), *couplings.T, *triples.T]
        column = [own.ravel(), of_coupling, of_coupling, of_triple, of_triple, of_triple]
        return csr_matrix((value, (np.concatenate(row), np.concatenate(column))), (n, len(energy)))

    def _springs(self, problem: LeastSquares) -> Floats:
        """Return κ of every distance (P,): the best springs between atoms, and nothing else."""
        squares = np.arange(1, self._prefixes[0], POWERS)  # the columns of z², whose c is κ/2
        of_class = 2.0 * problem.solve_non_negative(self._n_between + squares)
        of_pair: Floats = of_class[self._distances.of_pair]
        return of_pair

    def _scales(self, problem: LeastSquares) -> Floats:
        """Return what columns are measured by, (n_columns,): between units, by the largest alike.

        See :mod:`deltaserver.training.linear.site_fit`.
        """
        scale, n = problem.norms, self._n_between
        if self.between is not None:
            scale[:n] = largest_alike(scale[:n], self.between.family)
        return scale

    def _expansion(self, c: Floats, springs: Floats) -> Expansion:
        valence = self._valence(c[self._n_between :], springs)
        if self.between is None:
            return valence
        between = self.between.expansion(c[: self._n_between])
        return OfUnits((valence, between), self.between.sites.fragment)

    def _valence(self, c: Floats, springs: Floats) -> Valence:
        (couplings, of_coupling), (triples, of_triple) = self._products
        second, third = c[of_coupling] != 0.0, c[of_triple] != 0.0
        return Valence(
            self._distances.pairs, *self._scale,
            c[: self._prefixes[0]].reshape(-1, POWERS)[self._distances.of_pair],
            couplings[second], c[of_coupling][second], triples[third], c[of_triple][third],
            springs, len(self.data.numbers),
        )  # fmt: skip

    def _error(self, expansion: Expansion) -> float:
        forces = expansion.evaluate(self.data.positions[self.valid])[1]
        return float(np.abs(forces - self.data.forces[self.valid] / KCAL_PER_MOL_EV).mean())
