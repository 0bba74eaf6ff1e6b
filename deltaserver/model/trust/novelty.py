"""How far a structure is from everything that a model was trained on.

An sGDML model compares descriptors D by |D(x) − P_s D(x_m)|, the least over its permutations: the
kernel distance to training point m. The novelty of a structure is the distance to the nearest
training point over the distance that the training points themselves keep from their nearest
neighbour, their 99 % quantile: up to about 1 a structure is as near to the training set as that
is to itself.

The minimum over permutations is never taken. A permutation moves descriptor entries within its
orbits only, so that what an orbit holds, in whatever order, is invariant; of that we keep, of n
entries, the least, the largest, and mean and spread of the rest (k = n − 2 of them):

    f = (min, max, √k mean, √k std)        |f(x) − f(x_m)| ≤ min_s |D(x) − P_s D(x_m)|

since sorting brings two sets of numbers as close as they can come, and mean and spread bound the
distance of sorted ones from below [Gelbrich, Math. Nachr. 147, 185 (1990),
DOI 10.1002/mana.19901470121]. For orbits of up to four entries nothing is lost. Where there are
very many orbits a part of them is kept, which bounds from below again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deltaserver.arrays import Floats, Ints, Singles
from deltaserver.compute import jit
from deltaserver.model import loops
from deltaserver.model.descriptor import PairDescriptor, spread
from deltaserver.model.files.parameters import ModelParameters

if TYPE_CHECKING:
    from deltaserver.model.composite import CompositeModel


QUANTILE = 0.99  # of the training points' own distances that novelty 1 stands for
MIN_TRAINING_POINTS = 20  # fewer tell nothing about such a quantile
MAX_FEATURES = 2048  # of an evaluation's cost a few per cent, whatever the size of the molecule
CHUNK_ROWS = 64


@dataclass(frozen=True)
class OrbitFeatures:
    """From descriptors to what their permutations leave alone: see the module.

    Attributes:
        order: the descriptor entries of the kept orbits, orbit by orbit.
        starts: where each orbit begins in ``order``.
        size: entries of each orbit.
    """

    order: Ints
    starts: Ints
    size: Ints

    @classmethod
    def of(
        cls, pairs: PairDescriptor, perms: Ints, mean: Floats, weights: Floats | None = None
    ) -> OrbitFeatures:
        """Find the orbits of pairs under permutations of the atoms, (S, N).

        ``mean`` (D,), the mean descriptor, tells which of them matter most. Where entries are
        weighted, those of the largest weight alone are looked at: a bound from below again.
        """
        label = _orbit_labels(pairs, perms)
        order = np.argsort(label, kind="stable")
        starts = np.flatnonzero(np.diff(label[order], prepend=-1))
        groups = np.split(order, starts[1:])
        if weights is not None:
            groups = [group for group in groups if weights[group[0]] == weights.max()]
        kept = [groups[k] for k in _choose(groups, mean)]
        size = np.array([len(group) for group in kept])
        return cls(np.concatenate(kept), np.cumsum(size) - size, size)

    def __call__(self, descriptor: Floats) -> Floats:
        """Turn descriptors (B, D) into features (B, n_features)."""
        q = descriptor.take(self.order, axis=1)
        if len(self.size) == len(self.order):
            return q  # every entry is an orbit of its own
        low = np.minimum.reduceat(q, self.starts, axis=1)
        high = np.maximum.reduceat(q, self.starts, axis=1)
        rest = np.maximum(self.size - 2, 1)
        mean = (np.add.reduceat(q, self.starts, axis=1) - low - high) / rest
        square = (np.add.reduceat(q * q, self.starts, axis=1) - low * low - high * high) / rest
        std = np.sqrt(np.maximum(square - mean * mean, 0.0))
        more, many, most = self.size > 1, self.size > 2, self.size > 3
        weight = np.sqrt(rest)
        return np.concatenate(
            [low, high[:, more], (weight * mean)[:, many], (weight * std)[:, most]], axis=1
        )


@dataclass(frozen=True)
class TrainingDistance:
    """The novelty of one sGDML model's descriptors.

    Attributes:
        features: of descriptors.
        centre: mean of the training points' features.
        points: those features less the centre, shape (M, n_features).
        squared: their squared norms, shape (M,).
        scale: the distance that is novelty 1, in the model's 1/length.
        pairs: from positions to descriptors.
        first, second: the atoms of the pairs in ``features.order``.
    """

    features: OrbitFeatures
    centre: Floats
    points: Singles
    squared: Floats
    scale: float
    pairs: PairDescriptor
    first: Ints
    second: Ints

    @classmethod
    def of(cls, parameters: ModelParameters) -> TrainingDistance | None:
        """Calibrate on a model's training points; None where these are too few, or all alike."""
        x = parameters.x
        if len(x) < MIN_TRAINING_POINTS:
            return None
        pairs = PairDescriptor(len(parameters.numbers))
        weights = None if parameters.blocks is None else parameters.blocks.by_pair
        features = OrbitFeatures.of(pairs, parameters.perms, x.mean(axis=0), weights)
        f = np.concatenate([features(x[k : k + CHUNK_ROWS]) for k in range(0, len(x), CHUNK_ROWS)])
        centre = f.mean(axis=0)
        points = (f - centre).astype(np.float32)
        squared = np.einsum("mf,mf->m", points, points, dtype=np.float64)
        nearest = [_nearest(points[m : m + 1], points, squared, skip=m) for m in range(len(points))]
        scale = float(np.quantile(np.concatenate(nearest), QUANTILE))
        if not scale > 0.0:
            return None
        first, second = pairs.i[features.order], pairs.j[features.order]
        return cls(features, centre, points, squared, scale, pairs, first, second)

    def __call__(self, positions: Floats, cell: Floats | None = None) -> Floats:
        """Return the novelty of positions (B, N, 3) in the model's length, shape (B,)."""
        return self.of_features(self.features_of(positions, cell))

    def of_features(self, f: Floats) -> Floats:
        """Return the novelty of features, less their centre, (B, n_features): shape (B,)."""
        single = f.astype(np.float32)
        if jit.AVAILABLE and len(f) == 1:
            squared: float = loops.load("novelty").nearest_squared(single[0], self.points)
            return np.array([np.sqrt(squared) / self.scale])
        return _nearest(single, self.points, self.squared) / self.scale

    def features_of(self, positions: Floats, cell: Floats | None = None) -> Floats:
        """Return the features of positions (B, N, 3), less their centre, (B, n_features)."""
        if jit.AVAILABLE and cell is None and len(positions) == 1:
            f = loops.load("novelty").features_of(
                np.ascontiguousarray(positions[0]), self.first, self.second,
                self.features.starts, self.features.size, self.centre,
            )  # fmt: skip
            single: Floats = f[None].astype(np.float64)
            return single
        return self.features(self.pairs.geometry(positions, cell).descriptor) - self.centre


