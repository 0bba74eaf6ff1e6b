"""Which structures dissociation and rotation curves are made of: two fragments, each kept rigid.

Dissociation: the first fragment moves along the line of the fragments' centres of mass,

    x_i(d) = x_i + d u for i in the first fragment,   u = (R_1 − R_2) / |R_1 − R_2|,

with d the *displacement* from where the curve starts: of orientation 0 the structure that was
given; of any other one, in which a fragment is turned at random, where two atoms come within
``CONTACT_ANG`` of each other for the first time, coming from afar along the same line. Rotation:
that fragment is turned about an axis through its centre, in the structure that was given. Å.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.complexes import random_rotation, shortest_distance
from deltaserver.datasets.frames import FragmentSpec
from deltaserver.datasets.sampling.separations import approach
from deltaserver.errors import DataError, InputError
from deltaserver.molecules.elements import ATOMIC_WEIGHT_U

DISSOCIATION: Final = "dissociation"
ROTATION: Final = "rotation"
Kind = Literal["dissociation", "rotation"]
# Dense where the well is, and to where nothing but charges is left.
DISPLACEMENTS_ANG = (
    *(-1.0 + 0.25 * k for k in range(13)),
    *(2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0),
)
ANGLES_DEG = tuple(15.0 * k for k in range(24))  # 360° is 0° again
CONTACT_ANG = 2.0
NEAREST_ANG = 1.0  # nearer atoms of two molecules are no contact but another molecule
SMALLEST_DISTANCE_ANG = 0.1  # of the centres: a shorter line has no direction
DECIMALS = 8  # as datasets keep positions


@dataclass(frozen=True)
class ScanPlan:
    """Which curves: so many dissociations and rotations; displacements in Å, ascending."""

    orientations: int = 3
    rotations: int = 2
    displacements: tuple[float, ...] = DISPLACEMENTS_ANG
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no curve."""
        if len(self.displacements) < 2 or min(np.diff(self.displacements)) <= 0.0:
            raise InputError("displacements of a scan: expected two or more, ascending, in Å")


@dataclass(frozen=True)
class Curve:
    """One curve: ``values`` are displacements in Å or angles in degrees.

    ``start_ang`` is the distance of the centres of mass at displacement 0.
    """

    kind: Kind
    number: int
    start_ang: float
    values: tuple[float, ...]

    @property
    def name(self) -> str:
        """Return what tables and figures call it."""
        of_what = "orientation" if self.kind == DISSOCIATION else "axis"
        return f"{self.kind}, {of_what} {self.number}"

    @property
    def unit(self) -> str:
        """Return the values' unit."""
        return "Å" if self.kind == DISSOCIATION else "°"


