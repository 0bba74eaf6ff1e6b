"""Langevin dynamics of many runs side by side, that goes back where the model does not know.

BAOAB [Leimkuhler, Matthews, Appl. Math. Res. Express 2013, 34, DOI 10.1093/amrx/abs010]: half a
kick, half a drift, friction and noise, half a drift, half a kick. Every ``interval`` steps one
looks: a frame that is doubted is a candidate for a label, and the run goes back to its last sure
frame, with new velocities, instead of on into what means nothing. All noise of a run comes from a
generator of its own, so that what is found does not depend on the other runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Protocol

import numpy as np

from deltaserver.arrays import Bools, Floats
from deltaserver.datasets.sampling.dynamics import POSITION_DECIMALS
from deltaserver.errors import GeometryError
from deltaserver.improve.doubt import Look
from deltaserver.improve.seen import Seen
from deltaserver.improve.settings import Dynamics
from deltaserver.model.composite import CompositeEvaluation, CompositeModel
from deltaserver.model.force_field import ForceField
from deltaserver.molecules.elements import ATOMIC_WEIGHT_U
from deltaserver.units import KB_EV_PER_K, from_ipi

WALL_EV_PER_ANG2 = 1.0  # the spring that brings fragments back, as in sampling
MOST_RETURNS = 5  # of one run, before it is given up
TORN_EV_PER_ANG = 100.0  # no force of a molecule that is whole is so large


@dataclass(frozen=True)
class Limits:
    """What counts as known.

    Attributes:
        novelty: the largest that does.
        uncertainty: likewise, eV/Å.
        wall: distance of two fragments' centres (Å) beyond which they are pulled together.
    """

    novelty: float
    uncertainty: float
    wall: float

    def sure(self, look: Look) -> Bools:
        """Tell which frames are known; without a calibration novelty alone decides."""
        certain = np.isnan(look.uncertainty) | (look.uncertainty <= self.uncertainty)
        result: Bools = certain & (look.novelty <= self.novelty)
        return result


class Watch(Protocol):
    """What looks at the frames of a run."""

    @property
    def model(self) -> ForceField:
        """The model that is run."""

    def __call__(self, positions: Floats, result: CompositeEvaluation) -> Look:
        """Look at frames (B, N, 3), Å, and what the model says of them."""


class Runs:
    """B runs of one model, from ``starts`` (B, N, 3), each with its own generator.

    Args:
        doubt: the model, and its measures.
        plan: how it is run.
        limits: what is known.
        seed: entropy of the generators; run b has (*seed, b).
        returning: whether runs go back where they are not sure; else they go on.
    """

    def __init__(
        self,
        doubt: Watch,
        plan: Dynamics,
        limits: Limits,
        seed: tuple[int, ...],
        returning: bool = True,
    ) -> None:
        self.doubt, self.model, self.plan, self.limits = doubt, doubt.model, plan, limits
        self.returning = returning
        self._rng = [np.random.default_rng([*seed, b]) for b in range(plan.runs)]
        # ASE's unit of time makes Å, eV and u one system.
        unit_fs = from_ipi("time", "ase")
        self._dt = plan.time_step / unit_fs
        self._keep = float(np.exp(-plan.friction * plan.time_step))
        self._mass = np.array([ATOMIC_WEIGHT_U[z] for z in self.model.numbers])[:, None]
        kelvin = [plan.temperatures[b % len(plan.temperatures)] for b in range(plan.runs)]
        self.temperature = np.array(kelvin)
        self._thermal = np.sqrt(KB_EV_PER_K * self.temperature[:, None, None] / self._mass)
        self._alive = np.ones(plan.runs, dtype=np.bool_)
        self._broken = np.zeros(plan.runs, dtype=np.bool_)  # stands until it is looked at
        self._last: CompositeEvaluation | None = None  # of the runs that go on, where they are

    def run(self, starts: Floats, tell: Callable[[float], None] = lambda done: None) -> Seen:
        """Run all of them and return what was seen; the start is not among it."""
        x, seen = starts.copy(), Seen()
        v = np.stack([self._noise(b) for b in range(len(x))])
        forces, sure_x = self._forces(x), x.copy()
        returns, lost = np.zeros(len(x), dtype=np.int64), np.zeros(len(x), dtype=np.bool_)
        for done in range(self.plan.interval, self.plan.steps + 1, self.plan.interval):
            for _ in range(self.plan.interval):
                x, v, forces = self._step(x, v, forces)
            look, torn = self._look(x), self._broken.copy()
            known = self.limits.sure(look) & ~torn
            lost |= torn
            for b in np.flatnonzero(self._alive & ~torn):
                self._enter(seen, x[b], (int(b), done), look, bool(known[b]))
            back = self._alive & (torn | ~known) if self.returning else np.zeros_like(torn)
            returns[back] += 1
            for b in np.flatnonzero(back):
                x[b], v[b] = sure_x[b], self._noise(int(b))
            sure_x[known] = x[known]
            self._alive &= (returns <= MOST_RETURNS) & (~torn | back)
            self._broken[:] = False
            forces = self._forces(x) if back.any() else forces
            tell(done / self.plan.steps)
            if not self._alive.any():
                break
        seen.returns, seen.lost = returns.tolist(), lost.tolist()
        return seen

    def _enter(
        self, seen: Seen, x: Floats, where: tuple[int, int], look: Look, known: bool
    ) -> None:
        b, step = where
        seen.positions.append(x.round(POSITION_DECIMALS))
        seen.run.append(b)
        seen.step.append(step)
        seen.temperature.append(float(self.temperature[b]))
        seen.novelty.append(float(look.novelty[b]))
        seen.uncertainty.append(float(look.uncertainty[b]))
        seen.sure.append(known)

    def _noise(self, b: int) -> Floats:
        """Return velocities (N, 3) drawn from Maxwell and Boltzmann's distribution."""
        noise: Floats = self._thermal[b] * self._rng[b].standard_normal((len(self._mass), 3))
        return noise

    def _step(self, x: Floats, v: Floats, forces: Floats) -> tuple[Floats, Floats, Floats]:
        half = 0.5 * self._dt
        v = v + half * forces / self._mass
        x = x + half * v
        noise = np.stack([self._noise(b) for b in range(len(x))])
        v = self._keep * v + np.sqrt(1.0 - self._keep**2) * noise
        v[~self._alive | self._broken] = 0.0
        x = x + half * v
        forces = self._forces(x)
        return x, v + half * forces / self._mass, forces

    def _forces(self, x: Floats) -> Floats:
        """Return forces with the wall's, eV/Å; of runs that stand, or break now, zeros."""
        forces = np.zeros(x.shape)
        rows = np.flatnonzero(self._alive & ~self._broken)
        if not len(rows):
            return forces
        found = self._evaluate(x[rows])
        bad = ~(np.abs(found).max(axis=(1, 2)) < TORN_EV_PER_ANG)  # NaN too
        self._broken[rows[bad]] = True
        if self._last is not None:
            self._last = self._last[np.flatnonzero(~bad)]
        for b, force in zip(rows[~bad], found[~bad], strict=True):
            forces[b] = force + self._wall(x[b])
        return forces

    def _evaluate(self, x: Floats) -> Floats:
        """Return forces of frames (B, N, 3); NaN of those that cannot be evaluated."""
        self._last = None
        with np.errstate(all="ignore"):
            try:
                self._last = self.model.evaluate(x)
                return self._last.forces
            except GeometryError:  # atoms that coincide, in one of them
                if len(x) == 1:
                    return np.full(x.shape, np.nan)
                forces = np.concatenate([self._evaluate(one[None]) for one in x])
                self._last = None
                return forces

    def _wall(self, x: Floats) -> Floats:
        """Return the forces (N, 3) of springs between centres of mass that are too far apart."""
        forces = np.zeros(x.shape)
        if not isinstance(self.model, CompositeModel):  # what leaves a cluster meets no other
            return forces
        groups = [fragment.atoms for fragment in self.model.fragments]
        for first, second in combinations(groups, 2):
            a, b = (np.average(x[g], axis=0, weights=self._mass[g, 0]) for g in (first, second))
            distance = float(np.linalg.norm(b - a))
            if not distance > self.limits.wall:
                continue
            pull = WALL_EV_PER_ANG2 * (distance - self.limits.wall) * (b - a) / distance
            for group, sign in ((first, 1.0), (second, -1.0)):
                forces[group] += sign * self._mass[group] / self._mass[group].sum() * pull
        return forces

    def _look(self, x: Floats) -> Look:
        """Look at the runs that go on; of the others everything is infinite."""
        novelty, uncertainty = np.full((2, len(x)), np.inf)
        rows = np.flatnonzero(self._alive & ~self._broken)
        if len(rows):
            last = self.model.evaluate(x[rows]) if self._last is None else self._last
            found = self.doubt(x[rows], last)
            novelty[rows], uncertainty[rows] = found.novelty, found.uncertainty
        return Look(novelty, uncertainty)
