"""What the commands of ``deltaserver dataset`` do: sample, label, tell what there is."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress

    from deltaserver.cli.shell.terminal import TaskLines
    from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
    from deltaserver.datasets.workspace import Workspace


@dataclass(frozen=True)
class LabellingRequest:
    """What labels frames, and what the dataset is called; None is what the options' help says."""

    calculator: str | None
    scheduler: str
    workers: int | None
    name: str | None
    reference: str | None


def check_calculators(*names: str | None) -> None:
    """Refuse what cannot be used before anything is sampled or written."""
    from deltaserver.datasets.calculators import calculator_factory

    for name in filter(None, names):
        calculator_factory(name)


def parse_fragments(texts: tuple[str, ...]) -> tuple[FragmentSpec, ...]:
    """Parse what ``--fragment`` says, once for each."""
    from deltaserver.datasets.workspace import parse_fragment

    return tuple(parse_fragment(text) for text in texts)


def sample(workspace: Workspace, progress: Progress | TaskLines) -> None:
    """Sample what is not there yet."""
    from deltaserver.datasets.sampling.dynamics import given_up, read_frames
    from deltaserver.datasets.workflow import run_sampling

    assert workspace.plan is not None
    total, done = workspace.plan.n_frames, len(read_frames(workspace.sampling))
    task = progress.add_task("frames", total=total, completed=done)
    run_sampling(workspace, lambda frame: progress.update(task, advance=1))
    if failed := given_up(workspace.sampling):
        why = next(iter(failed.values()))
        click.echo(f"{len(failed)} windows end early, where the calculator fails: {why}", err=True)


def label(
    workspace: Workspace,
    progress: Progress | TaskLines,
    asked: LabellingRequest,
    check: Callable[[LabelledFrames], None] = lambda frames: None,
) -> None:
    """Label what is not labelled yet, write the dataset, and tell what is in it.

    ``check`` may refuse the frames before they are written.
    """
    from deltaserver.datasets.files import MANIFEST_NAME, read_manifest
    from deltaserver.datasets.labelling import LabelProgress, default_workers
    from deltaserver.datasets.workflow import REACTED_KEY, finish, run_labelling

    assert asked.calculator is not None
    task = progress.add_task("labels", total=None)
    set_aside = 0

    def show(state: LabelProgress) -> None:
        nonlocal set_aside
        set_aside = state.rejected
        text = f"labels ({state.rejected} set aside)" if state.rejected else "labels"
        completed = state.done + state.rejected
        progress.update(task, total=state.total, completed=completed, description=text)

    run_labelling(
        workspace,
        asked.calculator,
        asked.scheduler,
        asked.workers or default_workers(),
        show,
    )
    name = asked.name or workspace.directory.resolve().name
    progress.stop()
    report(finish(workspace, name, asked.reference, check), workspace.directory)
    told = read_manifest(workspace.directory / MANIFEST_NAME)["provenance"]
    if reacted := told.get(REACTED_KEY):
        click.echo(f"{reacted} frames left out: a molecule has reacted or is torn", err=True)
    if set_aside:
        click.echo(
            f"{set_aside} labels set aside, their frames left out: see {workspace.rejected}",
            err=True,
        )


def progress_bars() -> Progress | TaskLines:
    """Return bars on a terminal, a line a minute elsewhere.

    Raises:
        MissingExtraError: a terminal, but no rich.
    """
    from deltaserver.cli.shell.terminal import MinuteLines, TaskLines
    from deltaserver.errors import MissingExtraError

    if not sys.stderr.isatty():
        return TaskLines(MinuteLines(lambda line: click.echo(line, err=True)))
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
    except ImportError:
        raise MissingExtraError("rich", "train") from None
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


def note(line: str) -> None:
    """Tell what may be worth knowing."""
    click.echo(f"note: {line}", err=True)


def report(frames: LabelledFrames, where: Path) -> None:
    """Tell what is in a dataset."""
    from deltaserver.datasets.coverage import coverage, coverage_lines

    trajectories = len(set(frames.trajectory.tolist()))
    parts = ", ".join(f"{f.name} ({len(f.atoms)} atoms)" for f in frames.fragments)
    binding = frames.binding_energy
    click.echo(
        f"{where}: {len(frames)} frames of {trajectories} trajectories, {frames.reference}; "
        f"{parts}; binding {binding.mean():.3f} ± {binding.std():.3f} eV"
    )
    for line in coverage_lines(coverage(frames)):
        click.echo(line)
