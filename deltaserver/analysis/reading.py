"""Read one run: find its definitions, go through its trajectory once, leave out what is no use."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from deltaserver.analysis.measure import rotation
from deltaserver.analysis.measure.blown_up import BROKEN_STRETCH, sound_frames
from deltaserver.analysis.measure.definitions import (
    DEFAULT_BINS,
    FILE_NAME,
    Definitions,
    Fragments,
    SurfaceSpec,
    default_definitions,
    read_definitions,
)
from deltaserver.analysis.measure.survey import Bonds, Survey, Task, find_bonds, molecules
from deltaserver.analysis.read.directory import Run
from deltaserver.analysis.read.properties import Properties
from deltaserver.analysis.read.trajectory import Trajectory
from deltaserver.analysis.results import Break, Options, RunAnalysis
from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError
from deltaserver.model.manifest import read_manifest
from deltaserver.model.many.manifest import is_of_many
from deltaserver.molecules.bonds import NONMETALS
from deltaserver.textio.species import parse_species
from deltaserver.units import BOHR_ANG, PS_FS

Note = Callable[[str], None]
Progress = Callable[[str, int], None]


@dataclass
class Notes:
    """Collects what is to be told, each line once, and passes it on at once."""

    show: Note
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Tell something that the user should know."""
        if text not in self.notes:
            self.notes.append(text)
            self.show(text)

    def problem(self, text: str) -> None:
        """Tell that something asked for cannot be done."""
        if text not in self.problems:
            self.problems.append(text)
            self.show(text)


def read(
    run: Run, options: Options, parts: Sequence[str], notes: Notes, progress: Progress
) -> RunAnalysis:
    """Go through a run's trajectory; the results to come are empty as yet.

    Raises:
        DataError: a trajectory cannot be read at all, or a definition is wrong.
        MissingExtraError: ASE is not installed.
    """
    for remark in run.remarks:
        notes.note(f"{run.label}: {remark}")
    trajectory = Trajectory(run.beads, notes.note)
    masses, numbers = _elements(trajectory.symbols, run.label)
    blocks = trajectory.blocks()
    first = next(blocks, None)
    if first is None:
        raise DataError(f"{run.label}: no whole frame in {run.beads[0][-1]}")
    reference = first.positions[0].mean(axis=0)
    if not np.isfinite(reference).all():
        raise DataError(f"{run.label}: the first frame has positions that are not numbers")
    bonds = find_bonds(reference, numbers)
    _look_at_lengths(reference, numbers, bonds, run.label, notes)
    definitions = _within(
        _definitions(run, options, bonds, trajectory.n_atoms, notes), trajectory.n_atoms, notes
    )
    definitions = _orientable(definitions, first.positions.mean(axis=1), masses, notes)
    survey = Survey(
        Task(
            reference=reference,
            masses=masses,
            bonds=bonds,
            variables=definitions.variables,
            rotations=definitions.rotations if "msad" in parts else (),
            pairs=definitions.pairs if "rdf" in parts else (),
        )
    )
    n_frames = 0
    for block in itertools.chain([first], blocks):
        positions = block.positions
        if options.beads == "centroid":
            positions = positions.mean(axis=1, keepdims=True)
        survey.add(block.steps, positions)
        n_frames += len(block.steps)
        progress(run.label, n_frames)
    timestep = options.timestep_fs or run.timestep_fs
    return _trimmed(
        RunAnalysis(
            run=replace(run, temperature_k=options.temperature_k or run.temperature_k),
            definitions=definitions,
            symbols=trajectory.symbols,
            surveyed=survey.result(),
            frame_ps=None,
            step_ps=timestep / PS_FS if timestep else None,
            broken=None,
        ),
        options,
        notes,
    )


def _look_at_lengths(
    reference: Floats, numbers: Ints, bonds: Bonds, label: str, notes: Notes
) -> None:
    """Tell of a first frame that has bonds only if its lengths are in Bohr."""
    some = np.isin(numbers, NONMETALS)
    if len(bonds.pairs) or some.sum() < 2:
        return
    in_bohr = find_bonds(reference[some] * BOHR_ANG, numbers[some])
    if 2 * len(in_bohr.pairs) >= some.sum():
        notes.problem(
            f"{label}: no two atoms are as near as a bond, but would be if the lengths were in "
            "Bohr; if so, say it in the comment, as in positions{atomic_unit}"
        )


