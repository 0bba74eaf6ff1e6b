"""Springs between the centres of mass of fragments, which drive the sampling and are in no label.

ASE constraints in the manner of ``ase.constraints.Hookean``. A spring pulls along the line
between two centres and its force is spread over each fragment by mass, so that it neither turns
nor bends a fragment, and moves and turns the complex as a whole not at all.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.datasets.frames import FragmentSpec


class CentreRestraint:
    """Holds the centres of every two fragments at a distance (Å) by ½k·x²: a window's bias."""

    def __init__(
        self, fragments: tuple[FragmentSpec, ...], distance: float, constant: float
    ) -> None:
        self.groups = [np.array(fragment.atoms) for fragment in fragments]
        self.distance, self.constant = distance, constant  # Å, eV/Å²

    def stretch(self, distance: float) -> float:
        """Return x = R − R₀ of two centres that are R apart, in Å."""
        return distance - self.distance

    def adjust_positions(self, atoms: Any, new: Floats) -> None:
        """Leave positions alone: ASE asks every constraint."""

    def adjust_momenta(self, atoms: Any, momenta: Floats) -> None:
        """Leave momenta alone: ASE asks every constraint."""

    def get_removed_dof(self, atoms: Any) -> int:
        """Return 0: a spring takes no degree of freedom away."""
        return 0

    def adjust_forces(self, atoms: Any, forces: Floats) -> None:
        """Add the springs' forces (eV/Å) to ``forces``, spread over each fragment by mass."""
        masses = atoms.get_masses()
        for first, second in combinations(self.groups, 2):
            between = self._between(atoms, first, second)
            distance = float(np.linalg.norm(between))
            if distance == 0.0:  # one centre on the other: nowhere to push
                continue
            force = self.constant * self.stretch(distance) * between / distance
            for group, sign in ((first, 1.0), (second, -1.0)):
                share = masses[group] / masses[group].sum()
                forces[group] += sign * share[:, None] * force

    def adjust_potential_energy(self, atoms: Any) -> float:
        """Return the springs' energy in eV."""
        distances = (
            float(np.linalg.norm(self._between(atoms, *pair)))
            for pair in combinations(self.groups, 2)
        )
        return sum(0.5 * self.constant * self.stretch(distance) ** 2 for distance in distances)

    @staticmethod
    def _between(atoms: Any, first: Any, second: Any) -> Floats:
        masses, positions = atoms.get_masses(), atoms.positions
        centres = [np.average(positions[g], axis=0, weights=masses[g]) for g in (first, second)]
        between: Floats = centres[1] - centres[0]
        return between


class FragmentWall(CentreRestraint):
    """Pulls two fragments together while their centres are further apart than allowed."""

    def stretch(self, distance: float) -> float:
        """Return x = R − R_max, or 0 within."""
        return max(0.0, distance - self.distance)
