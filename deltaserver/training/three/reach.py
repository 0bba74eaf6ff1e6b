"""How far apart three molecules may be for what is known of them: as far as they were in training.

The kernel says nothing of triples that are wider than those it has seen, of which a liquid has
very many, so that it ends where they do, and begins to two ångström before.
"""

from __future__ import annotations

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.frames import LabelledFrames

FADE_ANG = 2.0
DIGITS = 2  # of lengths in model.yaml


def widest(frames: LabelledFrames, points: Ints) -> Floats:
    """Return the largest of three distances of centres, Å, of frames ``points``, shape (K,)."""
    x = frames.positions[points]
    centres = [x[:, np.array(one.atoms)].mean(axis=1) for one in frames.fragments]
    a, b, c = centres
    largest: Floats = np.max([np.linalg.norm(d, axis=1) for d in (b - a, c - b, a - c)], axis=0)
    return largest


def fade_of(frames: LabelledFrames, points: Ints) -> tuple[float, float]:
    """Return from which distance of centres to which, Å, what was trained on them is to end."""
    stop = round(float(widest(frames, points).max()), DIGITS)
    return round(max(stop - FADE_ANG, 0.5 * stop), DIGITS), stop
