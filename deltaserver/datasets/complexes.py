"""A complex from its molecules: each put beside those before it, at van der Waals distance."""

from __future__ import annotations

import numpy as np

from deltaserver.arrays import Floats

STEP_ANG = 0.05


def place(molecules: list[Floats], gap: float, rng: np.random.Generator) -> list[Floats]:
    """Return the molecules' positions (Å) as a complex.

    The first stays, centred; every other is turned at random and moved along a random direction
    until no atom of it is closer than ``gap`` (Å) to an atom that is there already.
    """
    placed = [molecules[0] - molecules[0].mean(axis=0)]
    for molecule in molecules[1:]:
        turned = (molecule - molecule.mean(axis=0)) @ random_rotation(rng)
        direction = random_direction(rng)
        others, distance = np.concatenate(placed), 0.0
        while shortest_distance(turned + distance * direction, others) < gap:
            distance += STEP_ANG
        placed.append(turned + distance * direction)
    return placed


def shortest_distance(positions: Floats, others: Floats) -> float:
    """Return the shortest distance between an atom of one (N, 3) and one of the other, in Å."""
    return float(np.linalg.norm(positions[:, None] - others[None], axis=-1).min())


def random_direction(rng: np.random.Generator) -> Floats:
    """Return a unit vector, uniform over all directions."""
    direction: Floats = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    return direction


def random_rotation(rng: np.random.Generator) -> Floats:
    """Return a rotation matrix, uniform over all orientations (QR of a Gaussian matrix)."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    q[:, 0] *= np.linalg.det(q)
    rotation: Floats = q
    return rotation
