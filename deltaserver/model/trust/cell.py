"""Is a periodic cell large enough for the molecules in it?

A periodic model takes the nearest image of every pair. In a cell smaller than a molecule that is
the distance to another copy of it, and the forces mean nothing. Cells at least as large as the
one that a model was trained in are its own business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.errors import StructureError
from deltaserver.molecules.bonds import FragmentBonds

if TYPE_CHECKING:
    from deltaserver.model.composite import CompositeModel


TRAINED = 0.98  # of the training cell's heights: what a barostat may do without a question


def heights(cell: Floats) -> Floats:
    """Return the distances between opposite faces of a cell (vectors in columns), same unit."""
    result: Floats = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=1)
    return result


def check_cell(
    model: CompositeModel, bonds: tuple[FragmentBonds, ...], positions: Floats, cell: Floats
) -> None:
    """Refuse a cell that is lower, in any direction, than a molecule in it is long.

    Args:
        model: a periodic model.
        bonds: of its fragments: molecules that i-PI has wrapped are put together along them.
        positions: Å, (N, 3).
        cell: lattice vectors in columns, Å.

    Raises:
        StructureError: naming the fragment, its extent and the cell's height.
    """
    if not np.isfinite(cell).all() or np.linalg.matrix_rank(cell) < 3:
        return  # the evaluation refuses it
    trained = max(float(heights(lattice).min()) for lattice in model.lattices)
    found = heights(cell)
    if found.min() >= TRAINED * trained:
        return
    for some in bonds:
        if not len(some):
            continue
        fractional = _whole(some, positions @ np.linalg.inv(cell).T)
        extent = np.ptp(fractional, axis=0)
        k = int(extent.argmax())
        if extent[k] >= 1.0:
            raise StructureError(
                f"the cell is {found[k]:.2f} Å high along lattice vector {k}, less than the "
                f"{extent[k] * found[k]:.2f} Å of {some.name} in that direction: the molecule "
                "would meet its own image. Enlarge the start structure's cell"
            )


def _whole(bonds: FragmentBonds, fractional: Floats) -> Floats:
    """Return one molecule's fractional coordinates, put together along its bonds, (n, 3)."""
    placed = {int(bonds.i[0]): fractional[bonds.i[0]]}
    left = list(zip(bonds.i.tolist(), bonds.j.tolist(), strict=True))
    while left:
        rest = []
        for i, j in left:
            if (i in placed) == (j in placed):
                rest += [] if i in placed else [(i, j)]  # both placed: a ring is closed
                continue
            known, new = (i, j) if i in placed else (j, i)
            step = fractional[new] - fractional[known]
            placed[new] = placed[known] + step - np.rint(step)
        left = rest
    return np.array(list(placed.values()))
