"""How molecules polarise each other, beyond pairs: charge that flows in one as all others want.

    E = −½ Σ_i [Q_i(V_i) − Σ_j Q_i(V_ij)],   V_i = Σ_j V_ij,   Q(V) = Σ_(ab) κ_ab (V_a − V_b)²
    V_ij,a = S(R_ij) Σ_(b in j) q_b/(4πε₀ √(r_ab² + s²))

V_ij is the potential of molecule j at the atoms of molecule i, of charges that stay as they are;
κ_ab, e/V, is the charge that goes from one atom to another for a volt between them [charge-flow
polarisabilities: Stone, Mol. Phys. 56, 1065 (1985), DOI 10.1080/00268978500102891]. Two neighbours
on opposite sides cancel, where a sum over pairs counts both. What a pair by itself has of it,
Q(V_ij), belongs to its binding and is taken off: the rest is of three bodies, at the cost of pairs.
S is that of a pair's prior (:mod:`..switch`). Å, e, V and eV.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.compute.thread_pool import ONE_THREAD, ThreadPool
from deltaserver.model.many.molecules import Assembled, Total, add_rows, of_threes, threes
from deltaserver.model.many.neighbours import Neighbours
from deltaserver.model.many.switch import Switch
from deltaserver.model.sgdml import Evaluation
from deltaserver.units import COULOMB_EV_ANG

AT_ONCE = 1 << 16  # distances between atoms that one thread works on


@dataclass(frozen=True)
class Response:
    """What one molecule does to others, and others to it.

    Attributes:
        charges: of its atoms, e, shape (m,).
        matrix: Q(V) = V·matrix·V, e/V, shape (m, m); its rows sum to zero.
    """

    charges: Floats
    matrix: Floats

    @classmethod
    def of(
        cls, charges: Sequence[float], flows: Sequence[tuple[Sequence[tuple[int, int]], float]]
    ) -> Response:
        """Return that of charges (m,), e, and of pairs of atoms with their κ, e/V."""
        matrix = np.zeros((len(charges), len(charges)))
        for pairs, response in flows:
            for a, b in pairs:
                matrix[[a, b], [a, b]] += response
                matrix[[a, b], [b, a]] -= response
        return cls(np.array(charges, dtype=np.float64), matrix)

    def of_potential(self, v: Floats) -> Floats:
        """Return Q of potentials (n, m), V: eV, shape (n,)."""
        found: Floats = np.einsum("na,na->n", v @ self.matrix, v)
        return found


@dataclass(frozen=True)
class _Some:
    """Some pairs of molecules of two species.

    Attributes:
        species: their numbers.
        rows: of either molecule in its species.
        d: from atoms of the first to atoms of the second, Å, shape (P, m, m', 3).
        inverse: 1/√(r² + s²), 1/Å.
        near: the pairs of centres.
        switch: S of them, and its slope.
    """

    species: tuple[int, int]
    rows: tuple[np.ndarray, np.ndarray]
    d: Floats
    inverse: Floats
    near: Neighbours
    switch: tuple[Floats, Floats]


@dataclass(frozen=True)
class Induction:
    """Charge flow in all molecules.

    Attributes:
        responses: of every species; None: it takes no part.
        radius: s, over which charges are smeared, Å.
        switch: S of the distance of centres.
    """

    responses: tuple[Response | None, ...]
    radius: float
    switch: Switch

    @property
    def reach(self) -> tuple[float, float]:
        """How far pairs are looked at: in centres' distances, and in atoms', Å."""
        return self.switch.stop, 0.0

    def add(self, frame: Assembled, pool: ThreadPool, total: Total) -> None:
        """Add energy, forces, virial and the molecules' shares."""
        chunks = pool.map(lambda one: self._some(frame, *one), list(self._chunks(frame)))
        acting = pool.map(self._potentials, chunks)
        v = [np.zeros(x.shape[:2]) for x in frame.x]
        energy = [np.zeros(len(x)) for x in frame.x]
        for some, both in zip(chunks, acting, strict=True):
            for k, rows, own in zip(some.species, some.rows, both, strict=True):
                add_rows(v[k], rows, own)
                add_rows(energy[k], rows, 0.5 * self._response(k).of_potential(own))
        for k, response in enumerate(self.responses):
            if response is not None and len(frame.x[k]):  # else of none of three
                energy[k] -= 0.5 * response.of_potential(v[k])
                total.energy += float(energy[k].sum())
                total.molecules[frame.first[k] : frame.first[k + 1]] += energy[k]
        pulls = pool.map(lambda one: self._pulls(*one, v), list(zip(chunks, acting, strict=True)))
        for some, (*forces, virial) in zip(chunks, pulls, strict=True):
            for k, rows, force in zip(some.species, some.rows, forces, strict=True):
                add_rows(total.forces[k], rows, force)
            total.virial += virial

    def _response(self, species: int) -> Response:
        found = self.responses[species]
        assert found is not None
        return found

    def _chunks(self, frame: Assembled) -> Iterator[tuple[tuple[int, int], Neighbours]]:
        """Yield the pairs of two species within reach, some at a time."""
        near, first = frame.neighbours, frame.first
        kinds = [k for k, response in enumerate(self.responses) if response is not None]
        for s, t in combinations_with_replacement(kinds, 2):
            kept = (near.i >= first[s]) & (near.i < first[s + 1])
            kept &= (near.j >= first[t]) & (near.j < first[t + 1])
            pairs = near.some(kept & (near.distance < self.switch.stop))
            step = max(1, AT_ONCE // (frame.x[s].shape[1] * frame.x[t].shape[1]))
            for start in range(0, len(pairs.i), step):
                yield (s, t), pairs.some(np.arange(start, min(start + step, len(pairs.i))))

    def _some(self, frame: Assembled, species: tuple[int, int], near: Neighbours) -> _Some:
        s, t = species
        rows = near.i - frame.first[s], near.j - frame.first[t]
        there = frame.x[t][rows[1]] + near.shift[:, None]
        d = there[:, None] - frame.x[s][rows[0]][:, :, None]  # [P, m, m', 3]
        square = np.einsum("pabx,pabx->pab", d, d) + self.radius**2
        return _Some(species, rows, d, 1.0 / np.sqrt(square), near, self.switch(near.distance))

    def _potentials(self, some: _Some) -> tuple[Floats, Floats]:
        """Return V of the second molecules at the first, and of the first at the second."""
        one, other = (self._response(k).charges for k in some.species)
        scale = COULOMB_EV_ANG * some.switch[0][:, None]
        return scale * (some.inverse @ other), scale * np.einsum("a,pab->pb", one, some.inverse)

    def _pulls(
        self, some: _Some, acting: tuple[Floats, Floats], v: Sequence[Floats]
    ) -> tuple[Floats, Floats, Floats]:
        """Return forces on both molecules of every pair, and the virial."""
        # What has flowed in one of them for all others, by which the pair's own potential counts.
        flown = [
            -(v[k][rows] - own) @ self._response(k).matrix
            for k, rows, own in zip(some.species, some.rows, acting, strict=True)
        ]
        one, other = (self._response(k).charges for k in some.species)
        product = flown[0][:, :, None] * other + one[:, None] * flown[1][:, None, :]
        product *= COULOMB_EV_ANG * some.inverse  # [P, m, m'], eV
        value, slope = some.switch
        pull = (value[:, None, None] * product * some.inverse**2)[..., None] * some.d
        way = (-slope * product.sum(axis=(1, 2)) / some.near.distance)[:, None] * some.near.between
        sizes = pull.shape[1:3]
        force = -pull.sum(axis=2) - way[:, None] / sizes[0]
        back = pull.sum(axis=1) + way[:, None] / sizes[1]
        virial = np.einsum("pabx,paby->xy", pull, some.d)
        return force, back, virial + np.einsum("px,py->xy", way, some.near.between)


@dataclass(frozen=True)
class OfThree:
    """Charge flow in three molecules by themselves: what labels are made less of.

    Attributes:
        induction: of all species, with its end, as it is served.
        species: of the three, whose atoms stand one molecule after the other.
        sizes: atoms of each.
    """

    induction: Induction
    species: tuple[int, int, int]
    sizes: tuple[int, int, int]

    def evaluate(self, x: Floats) -> Evaluation:
        """Evaluate positions (T, N, 3), Å."""
        frame, numbers = threes(x, self.species, self.sizes, len(self.induction.responses))
        total = Total.zero(frame)
        self.induction.add(frame, ONE_THREAD, total)
        return of_threes(total, frame, numbers, self.species, x)
