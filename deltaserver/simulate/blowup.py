"""Tell a run that has blown up from one that is only hot. No IO.

Three signs: a bond of the start structure stretched or squeezed beyond reason, a fragment that
has left the others, and a conserved quantity that is not conserved.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import GuardError
from deltaserver.model.composite import CompositeModel
from deltaserver.model.descriptor import nearest_images
from deltaserver.model.force_field import ForceField
from deltaserver.molecules.bonds import bond_reach, bonded_pairs
from deltaserver.molecules.elements import COVALENT_RADIUS_ANG, SYMBOLS

SQUEEZE = 0.5  # of the covalent radii's sum: closer than this, nuclei would have met
SEPARATION_EVERY = 10  # structures; a fragment needs many steps to leave


class BlowUpError(GuardError):
    """A run has blown up; ``positions_ang`` (N, 3) shows where, if that is known."""

    def __init__(self, reason: str, positions_ang: Floats | None = None) -> None:
        super().__init__(reason)
        self.positions_ang = positions_ang


@dataclass(frozen=True)
class Limits:
    """How far a run may go.

    Attributes:
        stretch: of a bond, in units of the covalent radii's sum.
        separation_ang: from a fragment's nearest atom to the next fragment's, Å; ∞ where
            molecules may go where they like.
        drift_ev_per_atom: of the conserved quantity from its first value.
    """

    stretch: float = 1.75
    separation_ang: float = 12.0
    drift_ev_per_atom: float = 0.1


class GeometryWatch:
    """Looks at every structure that is served.

    Bonds are the pairs of one fragment that are bonded in the first structure seen. For a
    ``periodic`` model distances are those of nearest images: i-PI may wrap atoms into the cell.
    """

    def __init__(
        self,
        numbers: Ints,
        fragments: Sequence[Ints],
        limits: Limits,
        periodic: bool = False,
        names: Sequence[str] = (),
    ) -> None:
        self.numbers = numbers
        self.fragments = fragments
        self.names = names or [str(k + 1) for k in range(len(fragments))]
        self.limits = limits
        self.periodic = periodic
        self._bonds: Ints | None = None
        self._sums: Floats = np.zeros(0)
        self._seen = 0

    @classmethod
    def of(cls, model: ForceField, limits: Limits) -> GeometryWatch:
        """Return what watches a model's structures; of many molecules any may leave."""
        if not isinstance(model, CompositeModel):
            limits = replace(limits, separation_ang=math.inf)
            return cls(model.numbers, model.molecules, limits, model.periodic)
        names = [fragment.name for fragment in model.fragments]
        return cls(model.numbers, model.molecules, limits, model.periodic, names)

    def check(self, positions_ang: Floats, cells_ang: Floats | None = None) -> None:
        """Raise BlowUpError if a structure has come apart.

        Args:
            positions_ang: Å, shape (B, N, 3).
            cells_ang: vectors in columns, Å, shape (B, 3, 3); looked at for a periodic model.
        """
        for k, one in enumerate(positions_ang):
            if not np.isfinite(one).all():
                raise BlowUpError("positions are not finite", one)
            cell = cells_ang[k] if self.periodic and cells_ang is not None else None
            if cell is not None and not abs(np.linalg.det(cell)) > 0.0:
                cell = None  # the evaluation refuses it
            if self._bonds is None:
                self._learn(one, cell)
            self._check_bonds(one, cell)
            if self._seen % SEPARATION_EVERY == 0:
                self._check_separation(one, cell)
            self._seen += 1

    def _learn(self, positions: Floats, cell: Floats | None) -> None:
        radius = np.array(COVALENT_RADIUS_ANG)[self.numbers]
        found = [np.zeros((0, 2), dtype=np.int64)]
        for atoms in self.fragments:
            later, earlier = (atoms[k] for k in np.tril_indices(len(atoms), k=-1))
            length = _lengths(positions[later] - positions[earlier], cell)
            near = length < bond_reach(self.numbers[later], self.numbers[earlier])
            bonded = bonded_pairs(self.numbers, later, earlier, near)
            found.append(np.stack([earlier, later], axis=1)[bonded])
        self._bonds = np.concatenate(found)
        self._sums = radius[self._bonds[:, 0]] + radius[self._bonds[:, 1]]

    def _check_bonds(self, positions: Floats, cell: Floats | None) -> None:
        assert self._bonds is not None
        i, j = self._bonds.T
        length = _lengths(positions[i] - positions[j], cell)
        wrong = (length > self.limits.stretch * self._sums) | (length < SQUEEZE * self._sums)
        if wrong.any():
            k = int(np.argmax(np.abs(np.log(length / self._sums)) * wrong))
            names = "–".join(f"{SYMBOLS[self.numbers[a]]}{a}" for a in self._bonds[k])
            raise BlowUpError(
                f"the bond {names} is {length[k]:.2f} Å long "
                f"({length[k] / self._sums[k]:.2f} covalent radii)",
                positions,
            )

    def _check_separation(self, positions: Floats, cell: Floats | None) -> None:
        if len(self.fragments) < 2 or self.limits.separation_ang == np.inf:
            return
        for k, atoms in enumerate(self.fragments):
            others = np.concatenate([o for n, o in enumerate(self.fragments) if n != k])
            between = positions[atoms][:, None] - positions[others]
            nearest = float(_lengths(between.reshape(-1, 3), cell).min())
            if nearest > self.limits.separation_ang:
                raise BlowUpError(
                    f"fragment {self.names[k]} is {nearest:.1f} Å away from the others", positions
                )


class DriftWatch:
    """Looks at the conserved quantity of one i-PI system."""

    def __init__(self, n_atoms: int, limits: Limits) -> None:
        self.allowed_ev = limits.drift_ev_per_atom * n_atoms
        self.first_ev: float | None = None

    def check(self, step: int, conserved_ev: float) -> None:
        """Raise BlowUpError if the conserved quantity has left its first value too far."""
        if self.first_ev is None:
            self.first_ev = conserved_ev
        change = conserved_ev - self.first_ev
        if not abs(change) <= self.allowed_ev:
            raise BlowUpError(
                f"the conserved quantity has changed by {change:+.3g} eV at step {step}; "
                f"{self.allowed_ev:.3g} eV are allowed"
            )


def _lengths(between: Floats, cell: Floats | None) -> Floats:
    """Return the lengths of vectors (n, 3), Å, of nearest images if there is a cell."""
    between = nearest_images(between, cell)
    lengths: Floats = np.sqrt(np.einsum("ij,ij->i", between, between))
    return lengths
