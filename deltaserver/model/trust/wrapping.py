"""Has a molecule been cut at the cell's boundary that a model takes for what it looks like?

i-PI wraps atoms into the cell where its input says ``pbc="true"``. A part that takes no nearest
images then sees bonds as long as the cell, or a fragment on the other side of it: its energy jumps
by electronvolts when the first atom crosses. That can happen at any step, so that every structure
is looked at; where no two atoms are half a cell apart, which is the rule, that takes microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import GeometryError, StructureError
from deltaserver.model.trust.structure import (
    WITH_BINDING,
    ExpectedStructure,
    lies_in_cell,
    spans_a_cell,
)

# Of a bond's or contact's length in training: what its nearest image may have, being whole, and
# what it itself has at least, being cut. A cell as small as that cuts nothing.
WHOLE, CUT = 1.5, 2.0


def check_repeats(name: str, cell: Floats | None, directions: Iterable[bool]) -> None:
    """Refuse a structure that does not repeat, of a model that does: its images are none.

    Where no cell is given a periodic model takes that of its directory, which an engine that says
    there is none does not mean.

    Raises:
        GeometryError: no cell, or a direction without images.
    """
    if cell is None or not all(directions):
        raise GeometryError(
            f"{name} is periodic and the structure is not: give it a cell, and pbc in all three "
            "directions"
        )


@dataclass(frozen=True)
class WrappingCheck:
    """Finds molecules and fragments that the cell has cut, for one model."""

    expected: ExpectedStructure

    def __call__(self, positions: Floats, cell: Floats, component: str = "total") -> None:
        """Refuse a structure that is whole only as nearest images.

        Args:
            positions: Å, (N, 3).
            cell: lattice vectors in columns, Å.
            component: what is served.

        Raises:
            StructureError: naming the first bond, or the fragment.
        """
        if not spans_a_cell(cell):
            return
        fractional = positions @ np.linalg.inv(cell).T
        if float(np.ptp(fractional, axis=0).max()) <= 0.5:
            return
        self._check_bonds(positions, fractional, cell, component)
        if component in WITH_BINDING:
            self._check_ions(positions, fractional, cell, component)

    def _check_bonds(
        self, positions: Floats, fractional: Floats, cell: Floats, component: str
    ) -> None:
        images = self.expected.images_of(component)
        for bonds in self.expected.bonds:
            across = np.rint(fractional[bonds.i] - fractional[bonds.j]).any(axis=1)
            for k in np.flatnonzero(across & ~images[bonds.i, bonds.j]):
                one = slice(k, k + 1)
                whole, cut = _lengths(positions, fractional, cell, bonds.i[one], bonds.j[one])
                if whole[0] < WHOLE * bonds.longest[k] and cut[0] > CUT * bonds.longest[k]:
                    a, b = sorted((int(bonds.i[k]), int(bonds.j[k])))
                    names = self.expected.names
                    raise StructureError(
                        f"the bond of atom {names[a]} and atom {names[b]} is {cut[0]:.2f} Å long: "
                        "the cell's boundary has cut it, and the model is not periodic. Start "
                        "from whole molecules and do not wrap them: in i-PI's input by "
                        'pbc="false" of the ffsocket'
                    )

    def _check_ions(
        self, positions: Floats, fractional: Floats, cell: Floats, component: str
    ) -> None:
        """Refuse a fragment without bonds, an ion, whose contact lies across the boundary.

        A molecule is cut while it crosses, which its bonds tell. Fragments that are apart in
        vacuum may be near an image of each other by chance, but not in the cell as well.
        """
        if not lies_in_cell(fractional):
            return  # nobody has wrapped that
        images, owner = self.expected.images_of(component), self.expected.owner
        bonded = {bonds.name for bonds in self.expected.bonds if len(bonds)}
        for place, longest in enumerate(self.expected.contacts):
            mine, others = np.flatnonzero(owner == place), np.flatnonzero(owner != place)
            known = np.isfinite(longest) and self.expected.names.fragments[place] not in bonded
            if not known or images[mine[0], others[0]]:
                continue
            i, j = (index.ravel() for index in np.meshgrid(mine, others, indexing="ij"))
            whole, cut = _lengths(positions, fractional, cell, i, j)
            if whole.min() < longest and cut.min() > CUT * longest:
                name = self.expected.names.fragments[place]
                raise StructureError(
                    f"{name} is {cut.min():.2f} Å from the other fragments: the cell's boundary is "
                    "between them, and the model is not periodic. Do not wrap atoms: in i-PI's "
                    'input by pbc="false" of the ffsocket'
                )


def _lengths(
    positions: Floats, fractional: Floats, cell: Floats, i: Ints, j: Ints
) -> tuple[Floats, Floats]:
    """Return the distances of atoms i and j as nearest images and as they stand, Å."""
    between = positions[i] - positions[j]
    steps = np.rint(fractional[i] - fractional[j])
    whole = np.linalg.norm(between - steps @ cell.T, axis=-1)
    return whole, np.linalg.norm(between, axis=-1)
