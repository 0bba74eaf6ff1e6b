"""Which of the frames that may train are trained on: at random, by energy, or far from each other.

Frames of a trajectory are correlated, and most of what a point could tell a neighbour has told.
``farthest`` takes next, again and again, the frame whose least distance to those that are taken is
the largest [Gonzalez, Theor. Comput. Sci. 38, 293 (1985), DOI 10.1016/0304-3975(85)90224-5; for
molecules: Bartók et al., Sci. Adv. 3, e1701816 (2017), DOI 10.1126/sciadv.1701816]. The distance is
the novelty's: between descriptors, what permutations exchange left alone
(:mod:`deltaserver.model.trust.novelty`). Every trajectory gives its share, so that none is starved
by one that is hotter; those of a single frame, as along separations, share one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.trust.novelty import CHUNK_ROWS, OrbitFeatures
from deltaserver.statistics.draws import draw_farthest
from deltaserver.training.components import LabelledSet
from deltaserver.training.selection import draw_stratified

Selection = Literal["random", "strata", "farthest"]
SELECTIONS: tuple[str, ...] = get_args(Selection)
DEFAULT_SELECTION: Selection = "strata"
NONE: Ints = np.zeros(0, dtype=np.int64)


@dataclass(frozen=True)
class Candidates:
    """The entries of a labelled set that may be trained on.

    Attributes:
        data: the set.
        entries: of it, ascending, shape (K,).
        trajectory: that each comes from, shape (K,).
        perms: returns the permutations that the model will have, (S, N); asked where they matter.
        weights: of the descriptor's entries, shape (D,); None is all alike.
    """

    data: LabelledSet
    entries: Ints
    trajectory: Ints
    perms: Callable[[], Ints]
    weights: Floats | None = None

    def draw(
        self, how: str, count: int, seed: int, known: Ints = NONE, what: str = "training frames"
    ) -> Ints:
        """Return ``count`` entries, ascending, ``known`` ones among them.

        Raises:
            DataError: there are fewer, or ``count`` is not positive.
        """
        free = ~np.isin(self.entries, known)
        more, others = count - len(known), self.entries[free]
        if len(known) and not more:
            return known
        if how == "strata":
            energy = self.data.energy[others]
            drawn = others[draw_stratified(energy, more, seed, f"{self.data.name} {what}")]
            return np.sort(np.concatenate([known, drawn]))
        if not 0 < more <= len(others):
            raise DataError(
                f"{more} {self.data.name} {what} are wanted and {len(others)} are there; "
                f"ask for 1 to {len(others)}, or add frames"
            )
        if how == "random":
            drawn = np.random.default_rng(seed).choice(others, more, replace=False)
            return np.sort(np.concatenate([known, drawn]))
        places = draw_farthest(self.features(), self.trajectory, count, seed, ~free)
        return self.entries[places]

    def features(self) -> Floats:
        """Return what is compared of every entry, shape (K, n_features)."""
        pairs = PairDescriptor(len(self.data.numbers))
        parts = range(0, len(self.entries), CHUNK_ROWS)

        def descriptors(start: int) -> Floats:
            some = self.entries[start : start + CHUNK_ROWS]
            return pairs.geometry(self.data.positions[some]).descriptor

        mean = descriptors(0).mean(axis=0)
        features = OrbitFeatures.of(pairs, self.perms(), mean, self.weights)
        return np.concatenate([features(descriptors(start)) for start in parts])
