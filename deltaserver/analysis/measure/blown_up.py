"""Where a run that blew up began to: its last frames are no sample of anything.

A bond that has left its molecule ends the sampling wherever it is seen. In a run that is known to
have blown up, what led there is left out too: going back from the end, frames are dropped as long
as a bond's stretch or a variable is far outside what the earlier ones had.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deltaserver.analysis.measure.survey import Surveyed
from deltaserver.arrays import Floats

BROKEN_STRETCH = 1.75  # of a bond's first length
CALM = 0.75  # of the frames before the end: what the last ones are compared with
FAR = 4.0  # standard deviations, robustly, from the calm part's median
MIN_CALM_FRAMES = 8
MAD_TO_SIGMA = 1.4826  # of a normal distribution


def sound_frames(surveyed: Surveyed, blew_up: bool) -> int:
    """Return how many frames, from the first on, are a sample; ``blew_up``: the run is known to.

    Frames whose positions are NaN have an infinite stretch.
    """
    apart = np.flatnonzero(surveyed.stretch > BROKEN_STRETCH)
    end = int(apart[0]) if len(apart) else len(surveyed.steps)
    if not (blew_up or len(apart)):
        return end
    series = np.column_stack([surveyed.stretch, surveyed.values.mean(axis=1)])
    n_calm = int(CALM * end)
    if n_calm < MIN_CALM_FRAMES:
        return end
    strange = _far_out(series[:end], n_calm)
    calm = np.flatnonzero(~strange)
    return int(calm[-1]) + 1 if len(calm) else end


def _far_out(series: Floats, n_calm: int) -> NDArray[np.bool_]:
    """Tell which rows (T,) of (T, n) series are far outside what the first ``n_calm`` have."""
    calm = series[:n_calm]
    middle = np.median(calm, axis=0)
    sigma = MAD_TO_SIGMA * np.median(np.abs(calm - middle), axis=0)
    far = np.abs(series - middle) > np.where(sigma > 0.0, FAR * sigma, np.inf)
    return np.asarray(far.any(axis=1))
