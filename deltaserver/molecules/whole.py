"""Put molecules together that a periodic cell has cut, along their bonds.

Bonds are those of the nearest images (:mod:`deltaserver.molecules.bonds`). The molecules then go to
the images that are nearest to each other: a complex of theirs is looked at in vacuum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import GeometryError
from deltaserver.molecules.bonds import bond_reach, bonded_pairs
from deltaserver.molecules.elements import SYMBOLS

HALF = 0.5 - 1e-9


@dataclass(frozen=True)
class Repeats:
    """How a structure repeats: the cell's vectors in rows, Å, (3, 3), and along which of them."""

    cell: Floats
    pbc: tuple[bool, bool, bool]

    def steps(self, between: Floats) -> Ints:
        """Return how many cells to go back to the nearest images, (…, 3), of vectors, Å."""
        fractional = between @ np.linalg.inv(self.cell)
        steps: Ints = np.where(self.pbc, np.rint(fractional), 0.0).astype(np.int64)
        return steps

    def may_have_cut(self, positions: Floats) -> bool:
        """Tell whether any two atoms (N, 3) are more than half a cell apart: quick to say."""
        extent = np.ptp(positions @ np.linalg.inv(self.cell), axis=0)
        return bool((extent[list(self.pbc)] > HALF).any())

    @property
    def lowest(self) -> float:
        """The smallest distance between opposite faces that the structure repeats across, Å."""
        heights = 1.0 / np.linalg.norm(np.linalg.inv(self.cell), axis=0)
        return float(heights[list(self.pbc)].min())


def make_whole(numbers: Ints, positions: Floats, repeats: Repeats) -> Floats:
    """Return the positions (N, 3), Å, with molecules whole and nearest to each other.

    What the cell does not cut comes back unchanged.

    Raises:
        GeometryError: a molecule is bonded to its own image, or the cell is too small to tell.
    """
    if not any(repeats.pbc) or not repeats.may_have_cut(positions):
        return positions
    i, j = np.tril_indices(len(numbers), k=-1)
    between = positions[i] - positions[j]
    between -= repeats.steps(between) @ repeats.cell
    reach = bond_reach(numbers[i], numbers[j])
    if len(i) and repeats.lowest < 2.0 * float(reach.max()):
        raise GeometryError(
            f"the cell is {repeats.lowest:.2f} Å high, too small to tell which images are bonded"
        )
    bonded = bonded_pairs(numbers, i, j, np.linalg.norm(between, axis=-1) < reach)
    shifts, molecule = _along_bonds(numbers, positions, repeats, i[bonded], j[bonded])
    whole: Floats = positions + shifts @ repeats.cell
    shifts += _together(whole, molecule, repeats)[molecule]
    return positions + shifts @ repeats.cell if shifts.any() else positions


def _along_bonds(
    numbers: Ints, positions: Floats, repeats: Repeats, i: Ints, j: Ints
) -> tuple[Ints, Ints]:
    """Return by how many cells (N, 3) each atom is to be moved, and its molecule (N,)."""
    steps = repeats.steps(positions[i] - positions[j])  # atom i is to go back by these
    neighbours: list[list[tuple[int, Ints]]] = [[] for _ in numbers]
    for a, b, step in zip(i.tolist(), j.tolist(), steps, strict=True):
        neighbours[b].append((a, -step))
        neighbours[a].append((b, step))
    shifts = np.zeros((len(numbers), 3), np.int64)
    molecule = np.full(len(numbers), -1)
    for first in range(len(numbers)):
        if molecule[first] >= 0:
            continue
        molecule[first] = n = int(molecule.max()) + 1
        waiting = [first]
        while waiting:
            atom = waiting.pop()
            for other, step in neighbours[atom]:
                if molecule[other] < 0:
                    molecule[other], shifts[other] = n, shifts[atom] + step
                    waiting.append(other)
                elif not np.array_equal(shifts[other], shifts[atom] + step):
                    raise GeometryError(
                        f"the molecule of atom {first} ({SYMBOLS[numbers[first]]}) is bonded to "
                        f"its own image, by atoms {atom} and {other}: it has no end"
                    )
    return shifts, molecule


def _together(positions: Floats, molecule: Ints, repeats: Repeats) -> Ints:
    """Return by how many cells (M, 3) to move each molecule to be nearest to the others.

    The largest stays; then always the one that has the closest contact with those in place.
    """
    n = int(molecule.max()) + 1
    steps = np.zeros((n, 3), np.int64)
    atoms = [np.flatnonzero(molecule == k) for k in range(n)]
    left = sorted(range(n), key=lambda k: (-len(atoms[k]), k))
    placed = positions[atoms[left.pop(0)]]
    while left:
        found = [_contact(positions[atoms[k]], placed, repeats) for k in left]
        k = int(np.argmin([distance for distance, _ in found]))
        which, step = left.pop(k), found[k][1]
        steps[which] = step
        placed = np.concatenate([placed, positions[atoms[which]] + step @ repeats.cell])
    return steps


def _contact(some: Floats, placed: Floats, repeats: Repeats) -> tuple[float, Ints]:
    """Return the closest contact of two sets of atoms as images, Å, and the step to get there."""
    between = (some[:, None] - placed[None]).reshape(-1, 3)
    steps = repeats.steps(between)
    distances = np.linalg.norm(between - steps @ repeats.cell, axis=-1)
    # Of equally near images the one that is there already: nothing moves without need.
    best = distances < distances.min() + 1e-9
    k = int(np.argmin(np.where(best, np.abs(steps).sum(axis=1), np.inf)))
    return float(distances[k]), -steps[k]


def bond_tree(n_atoms: int, i: Ints, j: Ints) -> tuple[Ints, Ints]:
    """Return atoms 1 to n − 1 of a molecule in an order along its bonds (i, j), from atom 0.

    Each comes with an atom that it is bonded to and that stands before it; shapes (n − 1,).
    """
    neighbours: list[list[int]] = [[] for _ in range(n_atoms)]
    for a, b in zip(i.tolist(), j.tolist(), strict=True):
        neighbours[a].append(b)
        neighbours[b].append(a)
    order, parent = [0], {0: 0}
    for atom in order:  # grows while it is gone through
        for other in neighbours[atom]:
            if other not in parent:
                parent[other] = atom
                order.append(other)
    later = order[1:]
    return np.array(later, dtype=np.int64), np.array([parent[a] for a in later], dtype=np.int64)


def along_tree(x: Floats, cell: Floats, atoms: Ints, parents: Ints) -> Floats:
    """Return molecules (n, m, 3), Å, with every atom at the image nearest to its parent.

    Args:
        x: of alike molecules.
        cell: lattice vectors in columns, Å.
        atoms, parents: see :func:`bond_tree`.
    """
    inverse = np.linalg.inv(cell)
    steps = np.rint((x[:, atoms] - x[:, parents]) @ inverse.T)
    if not steps.any():
        return x
    shift = np.zeros(x.shape)  # in cells: of each atom those of its parent and its own
    for k, (atom, parent) in enumerate(zip(atoms.tolist(), parents.tolist(), strict=True)):
        shift[:, atom] = shift[:, parent] + steps[:, k]
    whole: Floats = x - shift @ cell.T
    return whole
