"""Whether forces along a curve are continuous: a jump stays when points move closer, slopes do not.

Four points h apart foretell the force between the two in the middle,

    F(x + h/2) ≈ [9 F(x) + 9 F(x + h) − F(x − h) − F(x + 2h)] / 16,

but for 3/128 h⁴ F''''. A jump J anywhere between x and x + h is missed by about J/2 whatever h is.
So every interval is divided until what is missed falls below what counts or h below ``FINEST``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deltaserver.arrays import Floats

COARSEST_ANG = 0.25
FINEST_ANG = 1e-6  # a kink, of the force's slope, is missed by no more than a tenth of this
PARTS = 4
RESOLVED = 0.5  # of the tolerance: what is smoother is not looked at more closely
MOST_INTERVALS = 64  # at a time, the worst ones: noise would divide without end


def largest_jump(
    forces: Callable[[Floats], Floats], low: float, high: float, tolerance: float
) -> float:
    """Return the largest jump of ``forces`` between ``low`` and ``high``; 0 if none is larger.

    Args:
        forces: takes points (K,), and returns forces, (K, …).
        low: where the curve begins, and with it
        high: where it ends, in Å.
        tolerance: the smallest jump that counts, in units of the forces.
    """
    n = max(1, int(np.ceil((high - low) / COARSEST_ANG)))
    width = (high - low) / n
    left: Floats = low + width * np.arange(n, dtype=np.float64)
    while len(left):
        missed = _missed(forces, left, width)
        left = (left[:, None] + width / PARTS * np.arange(PARTS)).ravel()
        width /= PARTS
        suspects = np.flatnonzero(missed > RESOLVED * tolerance)
        if width <= FINEST_ANG:
            return float(missed[suspects].max(initial=0.0))
        suspects = suspects[np.argsort(-missed[suspects])][:MOST_INTERVALS]
        left = left[suspects]
    return 0.0


def _missed(forces: Callable[[Floats], Floats], left: Floats, width: float) -> Floats:
    """Return twice what is missed in the middle of each part of each interval, flat."""
    h = width / PARTS
    whole, middles = np.arange(-1, PARTS + 2), np.arange(PARTS) + 0.5
    offsets = h * np.concatenate([whole, middles])
    points = (left[:, None] + offsets).ravel()
    found = forces(points).reshape(len(left), len(offsets), -1)
    f, middle = found[:, : len(whole)], found[:, len(whole) :]
    foretold = (9.0 * (f[:, 1:-2] + f[:, 2:-1]) - f[:, :-3] - f[:, 3:]) / 16.0
    missed: Floats = 2.0 * np.abs(middle - foretold).max(axis=-1).ravel()
    return missed
