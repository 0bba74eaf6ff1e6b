"""The steps behind ``deltaserver dataset``: sample, label, write, merge."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Bools, Floats, Ints
from deltaserver.datasets import labelling
from deltaserver.datasets.calculators import calculator_factory, check_spins, program_versions
from deltaserver.datasets.coverage import coverage
from deltaserver.datasets.files import JOURNAL, read_dataset, stored_provenance, write_dataset
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.datasets.geometries import unreacted
from deltaserver.datasets.sampling.dynamics import Frame, given_up, read_frames, runs_of, sample
from deltaserver.datasets.sampling.folding import FoldPlan, folded
from deltaserver.datasets.sampling.placements import BindingRange, PlacementPlan, placements
from deltaserver.datasets.workspace import (
    SETTINGS_NAME,
    Workspace,
    check_elements,
    command_line,
)
from deltaserver.errors import DataError
from deltaserver.molecules.elements import SYMBOLS
from deltaserver.textio.journal import read_journal, write_atomically
from deltaserver.textio.xyz_frames import Note, xyz_text

CALCULATOR_NAME = "calculator.txt"
REACTED_KEY = "reacted"  # sampled frames that were left out
GIVEN_UP_KEY = "windows_given_up"  # of separations: the calculator failed there
COVERAGE_KEY = "frames_by_shortest_distance"  # between fragments, in Å
# Of one frame: programs, versions and thresholds of one method are below, its energies rounded.
LEAST_DISAGREEMENT_EV, MOST_DISAGREEMENT_EV = 1e-4, 0.1
DEFAULT_NAMES = ("fragment1", "fragment2")


def run_sampling(workspace: Workspace, on_frame: Callable[[Frame], None]) -> list[Frame]:
    """Sample what is missing; return all frames."""
    assert workspace.plan is not None
    for name in filter(None, (workspace.plan.calculator, workspace.plan.prepare_calculator)):
        check_spins(name, workspace.numbers, workspace.fragments, workspace.spin)
    return sample(
        workspace.plan,
        list(workspace.starts),
        workspace.fragments,
        workspace.sampling,
        on_frame,
        workspace.spin,
    )


def place_anew(
    source: Path,
    held_out: tuple[int, ...],
    plan: PlacementPlan,
    output: Path,
    near: BindingRange | None = None,
) -> tuple[list[str], str]:
    """Write geometries of a dataset's two molecules in other places.

    Args:
        source: the dataset.
        held_out: trajectories that nothing is taken from.
        plan: how many, and how near.
        output: a file of structures.
        near: keep those of such binding energies alone.

    Returns:
        The fragments as options, and the reference method of the dataset.

    Raises:
        DataError: no such dataset.
        InputError: it has no frames but those held out, or other than two fragments, or hardly
            any place is wanted.
        ManifestError: no such model.
    """
    frames = read_dataset(source)
    some = np.flatnonzero(~np.isin(frames.trajectory, held_out))
    wanted = None if near is None else near.of(frames)
    said = f"source={source.name} seed={plan.seed} place"
    return _write_anew(frames, placements(frames, some, plan, wanted), said, output)


def fold_anew(
    source: Path,
    held_out: tuple[int, ...],
    plan: FoldPlan,
    output: Path,
    on_geometry: Callable[[int], None] = lambda done: None,
) -> tuple[list[str], str]:
    """Write geometries in which a molecule of a dataset touches itself; return as of the above.

    Raises:
        DataError: no such dataset, or the calculator fails time and again.
        InputError: it has no frames but those held out, or no molecule that could fold.
    """
    frames = read_dataset(source)
    check_spins(plan.calculator, frames.numbers, frames.fragments, None)
    some = np.flatnonzero(~np.isin(frames.trajectory, held_out))
    said = f"source={source.name} seed={plan.seed} fold"
    return _write_anew(frames, folded(frames, some, plan, on_geometry), said, output)


def _write_anew(
    frames: LabelledFrames, geometries: Floats, said: str, output: Path
) -> tuple[list[str], str]:
    symbols = [SYMBOLS[number] for number in frames.numbers]
    texts = [xyz_text(symbols, x, f"{said}={k}") for k, x in enumerate(geometries)]
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, "".join(texts).encode())
    return [fragment.as_option() for fragment in frames.fragments], frames.reference


def frames_of(workspace: Workspace) -> list[Frame]:
    """Return the frames to label: those sampled in which nothing reacted, or those given."""
    if workspace.plan is not None:
        return _sampled(workspace)[0]
    settings = json.loads((workspace.directory / JOURNAL / SETTINGS_NAME).read_text())
    return [
        Frame(trajectory, step, start.positions, 0.0)
        for (trajectory, step), start in zip(settings["steps"], workspace.starts, strict=True)
    ]


def _sampled(workspace: Workspace) -> tuple[list[Frame], int]:
    """Return the sampled frames, and how many are left out for a molecule that is not whole.

    What is pressed together hard, or too hot, reacts; no force field of ours describes that.
    """
    frames = read_frames(workspace.sampling)
    positions = np.array([frame.positions for frame in frames]).reshape(
        -1, len(workspace.numbers), 3
    )
    start = workspace.starts[0].positions
    kept = unreacted(workspace.numbers, positions, workspace.fragments, start)
    return [frame for frame, whole in zip(frames, kept, strict=True) if whole], int((~kept).sum())


def run_labelling(
    workspace: Workspace,
    calculator: str,
    scheduler: str,
    workers: int,
    on_progress: Callable[[labelling.LabelProgress], None],
) -> None:
    """Label what is missing."""
    marker = workspace.directory / JOURNAL / CALCULATOR_NAME
    if marker.exists() and marker.read_text() != calculator:
        raise DataError(
            f"{marker.parent}: labels are from {marker.read_text()}; use it again, or another "
            "--output"
        )
    calculator_factory(calculator)
    check_spins(calculator, workspace.numbers, workspace.fragments, workspace.spin)
    write_atomically(marker, calculator.encode())
    jobs = labelling.label_jobs(
        frames_of(workspace),
        workspace.numbers,
        workspace.fragments,
        workspace.spin,
        workspace.order,
    )
    labelling.label(
        jobs, calculator, workspace.labels, workspace.rejected, scheduler, workers, on_progress
    )


def finish(
    workspace: Workspace,
    name: str,
    reference: str | None,
    check: Callable[[LabelledFrames], None] = lambda frames: None,
) -> LabelledFrames:
    """Write the dataset of everything that is labelled so far; ``check`` may refuse it before."""
    marker = workspace.directory / JOURNAL / CALCULATOR_NAME
    if not marker.is_file():
        raise DataError(f"{marker}: no such file; nothing is labelled yet")
    calculator = marker.read_text()
    frames = labelling.assemble(
        frames_of(workspace),
        workspace.numbers,
        workspace.fragments,
        workspace.labels,
        name,
        reference or calculator,
        workspace.order,
    )
    check(frames)
    write_dataset(frames, workspace.directory, provenance_of(workspace, frames, calculator))
    return frames


def _first_seen(positions: Floats) -> Ints:
    """Return of each of (M, N, 3) frames, Å, the first that has its positions, to 10⁻⁶ Å."""
    seen: dict[bytes, int] = {}
    # Zero has two signs, and bytes tell them apart.
    keys = [(frame.round(6) + 0.0).tobytes() for frame in positions]
    return np.array([seen.setdefault(key, k) for k, key in enumerate(keys)], dtype=np.int64)


def _disagreement(frames: LabelledFrames, first: Ints) -> Floats:
    """Return by how much energies of each frame differ at most from the ``first`` one's, eV."""
    energies = np.column_stack([frames.energy, frames.fragment_energies])
    result: Floats = np.abs(energies - energies[first]).max(axis=1)
    return result