def _elements(symbols: Sequence[str], label: str) -> tuple[Floats, Ints]:
    """Return masses (u) and atomic numbers of element symbols."""
    try:
        species = [parse_species(symbol) for symbol in symbols]
    except DataError as error:
        raise DataError(f"{label}: {error}") from None
    return np.array([s.mass_u for s in species]), np.array([s.number for s in species])


def _definitions(
    run: Run, options: Options, bonds: Bonds, n_atoms: int, notes: Notes
) -> Definitions:
    """Return what to find: of a file given, else of the model directory, else of any complex."""
    models = options.models or run.models
    fragments: Fragments = {}
    path = options.definitions
    if models and is_of_many(models):
        known = read_definitions(path, {}) if path else Definitions((), (), (), (), {})
        return _with_surfaces(known, options)
    if models:
        manifest = read_manifest(models)
        fragments = {entry.name: entry.atoms for entry in manifest.fragments}
        if manifest.n_atoms != n_atoms:
            raise DataError(
                f"{models}: a model of {manifest.n_atoms} atoms, but {run.label} has {n_atoms}; "
                "give the run's own with --models"
            )
        beside = manifest.path.parent / FILE_NAME
        if path is None and beside.is_file():
            path = beside
    else:
        wholes = molecules(bonds, n_atoms)
        fragments = {f"fragment{k + 1}": atoms for k, atoms in enumerate(wholes)}
        notes.note(
            f"{run.label}: no model directory is known; by bonds, the fragments are "
            + ", ".join(f"{name} ({len(atoms)} atoms)" for name, atoms in fragments.items())
        )
    definitions = read_definitions(path, fragments) if path else default_definitions(fragments)
    return _with_surfaces(definitions, options)


def _with_surfaces(definitions: Definitions, options: Options) -> Definitions:
    """Return the definitions with the surfaces that were asked for in particular."""
    surfaces = definitions.surfaces
    if options.variables:
        for name in options.variables:
            definitions.variable(name)  # raises if there is none
        if len(options.variables) > 2 or len(set(options.variables)) < len(options.variables):
            raise DataError("--variable: expected one, or two that differ")
        ranges = (*options.ranges, *[None] * len(options.variables))[: len(options.variables)]
        bins = (DEFAULT_BINS[len(options.variables)],) * len(options.variables)
        surfaces = (SurfaceSpec(options.variables, bins, ranges),)
    elif options.ranges:
        raise DataError("--range: give the --variable that it is of")
    return replace(
        definitions,
        surfaces=tuple(
            replace(
                spec,
                bins=(options.bins,) * len(spec.bins) if options.bins else spec.bins,
                jacobian=options.jacobian or spec.jacobian,
            )
            for spec in surfaces
        ),
    )


def _within(definitions: Definitions, n_atoms: int, notes: Notes) -> Definitions:
    """Leave out what is of atoms that the trajectory does not have, and say so."""
    bad = set()
    for variable in definitions.variables:
        beyond = variable.atoms_beyond(n_atoms)
        if beyond:
            bad.add(variable.name)
            notes.problem(
                f"variable {variable.name}: atom {beyond[0]} is out of range; the trajectory has "
                f"atoms 0 to {n_atoms - 1}; the variable is left out"
            )
    rotations, pairs = [], []
    for spec in definitions.rotations:
        beyond = tuple(a for a in (*spec.guest_atoms, *spec.host_atoms) if a >= n_atoms)
        if beyond:
            notes.problem(f"msad of {spec.guest}: atom {beyond[0]} is out of range; left out")
        else:
            rotations.append(spec)
    for pair in definitions.pairs:
        beyond = tuple(a for a in (*pair.first, *pair.second) if a >= n_atoms)
        if beyond:
            notes.problem(f"rdf of {pair.name}: atom {beyond[0]} is out of range; left out")
        else:
            pairs.append(pair)
    return Definitions(
        tuple(v for v in definitions.variables if v.name not in bad),
        tuple(s for s in definitions.surfaces if not bad & set(s.variables)),
        tuple(rotations),
        tuple(pairs),
        definitions.fragments,
    )


