"""What binds two molecules: a prior that ends with the centres' distance, and a learned model.

    E_ij = S(R) E_prior(X_ij) + s(ρ) E_model(X_ij)

R is the distance of the two centres and S falls from 1 to 0 over the manifest's ``cutoff``
(:mod:`deltaserver.model.many.switch`); ρ is the smooth shortest distance of the two molecules
(:mod:`deltaserver.model.fragment_blocks`), over which a binding model ends: by itself, or over the
binding's ``fade``. Pairs that are farther apart are evaluated by neither. Charges that an Ewald sum
counts are taken off E_prior.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.compute import jit
from deltaserver.compute.thread_pool import ThreadPool
from deltaserver.model import loops
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.fragment_blocks import POWER, FragmentBlocks, Reach
from deltaserver.model.many.charges import less_charges
from deltaserver.model.many.molecules import Assembled, Total
from deltaserver.model.many.neighbours import Neighbours
from deltaserver.model.many.switch import Switch, tail_ev_ang3
from deltaserver.model.prior import PairPrior
from deltaserver.model.sgdml import Evaluation, SGDMLModel, concatenate

BATCH = 16  # pairs of one call of the kernel: what comes of them stays in a core's cache
BATCH_ALONE = 64  # the same without a kernel, which costs less than the calls around it
NUMBERS = 1 << 20  # in a temporary array of distances between atoms
ALWAYS = (-2.0, -1.0)  # a reach whose near end is nowhere


@dataclass(frozen=True)
class PairBinding:
    """The binding of every two molecules of two species, or of one.

    Attributes:
        species: their numbers s ≤ t.
        sizes: atoms of one molecule of each.
        model: what is learned, or None.
        prior: what is known, or None.
        switch: over which the prior ends; None: never.
        fade: over which the model ends, Å of ρ, where it does not by itself.
        counted: the charges of both molecules, e, that an Ewald sum counts.
    """

    species: tuple[int, int]
    sizes: tuple[int, int]
    model: SGDMLModel | None
    prior: PairPrior | None
    switch: Switch | None
    fade: tuple[float, float] | None = None
    counted: tuple[Floats, Floats] | None = None

    @cached_property
    def end(self) -> float:
        """The ρ beyond which the model is nothing, Å; 0 where there is none."""
        if self.model is None:
            return 0.0
        if self.fade is not None:
            return self.fade[1]
        blocks = self.model.parameters.blocks
        assert blocks is not None
        assert blocks.reach is not None
        return blocks.reach.far[1] * self.model.native.length_ang

    @property
    def reach(self) -> tuple[float, float]:
        """How far it acts: in centres' distances, and in atoms', Å.

        Of n distances r ≥ r_min between atoms ρ ≥ n^(−1/12) r_min.
        """
        prior = 0.0
        if self.prior is not None:
            prior = np.inf if self.switch is None else self.switch.stop
        return prior, self.end * (self.sizes[0] * self.sizes[1]) ** (1.0 / POWER)

    def of(self, frame: Assembled) -> Neighbours:
        """Return the pairs of these two species."""
        first, near = frame.first, frame.neighbours
        if len(first) == 2:  # one species: all are its own
            return near
        s, t = self.species
        mine = (near.i >= first[s]) & (near.i < first[s + 1])
        return near.some(mine & (near.j >= first[t]) & (near.j < first[t + 1]))

    def joined(self, frame: Assembled, pairs: Neighbours) -> Floats:
        """Return the atoms of every pair, the second molecule moved to its image, (P, n, 3)."""
        (s, t), first = self.species, frame.first
        one, other = frame.x[s][pairs.i - first[s]], frame.x[t][pairs.j - first[t]]
        return np.concatenate([one, other + pairs.shift[:, None]], axis=1)

    def touching(self, frame: Assembled) -> tuple[Neighbours, Floats]:
        """Return the pairs that the model says anything of, and their atoms, (P, n, 3)."""
        pairs = self.of(frame)
        x = self.joined(frame, pairs)
        near = shortest(x, self.sizes[0]) < self.end
        return pairs.some(near), np.ascontiguousarray(x[near])

    def add_prior(self, frame: Assembled, pool: ThreadPool, total: Total) -> None:
        """Add the prior of all pairs, and what the switch cuts off of a liquid."""
        if self.prior is None:
            return
        pairs = self.of(frame)
        if self.switch is not None:
            pairs = pairs.some(pairs.distance < self.switch.stop)
        found = _in_batches(self._inside, self.joined(frame, pairs), BATCH_ALONE, pool)
        if self.switch is not None:
            found = switched(found, pairs, self.switch, self.sizes)
        self._add(frame, pairs, found, total)
        if frame.cell is not None and self.switch is not None:
            self._add_tail(frame, self.switch, total)

    def add_model(
        self, frame: Assembled, touching: tuple[Neighbours, Floats], pool: ThreadPool, total: Total
    ) -> None:
        """Add what is learned, of the pairs that touch."""
        pairs, x = touching
        if self.model is None or not len(x):
            return
        # One call of a batch on a device; on a processor, one for every thread to take.
        model = self.model
        size = self._batch if model.engine.device is None else len(x)
        found = _in_batches(model.evaluate, x, size, pool)
        if self.fade is not None:
            found = faded(found, x, self.sizes, self.fade)
        self._add(frame, pairs, found, total)

    @cached_property
    def _inside(self) -> Callable[[Floats], Evaluation]:
        assert self.prior is not None
        return less_charges(self.prior, self.counted)

    @cached_property
    def _batch(self) -> int:
        assert self.model is not None
        return BATCH if self.model.has_kernel else BATCH_ALONE

    def _add(self, frame: Assembled, pairs: Neighbours, found: Evaluation, total: Total) -> None:
        n = self.sizes[0]
        forces = (found.forces[:, :n], found.forces[:, n:])
        parts = (found.energy, forces, found.virial)
        total.add(frame, self.species, (pairs.i, pairs.j), parts)

    def _add_tail(self, frame: Assembled, switch: Switch, total: Total) -> None:
        assert frame.cell is not None
        s, t = self.species
        n_pairs = len(frame.x[s]) * len(frame.x[t]) / (2.0 if s == t else 1.0)
        energy = n_pairs * self.tail / abs(float(np.linalg.det(frame.cell)))
        total.energy += energy
        total.virial += energy * np.eye(3)  # E ~ 1/V
        first = frame.first
        for kind in self.species:
            some = slice(first[kind], first[kind + 1])
            total.molecules[some] += 0.5 * energy / len(frame.x[kind])

    @cached_property
    def tail(self) -> float:
        """What the switch cuts off of one pair's attractions, times the volume, eV Å³."""
        assert self.prior is not None
        assert self.switch is not None
        return tail_ev_ang3(self.prior, self.switch)