@dataclass(frozen=True)
class RigidPair:
    """Two fragments of a structure: positions (N, 3) in Å, masses in u, and whose atoms are whose.

    ``turning`` is the fragment that is turned: the first, or if that is a lone atom, the second.
    """

    positions: Floats
    masses: Floats
    groups: tuple[Ints, Ints]

    @classmethod
    def of(
        cls, numbers: Ints, positions: Floats, fragments: tuple[FragmentSpec, ...], where: str
    ) -> RigidPair:
        """Take the fragments apart.

        Raises:
            DataError: not two of them, or their centres are in one place.
        """
        if len(fragments) != 2:
            raise DataError(f"{where}: a scan is of two fragments, here are {len(fragments)}")
        first, second = (np.array(fragment.atoms) for fragment in fragments)
        pair = cls(positions, np.array(ATOMIC_WEIGHT_U)[numbers], (first, second))
        if pair.distance < SMALLEST_DISTANCE_ANG:
            raise DataError(
                f"{where}: the fragments' centres are {pair.distance:.2f} Å apart, which is no "
                "direction to pull in; give another structure with --structure"
            )
        return pair

    @property
    def turning(self) -> Ints:
        """Return the atoms of the fragment that is turned."""
        first, second = self.groups
        return first if len(first) > 1 else second

    @property
    def separation(self) -> Floats:
        """Return the vector from the second's centre of mass to the first's."""
        return self._centre(self.groups[0]) - self._centre(self.groups[1])

    @property
    def distance(self) -> float:
        """Return the distance of the centres of mass."""
        return float(np.linalg.norm(self.separation))

    @property
    def shortest(self) -> float:
        """Return the shortest distance between two atoms of different fragments."""
        return shortest_distance(*(self.positions[group] for group in self.groups))

    def moved(self, displacement: float) -> RigidPair:
        """Return the pair with the first fragment moved along the line of centres."""
        x = self.positions.copy()
        x[self.groups[0]] += displacement * self.separation / self.distance
        return replace(self, positions=x)

    def turned(self, rotation: Floats) -> RigidPair:
        """Return the pair with one fragment turned about its centre by a matrix (3, 3)."""
        x, group = self.positions.copy(), self.turning
        centre = self._centre(group)
        x[group] = (x[group] - centre) @ rotation.T + centre
        return replace(self, positions=x)

    def in_contact(self) -> RigidPair:
        """Return the pair at ``CONTACT_ANG``; where it is if nothing meets along the line."""
        first, second = (self.positions[g] - self._centre(g) for g in self.groups)
        met = approach(second, first, self.separation / self.distance, CONTACT_ANG)
        return self.moved(met - self.distance) if met > SMALLEST_DISTANCE_ANG else self

    def _centre(self, group: Ints) -> Floats:
        centre: Floats = np.average(self.positions[group], axis=0, weights=self.masses[group])
        return centre


def scan_curves(start: RigidPair, plan: ScanPlan) -> Iterator[tuple[Curve, Floats]]:
    """Yield every curve with its structures (V, N, 3), one of each value.

    Orientation k is drawn from (seed, 0, k) and axis k from (seed, 1, k). Points with atoms
    nearer than ``NEAREST_ANG`` or centres that have passed each other are left out; so are
    orientations and rotations of two lone atoms, which have none.
    """
    turns = len(start.turning) > 1
    for k in range(plan.orientations if turns else 1):
        pair = start
        if k > 0:
            rng = np.random.default_rng((plan.seed, 0, k))
            pair = start.turned(random_rotation(rng)).in_contact()
        values = [d for d in plan.displacements if pair.distance + d > SMALLEST_DISTANCE_ANG]
        points = {d: pair.moved(d) for d in values}
        yield _curve(DISSOCIATION, k, pair.distance, points)
    for k in range(plan.rotations if turns else 0):
        axis = np.random.default_rng((plan.seed, 1, k)).normal(size=3)
        points = {angle: start.turned(rotation_about(axis, angle)) for angle in ANGLES_DEG}
        yield _curve(ROTATION, k, start.distance, points)


def rotation_about(axis: Floats, angle_deg: float) -> Floats:
    """Return the matrix (3, 3) of a rotation: cos φ 1 + (1 − cos φ) n nᵀ + sin φ [n]ₓ."""
    n, angle = axis / np.linalg.norm(axis), np.radians(angle_deg)
    cross = np.array([[0.0, -n[2], n[1]], [n[2], 0.0, -n[0]], [-n[1], n[0], 0.0]])
    matrix: Floats = (
        np.cos(angle) * np.eye(3) + (1.0 - np.cos(angle)) * np.outer(n, n) + np.sin(angle) * cross
    )
    return matrix


def _curve(
    kind: Kind, number: int, distance: float, points: dict[float, RigidPair]
) -> tuple[Curve, Floats]:
    kept = {value: pair for value, pair in points.items() if pair.shortest >= NEAREST_ANG}
    positions = np.array([pair.positions for pair in kept.values()])
    return Curve(kind, number, distance, tuple(kept)), positions.round(DECIMALS)
