"""From positions to forces of a sum over a group, in compiled loops from end to end.

Three steps: positions to queries in the group's Fourier space; the sum, in which threads share the
training points; slopes back to forces. Where the descriptor is weighted by fragments, entries that
count nowhere are not even worked out. The formulas are those of
:mod:`deltaserver.model.fragment_blocks` and :mod:`deltaserver.model.groups.fourier`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.compute.alignment import aligned, round_up
from deltaserver.model import loops
from deltaserver.model.fragment_blocks import FragmentBlocks
from deltaserver.model.groups.fourier import GroupFourier
from deltaserver.model.kernel.base import Task

if TYPE_CHECKING:
    from deltaserver.model.kernel.group import FourierSum

ROW = 16  # numbers that an orbit's row is filled up to
TOGETHER = 32  # geometries that the training points are read for at once


@dataclass(frozen=True)
class Ways:
    """There and back, for one model.

    Attributes:
        total: the sum.
        pairs: as loops take them: ``loops.groups.orbits.Pairs``.
        basis: likewise, ``loops.groups.orbits.Basis``.
        reach: where the model's share rises and where it falls, shape (4,); or empty.
    """

    total: FourierSum
    pairs: tuple[Ints, Floats, Floats, Floats]
    basis: tuple[Ints, Ints, Floats, Floats, Ints, Ints]
    reach: Floats

    @classmethod
    def of(cls, total: FourierSum, blocks: FragmentBlocks | None = None) -> Ways:
        """Lay out the ways of a sum over all pairs of atoms, or over those of ``blocks``."""
        if blocks is None:
            n_atoms = round((1.0 + np.sqrt(1.0 + 8.0 * len(total.centre))) / 2.0)
            kept = entries = np.arange(len(total.centre))
            scale, between = np.ones(len(kept)), np.zeros(len(kept))
            reach = np.zeros(0)
        else:
            n_atoms, kept, scale = len(blocks.fragment), blocks.kept, blocks.scale
            limits = blocks.reach
            reach = np.array((*limits.near, *limits.far) if limits else ())
            entries = np.union1d(kept, blocks.between) if limits else kept
            between = np.isin(entries, blocks.between).astype(np.float64)
        i, j = np.tril_indices(n_atoms, k=-1)
        here = np.searchsorted(entries, kept)  # of the kept pairs among all that are worked out
        weights, centre = np.zeros(len(entries)), np.zeros(len(entries))
        weights[here], centre[here] = scale, total.centre
        basis = _basis(total.fourier, total.places, here, len(entries))
        runs = _runs(i[entries], j[entries])
        return cls(total, (runs, weights, centre, between), basis, reach)

    def __call__(self, task: Task) -> float:
        """Fill the task's energies, forces and virials; see ``loops.evaluate.direct``."""
        n_batch = len(task.positions)
        return self.with_more(task, np.zeros(n_batch), np.empty(n_batch))

    def with_more(self, task: Task, more: Floats, share: Floats) -> float:
        """Fill as above, with energies (B,) from elsewhere that fade out as the sum does; and s."""
        if len(more) <= TOGETHER:
            return self._some(task, more, share)
        parts = [slice(k, k + TOGETHER) for k in range(0, len(more), TOGETHER)]
        return sum(self._some(task.part(some), more[some], share[some]) for some in parts)

    def _some(self, task: Task, more: Floats, share: Floats) -> float:
        n_batch, loop, total = len(more), loops.load("groups.orbits"), self.total
        finite: float
        if total.alone:
            arguments = (self.pairs, self.basis, self.reach, total.points, total.weights.sigma)
            finite = loop.by_orbits(*arguments, (more, share), tuple(task))
            return finite
        inverse, queries = np.empty((n_batch, len(self.pairs[1]))), aligned(n_batch, total.width)
        where = (task.positions, task.cell, self.pairs, self.basis, inverse)
        finite = loop.to_queries(*where, queries)
        results = (task.energy, task.forces, task.virial, share)
        fading = (task.scale, task.shift, more, self.reach)
        loop.to_forces(*where, total.sums_of(queries), fading, results)
        return finite


def _runs(i: Ints, j: Ints) -> Ints:
    """Return (i, first j, length) of runs of consecutive j."""
    starts = np.flatnonzero((np.diff(i, prepend=-1) != 0) | (np.diff(j, prepend=-2) != 1))
    return np.stack([i[starts], j[starts], np.diff(starts, append=len(i))], axis=1)


def _basis(
    fourier: GroupFourier, places: Ints, here: Ints, n_entries: int
) -> tuple[Ints, Ints, Floats, Floats, Ints, Ints]:
    """Return the change of basis for pairs of which ``here`` are those of the descriptor."""
    place, mixed, kinds = np.empty(len(here), dtype=np.int64), [], []
    matrices: tuple[list[Floats], list[Floats]] = [], []
    start = size = 0
    for kind in fourier.kinds:
        points, orbits = kind.entries.shape
        abreast = orbits > points
        stride = round_up(orbits if abreast else points, ROW)
        by_orbit, by_point = (1, stride) if abreast else (stride, 1)
        rows = start + by_orbit * np.arange(orbits)[:, None] + by_point * np.arange(points)
        place[kind.entries.T] = rows  # [orbits, points]
        mixed.append(rows.ravel())
        kinds.append((start, points, stride, orbits, size, abreast))
        fill = ((0, 0), (0, 0 if abreast else stride - points))
        # Abreast a matrix's columns are what orbits are multiplied with, else its rows.
        for flat, matrix in zip(matrices, (kind.basis, kind.basis.T), strict=True):
            flat.append(np.pad(matrix.T if abreast else matrix, fill).ravel())
        start += stride * (points if abreast else orbits)
        size += len(matrices[0][-1])
    of_entry = np.full(n_entries, start)  # beyond all rows, where it counts nowhere
    of_entry[here] = place
    straight, transposed = (np.concatenate(flat) for flat in matrices)
    rows = np.concatenate(mixed)[fourier.gather]
    return of_entry, np.array(kinds, dtype=np.int64), straight, transposed, rows, places
