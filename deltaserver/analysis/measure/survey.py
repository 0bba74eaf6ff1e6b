"""One pass over a trajectory: what is kept of every frame, in memory that frames' atoms never fill.

Of every frame a few numbers stay: its step, the collective variables, how the guests are turned,
the longest stretch of a bond. Of evenly spaced frames, fewer than twice ``MAX_SAMPLED``, stay the
positions (to look at) and the distances between groups.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from deltaserver.analysis.measure import rotation
from deltaserver.analysis.measure.definitions import PairsSpec, RotationSpec
from deltaserver.analysis.measure.variables import Variable
from deltaserver.arrays import Floats, Ints
from deltaserver.molecules.bonds import bond_reach, bonded_pairs
from deltaserver.statistics import correlation

Number = TypeVar("Number", np.float64, np.int64)

MAX_SAMPLED = 1000
PAIRS_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class Bonds:
    """Pairs of bonded atoms (n, 2) and their lengths in the first frame, Å."""

    pairs: Ints
    lengths: Floats

    def stretch(self, positions: Floats) -> Floats:
        """Return the largest ratio of a bond's length to its first, (B,), of (B, N, 3)."""
        if not len(self.pairs):
            return np.ones(len(positions))
        ends = positions[:, self.pairs[:, 1]] - positions[:, self.pairs[:, 0]]
        squares = np.einsum("bpc,bpc->bp", ends, ends)
        return np.asarray(np.sqrt((squares / self.lengths**2).max(axis=1)))


def find_bonds(positions: Floats, numbers: Ints) -> Bonds:
    """Return the bonds of (N, 3) positions, Å, of atoms with these atomic numbers (N,)."""
    from scipy.spatial import cKDTree

    kinds = np.unique(numbers)
    farthest = float(bond_reach(kinds[:, None], kinds).max())
    pairs = cKDTree(positions).query_pairs(farthest, output_type="ndarray").astype(np.int64)
    i, j = pairs.T
    lengths = np.linalg.norm(positions[j] - positions[i], axis=1)
    near = (lengths < bond_reach(numbers[i], numbers[j])) & (lengths > 0.0)
    bonded = bonded_pairs(numbers, i, j, near)
    return Bonds(pairs[bonded], lengths[bonded])


