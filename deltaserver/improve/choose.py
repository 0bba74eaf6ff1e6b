"""Which frames are worth a label.

The next frame is the one that takes away most of the expected error of all that was seen,

    j = argmax_j Σ_i w_i c_ij² / (c_jj + ε),        c ← c − c_j c_jᵀ / (c_jj + ε)

c being the posterior covariance of the Gaussian process behind the uncertainty, and w_i such that
w_i c_ii = u_i² [active learning of Cohn, Ghahramani, Jordan, J. Artif. Intell. Res. 4, 129 (1996),
DOI 10.1613/jair.295; for Gaussian processes Seo et al., IJCNN 2000,
DOI 10.1109/IJCNN.2000.861310]. A frame far out, like no other, tells of itself alone and comes
late; one beside a training point has nothing to tell. None is taken that is nearer in the
descriptor to a training point, or to one that is taken, than a tenth of what novelty 1 is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.improve.doubt import Compared
from deltaserver.model.trust.uncertainty import JITTER, LEAST_SQUARED, squared_distances
from deltaserver.training.uncertainty.directory import spread_evenly

MOST_CANDIDATES = 1500  # a matrix of their number is made
ALIKE = 0.1  # of the distance that is novelty 1


@dataclass(frozen=True)
class Choice:
    """The frames that are taken, first the one that tells most.

    Attributes:
        places: of the candidates, shape (n,).
        distance: of each from the nearest training point or frame taken before it, in units of
            novelty 1.
    """

    places: Ints
    distance: Floats


def choose(
    doubt: Compared,
    positions: Floats,
    uncertainty: Floats,
    count: int,
    first: int | None = None,
) -> Choice:
    """Choose up to ``count`` of candidates (K, N, 3), Å, with uncertainties (K,); NaN is alike.

    Fewer are taken where the others are like those that are; ``first`` is taken in any case.
    """
    if not len(positions):
        return Choice(np.zeros(0, dtype=np.int64), np.zeros(0))
    spread, distance = doubt.spread, doubt.distance
    if spread is None or distance is None:
        some = spread_evenly(len(positions), count)
        return Choice(some, np.full(len(some), np.nan))
    f = doubt.features(positions)
    c = spread.covariance(f)
    u = np.where(np.isfinite(uncertainty), uncertainty, 1.0)
    weight = u**2 / np.maximum(np.diag(c), LEAST_SQUARED)
    nearest = _nearest(f, distance.points.astype(np.float64)) / distance.scale
    places: list[int] = []
    distances: list[float] = []
    while len(places) < count:
        gain = (weight[:, None] * c**2).sum(axis=0) / (np.diag(c) + JITTER)
        gain[nearest < ALIKE] = -1.0
        j = int(np.argmax(gain)) if places or first is None else first
        if gain[j] <= 0.0 and j != first:
            break
        places.append(j)
        distances.append(float(nearest[j]))
        column = c[:, j].copy()
        c -= np.outer(column, column) / (column[j] + JITTER)
        nearest = np.minimum(nearest, _nearest(f, f[j : j + 1]) / distance.scale)
    return Choice(np.array(places, dtype=np.int64), np.array(distances))


def choose_at_random(count: int, of: int, seed: Sequence[int]) -> Choice:
    """Choose ``count`` of ``of`` candidates at random: what choosing is compared with."""
    rng = np.random.default_rng([*seed])
    places = rng.choice(of, min(count, of), replace=False)
    return Choice(places, np.full(len(places), np.nan))


def _nearest(f: Floats, points: Floats) -> Floats:
    """Return the distance of every row of ``f`` (K, F) from the nearest of ``points``."""
    result: Floats = np.sqrt(squared_distances(f, points).min(axis=1))
    return result
