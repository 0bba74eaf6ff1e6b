"""Geometries in which one molecule is anywhere around, or within, another: no dynamics goes there.

Molecules are taken from frames that are sampled, each from its own, and put together anew: the
smaller one turned at random, and either stopped on its way towards an atom of the other from any
direction, or put anywhere within it where there is room. The shortest distance between two atoms
is uniform in its inverse, as descriptors are, so that contacts are dense. What two molecules do to
each other in a place, no spring and no force has softened: a wall is there as it is.

Of places in contact few have an energy on the wall that runs reach: a tenth of an ångström decides.
A first model knows where its own wall is, and those near it can be kept alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from deltaserver.arrays import Bools, Floats, Ints
from deltaserver.datasets.complexes import random_direction, random_rotation, shortest_distance
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.datasets.sampling.separations import approach
from deltaserver.errors import InputError
from deltaserver.model.composite import CompositeModel

WITHIN = 0.5  # of those whose gap is below
WITHIN_ANG = 3.5  # is looked for within the larger molecule first
ATTEMPTS = 200  # to find room there
ROOM_ANG = 0.1  # the gap that is found may be so much off the one that was drawn
AT_ONCE = 20  # are looked at, of those of which not all are wanted
DRAWS = 200  # of each that is wanted, at most


@dataclass(frozen=True)
class PlacementPlan:
    """So many geometries with gaps from ``nearest`` to ``farthest`` (Å), and a seed."""

    nearest: float
    farthest: float
    count: int
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse gaps that are none."""
        if not 0.0 < self.nearest < self.farthest:
            raise InputError(
                f"gaps go from {self.nearest:g} to {self.farthest:g} Å; expected the shorter one "
                "first, and more than 0"
            )


@dataclass(frozen=True)
class BindingRange:
    """Places where a model's binding energy is from ``low`` to ``high`` (eV)."""

    models: Path
    low: float
    high: float

    def of(self, frames: LabelledFrames) -> Callable[[Floats], Bools]:
        """Return what says of geometries (B, N, 3) of a dataset which are such.

        Raises:
            ManifestError: there is no such model.
            InputError: it is of other atoms, or has no binding.
        """
        model = CompositeModel.load(self.models)
        if not np.array_equal(model.numbers, frames.numbers):
            raise InputError(f"{self.models}: a model of other atoms than {frames.name}")
        model.check_component("binding")

        def wanted(positions: Floats) -> Bools:
            energy = model.evaluate(positions, "binding").energy
            return np.asarray((self.low <= energy) & (energy <= self.high))

        return wanted


def placements(
    frames: LabelledFrames,
    some: Ints,
    plan: PlacementPlan,
    wanted: Callable[[Floats], Bools] | None = None,
) -> Floats:
    """Return geometries of two molecules put together anew, Å, shape (count, N, 3).

    Args:
        frames: that molecules are taken from.
        some: which of them.
        plan: how many geometries, and how near.
        wanted: says of geometries (B, N, 3) which to keep, shape (B,); None: all.

    Raises:
        InputError: there are no frames, or other than two fragments, or hardly any is wanted.
    """
    if len(frames.fragments) != 2:
        raise InputError(
            f"{frames.name}: a place is one fragment's about another; "
            f"here are {len(frames.fragments)}"
        )
    if not len(some):
        raise InputError(f"{frames.name}: no frames are left to take molecules from")
    drawn = _drawn(frames, some, plan)
    if wanted is not None:
        drawn = _kept(drawn, wanted, DRAWS * plan.count)
    found = list(islice(drawn, plan.count))
    if len(found) < plan.count:
        raise InputError(
            f"{frames.name}: of {DRAWS * plan.count} places {len(found)} are wanted, not "
            f"{plan.count}; give other --gaps, a wider --binding or fewer --frames"
        )
    return np.array(found)


def _drawn(frames: LabelledFrames, some: Ints, plan: PlacementPlan) -> Iterator[Floats]:
    """Draw geometries without end."""
    host, guest = sorted((np.array(one.atoms) for one in frames.fragments), key=len, reverse=True)
    rng = np.random.default_rng(plan.seed)
    while True:
        x = np.empty((len(frames.numbers), 3))
        larger, smaller = frames.positions[rng.choice(some, size=2)]
        x[host] = larger[host] - larger[host].mean(axis=0)
        molecule = (smaller[guest] - smaller[guest].mean(axis=0)) @ random_rotation(rng).T
        gap = 1.0 / rng.uniform(1.0 / plan.farthest, 1.0 / plan.nearest)
        inside = gap < WITHIN_ANG and rng.random() < WITHIN
        place = _within(x[host], molecule, gap, rng) if inside else None
        x[guest] = molecule + (_towards(x[host], molecule, gap, rng) if place is None else place)
        yield x


def _kept(
    drawn: Iterator[Floats], wanted: Callable[[Floats], Bools], most: int
) -> Iterator[Floats]:
    """Yield what is wanted of the first ``most`` geometries."""
    for _ in range(0, most, AT_ONCE):
        some = np.array(list(islice(drawn, AT_ONCE)))
        yield from some[wanted(some)]


def _within(host: Floats, molecule: Floats, gap: float, rng: np.random.Generator) -> Floats | None:
    """Return a place in the sphere about the larger molecule with this gap; None: no room found."""
    radius = float(np.linalg.norm(host, axis=1).max())
    for _ in range(ATTEMPTS):
        place: Floats = radius * rng.random() ** (1.0 / 3.0) * random_direction(rng)
        if abs(shortest_distance(host, molecule + place) - gap) < ROOM_ANG:
            return place
    return None


def _towards(host: Floats, molecule: Floats, gap: float, rng: np.random.Generator) -> Floats:
    """Return where the molecule stops that comes from afar towards an atom of the larger one."""
    aim, direction = host[rng.integers(len(host))], random_direction(rng)
    place: Floats = aim + approach(host - aim, molecule, direction, gap) * direction
    return place