def _told_twice(path: Path, worst_ev: float, n_seen: int) -> str:
    """Return what is said of frames that are left out.

    Raises:
        DataError: their energies differ by more than versions of one method do.
    """
    if worst_ev > MOST_DISAGREEMENT_EV:
        raise DataError(
            f"{path}: energies of frames that a dataset before it has too differ by up to "
            f"{worst_ev:.3g} eV; merge labels of one method, with one zero of energy"
        )
    told = f"{path}: {n_seen} frames that a dataset before it has too are left out"
    differ = worst_ev > LEAST_DISAGREEMENT_EV
    return f"{told}; their energies differ by up to {worst_ev:.2g} eV" if differ else told


@dataclass(frozen=True)
class Limits:
    """Which frames are worth training on.

    Attributes:
        binding_ev: the binding energy is no higher: a wall that no run climbs.
        strain_ev: no fragment has so much more energy than where it has least: it would have come
            apart.
    """

    binding_ev: float = np.inf
    strain_ev: float = np.inf

    def of(self, frames: LabelledFrames) -> Bools:
        """Return which frames are within, shape (M,)."""
        strain = frames.fragment_energies - frames.fragment_energies.min(axis=0)
        low: Bools = (strain <= self.strain_ev).all(axis=1)
        return low & (frames.binding_energy <= self.binding_ev)


NO_LIMITS = Limits()


