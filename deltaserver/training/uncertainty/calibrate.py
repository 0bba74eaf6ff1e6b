"""Calibrate how wrong a model's forces may be, on validation frames, never on test frames.

Of u = u₀ s^p F^q (:mod:`deltaserver.model.trust.uncertainty`), p and q are the least-squares
solution of ln e = ln u₀ + p ln s + q ln F over the frames, e being the RMS of a frame's force
errors; neither may be negative. The length ℓ of s is the multiple of the points' distance from
their nearest neighbour that leaves ln e the least spread about ln u. u₀ is then such that
68.27 % of all force components differ by less than u: one standard deviation, if errors were
normal.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.model.files.parameters import ModelParameters
from deltaserver.model.files.uncertainty import MAX_EXPONENT, MAX_POINTS, UncertaintyBlock
from deltaserver.model.trust.novelty import TrainingDistance
from deltaserver.model.trust.uncertainty import PosteriorSpread, rms, squared_distances, uncertainty
from deltaserver.statistics.draws import draw_farthest

LENGTHS = (1.0, 3.0, 10.0, 30.0)  # of the median distance of nearest neighbours
ONE_SIGMA = 0.6827  # of a normal distribution, within its standard deviation
MIN_FRAMES = 20  # fewer tell nothing about exponents
FLOOR = 0.01  # of the labels' spread: the least F


@dataclass(frozen=True)
class Residuals:
    """What a model says of validation frames, and by how much it is wrong, in its own units.

    Attributes:
        positions: shape (V, N, 3).
        forces: that the part gives there, of the binding with its prior, shape (V, N, 3).
        errors: of those, shape (V, N, 3).
    """

    positions: Floats
    forces: Floats
    errors: Floats


def calibrate(parameters: ModelParameters, found: Residuals) -> UncertaintyBlock | None:
    """Return the uncertainty of a model; None where points or frames are too few to tell."""
    error = rms(found.errors) if len(found.errors) else np.zeros(0)
    if len(error) < MIN_FRAMES or not error.min() > 0.0:
        return None
    distance = TrainingDistance.of(parameters)
    if distance is None:
        return None
    points = subset(distance)
    floor = FLOOR * parameters.std
    force = np.maximum(rms(found.forces), floor)
    f = distance.features_of(found.positions, parameters.lattice)
    best: tuple[float, UncertaintyBlock, Floats] | None = None
    for length in neighbours(distance) * np.array(LENGTHS):
        s = PosteriorSpread(distance, points, float(length))(f)
        p, q = _exponents(np.log(s), np.log(force), np.log(error))
        block = UncertaintyBlock(points, float(length), 1.0, p, q, floor)
        u = uncertainty(block, s, force)
        left = float(np.std(np.log(error / u)))
        if best is None or left < best[0]:
            best = (left, block, u)
    assert best is not None
    _, block, u = best
    scale = float(np.quantile(np.abs(found.errors) / u[:, None, None], ONE_SIGMA))
    return replace(block, scale=scale)


def subset(distance: TrainingDistance) -> Ints:
    """Return the training points that the spread stands on: all, or those far from each other."""
    n = len(distance.points)
    if n <= MAX_POINTS:
        return np.arange(n)
    features = distance.points.astype(np.float64)
    together = np.zeros(n, dtype=np.int64)
    return draw_farthest(features, together, MAX_POINTS, 0, np.zeros(n, dtype=np.bool_))


def neighbours(distance: TrainingDistance) -> float:
    """Return the median distance of a training point's features from their nearest neighbour."""
    points = distance.points.astype(np.float64)
    squared = squared_distances(points, points)
    np.fill_diagonal(squared, np.inf)
    return float(np.median(np.sqrt(squared.min(axis=1)))) or distance.scale


def _exponents(spread: Floats, force: Floats, error: Floats) -> tuple[float, float]:
    """Return p and q of ln e ≈ c + p ln s + q ln F, of (V,) each; neither is negative.

    Of the fits with both, one or none of them, that which leaves least and is allowed.
    """
    best, found = np.inf, (0.0, 0.0)
    for use in product((True, False), repeat=2):
        columns = [np.ones(len(error))]
        columns += [some for some, wanted in zip((spread, force), use, strict=True) if wanted]
        matrix = np.stack(columns, axis=1)
        solution = np.linalg.lstsq(matrix, error, rcond=None)[0]
        left = float(((matrix @ solution - error) ** 2).sum())
        values = iter(solution[1:])
        p, q = (float(next(values)) if wanted else 0.0 for wanted in use)
        if left < best and 0.0 <= min(p, q) <= max(p, q) <= MAX_EXPONENT:
            best, found = left, (p, q)
    return found
