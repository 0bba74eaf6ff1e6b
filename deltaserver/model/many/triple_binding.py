"""What binds three molecules beyond their pairs: a prior, a learned model, or both.

    E_ijk = S_p E_prior(X_ijk) + S_m s(ρ) E_model(X_ijk),    S = S(R_ij) S(R_jk) S(R_ki)

R are the distances of the three centres, and S falls from 1 to 0 (:mod:`.switch`) over the prior's
``cutoff``, or over the binding's ``fade``: so nothing is left where any one of the three is far
from another, however near the other two are. S is twice differentiable and the same whichever
molecule is called the first. ρ is the smooth shortest distance of all three, over which a model
ends itself where it was trained on nothing as close, or on none so far apart
(:mod:`deltaserver.model.fragment_blocks`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.compute.thread_pool import ThreadPool
from deltaserver.model import loops
from deltaserver.model.fragment_blocks import POWER
from deltaserver.model.many.molecules import Assembled, Total, add_rows
from deltaserver.model.many.pairs import shortest
from deltaserver.model.many.switch import Switch
from deltaserver.model.many.triples import TriplePrior, Triples, find_triples
from deltaserver.model.sgdml import Evaluation, SGDMLModel, concatenate

BATCH = 64  # triples of the prior that a thread takes at once, at least
SHARES = 16  # of all triples, at most: each has forces of its own, so that sums keep their order
KERNEL_BATCH = 16  # triples of one call of the kernel: what comes of them stays in a core's cache
CHUNK = 4096  # triples whose atoms and forces are in memory at once
SIDES = ((0, 1), (1, 2), (2, 0))


@dataclass(frozen=True)
class TripleBinding:
    """The binding of every three molecules, beyond what their pairs have.

    Attributes:
        species: their numbers s ≤ t ≤ u.
        prior: what is known, or None.
        sizes: atoms of one molecule of each.
        model: what is learned, or None.
        fade: Å of the distances of centres, over which the model ends.
    """

    species: tuple[int, int, int]
    prior: TriplePrior | None
    sizes: tuple[int, int, int]
    model: SGDMLModel | None = None
    fade: tuple[float, float] = (0.0, 0.0)

    @property
    def reach(self) -> tuple[float, float]:
        """How far it acts: in centres' distances, and in atoms', Å."""
        prior = 0.0 if self.prior is None else self.prior.cutoff[1]
        return max(prior, 0.0 if self.model is None else self.fade[1]), 0.0

    def add_prior(self, frame: Assembled, pool: ThreadPool, total: Total) -> None:
        """Add what the prior says of all triples."""
        prior = self.prior
        if prior is None:
            return
        triples = find_triples(frame.neighbours, prior.cutoff[1]).of(frame.first, self.species)
        if not len(triples):
            return
        if prior.compiled:
            self._add_in_loops(frame, triples, prior, (pool, total))
            return
        sites = [
            frame.x[kind][:, own][number - frame.first[kind]] + shift[:, None]
            for own, number, shift, kind in zip(
                prior.sites, triples.members, triples.shifts, self.species, strict=True
            )
        ]
        starts = range(0, len(triples), BATCH)
        batches = [(sites[0][k : k + BATCH], sites[1][k : k + BATCH], sites[2][k : k + BATCH])
                   for k in starts]  # fmt: skip
        found = concatenate(pool.map(prior.evaluate, batches))
        self._add_on_sites(frame, triples, prior, (found, total))

    def near(self, frame: Assembled) -> Triples:
        """Return the triples that the model says anything of."""
        triples = find_triples(frame.neighbours, self.fade[1]).of(frame.first, self.species)
        if self.model is None or (blocks := self.model.parameters.blocks) is None:
            return triples
        if blocks.reach is None:
            return triples
        end = blocks.reach.far[1] * self.model.native.length_ang
        kept = [self._shortest(x) < end for _, x in self.joined(frame, triples)]
        return triples.some(np.concatenate([np.zeros(0, dtype=np.bool_), *kept]))

    def joined(self, frame: Assembled, triples: Triples) -> Iterator[tuple[Triples, Floats]]:
        """Yield triples, some at a time, and their atoms (T, N, 3) moved to their images, Å."""
        for k in range(0, len(triples), CHUNK):
            some = triples.some(slice(k, k + CHUNK))
            parts = [
                frame.x[kind][number - frame.first[kind]] + shift[:, None]
                for kind, number, shift in zip(self.species, some.members, some.shifts, strict=True)
            ]
            yield some, np.concatenate(parts, axis=1)

    def add_model(self, frame: Assembled, near: Triples, pool: ThreadPool, total: Total) -> None:
        """Add what is learned, of triples that are near."""
        if self.model is None:
            return
        model, switch = self.model, Switch(*self.fade)
        for some, x in self.joined(frame, near):
            # One call of all on a device; on a processor, one for every thread to take.
            size = KERNEL_BATCH if model.engine.device is None else len(x)
            parts = [x[k : k + size] for k in range(0, len(x), size)]
            found = concatenate(pool.map(model.evaluate, parts))
            end = End.of(frame, some, switch)
            on_centres, virial = end.pull(found.energy)
            share = end.share
            forces = share[:, None, None] * found.forces
            forces += np.repeat(on_centres / np.array(self.sizes)[:, None], self.sizes, axis=1)
            virial += share[:, None, None] * found.virial
            each = np.split(forces, np.cumsum(self.sizes)[:2], axis=1)
            total.add(frame, self.species, some.members, (share * found.energy, each, virial))

    def _shortest(self, x: Floats) -> Floats:
        """Return ρ of all three molecules of (T, N, 3), shape (T,)."""
        own = np.split(x, np.cumsum(self.sizes)[:2], axis=1)
        each = [shortest(np.concatenate([own[a], own[b]], axis=1), self.sizes[a]) for a, b in SIDES]
        nearest = np.min(each, axis=0)
        rho: Floats = nearest * ((nearest / np.array(each)) ** POWER).sum(axis=0) ** (-1.0 / POWER)
        return rho

    def _add_in_loops(
        self,
        frame: Assembled,
        triples: Triples,
        prior: TriplePrior,
        to: tuple[ThreadPool, Total],
    ) -> None:
        """Evaluate triples where the molecules stand, end them, and add them."""
        (pool, total), n = to, len(triples)
        sites = tuple(np.ascontiguousarray(frame.x[kind][:, own])
                      for own, kind in zip(prior.sites, self.species, strict=True))  # fmt: skip
        first = frame.first[list(self.species)]
        numbers = np.stack(triples.members)
        members, shifts = np.stack([numbers - first[:, None], numbers]), np.stack(triples.shifts)
        known = prior.table, prior.radius**3, *prior.cutoff
        energy = np.empty(n)
        step = max(BATCH, -(-n // SHARES))

        def evaluate(start: int) -> tuple[tuple[Floats, ...], Floats, Floats]:
            some = slice(start, start + step)
            own = members[:, :, some], shifts[:, some], triples.weight[some]
            forces = tuple(np.zeros_like(one) for one in sites)
            on_centres, virial = np.zeros_like(frame.centres), np.zeros((3, 3))
            results = energy[some], forces, on_centres, virial
            loops.load("molecules").add_triples_of(sites, frame.centres, own, known, results)
            return results[1:]

        for forces, on_centres, virial in pool.map(evaluate, range(0, n, step)):
            total.virial += virial
            for k, (kind, own) in enumerate(zip(self.species, prior.sites, strict=True)):
                total.forces[kind][:, own] += forces[k]
            for kind in set(self.species):
                here = slice(frame.first[kind], frame.first[kind + 1])
                whole = on_centres[here, None] / total.forces[kind].shape[1]
                total.forces[kind] += whole
        total.add_energies(triples.members, energy, np.zeros((1, 3, 3)))

    def _add_on_sites(
        self,
        frame: Assembled,
        triples: Triples,
        prior: TriplePrior,
        of: tuple[Evaluation, Total],
    ) -> None:
        """Switch an evaluation of the atoms that take part in a prior, and add it."""
        found, total = of
        end = End.of(frame, triples, Switch(*prior.cutoff))
        s = end.share
        on_centres, virial = end.pull(found.energy)
        total.add_energies(
            triples.members, s * found.energy, virial + s[:, None, None] * found.virial
        )
        ends = np.cumsum([0, *(len(some) for some in prior.sites)])
        for k, (kind, own) in enumerate(zip(self.species, prior.sites, strict=True)):
            # By molecule before by atom: there are a hundred times as many triples.
            number = triples.members[k] - frame.first[kind]
            forces = total.forces[kind]
            on_sites, on_molecule = (
                np.zeros((len(forces), len(own), 3)),
                np.zeros_like(forces[:, 0]),
            )
            add_rows(on_sites, number, s[:, None, None] * found.forces[:, ends[k] : ends[k + 1]])
            add_rows(on_molecule, number, on_centres[:, k])
            forces[:, own] += on_sites
            forces += on_molecule[:, None] / prior.sizes[k]


@dataclass(frozen=True)
class End:
    """S of three distances of centres, and its slopes.

    Attributes:
        share: S times how often a triple counts, shape (T,).
        between: from one centre of each side to the other, Å, shape (T, 3) each.
        slopes: dS/d of those, 1/Å, shape (T, 3) each.
    """

    share: Floats
    between: tuple[Floats, ...]
    slopes: tuple[Floats, ...]

    @classmethod
    def of(cls, frame: Assembled, triples: Triples, switch: Switch) -> End:
        """Measure triples in a frame."""
        places = [
            frame.centres[number] + shift
            for number, shift in zip(triples.members, triples.shifts, strict=True)
        ]
        between = tuple(places[b] - places[a] for a, b in SIDES)
        distances = [np.sqrt(np.einsum("tx,tx->t", d, d)) for d in between]
        values, falls = zip(*(switch(distance) for distance in distances), strict=True)
        slopes = []
        for side in range(3):
            others = values[(side + 1) % 3] * values[(side + 2) % 3] * triples.weight
            slopes.append((falls[side] * others / distances[side])[:, None] * between[side])
        share = triples.weight * values[0] * values[1] * values[2]
        return cls(share, between, tuple(slopes))

    def pull(self, energy: Floats) -> tuple[Floats, Floats]:
        """Return what S does besides: forces on centres (T, 3, 3), virials (T, 3, 3), of E (T,)."""
        on_centres = np.zeros((len(energy), 3, 3))
        virial = np.zeros((len(energy), 3, 3))
        for (a, b), d, slope in zip(SIDES, self.between, self.slopes, strict=True):
            pull = energy[:, None] * slope
            on_centres[:, a] += pull
            on_centres[:, b] -= pull
            virial -= pull[:, :, None] * d[:, None]
        return on_centres, virial


def may_be_exchanged(perms: Ints, sizes: Sequence[int], species: Sequence[int]) -> bool:
    """Return whether permutations (S, N) exchange all molecules of one species, atom by atom."""
    ends = np.cumsum([0, *sizes])
    for k in range(len(sizes) - 1):
        for m in range(k + 1, len(sizes)):
            if species[k] != species[m]:
                continue
            swapped = np.arange(ends[-1])
            one, other = np.arange(ends[k], ends[k + 1]), np.arange(ends[m], ends[m + 1])
            swapped[one], swapped[other] = other, one
            if not (perms == swapped).all(axis=1).any():
                return False
    return True
