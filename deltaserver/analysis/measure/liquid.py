"""What many molecules show: g(r) of their centres, how these diffuse, and their density.

    g(r) = ⟨n(r)⟩ / (4/3 π (r₊³ − r₋³) N ρ)        MSD(t) = ⟨|x(t₀ + t) − x(t₀)|²⟩ = 6Dt + c

n(r) counts neighbours in a shell, images in the cell included, ρ is the number density of the
frame. The motion of all molecules together is taken off the MSD. D is of the cell: that of an
endless liquid is larger by 2.84 k_BT/(6πηL) [Yeh and Hummer, J. Phys. Chem. B 108, 15873 (2004),
DOI 10.1021/jp0477147]. Å, ps, g/cm³.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deltaserver.analysis.measure.distributions import (
    MIN_BLOCKS,
    error_over_blocks,
    shell_volumes,
)
from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError
from deltaserver.model.many.neighbours import find_neighbours
from deltaserver.statistics.correlation import Mean, mean_of

BIN_ANG = 0.1
N_BLOCKS = 8  # of frames, and groups of molecules
MIN_FRAMES = 20
WINDOW = (1 / 10, 1 / 4)  # of the trajectory, in which D is fitted
N_LAGS = 60


@dataclass(frozen=True)
class CentreDistribution:
    """g(r) of the centres of two species with its standard error, and neighbours within r."""

    name: str
    edges_ang: Floats
    g: Floats
    error: Floats
    neighbours: Floats
    n_frames: int

    @property
    def r_ang(self) -> Floats:
        """Middles of the bins."""
        return (self.edges_ang[1:] + self.edges_ang[:-1]) / 2.0


@dataclass(frozen=True)
class Displacement:
    """The MSD of a species' centres, Å², at lags, ps, and D of a line from ``begin_ps`` on."""

    name: str
    lag_ps: Floats
    msd_ang2: Floats
    d_ang2_per_ps: float
    error_ang2_per_ps: float
    begin_ps: float
    end_ps: float
    n_molecules: int

    @property
    def d_cm2_per_s(self) -> float:
        """D in cm²/s."""
        return 1e-4 * self.d_ang2_per_ps


@dataclass(frozen=True)
class Liquid:
    """What one run of many molecules shows; None and empty where it cannot be told.

    ``density_g_cm3`` is of every frame, (T,), in a cell; ``energy_ev`` of every row of the
    properties, per molecule, at ``energy_ps``.
    """

    n_molecules: int
    time_ps: Floats
    distributions: tuple[CentreDistribution, ...]
    displacements: tuple[Displacement, ...]
    density_g_cm3: Floats | None
    energy_ps: Floats | None
    energy_ev: Floats | None

    @property
    def density(self) -> Mean | None:
        """The mean density and its error."""
        return None if self.density_g_cm3 is None else mean_of(self.density_g_cm3)

    @property
    def energy(self) -> Mean | None:
        """The mean potential energy of a molecule and its error."""
        return None if self.energy_ev is None else mean_of(self.energy_ev)


def largest_radius(cells: Sequence[Floats]) -> float:
    """Return half the least height of cells (vectors in columns), Å: all of g(r) that is whole."""
    heights = [1.0 / np.linalg.norm(np.linalg.inv(cell), axis=1).max() for cell in cells]
    return 0.5 * float(min(heights))


def count_shells(
    centres: Floats, cell: Floats, first: Ints, edges: Floats
) -> dict[tuple[int, int], Floats]:
    """Return g(r) of one frame by species s ≤ t.

    Args:
        centres: Å, shape (n, 3), species by species.
        cell: lattice vectors in columns, Å.
        first: the number of each species' first molecule, and of one past the last.
        edges: of the bins, Å.
    """
    near = find_neighbours(centres, float(edges[-1]), cell)
    shells = shell_volumes(edges)
    volume = abs(float(np.linalg.det(cell)))
    kind_i, kind_j = (np.searchsorted(first, k, side="right") - 1 for k in (near.i, near.j))
    found = {}
    for s in range(len(first) - 1):
        for t in range(s, len(first) - 1):
            some = (kind_i == s) & (kind_j == t)
            counts, _ = np.histogram(near.distance[some], edges)
            n, m = (int(first[k + 1] - first[k]) for k in (s, t))
            pairs = n * m / (2.0 if s == t else 1.0)  # an ideal gas has so many at any place
            found[s, t] = counts * (volume / (pairs * shells))
    return found


def distribution(name: str, rows: Floats, edges: Floats, density: float) -> CentreDistribution:
    """Return g(r) of frames (S, bins) with errors over blocks; density of the second, Å⁻³."""
    g, error = rows.mean(axis=0), error_over_blocks(rows, N_BLOCKS)
    neighbours = np.cumsum(g * shell_volumes(edges) * density)
    return CentreDistribution(name, edges, g, error, neighbours, len(rows))


def unwrapped(centres: Floats, cells: Sequence[Floats] | None) -> Floats:
    """Return centres (T, n, 3) that never jump by a cell, from frame to frame at the nearest."""
    if cells is None:
        return centres
    steps = np.diff(centres, axis=0)
    jumps = np.stack([
        np.rint(step @ np.linalg.inv(cell).T) @ cell.T
        for step, cell in zip(steps, cells[1:], strict=True)
    ]) if len(steps) else steps  # fmt: skip
    moved: Floats = centres.copy()
    moved[1:] -= np.cumsum(jumps, axis=0)
    return moved


def displacement(name: str, x: Floats, frame_ps: float) -> Displacement:
    """Return the MSD of centres (T, n, 3), Å, and D with its error.

    The error is the scatter over groups of molecules, which move by themselves.

    Raises:
        DataError: too few frames.
    """
    n_frames = len(x)
    if n_frames < MIN_FRAMES:
        raise DataError(
            f"{n_frames} frames are too few for an MSD of centres; expected {MIN_FRAMES} or more"
        )
    lags = np.unique(np.linspace(1, n_frames // 2, N_LAGS).round().astype(np.int64))
    begin, end = (max(1, round(share * n_frames)) for share in WINDOW)
    inside = (lags >= begin) & (lags <= end)
    times = lags.astype(np.float64) * frame_ps
    each = np.array([((x[lag:] - x[:-lag]) ** 2).sum(axis=2).mean(axis=0) for lag in lags.tolist()])
    slopes = np.polyfit(times[inside], each[inside], 1)[0] / 6.0  # of every molecule
    groups = [some.mean() for some in np.array_split(slopes, min(N_BLOCKS, x.shape[1]))]
    enough = len(groups) >= MIN_BLOCKS
    error = float(np.std(groups, ddof=1) / np.sqrt(len(groups))) if enough else float("nan")
    return Displacement(
        name,
        times,
        each.mean(axis=1),
        float(slopes.mean()),
        error,
        float(times[inside][0]),
        float(times[inside][-1]),
        x.shape[1],
    )
