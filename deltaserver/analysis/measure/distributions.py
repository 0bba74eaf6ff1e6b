"""Distances between the atoms of two groups: their density and how many lie within r."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deltaserver.analysis.measure.definitions import PairsSpec
from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError

N_BLOCKS = 10
MIN_BLOCKS = 4  # below which there is no error


@dataclass(frozen=True)
class PairDistribution:
    """ρ(r) of the distances between two groups, and the neighbours of an atom within r.

    A complex in vacuum has no bulk density to divide by: ``density`` is normalised so that
    ∫4πr²ρ dr over all r is 1, in Å⁻³. With a volume V a conventional g(r) is V ρ(r).
    ``neighbours`` is the mean number of the second group's atoms within the bin's outer edge
    of an atom of the first. Errors are standard errors over blocks of frames.
    """

    name: str
    edges_ang: Floats
    density: Floats
    density_error: Floats
    neighbours: Floats
    n_frames: int

    @property
    def r_ang(self) -> Floats:
        """Middles of the bins."""
        return (self.edges_ang[1:] + self.edges_ang[:-1]) / 2.0


def shell_volumes(edges: Floats) -> Floats:
    """Return the volumes of the shells between radii, Å³."""
    volumes: Floats = 4.0 / 3.0 * np.pi * np.diff(edges**3)
    return volumes


def error_over_blocks(rows: Floats, most: int = N_BLOCKS) -> Floats:
    """Return the standard error of the mean of frames (S, bins) over blocks; NaN with few frames.

    Args:
        rows: one of every frame, in the order of time.
        most: blocks at most.
    """
    n_blocks = min(most, len(rows))
    if n_blocks < MIN_BLOCKS:
        return np.full(rows.shape[1], np.nan)
    length = len(rows) // n_blocks
    blocks = rows[: n_blocks * length].reshape(n_blocks, length, -1).mean(axis=1)
    error: Floats = blocks.std(axis=0, ddof=1) / np.sqrt(n_blocks)
    return error


def pair_distribution(spec: PairsSpec, counts: Ints, n_beads: int = 1) -> PairDistribution:
    """Return the distribution from (S, bins) counts of the distances in S frames.

    Raises:
        DataError: no frames.
    """
    if not len(counts):
        raise DataError(f"{spec.name}: no frames to take distances from")
    edges = np.linspace(0.0, spec.max_ang, spec.bins + 1)
    rows = counts / (spec.n_pairs * n_beads * shell_volumes(edges))
    return PairDistribution(
        name=spec.name,
        edges_ang=edges,
        density=rows.mean(axis=0),
        density_error=error_over_blocks(rows),
        neighbours=np.cumsum(counts.mean(axis=0)) / (len(spec.first) * n_beads),
        n_frames=len(counts),
    )
