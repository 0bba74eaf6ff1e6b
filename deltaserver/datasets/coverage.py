"""What distances between fragments the frames of a dataset cover."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.datasets.complexes import shortest_distance
from deltaserver.datasets.frames import LabelledFrames

# Narrow where binding changes from one to the next, in Å.
EDGES_ANG = (0.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0, 12.0, 15.0, 20.0)
BAR_WIDTH = 40


def shortest_distances(frames: LabelledFrames) -> Floats:
    """Return the shortest distance between atoms of different fragments, Å, (M,); ∞ for one."""
    groups = [np.array(fragment.atoms) for fragment in frames.fragments]
    return np.array(
        [
            min((shortest_distance(x[a], x[b]) for a, b in combinations(groups, 2)), default=np.inf)
            for x in frames.positions
        ]
    )


def coverage(frames: LabelledFrames) -> dict[str, int]:
    """Return how many frames have their shortest distance between fragments in which bin (Å).

    From the first bin with a frame to the last, those between without any included: holes show.
    Nothing for a single fragment.
    """
    if len(frames.fragments) < 2:
        return {}
    edges = np.array((*EDGES_ANG, np.inf))
    counts, _ = np.histogram(shortest_distances(frames), edges)
    names = [f"{a:g}-{b:g}" for a, b in pairwise(EDGES_ANG)]
    names.append(f"over {EDGES_ANG[-1]:g}")
    filled = np.flatnonzero(counts)
    return {names[k]: int(counts[k]) for k in range(filled[0], filled[-1] + 1)}


def coverage_lines(counts: dict[str, int]) -> list[str]:
    """Return a histogram of :func:`coverage` in lines of text."""
    if not counts:
        return []
    most = max(counts.values())
    rows = [
        f"{name:>9} {count:6d} {'#' * -(-BAR_WIDTH * count // most)}".rstrip()
        for name, count in counts.items()
    ]
    return ["shortest distance between fragments, Å: frames", *rows]
