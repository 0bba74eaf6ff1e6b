"""What an analysis has found, as frozen records that tables, figures and the report are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from deltaserver.analysis.measure.binding import BindingFreeEnergy
from deltaserver.analysis.measure.definitions import Definitions, SurfaceSpec
from deltaserver.analysis.measure.distributions import PairDistribution
from deltaserver.analysis.measure.free_energy import Jacobian, Surface
from deltaserver.analysis.measure.liquid import Liquid
from deltaserver.analysis.measure.msad import Msad
from deltaserver.analysis.measure.reweighting import Weighted
from deltaserver.analysis.measure.survey import Surveyed
from deltaserver.analysis.measure.thermo import Drift, Temperature
from deltaserver.analysis.read.contributions import Series
from deltaserver.analysis.read.directory import Run
from deltaserver.arrays import Floats, Ints
from deltaserver.statistics import correlation


@dataclass(frozen=True)
class Options:
    """What the user asks for beyond the runs themselves.

    ``beads`` is ``all`` (every bead is a sample) or ``centroid``. ``variables`` with ``ranges``
    stand for the surfaces of the definitions, ``bins`` and ``jacobian`` change all of them. In
    biased runs, molecules nearer than ``bound_ang`` are bound, those in ``outer_ang`` are free.
    """

    models: Path | None = None
    definitions: Path | None = None
    skip_ps: float = 0.0
    until_ps: float | None = None
    temperature_k: float | None = None
    timestep_fs: float | None = None
    beads: str = "all"
    fit_window_ps: tuple[float, float] | None = None
    longest_ps: float | None = None
    variables: tuple[str, ...] = ()
    bins: int | None = None
    ranges: tuple[tuple[float, float], ...] = ()
    jacobian: Jacobian | None = None
    bound_ang: float | None = None
    outer_ang: tuple[float, float] | None = None


@dataclass(frozen=True)
class Break:
    """Where a run's molecules came apart: frames from there on are left out."""

    step: int
    time_ps: float | None
    stretch: float


@dataclass(frozen=True)
class Thermo:
    """Time (ps) or steps of the property rows, and what they show; None where a column lacks."""

    time_ps: Floats
    conserved_ev: Floats | None
    temperature_k: Floats | None
    drift: Drift | None
    temperature: Temperature | None


@dataclass(frozen=True)
class RunAnalysis:
    """One run's results. ``surfaces`` and the others are filled as far as they could be."""

    run: Run
    definitions: Definitions
    symbols: tuple[str, ...]
    surveyed: Surveyed
    frame_ps: float | None  # time between frames
    step_ps: float | None
    broken: Break | None
    last_step: int = 0  # of all frames that were written
    surfaces: tuple[tuple[SurfaceSpec, Surface], ...] = ()
    msads: Mapping[str, Msad] = field(default_factory=dict)
    pairs: tuple[PairDistribution, ...] = ()
    thermo: Thermo | None = None
    contributions: Mapping[str, Series] = field(default_factory=dict)
    liquid: Liquid | None = None  # of runs of many molecules
    exchanged: tuple[Ints, Floats] | None = None  # steps, potential (eV) of an exchange's kelvin

    @property
    def time_ps(self) -> Floats:
        """The frames' times, in ps; their steps where no time step is known."""
        return self.surveyed.steps.astype(np.float64) * (self.step_ps or 1.0)

    def values_of(self, name: str, centre: float | None = None) -> Floats:
        """Return (T, P) values of a variable.

        Dihedrals come without the jump at ±180°: their images nearest to ``centre``, by default
        to the circular mean.
        """
        names = [variable.name for variable in self.definitions.variables]
        values = self.surveyed.values[:, :, names.index(name)]
        period = self.definitions.variable(name).period
        if period is None or not values.size:
            return values
        if centre is None:
            centre = correlation.circular_mean(values, period)
        return correlation.around(values, centre, period)


@dataclass(frozen=True)
class Profile:
    """What biased runs amount to.

    Attributes:
        label: of the runs, and of files.
        method: ``umbrella`` or ``metadynamics``.
        runs: what was put together.
        variable: that was biased.
        weighted: samples and weights.
        surfaces: free energies, errors by bootstrap.
        hills_ev: of metadynamics, F at the middles of the bins of the biased variable's surface by
            the sum of hills.
        binding: the standard free energy, where it can be told.
    """

    label: str
    method: str
    runs: tuple[RunAnalysis, ...]
    variable: str
    weighted: Weighted
    surfaces: tuple[tuple[SurfaceSpec, Surface], ...]
    hills_ev: Floats | None = None
    binding: BindingFreeEnergy | None = None

    @property
    def main(self) -> tuple[SurfaceSpec, Surface] | None:
        """The surface of the biased variable alone."""
        return next((p for p in self.surfaces if p[0].variables == (self.variable,)), None)

    def as_run(self) -> RunAnalysis:
        """Return the first run with the surfaces of all, as figures and tables take it."""
        first = self.runs[0]
        return replace(
            first, run=replace(first.run, label=self.label), surfaces=self.surfaces, broken=None
        )


@dataclass(frozen=True)
class Analysis:
    """All runs, and what was told while they were read."""

    runs: tuple[RunAnalysis, ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]  # what was asked for and could not be done
    profiles: tuple[Profile, ...] = ()  # of biased runs together
