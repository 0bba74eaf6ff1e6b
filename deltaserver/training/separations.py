"""Windows along the separation of two fragments: where each trajectory of one starts.

Dynamics in the well never leaves it. A window holds the distance of the fragments' centres by a
spring, all else is free. What a user states is not that distance, which means little for a guest
in a host, but how near the nearest atoms of the two fragments are when the window begins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deltaserver.errors import InputError
from deltaserver.training.complexes import random_rotation
from deltaserver.training.frames import Floats, FragmentSpec

# A dataset is refused in which a few frames are 5 Å apart from all others: see plausibility.py.
LONGEST_STEP_ANG = 4.0


@dataclass(frozen=True)
class SeparationPlan:
    """Windows whose shortest distances between fragments go from ``nearest`` to ``farthest`` (Å).

    Each of ``orientations`` has ``windows`` of them, a trajectory each, held by a spring of
    ``spring`` (eV/Å²).
    """

    nearest: float
    farthest: float
    orientations: int = 20
    windows: int = 8
    frames_per_window: int = 2
    spring: float = 2.0

    def __post_init__(self) -> None:
        """Refuse windows that no dynamics can be run in, or with holes between them."""
        if not 0.0 < self.nearest <= self.farthest:
            raise InputError(
                f"separations go from {self.nearest:g} to {self.farthest:g} Å; expected the "
                "shorter one first, and more than 0"
            )
        for name in ("orientations", "windows", "frames_per_window", "spring"):
            if getattr(self, name) <= 0:
                raise InputError(f"{name.replace('_', ' ')} is {getattr(self, name)}; must be > 0")
        step = float(np.diff(self.distances.ravel()).max(initial=0.0))
        if step > LONGEST_STEP_ANG:
            raise InputError(
                f"separations up to {self.farthest:g} Å in {self.n_trajectories} windows leave "
                f"{step:.1f} Å between the last two; use more --orientations or --windows"
            )

    @property
    def n_trajectories(self) -> int:
        """Number of windows of all orientations."""
        return self.orientations * self.windows

    @property
    def n_frames(self) -> int:
        """Number of frames of all windows."""
        return self.n_trajectories * self.frames_per_window

    @property
    def distances(self) -> Floats:
        """Shortest distance at the start of each window, in Å, (windows, orientations).

        Their ratio is constant, so that they are dense at contact; every orientation takes each
        ``orientations``-th, so that no distance is left out.
        """
        grid: Floats = np.geomspace(self.nearest, self.farthest, self.n_trajectories)
        return grid.reshape(self.windows, self.orientations)


@dataclass(frozen=True)
class Window:
    """One window: its orientation's number, its structure, and the spring between the centres.

    ``shortest_distance`` is that of two atoms of different fragments in ``positions`` (N, 3),
    ``centre_distance`` that of the fragments' centres of mass, all in Å.
    """

    orientation: int
    shortest_distance: float
    centre_distance: float
    spring: float
    positions: Floats

    def describe(self) -> dict[str, float]:
        """Return what a dataset's record keeps of it: lengths in Å, the spring in eV/Å²."""
        return {
            "orientation": self.orientation,
            "shortest_distance": round(self.shortest_distance, 4),
            "centre_distance": round(self.centre_distance, 4),
            "spring": self.spring,
        }


def parse_separations(text: str) -> tuple[float, float]:
    """Turn ``2.5:12`` into the nearest and the farthest separation in Å; InputError if not."""
    try:
        nearest, farthest = (float(part) for part in text.split(":"))
    except ValueError:
        raise InputError(
            f"--separations {text}: expected NEAREST:FARTHEST in Å, as in 2.5:12"
        ) from None
    return nearest, farthest


def check_two_fragments(fragments: tuple[FragmentSpec, ...]) -> None:
    """Refuse anything but a pair (InputError)."""
    if len(fragments) != 2:
        raise InputError(
            f"--separations are those of two fragments, here are {len(fragments)}; leave it out, "
            "or make one fragment of several"
        )


def make_windows(
    plan: SeparationPlan,
    orientation: int,
    seed: int,
    structure: tuple[Floats, Floats],
    fragments: tuple[FragmentSpec, ...],
) -> list[Window]:
    """Return the windows of one orientation; ``structure`` is positions (N, 3) and masses (N,).

    Both fragments are turned at random about their centres of mass, and the second then comes
    from afar in a random direction; all three are uniform.
    """
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(orientation,)))
    positions, masses = structure
    groups = [np.array(fragment.atoms) for fragment in fragments]
    first, second = (
        (positions[g] - np.average(positions[g], axis=0, weights=masses[g])) @ random_rotation(rng)
        for g in groups
    )
    direction = rng.normal(size=3)
    direction /= np.linalg.norm(direction)
    windows = []
    for gap in plan.distances[:, orientation]:
        distance = approach(first, second, direction, float(gap))
        placed = np.empty_like(positions)
        placed[groups[0]], placed[groups[1]] = first, second + distance * direction
        between = placed[groups[0]][:, None] - placed[groups[1]]
        shortest = float(np.linalg.norm(between, axis=-1).min())
        windows.append(Window(orientation, shortest, distance, plan.spring, placed))
    return windows


def approach(first: Floats, second: Floats, direction: Floats, gap: float) -> float:
    """Return how far from the first's centre the second's is stopped, coming from afar, in Å.

    Both are given about their centres; ``second`` moves against the unit vector ``direction``
    until two atoms are ``gap`` apart. Atoms i and j, r apart with the centres on each other, are so
    at the distance d with |r + d·u| = gap, that is d = −r·u + √(gap² − |r|² + (r·u)²); the first
    pair to meet has the largest d. Where none meets before the centres do, as in a wide ring, it
    is stopped there: 0.
    """
    between = second[None] - first[:, None]
    along = between @ direction
    reach = gap**2 - (between**2).sum(axis=-1) + along**2
    meets = reach >= 0.0
    return max(0.0, float((np.sqrt(reach[meets]) - along[meets]).max(initial=0.0)))