def _in_batches(
    evaluate: Callable[[Floats], Evaluation], x: Floats, size: int, pool: ThreadPool
) -> Evaluation:
    batches = [x[k : k + size] for k in range(0, max(1, len(x)), size)]
    return concatenate(pool.map(evaluate, batches))


def shortest(x: Floats, n_first: int) -> Floats:
    """Return ρ of pairs (P, n, 3) of molecules, of which the first has ``n_first`` atoms, (P,)."""
    rho = np.empty(len(x))
    if jit.AVAILABLE:
        loops.load("molecules").shortest(np.ascontiguousarray(x), n_first, rho)
        return rho
    step = max(1, NUMBERS // max(1, n_first * (x.shape[1] - n_first)))
    for k in range(0, len(x), step):
        some = slice(k, k + step)
        d = x[some, :n_first, None] - x[some, None, n_first:]
        inverse = 1.0 / np.einsum("pabx,pabx->pab", d, d)
        rho[some] = ((inverse**6).sum(axis=(1, 2))) ** (-1.0 / POWER)
    return rho


def switched(
    found: Evaluation, pairs: Neighbours, switch: Switch, sizes: Sequence[int]
) -> Evaluation:
    """Return S(R) times an evaluation of pairs, with the force and virial of the switch."""
    s, slope = switch(pairs.distance)
    pull = (slope * found.energy / pairs.distance)[:, None] * pairs.between  # on i; −pull on j
    forces = s[:, None, None] * found.forces
    forces[:, : sizes[0]] += pull[:, None] / sizes[0]
    forces[:, sizes[0] :] -= pull[:, None] / sizes[1]
    virial = s[:, None, None] * found.virial - pull[:, :, None] * pairs.between[:, None]
    return Evaluation(s * found.energy, forces, virial)


def faded(
    found: Evaluation, x: Floats, sizes: tuple[int, int], fade: tuple[float, float]
) -> Evaluation:
    """Return s(ρ) times an evaluation of pairs, with the force and virial of s."""
    owner: Ints = np.repeat([0, 1], sizes)
    blocks = FragmentBlocks(owner, np.ones((2, 2)), Reach(ALWAYS, fade))
    descriptor = PairDescriptor(len(owner))
    geometry = descriptor.geometry(x)
    nothing = np.zeros_like(geometry.descriptor)
    energy, g, s = blocks.fade(found.energy, nothing, geometry.descriptor)
    forces, virial = descriptor.pull_back(g, geometry)
    share = s[:, None, None]
    return Evaluation(energy, share * found.forces + forces, share * found.virial + virial)