def _orientable(
    definitions: Definitions, frames: Floats, masses: Floats, notes: Notes
) -> Definitions:
    """Follow the axis of linear guests; leave out what is turned about a line; say so.

    ``frames`` are the first ones, (B, N, 3): a single one may be bent, or straight, by chance.
    """
    frames = frames[np.isfinite(frames).all(axis=(1, 2))]
    kept = []
    for spec in definitions.rotations:
        guest, host = list(spec.guest_atoms), list(spec.host_atoms)
        if host and rotation.is_linear(frames[:, host], masses[host]):
            notes.problem(
                f"msad of {spec.guest}: the atoms of {spec.host} stand on a line, so that its own "
                "turns cannot be taken off; left out"
            )
            continue
        linear = rotation.is_linear(frames[:, guest], masses[guest])
        if linear:
            notes.note(f"msad of {spec.guest}: a linear molecule; the rotation of its axis")
        kept.append(replace(spec, linear=linear))
    return replace(definitions, rotations=tuple(kept))


def _way_ps(found: RunAnalysis) -> float:
    """Return how long a window was pulled: what is analysed, and ``skip``, begin behind that."""
    bias = found.run.bias
    return bias.settled_at * (found.step_ps or 1.0) if bias else 0.0


def _trimmed(found: RunAnalysis, options: Options, notes: Notes) -> RunAnalysis:
    """Leave out how a window was pulled, ``skip``, after ``until``, and behind a broken bond."""
    surveyed, label = found.surveyed, found.run.label
    if surveyed.n_overwritten:
        notes.note(
            f"{label}: {surveyed.n_overwritten} frames were written twice, before and after a "
            "restart; the later ones count"
        )
    broken = None
    end = sound_frames(surveyed, found.run.blew_up)
    if end < len(surveyed.steps):
        step = int(surveyed.steps[end])
        time = step * found.step_ps if found.step_ps else None
        broken = Break(step, time, float(surveyed.stretch[end:].max()))
        when = f"step {step}" + (f" ({time:.3f} ps)" if time is not None else "")
        why = (
            f"a bond is {broken.stretch:.2f} times its first length"
            if broken.stretch > BROKEN_STRETCH
            else "the run blew up"
        )
        notes.note(
            f"{label}: {why} at {when}; "
            f"the {len(surveyed.steps) - end} frames from there on are left out"
        )
    times = found.time_ps[:end]
    way = _way_ps(found)
    begin = int(np.searchsorted(times, way + options.skip_ps))
    if options.until_ps is not None:
        end = int(np.searchsorted(times, options.until_ps, side="right"))
    if begin >= end:
        raise DataError(
            f"{label}: no frames from {options.skip_ps:g} ps on"
            f"{' after its pulling phase' if way else ''}; it has {len(times)} whole frames"
        )
    surveyed = surveyed.between(begin, end)
    spacing = np.diff(surveyed.steps)
    frame_ps = float(np.median(spacing)) * found.step_ps if found.step_ps and len(spacing) else None
    return replace(
        found,
        surveyed=surveyed,
        frame_ps=frame_ps,
        broken=broken,
        last_step=int(found.surveyed.steps[-1]),
    )


def without_gap(steps: Ints, what: str, notes: Notes) -> slice:
    """Return the longest stretch of evenly spaced frames; tell of ``what`` is not of all."""
    chosen = evenly_spaced(steps)
    if chosen != slice(0, len(steps)):
        notes.note(
            f"{what} is of frames {chosen.start} to {chosen.stop} of {len(steps)}, the longest "
            "stretch without a gap"
        )
    return chosen


def evenly_spaced(steps: Ints) -> slice:
    """Return the longest stretch of frames whose steps are evenly spaced."""
    spacing = np.diff(steps)
    if not len(spacing):
        return slice(0, len(steps))
    gaps = np.flatnonzero(spacing != int(np.median(spacing)))
    ends = np.concatenate([[0], gaps + 1, [len(steps)]])
    k = int(np.argmax(np.diff(ends)))
    return slice(int(ends[k]), int(ends[k + 1]))


def times_and_sound_rows(
    found: RunAnalysis, rows: Properties, options: Options
) -> tuple[Floats, NDArray[np.bool_]] | None:
    """Return the times of properties, ps, and which rows are of the frames that are looked at.

    None where neither time nor step is written.
    """
    time, steps, broken = rows.time_ps(), rows.steps, found.broken
    if time is None and steps is not None and found.step_ps:
        time = steps.astype(np.float64) * found.step_ps
    if time is None:
        return None
    sound = time >= options.skip_ps
    if options.until_ps is not None:
        sound &= time <= options.until_ps
    if broken is not None and steps is not None:
        sound &= steps < broken.step
    elif broken is not None and broken.time_ps is not None:
        sound &= time < broken.time_ps
    return time, sound
