"""Collective variables: distances, angles, dihedrals and planes of groups of atoms.

A group is reduced to its centre (of mass, or plain) or to its least-squares plane. No periodic
images are taken: a complex in vacuum has none, and i-PI does not wrap positions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from deltaserver.arrays import Floats

Kind = Literal["distance", "angle", "dihedral", "plane_angle", "plane_distance"]
Centre = Literal["mass", "geometry"]
CENTRES: tuple[Centre, ...] = ("mass", "geometry")

N_GROUPS: dict[Kind, int] = {
    "distance": 2,
    "angle": 3,
    "dihedral": 4,
    "plane_angle": 2,
    "plane_distance": 2,
}
PLANES: dict[Kind, tuple[int, ...]] = {"plane_angle": (0, 1), "plane_distance": (1,)}
MIN_PLANE_ATOMS = 3
UNIT: dict[Kind, str] = {
    "distance": "Å",
    "angle": "°",
    "dihedral": "°",
    "plane_angle": "°",
    "plane_distance": "Å",
}


PERIOD: dict[Kind, float] = {"dihedral": 360.0}


@dataclass(frozen=True)
class Variable:
    """One collective variable: what it is called and which atoms it is of.

    Distances are in Å; angles in degrees, 0 to 180, of planes 0 to 90, dihedrals −180 to 180. The
    distance of a point from a plane has the sign of the normal (r₂ − r₁) × (r₃ − r₁) of the
    plane's first three atoms.
    """

    name: str
    kind: Kind
    groups: tuple[tuple[int, ...], ...]
    centre: Centre = "mass"
    symbol: str = ""  # as figures show it, in matplotlib's mathtext
    about: str = ""

    @property
    def unit(self) -> str:
        """``Å`` or ``°``."""
        return UNIT[self.kind]

    @property
    def period(self) -> float | None:
        """After how much a value is the same again; None for what is not periodic."""
        return PERIOD.get(self.kind)

    @property
    def label(self) -> str:
        """Symbol and unit, for an axis."""
        return f"{self.symbol or self.name} / {self.unit}"

    @property
    def column(self) -> str:
        """Name and unit, for a table."""
        return f"{self.name}_{'ang' if self.unit == 'Å' else 'deg'}"

    def atoms_beyond(self, n_atoms: int) -> tuple[int, ...]:
        """Atoms that a structure of ``n_atoms`` does not have."""
        return tuple(atom for group in self.groups for atom in group if atom >= n_atoms)

    def values(self, positions: Floats, masses: Floats) -> Floats:
        """Return (B,) values from (B, N, 3) positions in Å and (N,) masses."""
        planes = PLANES.get(self.kind, ())
        parts = [
            positions[:, list(group)]
            if k in planes
            else centre_of(positions, masses, group, self.centre)
            for k, group in enumerate(self.groups)
        ]
        return FORMULAS[self.kind](*parts)


def centre_of(
    positions: Floats, masses: Floats, group: tuple[int, ...], centre: Centre = "mass"
) -> Floats:
    """Return the (B, 3) centre of mass, or the plain centre, of a group."""
    if len(group) == 1:
        return np.asarray(positions[:, group[0]])
    weights = masses[list(group)] if centre == "mass" else np.ones(len(group))
    return np.asarray((weights / weights.sum()) @ positions[:, list(group)])


def distance(a: Floats, b: Floats) -> Floats:
    """Return |b − a|."""
    return np.asarray(np.linalg.norm(b - a, axis=-1))


def angle(a: Floats, b: Floats, c: Floats) -> Floats:
    """Return the angle at ``b`` in degrees."""
    return _between(a - b, c - b)


def dihedral(a: Floats, b: Floats, c: Floats, d: Floats) -> Floats:
    """Return the dihedral a–b–c–d in degrees, IUPAC sign: clockwise from a to d is positive."""
    first, axis, last = b - a, c - b, d - c
    left, right = np.cross(first, axis), np.cross(axis, last)
    sine = (np.cross(left, right) * axis).sum(-1) / np.linalg.norm(axis, axis=-1)
    return np.asarray(np.degrees(np.arctan2(sine, (left * right).sum(-1))))


def plane_angle(a: Floats, b: Floats) -> Floats:
    """Return the angle of two least-squares planes, 0 to 90 degrees, from (B, n, 3) atoms."""
    between = _between(normal_of(a), normal_of(b))
    return np.minimum(between, 180.0 - between)


def plane_distance(point: Floats, plane: Floats) -> Floats:
    """Return the signed distance of (B, 3) points from the planes of (B, n, 3) atoms."""
    return np.asarray(((point - plane.mean(axis=1)) * normal_of(plane)).sum(-1))


def normal_of(atoms: Floats) -> Floats:
    """Return the unit normals (B, 3) of the least-squares planes through (B, n, 3) atoms."""
    about = atoms - atoms.mean(axis=1, keepdims=True)
    _, vectors = np.linalg.eigh(about.swapaxes(-1, -2) @ about)
    normal = vectors[..., 0]
    towards = np.cross(atoms[:, 1] - atoms[:, 0], atoms[:, 2] - atoms[:, 0])
    sign = np.where((normal * towards).sum(-1) < 0.0, -1.0, 1.0)
    return np.asarray(normal * sign[:, None])


def _between(a: Floats, b: Floats) -> Floats:
    """Return the angle of two vectors in degrees, exact near 0 and 180 too."""
    sine = np.linalg.norm(np.cross(a, b), axis=-1)
    return np.asarray(np.degrees(np.arctan2(sine, (a * b).sum(-1))))


FORMULAS: dict[Kind, Callable[..., Floats]] = {
    "distance": distance,
    "angle": angle,
    "dihedral": dihedral,
    "plane_angle": plane_angle,
    "plane_distance": plane_distance,
}
