"""Which molecules are near each other: a list of pairs, images in a cell included.

Points are sorted into bins as wide as the cutoff, so that each is compared with those of 27 bins
alone: the cost is linear in their number at fixed density. A cell may be smaller than the cutoff:
then a molecule meets several images of another one, and of itself.
"""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.compute import jit
from deltaserver.model import loops

ROUNDING = 1.0 + 1e-9  # points of a cell and the same points moved differ by rounding


class Neighbours(NamedTuple):
    """Pairs i ≤ j, each once: of molecule i, and of molecule j moved by some cells.

    Attributes:
        i, j: shape (P,).
        shift: what is to be added to j, Å, shape (P, 3).
        between: from i to j so moved, Å, shape (P, 3).
        distance: its length, shape (P,).
    """

    i: Ints
    j: Ints
    shift: Floats
    between: Floats
    distance: Floats

    def some(self, kept: Ints | np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Neighbours:
        """Return some of the pairs."""
        return Neighbours(
            self.i[kept], self.j[kept], self.shift[kept], self.between[kept], self.distance[kept]
        )


def find_neighbours(centres: Floats, cutoff: float, cell: Floats | None = None) -> Neighbours:
    """Return all pairs of points closer than ``cutoff``.

    Args:
        centres: Å, shape (n, 3).
        cutoff: Å; ∞ for all pairs, where there is no cell.
        cell: lattice vectors in columns, Å, or None.
    """
    if cell is None and not np.isfinite(cutoff):
        i, j = np.triu_indices(len(centres), k=1)
        return _measured(centres, i, j, np.zeros((len(i), 3)), cutoff)
    if cell is None:
        i, j = _near(centres, centres, cutoff)
        kept = i < j
        return _measured(centres, i[kept], j[kept], np.zeros((int(kept.sum()), 3)), cutoff)
    fractional = centres @ np.linalg.inv(cell).T
    home = np.floor(fractional)
    inside = fractional - home
    owner, steps = _images(inside, cutoff, cell)
    i, k = _near(inside @ cell.T, (inside[owner] + steps) @ cell.T, cutoff)
    j, cells = owner[k], steps[k] - home[owner[k]] + home[i]
    # Of the two ways to say a pair: the lower number first; of a molecule and its own image the
    # one that lies forward.
    forward = cells @ np.array([1e12, 1e6, 1.0]) > 0.0
    kept = (i < j) | ((i == j) & forward)
    return _measured(centres, i[kept], j[kept], cells[kept] @ cell.T, cutoff)


def _measured(centres: Floats, i: Ints, j: Ints, shift: Floats, cutoff: float) -> Neighbours:
    between = centres[j] + shift - centres[i]
    distance = np.sqrt(np.einsum("px,px->p", between, between))
    return Neighbours(i, j, shift, between, distance).some(distance < cutoff)


def _images(inside: Floats, cutoff: float, cell: Floats) -> tuple[Ints, Floats]:
    """Return of all images no farther than the cutoff from the cell: whose, and by which cells."""
    reach = cutoff * np.linalg.norm(np.linalg.inv(cell), axis=1)  # in fractions of the heights
    ranges = [range(-int(np.ceil(r)), int(np.ceil(r)) + 1) for r in reach]
    steps = np.array(list(product(*ranges)), dtype=np.float64)  # [S, 3]
    moved = inside[None] + steps[:, None]  # [S, n, 3]
    near = ((moved >= -reach) & (moved <= 1.0 + reach)).all(axis=2)
    which, owner = np.nonzero(near)
    return owner, steps[which]


def _near(points: Floats, others: Floats, cutoff: float) -> tuple[Ints, Ints]:
    """Return candidates (i, k), of points and of others: those in neighbouring bins, or fewer."""
    none = np.zeros(0, dtype=np.int64)
    if not len(points) or not len(others):
        return none, none
    low = np.minimum(points.min(axis=0), others.min(axis=0))
    bins = np.floor((others - low) / cutoff).astype(np.int64) + 1
    mine = np.floor((points - low) / cutoff).astype(np.int64) + 1
    n = np.maximum(bins.max(axis=0), mine.max(axis=0)) + 2  # an empty bin at every end
    stride = np.array([n[1] * n[2], n[2], 1])
    key = bins @ stride
    order = np.argsort(key, kind="stable")
    key = key[order]
    # Three bins along the last axis follow each other: nine ranges a point.
    around = np.array([(a, b, 0) for a in (-1, 0, 1) for b in (-1, 0, 1)]) @ stride
    middle = (mine @ stride)[:, None] + around  # [n, 9]
    start = np.searchsorted(key, middle - 1, side="left").ravel()
    count = np.searchsorted(key, middle + 1, side="right").ravel() - start
    if jit.AVAILABLE:
        found = np.empty((2, int(count.sum())), dtype=np.int64)
        n_found = loops.load("molecules").closer(
            points, others[order], (start, start + count), (ROUNDING * cutoff) ** 2, found
        )
        return found[0, :n_found], order[found[1, :n_found]]
    i = np.repeat(np.repeat(np.arange(len(points)), 9), count)
    first = np.cumsum(count) - count
    k = np.arange(len(i)) - np.repeat(first, count) + np.repeat(start, count)
    return i, order[k]
