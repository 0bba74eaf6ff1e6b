"""From run directories to results: read every trajectory once, then make what was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from deltaserver.analysis.biased import profiles
from deltaserver.analysis.exchange import sort_by_temperature
from deltaserver.analysis.measure import distributions, free_energy, msad, thermo
from deltaserver.analysis.measure.definitions import SurfaceSpec
from deltaserver.analysis.molecules import liquid_of
from deltaserver.analysis.read import contributions
from deltaserver.analysis.read.directory import Run
from deltaserver.analysis.read.properties import Properties, read_properties
from deltaserver.analysis.reading import (
    Note,
    Notes,
    Progress,
    read,
    times_and_sound_rows,
    without_gap,
)
from deltaserver.analysis.results import Analysis, Options, RunAnalysis, Thermo
from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError, InputError
from deltaserver.statistics.correlation import circular_mean

PARTS = ("variables", "fes", "msad", "rdf", "thermo", "molecules", "contributions")
MIN_MATCH = 0.3


def analyse(
    runs: Sequence[Run],
    options: Options,
    parts: Sequence[str] = PARTS,
    note: Note = lambda _: None,
    progress: Progress = lambda _label, _n: None,
) -> Analysis:
    """Analyse runs; what cannot be done is told and in ``problems``, the rest is done.

    Raises:
        DataError: a trajectory cannot be read at all.
        MissingExtraError: ASE, which a trajectory needs, is not installed.
    """
    notes = Notes(note)
    found = list(_read_all(runs, options, parts, notes, progress))
    found = sort_by_temperature(found, notes)
    done = [_finish(one, found, options, parts, notes) for one in found]
    together = tuple(profiles(done, options, notes)) if "fes" in parts else ()
    if options.bound_ang is not None and not any(one.run.bias for one in found):
        notes.problem("--bound: no run here has a bias or a wall, in which molecules are kept")
    return Analysis(tuple(done), tuple(notes.notes), tuple(notes.problems), together)


def _read_all(
    runs: Sequence[Run], options: Options, parts: Sequence[str], notes: Notes, progress: Progress
) -> Iterator[RunAnalysis]:
    """Go through the runs; a window that is not far enough yet does not keep the others waiting."""
    n_read = 0
    for k, run in enumerate(runs):
        is_window = run.bias is not None and run.bias.spring is not None
        try:
            yield read(run, options, parts, notes, progress)
        except DataError as error:
            if not is_window or (k + 1 == len(runs) and not n_read):
                raise
            notes.note(f"{error}; the window is left out")
        else:
            n_read += 1


def _finish(
    one: RunAnalysis,
    every: Sequence[RunAnalysis],
    options: Options,
    parts: Sequence[str],
    notes: Notes,
) -> RunAnalysis:
    wanted = {"thermo", "contributions", "molecules"} & set(parts)
    read = _properties(one, notes) if wanted else None
    return replace(
        one,
        surfaces=tuple(_surfaces(one, every, notes)) if "fes" in parts else (),
        msads=_msads(one, options, notes, parts) if "msad" in parts else {},
        pairs=_pairs(one) if "rdf" in parts else (),
        thermo=_thermo(one, read, options, notes) if "thermo" in parts and read else None,
        contributions=_contributions(one, read, notes) if "contributions" in parts else {},
        liquid=liquid_of(one, read, options, notes) if "molecules" in parts else None,
    )


def _surfaces(
    one: RunAnalysis, every: Sequence[RunAnalysis], notes: Notes
) -> Iterator[tuple[SurfaceSpec, free_energy.Surface]]:
    """Yield the surfaces, on bins that all runs share; a biased run's own would mean nothing."""
    if one.run.bias is not None:
        return
    every = [other for other in every if other.run.bias is None]
    if one.definitions.surfaces and one.run.temperature_k is None:
        notes.problem(f"{one.run.label}: no temperature is known; give --temperature for the FES")
        return
    for spec in one.definitions.surfaces:
        variables = [one.definitions.variable(name) for name in spec.variables]
        try:
            edges = shared_edges(spec, every)
            middles = [float(ends[0] + ends[-1]) / 2.0 for ends in edges]
            pairs = zip(spec.variables, middles, strict=True)
            samples = np.stack([one.values_of(name, at) for name, at in pairs], axis=-1)
            surface = free_energy.free_energy(
                samples,
                edges,
                one.run.temperature_k or 0.0,
                tuple(variable.kind for variable in variables),
                spec.jacobian,
            )
        except DataError as error:
            notes.problem(f"{one.run.label}: {spec.name}: {error}")
            continue
        if surface.kept < 1.0:
            notes.note(
                f"{one.run.label}: {spec.name}: {1.0 - surface.kept:.2%} of the samples lie "
                "outside the bins; --range, or range in the definitions, sets where these end"
            )
        if not surface.n_blocks:
            notes.note(f"{one.run.label}: {spec.name}: too short a run for errors")
        yield spec, surface