class NoveltyMeasure:
    """The novelty of structures of a complex, component by component."""

    def __init__(self, model: CompositeModel) -> None:
        self._parts: list[_Part] = []
        known: dict[int, TrainingDistance | None] = {}  # fragments may share a model
        for part in model.parts:
            trained = part.trained
            if trained is None:
                continue
            parameters, unit = trained.parameters, trained.native.length_ang
            if id(parameters) not in known:
                known[id(parameters)] = TrainingDistance.of(parameters)
            distance = known[id(parameters)]
            if distance:
                self._parts.append(_Part(part.name, part.atoms, unit, parameters.lattice, distance))

        apart = spread(model.n_atoms, model.lattices)
        self(apart[None], self.components)  # compiles the loop before the first real step

    @property
    def components(self) -> tuple[str, ...]:
        """Return the parts that have a novelty: enough training points to calibrate it on."""
        return tuple(part.name for part in self._parts)

    def distance_of(self, name: str) -> TrainingDistance | None:
        """Return what a part's novelty is measured with; None where it has none."""
        return next((part.distance for part in self._parts if part.name == name), None)

    def features(
        self, positions: Floats, names: Collection[str], cell: Floats | None = None
    ) -> dict[str, Floats]:
        """Return what structures are compared by, (B, n_features) of every part in ``names``.

        Args:
            positions: Å, (B, N, 3).
            names: of fragments, ``"binding"``, ``"full"``.
            cell: lattice vectors in columns, Å; only periodic models look at it.
        """
        return {part.name: part(positions, cell) for part in self._parts if part.name in names}

    def of_features(self, features: Mapping[str, Floats]) -> dict[str, Floats]:
        """Return the novelty of every structure by part, shape (B,), of its features."""
        known = {part.name: part.distance for part in self._parts}
        return {name: known[name].of_features(f) for name, f in features.items()}

    def __call__(
        self, positions: Floats, names: Collection[str], cell: Floats | None = None
    ) -> dict[str, Floats]:
        """Return the novelty of every structure by part; see :meth:`features`."""
        return self.of_features(self.features(positions, names, cell))


@dataclass(frozen=True)
class _Part:
    name: str
    atoms: Ints
    length_ang: float
    lattice: Floats | None  # in the model's length
    distance: TrainingDistance

    def __call__(self, positions: Floats, cell: Floats | None) -> Floats:
        box = self.lattice
        if box is not None and cell is not None:
            box = cell / self.length_ang
        return self.distance.features_of(positions[:, self.atoms] / self.length_ang, box)


def _nearest(f: Singles, points: Singles, squared: Floats, skip: int | None = None) -> Floats:
    """Return the distance of every row of ``f`` to the nearest of ``points``."""
    own = np.einsum("bf,bf->b", f, f, dtype=np.float64)
    all_squared = own[:, None] + squared - 2.0 * (f @ points.T)
    if skip is not None:
        all_squared[:, skip] = np.inf
    result: Floats = np.sqrt(np.maximum(all_squared.min(axis=1), 0.0))
    return result


def _orbit_labels(pairs: PairDescriptor, perms: Ints) -> Ints:
    """Number the descriptor entries so that those which permutations exchange share a number.

    Every entry takes the least number that it is mapped to, until nothing changes: along a cycle
    of a permutation the numbers then cannot fall, and must be equal.
    """
    label = np.arange(pairs.dim)
    while True:
        lower = label.copy()
        for k in range(0, len(perms), CHUNK_ROWS):
            images = lower[pairs.permutations(perms[k : k + CHUNK_ROWS])]
            lower = np.minimum(lower, images.min(axis=0))
        if np.array_equal(lower, label):
            return label
        label = lower


def _choose(groups: list[Ints], mean: Floats) -> Ints:
    """Return which orbits to keep: the shortest distances, and of the others some at random."""
    cost = np.minimum([len(group) for group in groups], 4)
    if cost.sum() <= MAX_FEATURES:
        return np.arange(len(groups))
    by_length = np.argsort([-mean[group].mean() for group in groups], kind="stable")
    near = by_length[np.cumsum(cost[by_length]) <= MAX_FEATURES // 2]
    others = np.random.default_rng(0).permutation(np.setdiff1d(by_length, near))
    left = MAX_FEATURES - cost[near].sum()
    return np.sort(np.concatenate([near, others[np.cumsum(cost[others]) <= left]]))
