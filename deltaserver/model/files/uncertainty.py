"""What a model file says of how wrong its forces may be: five keys of ours, all or none.

A model without them has no uncertainty, and nothing is said of it. sgdml passes them over.
:mod:`deltaserver.model.trust.uncertainty` has the formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deltaserver.arrays import Ints
from deltaserver.errors import ModelFileError
from deltaserver.model.files.arrays import expect_shape, floats, integers

POINTS_KEY, NUMBERS_KEY = "uncertainty_points", "uncertainty"
UNCERTAINTY_KEYS = (POINTS_KEY, NUMBERS_KEY)
MAX_POINTS = 256  # a matrix of their number is applied in every step
MAX_EXPONENT = 4.0  # of anything that errors have been seen to grow with


@dataclass(frozen=True)
class UncertaintyBlock:
    """A calibrated uncertainty as a model file states it, in the file's own units.

    Attributes:
        points: the training points that the spread stands on, ascending, shape (r,).
        length: length scale of the spread's kernel, 1/length.
        scale: u where spread and force are 1, energy/length.
        spread_exponent: p of s^p.
        force_exponent: q of F^q.
        floor: the least F, energy/length: far away nothing is left of a binding model's force.
    """

    points: Ints
    length: float
    scale: float
    spread_exponent: float
    force_exponent: float
    floor: float

    def arrays(self) -> dict[str, Any]:
        """Return the block by the file's keys."""
        numbers = [
            self.length,
            self.scale,
            self.spread_exponent,
            self.force_exponent,
            self.floor,
        ]
        return {POINTS_KEY: self.points, NUMBERS_KEY: np.array(numbers)}


def parse_uncertainty(
    arrays: Mapping[str, Any], n_train: int, source: str
) -> UncertaintyBlock | None:
    """Validate the block of a model file of ``n_train`` points; None where it has none.

    Raises:
        ModelFileError: half a block, or one that no training has written.
    """
    there = [key in arrays for key in UNCERTAINTY_KEYS]
    if not any(there):
        return None
    if not all(there):
        raise ModelFileError(
            f"{source}: half of an uncertainty; expected {' and '.join(UNCERTAINTY_KEYS)}"
        )
    points = integers(arrays, POINTS_KEY, source).ravel()
    if not (
        0 < len(points) <= MAX_POINTS
        and points[0] >= 0
        and points[-1] < n_train
        and (np.diff(points) > 0).all()
    ):
        raise ModelFileError(
            f"{source}: {POINTS_KEY} are no 1 to {MAX_POINTS} ascending training points of "
            f"{n_train}"
        )
    numbers = floats(arrays, NUMBERS_KEY, source)
    expect_shape(source, NUMBERS_KEY, numbers, (5,))
    length, scale, p, q, floor = map(float, numbers)
    if min(length, scale, floor) <= 0.0 or not 0.0 <= min(p, q) <= max(p, q) <= MAX_EXPONENT:
        raise ModelFileError(
            f"{source}: {NUMBERS_KEY} is {numbers}; expected a length, a scale, two exponents "
            f"from 0 to {MAX_EXPONENT:g} and a floor, none negative"
        )
    return UncertaintyBlock(points, length, scale, p, q, floor)
