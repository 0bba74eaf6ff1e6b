"""What is known of the binding before anything is learned: a sum over pairs of atoms.

    E_prior = E_∞ + Σ_(i in f, j in g ≠ f) v_ij(|r_i − r_j|)
    v(r) = Σ A e^(−b r)  −  Σ C_n / (rⁿ + Rⁿ)  +  q_i q_j / (4π ε₀ r)

Born–Mayer walls, damped dispersion (n = 6, 8) [Becke and Johnson, J. Chem. Phys. 123, 024101
(2005), DOI 10.1063/1.1949201] and induction by an ion (n = 4), charges. Coefficients belong to
classes of equivalent atoms. It is right at contact and at infinity, where a kernel model knows
nothing, and leaves that model less to learn. E_∞ is zero, unless the reference method lets a part
of an electron stay with the other fragment however far that is, as approximate functionals do
[Ruzsinszky et al., J. Chem. Phys. 125, 194112 (2006), DOI 10.1063/1.2387954]. Å and eV throughout.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.compute import jit
from deltaserver.model.fragment_blocks import owner_of
from deltaserver.model.linear.radials import Radials
from deltaserver.model.sgdml import Evaluation
from deltaserver.units import COULOMB_EV_ANG


class Wall(NamedTuple):
    """A e^(−b r): b in 1/Å, A in eV."""

    decay: float
    amplitude: float


class Attraction(NamedTuple):
    """−C / (rⁿ + Rⁿ): R in Å, C in eV Åⁿ."""

    power: int
    radius: float
    coefficient: float


@dataclass(frozen=True)
class AtomClass:
    """Equivalent atoms of one fragment, and the charge of each, in e."""

    name: str
    atoms: tuple[int, ...]
    charge: float = 0.0


@dataclass(frozen=True)
class PairTerms:
    """What atoms of two classes exert on each other, besides their charges."""

    walls: tuple[Wall, ...] = ()
    attractions: tuple[Attraction, ...] = ()


class Prior(Protocol):
    """What is known of a binding, so that a model learns the rest."""

    def evaluate(self, positions: Floats, /) -> Evaluation:
        """Evaluate a batch (B, N, 3) in Å."""
        ...


@dataclass(frozen=True)
class PairPrior:
    """A pair potential between the fragments of a complex.

    Attributes:
        fragment: which fragment each atom belongs to, shape (N,).
        classes: every atom is in one.
        terms: by the names of two classes, of different fragments, in either order.
        limit: E_∞, the energy of fragments far apart, eV.
        compiled: sum in loops.
    """

    fragment: Ints
    classes: tuple[AtomClass, ...]
    terms: Mapping[tuple[str, str], PairTerms]
    limit: float = 0.0
    compiled: bool = jit.AVAILABLE

    @cached_property
    def _pairs(self) -> tuple[Ints, Ints]:
        """Return the atoms i > j of every pair of different fragments that exerts anything."""
        n = len(self.classes)
        place = {one.name: k for k, one in enumerate(self.classes)}
        charged = np.array([one.charge != 0.0 for one in self.classes], dtype=bool)
        acts = charged[:, None] & charged
        for a, b in self.terms:
            acts[place[a], place[b]] = acts[place[b], place[a]] = True
        i, j = np.tril_indices(len(self.fragment), k=-1)
        between = self.fragment[i] != self.fragment[j]
        if n:
            between &= acts[self._class_of[i], self._class_of[j]]
        return i[between], j[between]

    @cached_property
    def _class_of(self) -> Ints:
        return owner_of([one.atoms for one in self.classes])

    @cached_property
    def _functions(self) -> tuple[Radials, Floats]:
        """Return φ_k of all pairs, and each pair's coefficients, shape (P, K)."""
        place = {one.name: k for k, one in enumerate(self.classes)}
        n = len(place)
        walls: dict[float, Floats] = {}
        attractions: dict[tuple[int, float], Floats] = {}
        for names, terms in self.terms.items():
            a, b = (place[name] for name in names)
            for wall in terms.walls:
                table = walls.setdefault(wall.decay, np.zeros((n, n)))
                table[a, b] = table[b, a] = table[a, b] + wall.amplitude
            for term in terms.attractions:
                table = attractions.setdefault((term.power, term.radius), np.zeros((n, n)))
                table[a, b] = table[b, a] = table[a, b] + term.coefficient
        charges = np.array([one.charge for one in self.classes])
        if charges.any():
            attractions[1, 0.0] = -COULOMB_EV_ANG * np.outer(charges, charges)
        i, j = (self._class_of[atoms] for atoms in self._pairs)
        tables = np.array([*walls.values(), *attractions.values()]).reshape(-1, n, n)
        return Radials(tuple(walls), tuple(attractions)), np.ascontiguousarray(tables[:, i, j].T)

    def evaluate(self, positions: Floats, cell: Floats | None = None) -> Evaluation:
        """Evaluate a batch (B, N, 3) in Å.

        Args:
            positions: of all atoms.
            cell: lattice vectors in columns, Å: every pair then takes its nearest image.
        """
        radials, coefficients = self._functions
        pairs, x = (*self._pairs, coefficients), np.ascontiguousarray(positions)
        energy, forces, virial = radials.summed(x, pairs, cell, self.compiled)
        return Evaluation(energy + self.limit, forces, virial)
