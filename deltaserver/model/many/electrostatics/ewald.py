"""Charges of molecules in a cell that repeats, however far apart: an Ewald sum.

    E = Σ_near q q erfc(α r)/r  +  (2π/V) Σ_(k≠0) e^(−k²/4α²)/k² |Σ_i q_i e^(ik·r_i)|²
        − Σ_inside q q erf(α r)/r  −  (α/√π) Σ_i q_i²  −  (π/2Vα²) (Σ_i q_i)²

in units of e²/4πε₀ [Ewald, Ann. Phys. 369, 253 (1921), DOI 10.1002/andp.19213690304; Allen and
Tildesley, Computer Simulation of Liquids, 2nd ed., 2017, Sect. 6.2]. *Near* are pairs of atoms of
different molecules, images included; *inside* are pairs of one molecule, which its own model has
and which the sum over k has counted. What is around the cells conducts ("tin foil"). The last term
is of a uniform background that neutralises a cell which is not neutral.

α and both ends follow from what is neglected, ε: the near sum ends at r_c = s/α and that over k at
2 s α, s² = −ln ε. r_c is where both cost the same, so that the cost goes with N^(3/2) at fixed
density [Fincham, Mol. Simul. 13, 1 (1994), DOI 10.1080/08927029408022180]. It scales with the cube
root of the volume: a cell that grows alike in all directions keeps its vectors k.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.compute import jit
from deltaserver.compute.thread_pool import ThreadPool
from deltaserver.model import loops
from deltaserver.model.many.molecules import Assembled, Total
from deltaserver.model.many.neighbours import Neighbours
from deltaserver.units import COULOMB_EV_ANG

ACCURACY = 1e-8  # ε: forces are then right to 1e-7 of their mean square root
COST = 0.02  # of a vector k for an atom, relative to a near pair's, with the list of them
SHARES, BATCH = 16, 64  # of near pairs of molecules: how many at most, of how many at least
DEGREE, NODES = 16, 200  # of the polynomial in erfc, and points that it is fitted to
AT_ONCE = 1 << 18  # distances between atoms that are in memory without loops


@dataclass(frozen=True)
class Split:
    """Where the sum is split, and where both parts end.

    Attributes:
        alpha: α, 1/Å.
        near: r_c, Å.
        far: the largest k, 1/Å.
    """

    alpha: float
    near: float
    far: float

    @classmethod
    def of(cls, volume: float, n_atoms: int, accuracy: float = ACCURACY) -> Split:
        """Return the cheapest for so many atoms in a cell, Å³."""
        s = math.sqrt(-math.log(accuracy))
        near = s / math.sqrt(math.pi) * (COST * volume**2 / n_atoms) ** (1.0 / 6.0)
        return cls.at(s / near, accuracy)

    @classmethod
    def at(cls, alpha: float, accuracy: float = ACCURACY) -> Split:
        """Return that of a given α, 1/Å."""
        s = math.sqrt(-math.log(accuracy))
        return cls(alpha, s / alpha, 2.0 * s * alpha)

    def pull(self, value: Floats, product: Floats, r: Floats) -> Floats:
        """Return −φ′/r where ``value`` is φ = q q erfc(α r)/r or −q q erf(α r)/r."""
        slope = 2.0 * self.alpha / math.sqrt(math.pi) * np.exp(-((self.alpha * r) ** 2))
        found: Floats = (value + product * slope) / r**2
        return found


@dataclass(frozen=True)
class Ewald:
    """The charges of all species' molecules, and their sum.

    Attributes:
        charges: of one molecule of each species, e, shape (m,) each.
        counts: how many molecules each has.
        alpha: α, 1/Å, if it is given; None: the cheapest.
        accuracy: ε, what is neglected.
        compiled: sum in loops.
    """

    charges: tuple[Floats, ...]
    counts: tuple[int, ...]
    alpha: float | None = None
    accuracy: float = ACCURACY
    compiled: bool = jit.AVAILABLE

    @cached_property
    def kinds(self) -> tuple[int, ...]:
        """The species that have any charges."""
        return tuple(k for k, own in enumerate(self.charges) if own.any())

    @cached_property
    def net(self) -> float:
        """The charge of the cell, e."""
        return float(sum(n * own.sum() for n, own in zip(self.counts, self.charges, strict=True)))

    def split(self, cell: Floats) -> Split:
        """Return where the sum is split in a cell, vectors in columns, Å."""
        if self.alpha is not None:
            return Split.at(self.alpha, self.accuracy)
        n_atoms = sum(self.counts[k] * len(self.charges[k]) for k in self.kinds)
        return Split.of(abs(float(np.linalg.det(cell))), n_atoms, self.accuracy)

    def reach(self, cell: Floats) -> tuple[float, float]:
        """How far near pairs are looked at: in centres' distances, and in atoms', Å."""
        return 0.0, self.split(cell).near

    def warm_up(self) -> None:
        """Compile the loops before the first step."""
        if self.compiled:
            one, none = np.zeros((1, 1, 3)), np.zeros(0, dtype=np.int64)
            _in_loops((one, one), (np.ones(1), np.ones(1)), (none, none, one[0, :0]), Split.at(1.0))

    def add(self, frame: Assembled, pool: ThreadPool, total: Total) -> None:
        """Add energy, forces, virial and the molecules' shares of a frame that repeats."""
        assert frame.cell is not None
        split = self.split(frame.cell)
        for s, t in combinations_with_replacement(self.kinds, 2):
            self._add_near(frame, (s, t), split, pool, total)
        for kind in self.kinds:
            self._add_inside(frame, kind, split, total)
        self._add_far(frame, split, pool, total)

    def _add_near(
        self, frame: Assembled, species: tuple[int, int], split: Split, pool: ThreadPool,
        total: Total,
    ) -> None:  # fmt: skip
        """Add Σ q q erfc(α r)/r of two species."""
        (s, t), first = species, frame.first
        pairs = _meeting(frame, species, split.near)
        n = len(pairs.i)
        x = frame.x[s], frame.x[t]
        charges = COULOMB_EV_ANG * self.charges[s], self.charges[t]
        step = max(BATCH, -(-n // SHARES))
        evaluate = _in_loops if self.compiled else _in_numpy

        def some(start: int) -> tuple[Floats, Floats, Floats, Floats]:
            own = slice(start, start + step)
            chosen = pairs.i[own] - first[s], pairs.j[own] - first[t], pairs.shift[own]
            return evaluate(x, charges, chosen, split)

        found = pool.map(some, range(0, n, step))
        for _, force, back, virial in found:
            total.forces[s] += force
            total.forces[t] += back
            total.virial += virial
        energy = np.concatenate([np.zeros(0), *(one[0] for one in found)])
        total.add_energies((pairs.i, pairs.j), energy, np.zeros((1, 3, 3)))

    def _add_inside(self, frame: Assembled, kind: int, split: Split, total: Total) -> None:
        """Take off what the far part has of pairs of one molecule, −q q erf(α r)/r."""
        x, charges = frame.x[kind], self.charges[kind]
        a, b = np.triu_indices(len(charges), k=1)
        product = COULOMB_EV_ANG * charges[a] * charges[b]
        a, b, product = (some[product != 0.0] for some in (a, b, product))
        between = x[:, b] - x[:, a]
        r = np.sqrt(np.einsum("npx,npx->np", between, between))
        value = -product * (1.0 - erfc(split.alpha * r, split)) / r
        pull = split.pull(value, product, r)[..., None] * between
        by_atom = total.forces[kind].swapaxes(0, 1)
        np.add.at(by_atom, a, -pull.swapaxes(0, 1))
        np.add.at(by_atom, b, pull.swapaxes(0, 1))
        members = np.arange(frame.first[kind], frame.first[kind + 1])
        virial = np.einsum("npx,npy->nxy", pull, between)
        total.add_energies((members,), value.sum(axis=1), virial)

    def _add_far(self, frame: Assembled, split: Split, pool: ThreadPool, total: Total) -> None:
        """Add the sum over k, what it has of each atom with itself, and the background."""
        assert frame.cell is not None
        x = np.concatenate([frame.x[k].reshape(-1, 3) for k in self.kinds])
        charges = np.concatenate([np.tile(self.charges[k], self.counts[k]) for k in self.kinds])
        energy, forces, virial = reciprocal(x, charges, frame.cell, split, pool)
        volume = abs(float(np.linalg.det(frame.cell)))
        background = -0.5 * math.pi * COULOMB_EV_ANG * self.net / (volume * split.alpha**2)
        energy += background * charges
        virial += background * self.net * np.eye(3)  # E ~ 1/V
        energy -= COULOMB_EV_ANG * split.alpha / math.sqrt(math.pi) * charges**2
        start = 0
        for kind in self.kinds:
            own = total.forces[kind]
            end = start + own.shape[0] * own.shape[1]
            own += forces[start:end].reshape(own.shape)
            members = np.arange(frame.first[kind], frame.first[kind + 1])
            shares = energy[start:end].reshape(own.shape[:2]).sum(axis=1)
            total.add_energies((members,), shares, np.zeros((1, 3, 3)))
            start = end
        total.virial += virial


def _meeting(frame: Assembled, species: tuple[int, int], cutoff: float) -> Neighbours:
    """Return the pairs of two species that may have atoms within the cutoff."""
    (s, t), first, near = species, frame.first, frame.neighbours
    radius = [
        float(np.sqrt(((x - x.mean(axis=1, keepdims=True)) ** 2).sum(axis=2).max()))
        for x in (frame.x[s], frame.x[t])
    ]
    kept = (near.i >= first[s]) & (near.i < first[s + 1])
    kept &= (near.j >= first[t]) & (near.j < first[t + 1])
    return near.some(kept & (near.distance < cutoff + sum(radius)))


def _in_loops(
    x: tuple[Floats, Floats], charges: tuple[Floats, Floats], pairs: tuple[Ints, Ints, Floats],
    split: Split,
) -> tuple[Floats, Floats, Floats, Floats]:  # fmt: skip
    """Return energies of near pairs (P,), forces on both species' molecules and the virial."""
    results = np.empty(len(pairs[0])), np.zeros_like(x[0]), np.zeros_like(x[1]), np.zeros((3, 3))
    own = tuple(np.ascontiguousarray(some) for some in x)
    known = split.alpha, split.near, _series(split.alpha * split.near)
    loops.load("ewald").add_screened(own, charges, pairs, known, results)
    return results


def _in_numpy(
    x: tuple[Floats, Floats], charges: tuple[Floats, Floats], pairs: tuple[Ints, Ints, Floats],
    split: Split,
) -> tuple[Floats, Floats, Floats, Floats]:  # fmt: skip
    """Do the same without loops, for where they cannot be compiled."""
    (one, other, shift), n = pairs, len(pairs[0])
    results = np.empty(n), np.zeros_like(x[0]), np.zeros_like(x[1]), np.zeros((3, 3))
    energy, force, back, virial = results
    product = np.outer(*charges)
    step = max(1, AT_ONCE // product.size)
    for k in range(0, n, step):
        some = slice(k, k + step)
        there = x[1][other[some]] + shift[some, None]
        d = there[:, None] - x[0][one[some]][:, :, None]
        square = np.einsum("pabx,pabx->pab", d, d)
        near = square < split.near**2
        r = np.sqrt(square[near])
        scale = np.broadcast_to(product, near.shape)[near]
        value = scale * erfc(split.alpha * r, split) / r
        values, pulls = np.zeros(near.shape), np.zeros(near.shape)
        values[near], pulls[near] = value, split.pull(value, scale, r)
        energy[some] = values.sum(axis=(1, 2))
        pull = pulls[..., None] * d
        np.add.at(force, one[some], -pull.sum(axis=2))
        np.add.at(back, other[some], pull.sum(axis=1))
        virial += np.einsum("pabx,paby->xy", pull, d)
    return results


@functools.lru_cache(maxsize=8)
def _series(top: float) -> Floats:
    """Return the polynomial of erfc(y) e^(y²) for y up to ``top``, highest power first.

    In u, which goes from −1 to 1 as y does from 0 to ``top`` and is linear in (y − 4)/(y + 4): so
    the function is nearly a polynomial, and right to 1e-14.
    """
    u = np.cos(math.pi * (np.arange(NODES) + 0.5) / NODES)
    t = (u + 1.0) / _stretch(top) - 1.0
    y = 4.0 * (1.0 + t) / (1.0 - t)
    exact = [math.erfc(at) * math.exp(at * at) for at in y.tolist()]
    fitted = np.polynomial.chebyshev.chebfit(u, exact, DEGREE)
    return np.array(np.polynomial.chebyshev.cheb2poly(fitted)[::-1], dtype=np.float64)


def _stretch(top: float) -> float:
    return 2.0 / ((top - 4.0) / (top + 4.0) + 1.0)


def erfc(y: Floats, split: Split) -> Floats:
    """Return the complementary error function, which NumPy has not, of y ≥ 0."""
    top = split.alpha * split.near
    u = ((y - 4.0) / (y + 4.0) + 1.0) * _stretch(top) - 1.0
    value: Floats = np.polyval(_series(top), u) * np.exp(-y * y)
    return value


def reciprocal(
    x: Floats, charges: Floats, cell: Floats, split: Split, pool: ThreadPool
) -> tuple[Floats, Floats, Floats]:
    """Return the sum over k ≠ 0: each atom's energy (N,), forces (N, 3) and the virial (3, 3).

    k = 2π Σ_a n_a b_a with b_a the rows of the inverse cell; as −k says what k says, n_1 ≥ 0
    suffices. e^(ik·r) is a product of three powers: of one n_1 the sums over atoms, and then over
    k, are products of matrices.

    Args:
        x: Å, shape (N, 3).
        charges: e, shape (N,).
        cell: lattice vectors in columns, Å.
        split: where the sums end.
        pool: works through n_1.
    """
    inverse = np.array(np.linalg.inv(cell), dtype=np.float64)
    # n_a = k·a_a/2π
    most = np.floor(split.far * np.linalg.norm(cell, axis=0) / (2.0 * math.pi)).astype(int)
    along = [_powers(x @ row, n) for row, n in zip(inverse, most.tolist(), strict=True)]
    plane = _Plane(charges, along, inverse, split, abs(float(np.linalg.det(cell))))
    found = pool.map(plane, range(most[0] + 1))
    energy, slope, virial = (np.sum([one[k] for one in found], axis=0) for k in range(3))
    return energy, slope @ inverse, virial


def _powers(fraction: Floats, most: int) -> np.ndarray[tuple[int, int], np.dtype[np.complex128]]:
    """Return e^(2πi n f) for n from −most to most, shape (2 most + 1, N)."""
    found = np.empty((2 * most + 1, len(fraction)), dtype=np.complex128)
    found[most] = 1.0
    if most:
        one = np.exp(2j * math.pi * fraction)
        for n in range(1, most + 1):
            np.multiply(found[most + n - 1], one, out=found[most + n])
        np.conj(found[:most:-1], out=found[:most])
    return found


@dataclass(frozen=True)
class _Plane:
    """All k of one n_1.

    Attributes:
        charges: e, shape (N,).
        along: powers of e^(2πi f) by the three axes.
        inverse: of the cell, 1/Å.
        split: where the sum ends.
        volume: Å³.
    """

    charges: Floats
    along: Sequence[np.ndarray[tuple[int, int], np.dtype[np.complex128]]]
    inverse: Floats
    split: Split
    volume: float

    def __call__(self, first: int) -> tuple[Floats, Floats, Floats]:
        """Return energies of atoms (N,), −∂E/∂(fractional coordinates) (N, 3), virial (3, 3)."""
        most = [len(some) // 2 for some in self.along]
        n, m = (np.arange(-some, some + 1, dtype=np.float64) for some in most[1:])
        k, square, scale = self._vectors(first, n, m)
        rows, columns = scale.any(axis=1), scale.any(axis=0)
        k, square, scale = (some[rows][:, columns] for some in (k, square, scale))
        n, m = n[rows], m[columns]
        last = self.along[2][columns]
        wave = self.along[1][rows] * (self.charges * self.along[0][most[0] + first])
        structure = wave @ last.T
        share = scale * structure.conj()
        each = wave * (share @ last)  # by atom and n_2, summed over n_3
        lean = np.einsum("ni,ni->i", wave, (share * m) @ last).imag
        by_n = each.imag
        slope = 2.0 * np.stack([first * by_n.sum(axis=0), n @ by_n, lean], axis=1)
        energy = (share * structure).real
        square[square == 0.0] = 1.0
        weight = -2.0 * energy * (1.0 / square + 0.25 / self.split.alpha**2)
        virial = energy.sum() * np.eye(3) + np.einsum("nm,nmx,nmy->xy", weight, k, k)
        return each.real.sum(axis=0), 2.0 * math.pi * slope, virial

    def _vectors(self, first: int, n: Floats, m: Floats) -> tuple[Floats, Floats, Floats]:
        """Return k (n, m, 3), k² and what |Σ q e^(ik·r)|² is multiplied by, 0 beyond the end."""
        b = 2.0 * math.pi * self.inverse
        k = first * b[0] + n[:, None, None] * b[1] + m[:, None] * b[2]
        square = np.einsum("nmx,nmx->nm", k, k)
        kept = (square <= self.split.far**2) & (square > 0.0)
        twice = 2.0 if first else 1.0  # −k is not among them
        scale = np.zeros_like(square)
        scale[kept] = np.exp(-square[kept] / (4.0 * self.split.alpha**2)) / square[kept]
        return k, square, twice * 2.0 * math.pi * COULOMB_EV_ANG / self.volume * scale
