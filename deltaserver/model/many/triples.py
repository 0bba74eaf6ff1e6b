"""What three molecules have beyond their three pairs: dispersion of three bodies.

    E_ijk = S(R_ij) S(R_jk) S(R_ki) Σ_(a in i, b in j, c in k) C_abc (3 cos α cos β cos γ + 1)
            / ((r_ab³ + R³) (r_bc³ + R³) (r_ca³ + R³))

with the angles of the triangle of atoms [Axilrod and Teller, J. Chem. Phys. 11, 299 (1943), DOI
10.1063/1.1723844], damped at short distances as the prior of two molecules is, and S of the
distances of centres, as there. C_abc is a coefficient of dispersion, eV Å⁹, of
equivalent atoms; atoms in no class do not take part. Å and eV throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.compute import jit
from deltaserver.model import loops
from deltaserver.model.many.electrostatics.induction import OfThree
from deltaserver.model.many.neighbours import Neighbours
from deltaserver.model.prior import AtomClass
from deltaserver.model.sgdml import Evaluation


@dataclass(frozen=True)
class TriplePrior:
    """A potential of three molecules.

    Attributes:
        sizes: atoms of one molecule of each.
        classes: of equivalent atoms of one molecule, numbered through all three.
        coefficients: C by the names of three classes, of the first, second and third molecule.
        radius: R, Å.
        cutoff: of the distances of centres, over which it ends, Å.
        compiled: sum in loops.
    """

    sizes: tuple[int, int, int]
    classes: tuple[AtomClass, ...]
    coefficients: Mapping[tuple[str, str, str], float]
    radius: float
    cutoff: tuple[float, float]
    compiled: bool = jit.AVAILABLE

    @cached_property
    def sites(self) -> tuple[Ints, Ints, Ints]:
        """Which atoms of each molecule take part, numbered in it."""
        home = np.repeat(np.arange(3), self.sizes)
        start = np.cumsum([0, *self.sizes])
        found: list[list[int]] = [[], [], []]
        for one in self.classes:
            k = int(home[one.atoms[0]])
            found[k] += [atom - int(start[k]) for atom in one.atoms]
        first, second, third = (np.array(sorted(some), dtype=np.int64) for some in found)
        return first, second, third

    @cached_property
    def table(self) -> Floats:
        """C of every three of those atoms, shape (n₁, n₂, n₃)."""
        start = np.cumsum([0, *self.sizes])
        place = [{int(a + start[k]): n for n, a in enumerate(self.sites[k])} for k in range(3)]
        table = np.zeros([len(some) for some in self.sites])
        atoms = {one.name: one.atoms for one in self.classes}
        for names, value in self.coefficients.items():
            rows = [[place[k][a] for a in atoms[name]] for k, name in enumerate(names)]
            table[np.ix_(*rows)] = value
        return table

    def is_fair(self, species: Sequence[int]) -> bool:
        """Return whether molecules of one species may be exchanged: C is symmetric in them."""
        for k, m in ((0, 1), (1, 2)):
            if species[k] != species[m]:
                continue
            axes = [m if axis == k else k if axis == m else axis for axis in range(3)]
            if not np.array_equal(self.sites[k], self.sites[m]):
                return False
            if not np.allclose(self.table, self.table.transpose(axes), rtol=1e-9, atol=0.0):
                return False
        return True

    def evaluate(self, x: tuple[Floats, Floats, Floats]) -> Evaluation:
        """Evaluate triples of the atoms that take part, (T, n₁, 3), (T, n₂, 3), (T, n₃, 3).

        Forces come on them, one molecule's after the other's.
        """
        if self.compiled:
            joined = np.concatenate(x, axis=1)
            n = len(joined)
            energy, forces, virial = np.empty(n), np.empty(joined.shape), np.empty((n, 3, 3))
            loops.load("molecules").add_triples(
                joined, self.table, self.radius**3, energy, forces, virial
            )
            return Evaluation(energy, forces, virial)
        return self._in_numpy(x)

    def of_whole(self, x: Floats) -> Evaluation:
        """Evaluate triples of whole molecules (T, N, 3), one after the other; forces on all N."""
        start = np.cumsum([0, *self.sizes])
        rows = [start[k] + own for k, own in enumerate(self.sites)]
        first, second, third = (np.ascontiguousarray(x[:, some]) for some in rows)
        found = self.evaluate((first, second, third))
        forces = np.zeros(x.shape)
        forces[:, np.concatenate(rows)] = found.forces
        return Evaluation(found.energy, forces, found.virial)

    def _in_numpy(self, x: tuple[Floats, Floats, Floats]) -> Evaluation:
        """Do the same without loops, for where they cannot be compiled."""
        a, b, c = x[0][:, :, None, None], x[1][:, None, :, None], x[2][:, None, None]
        sides = np.broadcast_arrays(b - a, c - b, a - c)  # (T, a, b, c, 3) each
        p, q, r = (np.einsum("...x,...x->...", side, side) for side in sides)
        # Twice two sides times the cosine between them: at a, b and c.
        u, v, w = p + r - q, p + q - r, q + r - p
        product, squares = u * v * w, p * q * r
        angles = 1.0 + 0.375 * product / squares
        slopes = (v * w + u * w - u * v, u * w + u * v - v * w, v * w + u * v - u * w)
        damped = [1.0 / (square**1.5 + self.radius**3) for square in (p, q, r)]
        scale = self.table * damped[0] * damped[1] * damped[2]
        pulls = [  # 2 ∂E/∂p d and so on
            2.0 * scale * (
                0.375 * (slope - product / square) / squares
                - 1.5 * angles * np.sqrt(square) * whole
            )
            for square, slope, whole in zip((p, q, r), slopes, damped, strict=True)
        ]  # fmt: skip
        ab, bc, ca = (pull[..., None] * side for pull, side in zip(pulls, sides, strict=True))
        forces = [
            (ab - ca).sum(axis=(2, 3)),
            (bc - ab).sum(axis=(1, 3)),
            (ca - bc).sum(axis=(1, 2)),
        ]
        virial = -sum(
            np.einsum("tabcx,tabcy->txy", pull, side)
            for pull, side in zip((ab, bc, ca), sides, strict=True)
        )
        energy = (scale * angles).sum(axis=(1, 2, 3))
        return Evaluation(energy, np.concatenate(forces, axis=1), np.asarray(virial))


@dataclass(frozen=True)
class TripleLabels:
    """What is known of three whole molecules, as labels are made less of it.

    Attributes:
        prior: the dispersion, without its end; None: there is none.
        induction: with its own end; None: nothing flows.
    """

    prior: TriplePrior | None
    induction: OfThree | None = None

    def evaluate(self, positions: Floats) -> Evaluation:
        """Evaluate positions (T, N, 3), Å, of one molecule after the other."""
        parts = [
            *([] if self.prior is None else [self.prior.of_whole(positions)]),
            *([] if self.induction is None else [self.induction.evaluate(positions)]),
        ]
        n = len(positions)
        energy, forces, virial = np.zeros(n), np.zeros(positions.shape), np.zeros((n, 3, 3))
        for part in parts:
            energy, forces = energy + part.energy, forces + part.forces
            virial = virial + part.virial
        return Evaluation(energy, forces, virial)


@dataclass(frozen=True)
class Triples:
    """Molecules i ≤ j ≤ k of which every two are near.

    Attributes:
        members: their numbers, shape (T,) each.
        shifts: what is to be added to their positions, Å, shape (T, 3) each.
        weight: 1; less where one stands there more than once, a molecule and its own images.
    """

    members: tuple[Ints, Ints, Ints]
    shifts: tuple[Floats, Floats, Floats]
    weight: Floats

    def __len__(self) -> int:
        """Return the number of triples T."""
        return len(self.weight)

    def some(self, kept: slice | np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Triples:
        """Return some of the triples."""
        i, j, k = (member[kept] for member in self.members)
        zero, one, two = (shift[kept] for shift in self.shifts)
        return Triples((i, j, k), (zero, one, two), self.weight[kept])

    def of(self, first: Ints, species: tuple[int, int, int]) -> Triples:
        """Return those of three species; ``first`` are the numbers of their first molecules."""
        kept = np.ones(len(self.weight), dtype=np.bool_)
        for member, kind in zip(self.members, species, strict=True):
            kept &= (member >= first[kind]) & (member < first[kind + 1])
        return self.some(kept)


def find_triples(pairs: Neighbours, cutoff: float) -> Triples:
    """Return all triples of molecules with three distances below ``cutoff``.

    Each is found from its member of the lowest number; from several, where these are images of one
    molecule, and then counted by parts.
    """
    pairs = pairs.some(pairs.distance < cutoff)
    own = pairs.some(pairs.i == pairs.j)
    i = np.concatenate([pairs.i, own.i])
    j = np.concatenate([pairs.j, own.j])
    shift = np.concatenate([pairs.shift, -own.shift])
    between = np.concatenate([pairs.between, -own.between])
    order = np.lexsort((j, i))
    i, j, shift, between = i[order], j[order], shift[order], between[order]
    # Every two neighbours of one molecule: an entry with each of those behind it in its group.
    end = np.searchsorted(i, i, side="right")
    n_behind = end - np.arange(len(i)) - 1
    one = np.repeat(np.arange(len(i)), n_behind)
    start = np.cumsum(n_behind) - n_behind
    other = np.arange(len(one)) - np.repeat(start, n_behind) + one + 1
    d = between[other] - between[one]
    near = np.einsum("tx,tx->t", d, d) < cutoff**2
    one, other = one[near], other[near]
    first, second, third = i[one], j[one], j[other]
    same = 1.0 + (second == first) + (third == first)
    zero = np.zeros((len(one), 3))
    return Triples((first, second, third), (zero, shift[one], shift[other]), 1.0 / same)