def shared_edges(spec: SurfaceSpec, every: Sequence[RunAnalysis]) -> tuple[Floats, ...]:
    """Return bins over the range of all runs that have the surface's variables."""
    edges = []
    for name, n_bins, limits in zip(spec.variables, spec.bins, spec.ranges, strict=True):
        known = [f for f in every if name in {v.name for v in f.definitions.variables}]
        centre = _shared_centre([f.values_of(name) for f in known], known[0], name)
        ends = free_energy.usual_range([f.values_of(name, centre).ravel() for f in known])
        edges.append(free_energy.bin_edges(np.array(ends), n_bins, limits))
    return tuple(edges)


def _shared_centre(values: Sequence[Floats], one: RunAnalysis, name: str) -> float | None:
    """Return the circular mean of all runs' values of a dihedral; None for what has no period."""
    period = one.definitions.variable(name).period
    if period is None:
        return None
    return circular_mean(np.concatenate([some.ravel() for some in values]), period)


def _msads(
    one: RunAnalysis, options: Options, notes: Notes, parts: Sequence[str]
) -> dict[str, msad.Msad]:
    """Return the guests' displacements; too short a run is a fault only if they were asked for."""
    label, found = one.run.label, {}
    asked_for = tuple(parts) == ("msad",) or options.fit_window_ps is not None
    if asked_for and not (one.definitions.rotations or one.run.is_exchange or notes.problems):
        notes.problem(
            f"{label}: no rotation to take an MSAD of: lone atoms have none, of many molecules "
            "none is looked at by itself; name guest and host under msad: in --definitions FILE"
        )
    for spec in one.definitions.rotations:
        alone = len(one.surveyed.steps) == 1  # too few, whatever the time between frames
        frame_ps = 1.0 if alone else one.frame_ps
        if frame_ps is None:
            notes.problem(f"{label}: no time step is known; give --timestep for the MSAD")
            return {}
        chosen = without_gap(one.surveyed.steps, f"{label}: frames are missing; the MSAD", notes)
        try:
            result = msad.mean_squared_angular_displacement(
                one.surveyed.quaternions[spec.guest][chosen],
                frame_ps,
                options.fit_window_ps,
                options.longest_ps,
            )
        except DataError as error:
            if asked_for:
                notes.problem(f"{label}: msad of {spec.guest}: {error}")
            else:
                notes.note(f"{label}: msad of {spec.guest}: {error}")
            continue
        found[spec.guest] = result
        if result.aliased:
            wanted = frame_ps * (msad.SAFE_RMS_RAD / result.rms_per_frame_rad) ** 2
            notes.note(
                f"{label}: {spec.guest} turns {result.rms_per_frame_rad:.2f} rad RMS from frame to "
                f"frame, more than {msad.SAFE_RMS_RAD:g}; the integrated MSAD misses turns: write "
                f"positions every {1e3 * wanted:.2g} fs or so (now {1e3 * frame_ps:g} fs)"
            )
    return found


def _pairs(one: RunAnalysis) -> tuple[distributions.PairDistribution, ...]:
    n_beads = one.surveyed.values.shape[1]
    counts = one.surveyed.sampled.counts
    return tuple(
        distributions.pair_distribution(spec, counts[spec.name], n_beads)
        for spec in one.definitions.pairs
        if len(counts[spec.name])
    )


def _properties(one: RunAnalysis, notes: Notes) -> Properties | None:
    if not one.run.properties:
        return None
    try:
        return read_properties(one.run.properties, notes.note)
    except DataError as error:
        notes.problem(str(error))
        return None


