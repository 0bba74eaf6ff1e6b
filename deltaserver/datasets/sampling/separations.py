"""Windows along the separation of two fragments: where each trajectory of one starts.

Dynamics in the well never leaves it. A window holds the distance of the fragments' centres by a
spring, all else is free. What a user states is not that distance, which means little for a guest
in a host, but how near the nearest atoms of the two fragments are when the window begins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.datasets.complexes import random_direction, random_rotation, shortest_distance
from deltaserver.datasets.frames import FragmentSpec
from deltaserver.errors import InputError

# A dataset is refused in which a few frames are 5 Å apart from all others: see plausibility.py.
LONGEST_STEP_ANG = 4.0


@dataclass(frozen=True)
class SeparationPlan:
    """Windows whose shortest distances between fragments go from ``nearest`` to ``farthest`` (Å).

    Each of ``orientations`` has ``windows`` of them, a trajectory each, held by a spring of
    ``spring`` (eV/Å²). The first ``pulled`` orientations are the start structure's own.
    """

    nearest: float
    farthest: float
    orientations: int = 20
    windows: int = 8
    frames_per_window: int = 2
    spring: float = 2.0
    pulled: int = 0

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
        if not 0 <= self.pulled <= self.orientations:
            raise InputError(f"{self.pulled} of {self.orientations} orientations cannot be pulled")
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


def parse_separations(text: str, option: str = "--separations") -> tuple[float, float]:
    """Turn ``2.5:12`` into the nearest and the farthest separation in Å; InputError if not."""
    try:
        nearest, farthest = (float(part) for part in text.split(":"))
    except ValueError:
        raise InputError(f"{option} {text}: expected NEAREST:FARTHEST in Å, as in 2.5:12") from None
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
    """Return the windows of one orientation; ``structure`` is positions (N, 3) and masses (N,)."""
    positions, masses = structure
    groups = [np.array(fragment.atoms) for fragment in fragments]
    centres = [np.average(positions[g], axis=0, weights=masses[g]) for g in groups]
    parts = (positions[groups[0]] - centres[0], positions[groups[1]] - centres[1])
    if orientation < plan.pulled:
        direction, distances = _pulled(plan, orientation, parts, centres[1] - centres[0])
    else:
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(orientation,)))
        parts, direction, distances = _turned(plan, orientation, parts, rng)
    windows = []
    for distance in distances:
        placed = np.empty_like(positions)
        placed[groups[0]], placed[groups[1]] = parts[0], parts[1] + distance * direction
        shortest = shortest_distance(placed[groups[0]], placed[groups[1]])
        windows.append(Window(orientation, shortest, float(distance), plan.spring, placed))
    return windows


def _turned(
    plan: SeparationPlan, orientation: int, parts: tuple[Floats, Floats], rng: np.random.Generator
) -> tuple[tuple[Floats, Floats], Floats, Floats]:
    """Turn both fragments at random; return them, a direction, and distances of the centres.

    The second fragment comes from afar. Rotations and direction are uniform.
    """
    first, second = (part @ random_rotation(rng) for part in parts)
    direction = random_direction(rng)
    gaps = plan.distances[:, orientation]
    distances = np.array([approach(first, second, direction, gap) for gap in gaps])
    return (first, second), direction, distances


def _pulled(
    plan: SeparationPlan, orientation: int, parts: tuple[Floats, Floats], between: Floats
) -> tuple[Floats, Floats]:
    """Pull the second fragment out of where the start has it; return direction and distances.

    From pushed in, until atoms are ``nearest`` apart, to out, where they are ``farthest`` apart.
    A guest half out of its host still touches it: the way is divided by the centres' distance, as
    densely as the shortest distances of other orientations are.
    """
    now = float(np.linalg.norm(between))
    direction = between / now if now > 0.0 else np.array([0.0, 0.0, 1.0])
    low = approach(*parts, direction, plan.nearest, before=now)
    high = approach(*parts, direction, plan.farthest)
    way = (plan.distances[:, orientation] - plan.nearest) / max(plan.farthest - plan.nearest, 1e-9)
    return direction, low + way * (high - low)


def approach(
    first: Floats, second: Floats, direction: Floats, gap: float, before: float = np.inf
) -> float:
    """Return how far from the first's centre the second's is stopped, coming from afar, in Å.

    Or coming from ``before`` (Å), past what touches further out.

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
    stops = np.sqrt(reach[meets]) - along[meets]
    return float(stops[stops <= before].max(initial=0.0))