def merge(
    datasets: tuple[Path, ...],
    directory: Path,
    name: str,
    reference: str | None,
    limits: Limits = NO_LIMITS,
    note: Note = lambda line: None,
) -> LabelledFrames:
    """Write one dataset of several; trajectories are numbered anew, in order.

    A frame that an earlier dataset has too is left out: in two trajectories, one of which is held
    out, it would be tested on what it trained.

    Args:
        datasets: what is merged.
        directory: to be written.
        name: of the new dataset.
        reference: one name for all reference methods; None if theirs are the same.
        limits: frames beyond them are left out; the numbers of trajectories are those with them.
        note: called with one line of frames that stand in two of them.

    Raises:
        DataError: they differ in elements, fragments, charges or (unless ``reference`` says that
            it is one) in their reference method, or labels of one frame do; or no frame is left.
    """
    parts = [read_dataset(path) for path in datasets]
    named = next(
        (p for p in parts if tuple(f.name for f in p.fragments) != DEFAULT_NAMES), parts[0]
    )
    for path, part in zip(datasets, parts, strict=True):
        _check_mergeable(str(path), part, named, reference)
    merged = _joined_frames(parts, name, reference or named.reference, named)
    first, sizes = _first_seen(merged.positions), [len(part) for part in parts]
    ends = np.cumsum(sizes)[:-1]
    seen: Bools = first < np.repeat([0, *ends], sizes)  # in a dataset before
    again, within = np.split(seen, ends), np.split(limits.of(merged), ends)
    differ = np.split(_disagreement(merged, first), ends)
    sources, trajectories, keep, offset = [], [], [], 0
    for path, part, twice, low, off in zip(datasets, parts, again, within, differ, strict=True):
        old = np.unique(part.trajectory)
        kept = low & ~twice
        keep.append(kept)
        if n_seen := int(twice.sum()):
            note(_told_twice(path, float(off[twice].max()), n_seen))
        trajectories.append(np.searchsorted(old, part.trajectory) + offset)
        sources.append(
            {
                "dataset": path.name,
                "frames": int(kept.sum()),
                "left_out": int((~kept).sum()),
                "trajectories": {int(t): int(k) + offset for k, t in enumerate(old)},
                "reference": part.reference,
                "provenance": stored_provenance(path),
            }
        )
        offset += len(old)
    merged = replace(merged, trajectory=np.concatenate(trajectories))
    merged = merged.select(np.flatnonzero(np.concatenate(keep)))
    if not len(merged):
        raise DataError(
            f"{name}: no frame's binding energy is below {limits.binding_ev:g} eV, with fragments "
            f"strained by less than {limits.strain_ev:g} eV"
        )
    provenance = {"command": command_line(), COVERAGE_KEY: coverage(merged), "merged": sources}
    write_dataset(merged, directory, provenance)
    return merged


def _joined_frames(
    parts: list[LabelledFrames], name: str, reference: str, named: LabelledFrames
) -> LabelledFrames:
    """Return the frames of all parts, as ``named`` calls their fragments."""
    return LabelledFrames(
        name=name,
        reference=reference,
        numbers=named.numbers,
        fragments=named.fragments,
        positions=np.concatenate([part.positions for part in parts]),
        energy=np.concatenate([part.energy for part in parts]),
        forces=np.concatenate([part.forces for part in parts]),
        fragment_energies=np.concatenate([part.fragment_energies for part in parts]),
        fragment_forces=np.concatenate([part.fragment_forces for part in parts]),
        trajectory=np.concatenate([part.trajectory for part in parts]),
        step=np.concatenate([part.step for part in parts]),
        two_body_energy=_joined([part.two_body_energy for part in parts]),
        two_body_forces=_joined([part.two_body_forces for part in parts]),
    )


def _joined(parts: list[Floats | None]) -> Floats | None:
    """Return the labels of pairs of all parts, which all have them or none."""
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if known else None


def _check_mergeable(
    where: str, part: LabelledFrames, named: LabelledFrames, reference: str | None
) -> None:
    check_elements(where, part.numbers, named.numbers)
    if [(f.atoms, f.charge, f.spin) for f in part.fragments] != [
        (f.atoms, f.charge, f.spin) for f in named.fragments
    ]:
        raise DataError(f"{where}: its fragments are not those of the first dataset")
    if part.order != named.order:
        raise DataError(
            f"{where}: of order {part.order}, while the first dataset is of order {named.order}; "
            "merge those of one order"
        )
    if reference is None and part.reference != named.reference:
        raise DataError(
            f"{where}: labels are from {part.reference!r}, others from {named.reference!r}; if "
            "both are one method, name it with --reference"
        )


def provenance_of(workspace: Workspace, frames: LabelledFrames, calculator: str) -> dict[str, Any]:
    """Return what a dataset keeps of how it was made."""
    settings = json.loads((workspace.directory / JOURNAL / SETTINGS_NAME).read_text())
    provenance: dict[str, Any] = {
        "command": settings.get("command", command_line()),
        "labels": {"calculator": calculator, "programs": program_versions(calculator)},
        **({} if workspace.spin is None else {"spin": workspace.spin}),
        "rejected": len({(r["trajectory"], r["step"]) for r in read_journal(workspace.rejected)}),
        COVERAGE_KEY: coverage(frames),
    }
    plan = workspace.plan
    if plan is None:
        provenance["frames"] = ", ".join(dict.fromkeys(one.source for one in workspace.starts))
        return provenance
    provenance[REACTED_KEY] = _sampled(workspace)[1]
    if failed := given_up(workspace.sampling):
        provenance[GIVEN_UP_KEY] = failed
    provenance["sampling"] = {**plan.describe(), "programs": program_versions(plan.calculator)}
    provenance["trajectories"] = [
        {
            "trajectory": run.index,
            "temperature": run.temperature,
            "seed": [plan.seed, run.index],
            "start": run.start.source,
            "frames": int((frames.trajectory == run.index).sum()),
            **({"window": run.window.describe()} if run.window else {}),
        }
        for run in runs_of(plan, workspace.starts, workspace.fragments)
    ]
    return provenance