def _thermo(one: RunAnalysis, read: Properties, options: Options, notes: Notes) -> Thermo | None:
    rows = times_and_sound_rows(one, read, options)
    if rows is None:
        notes.note(f"{one.run.label}: neither time nor step in the properties; no drift")
        return None
    time, inside = rows
    if inside.sum() < 3:
        return None
    conserved, kelvin = read.energy_ev("conserved"), read.temperature_k()
    n_atoms, n_beads = len(one.symbols), len(one.run.beads)
    n_momenta = 3 * n_atoms * n_beads - (3 if one.run.fixed_centre else 0)
    target = None if one.run.is_exchange else one.run.temperature_k
    return Thermo(
        time_ps=time[inside],
        conserved_ev=None if conserved is None else conserved[inside],
        temperature_k=None if kelvin is None else kelvin[inside],
        drift=None
        if conserved is None
        else thermo.drift_of(time[inside], conserved[inside], n_atoms),
        temperature=None
        if kelvin is None
        else thermo.temperature_of(kelvin[inside], n_momenta, target, one.run.ensemble),
    )


def _contributions(
    one: RunAnalysis, read: Properties | None, notes: Notes
) -> dict[str, contributions.Series]:
    if one.run.log is None:
        return {}
    try:
        series = contributions.read_log(one.run.log)
    except InputError as error:
        notes.problem(str(error))
        return {}
    potential = read.energy_ev("potential") if read else None
    if one.run.n_systems > 1:
        by_step = one.exchanged
        if read and read.steps is not None and potential is not None and not one.run.is_exchange:
            by_step = read.steps, potential
        return _before_break(one, _of_one_system(one, series, by_step, notes))
    comparable = len(one.run.beads) == 1 and not one.run.is_exchange and whole_steps(series)
    if read and potential is not None and read.steps is not None and comparable:
        share = matching(series[contributions.TOTAL], read.steps, potential)
        if share < MIN_MATCH:
            notes.problem(
                f"{one.run.log}: does not match {one.run.properties[-1]}: {share:.0%} of its "
                "energies are i-PI's at that step; is it another run's? Contributions are left out"
            )
            return {}
    return _before_break(one, series)


def _of_one_system(
    one: RunAnalysis,
    series: Mapping[str, contributions.Series],
    by_step: tuple[Ints, Floats] | None,
    notes: Notes,
) -> Mapping[str, contributions.Series]:
    """Return what a log of several systems has of one, by its potential energies (eV) at steps."""
    n = one.run.n_systems
    found: Mapping[str, contributions.Series] = {}
    if by_step is not None and len(one.run.beads) == 1 and whole_steps(series):
        found = contributions.of_system(series, n, *by_step)
    if not found:
        notes.note(
            f"{one.run.log}: is of {n} systems, and their potential energies do not tell which "
            f"structures are those of {one.run.label}; contributions are left out"
        )
    return found


def _before_break(
    one: RunAnalysis, series: Mapping[str, contributions.Series]
) -> dict[str, contributions.Series]:
    """Leave out the structures from the step on at which a run came apart."""
    if one.broken is None or not series:
        return dict(series)
    last = max(int(part.seq[-1]) for part in series.values() if len(part.seq))
    share = min(1.0, one.broken.step / max(1, one.last_step))
    return {name: part.before(round(share * last)) for name, part in series.items()}


def whole_steps(series: Mapping[str, contributions.Series]) -> bool:
    """Tell whether every structure has all parts: not so where parts are served apart."""
    if contributions.TOTAL not in series:
        return False
    total = series[contributions.TOTAL].seq
    return all(np.array_equal(part.seq, total) for part in series.values())


def matching(total: contributions.Series, steps: Ints, potential_ev: Floats) -> float:
    """Return the part of a log's energies that are i-PI's at the same step.

    Structures are counted from 0, as steps are; a restart shifts the count by one.
    """
    near = contributions.near_ev(potential_ev)
    best = 0.0
    for shift in range(-1, contributions.MAX_SHIFT):
        _, at_log, at_ipi = np.intersect1d(total.seq, steps + shift, return_indices=True)
        if len(at_log):
            same = np.abs(total.energy[at_log] - potential_ev[at_ipi]) < near
            best = max(best, float(same.mean()))
    return best


def one_path(paths: Sequence[Path]) -> Path:
    """Return where results go by default: into the run's directory, or here if there are more."""
    if len(paths) == 1 and paths[0].is_dir():
        return paths[0] / "analysis"
    return Path("analysis")