def molecules(bonds: Bonds, n_atoms: int) -> tuple[tuple[int, ...], ...]:
    """Return the atoms of every bonded whole, in the order of their first atoms."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    i, j = bonds.pairs.T
    graph = coo_array((np.ones(len(i)), (i, j)), shape=(n_atoms, n_atoms))
    count, labels = connected_components(graph, directed=False)
    found = [tuple(np.flatnonzero(labels == k).tolist()) for k in range(count)]
    return tuple(sorted(found))


@dataclass(frozen=True)
class Task:
    """What to find from every frame, and the first frame (N, 3) that turns are measured from."""

    reference: Floats
    masses: Floats
    bonds: Bonds
    variables: tuple[Variable, ...]
    rotations: tuple[RotationSpec, ...]
    pairs: tuple[PairsSpec, ...]


@dataclass(frozen=True)
class Sampled:
    """Evenly spaced frames: their steps (S,), positions (S, N, 3) and counts of pair distances."""

    steps: Ints
    positions: NDArray[np.float32]
    counts: Mapping[str, Ints]  # (S, bins) of every pair of groups


@dataclass(frozen=True)
class Surveyed:
    """What one pass found. ``values`` is (T, P, V): P beads, V variables."""

    steps: Ints
    values: Floats
    quaternions: Mapping[str, Floats]  # (T, 4) of every guest; of a linear one its axis, (T, 3)
    fit_ang: Mapping[str, float]  # how far a guest, on average, is from its turned first frame
    stretch: Floats
    sampled: Sampled
    n_overwritten: int

    def between(self, begin: int, end: int) -> Surveyed:
        """Return the frames from index ``begin`` up to ``end``."""
        first = self.steps[begin] if begin < len(self.steps) else np.inf
        last = self.steps[end - 1] if end > begin else -np.inf
        inside = (self.sampled.steps >= first) & (self.sampled.steps <= last)
        return Surveyed(
            steps=self.steps[begin:end],
            values=self.values[begin:end],
            quaternions={name: q[begin:end] for name, q in self.quaternions.items()},
            fit_ang=self.fit_ang,
            stretch=self.stretch[begin:end],
            sampled=_chosen(self.sampled, inside),
            n_overwritten=self.n_overwritten,
        )


def _chosen(sampled: Sampled, which: NDArray[np.bool_]) -> Sampled:
    counts = {name: rows[which] for name, rows in sampled.counts.items()}
    return Sampled(sampled.steps[which], sampled.positions[which], counts)


class Survey:
    """Takes blocks of frames one after another; :meth:`result` is what they amount to."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._steps: list[Ints] = []
        self._values: list[Floats] = []
        self._stretch: list[Floats] = []
        self._quaternions: dict[str, list[Floats]] = {r.guest: [] for r in task.rotations}
        self._squares: dict[str, float] = dict.fromkeys(self._quaternions, 0.0)
        self._n = 0
        self._every = 1
        self._ordinals: list[int] = []
        self._positions: list[NDArray[np.float32]] = []
        self._counts: dict[str, list[Ints]] = {pair.name: [] for pair in task.pairs}

    def add(self, steps: Ints, positions: Floats) -> None:
        """Take a block: steps (B,), positions (B, P, N, 3) in Å."""
        task = self.task
        finite = np.asarray(np.isfinite(positions.reshape(len(steps), -1)).all(axis=1))
        if not finite.all():
            positions = np.where(finite[:, None, None, None], positions, task.reference)
        flat = positions.reshape(-1, *positions.shape[2:])
        stretch = task.bonds.stretch(flat).reshape(len(steps), -1).max(axis=1)
        values = [v.values(flat, task.masses).reshape(len(steps), -1) for v in task.variables]
        shape = (len(steps), positions.shape[1], 0)
        self._steps.append(steps)
        self._stretch.append(np.where(finite, stretch, np.inf))
        self._values.append(np.stack(values, axis=-1) if values else np.empty(shape))
        centroid = positions.mean(axis=1)
        for spec in task.rotations:
            self._turn(spec, centroid)
        self._sample(centroid, positions)
        self._n += len(steps)

    def _turn(self, spec: RotationSpec, centroid: Floats) -> None:
        if spec.linear:
            self._turn_axis(spec, centroid)
            return
        guest = self._aligned(spec.guest_atoms, centroid)
        turned = guest
        if spec.host_atoms:
            turned = rotation.relative(guest, self._aligned(spec.host_atoms, centroid))
        self._quaternions[spec.guest].append(rotation.quaternions(turned))
        atoms = list(spec.guest_atoms)
        masses = self.task.masses[atoms]
        first = rotation.centred(self.task.reference[atoms], masses)
        rest = rotation.centred(centroid[:, atoms], masses) - first @ guest.swapaxes(-1, -2)
        self._squares[spec.guest] += float(((rest**2).sum(-1) @ masses).sum() / masses.sum())

    def _turn_axis(self, spec: RotationSpec, centroid: Floats) -> None:
        atoms = list(spec.guest_atoms)
        masses = self.task.masses[atoms]
        guest = centroid[:, atoms]
        axis = rotation.axes(self.task.reference[atoms], guest, masses)
        off = rotation.centred(guest, masses)
        off -= np.einsum("bnc,bc->bn", off, axis)[..., None] * axis[:, None]
        self._squares[spec.guest] += float(((off**2).sum(-1) @ masses).sum() / masses.sum())
        if spec.host_atoms:
            host = self._aligned(spec.host_atoms, centroid)
            axis = np.einsum("bji,bj->bi", host, axis)
        self._quaternions[spec.guest].append(axis)

    def _aligned(self, atoms: tuple[int, ...], centroid: Floats) -> Floats:
        some = list(atoms)
        return rotation.kabsch(self.task.reference[some], centroid[:, some], self.task.masses[some])

    def _sample(self, centroid: Floats, positions: Floats) -> None:
        first = -self._n % self._every
        for k in range(first, len(centroid), self._every):
            self._ordinals.append(self._n + k)
            self._positions.append(centroid[k].astype(np.float32))
            for pair in self.task.pairs:
                self._counts[pair.name].append(count_pairs(positions[k], pair))
        while len(self._ordinals) >= 2 * MAX_SAMPLED:
            self._every *= 2
            kept = [k for k, n in enumerate(self._ordinals) if n % self._every == 0]
            self._ordinals = [self._ordinals[k] for k in kept]
            self._positions = [self._positions[k] for k in kept]
            for name, rows in self._counts.items():
                self._counts[name] = [rows[k] for k in kept]

    def result(self) -> Surveyed:
        """Join everything; where a run went on from a checkpoint the later piece counts."""
        n_variables = len(self.task.variables)
        steps = _joined(self._steps, np.empty(0, np.int64))
        kept = correlation.later_wins(steps)
        values = _joined(self._values, np.empty((0, 1, n_variables)))
        stretch = _joined(self._stretch, np.empty(0))
        quaternions = {
            name: _joined(rows, np.empty((0, 4)))[kept] for name, rows in self._quaternions.items()
        }
        ordinals = np.array(self._ordinals, np.int64)
        n_atoms = len(self.task.reference)
        sampled = Sampled(
            steps=steps[ordinals],
            positions=np.array(self._positions, np.float32).reshape(-1, n_atoms, 3),
            counts={
                pair.name: np.array(self._counts[pair.name], np.int64).reshape(-1, pair.bins)
                for pair in self.task.pairs
            },
        )
        return Surveyed(
            steps=steps[kept],
            values=values[kept],
            quaternions=quaternions,
            fit_ang={n: float(np.sqrt(s / max(self._n, 1))) for n, s in self._squares.items()},
            stretch=stretch[kept],
            sampled=_chosen(sampled, kept[ordinals]),
            n_overwritten=int((~kept).sum()),
        )


def _joined(blocks: list[NDArray[Number]], none: NDArray[Number]) -> NDArray[Number]:
    return np.concatenate(blocks) if blocks else none


def count_pairs(positions: Floats, pair: PairsSpec) -> Ints:
    """Return (bins,) counts of the distances between two groups in (P, N, 3) positions.

    An atom of both groups is not counted with itself.
    """
    one, other = np.array(pair.first), np.array(pair.second)
    first, second = positions[:, one], positions[:, other]
    counts = np.zeros(pair.bins, np.int64)
    rows = max(1, PAIRS_AT_ONCE // (len(pair.second) * len(positions)))
    for k in range(0, len(pair.first), rows):
        distances = np.linalg.norm(first[:, k : k + rows, None] - second[:, None], axis=-1)
        distances = distances[:, one[k : k + rows, None] != other]
        bins = (distances * (pair.bins / pair.max_ang)).astype(np.int64).ravel()
        counts += np.bincount(bins[bins < pair.bins], minlength=pair.bins)
    return counts
