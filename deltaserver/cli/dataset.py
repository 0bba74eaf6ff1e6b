"""``deltaserver dataset``: from structures to labelled frames and native sGDML datasets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deltaserver.cli.options.sampling import SAMPLING, Decorator, sampling_plan, together

if TYPE_CHECKING:
    from rich.progress import Progress

    from deltaserver.cli.terminal import TaskLines
    from deltaserver.datasets.frames import LabelledFrames
    from deltaserver.datasets.workspace import Workspace

PATH = click.Path(path_type=Path)


def register_dataset(app: click.Group) -> None:
    """Add ``deltaserver dataset`` to the command line."""
    app.add_command(dataset)


def _fragment_option(required: bool) -> Decorator:
    return click.option(
        "-f", "--fragment", "fragments", multiple=True, required=required,
        metavar="NAME:ATOMS[:CHARGE[:SPIN]]",
        help="A fragment, its 0-based atoms, its charge in e and its unpaired electrons: "
        "water:0-2, sodium:12:+1, oxygen:0-1:0:2. "
        "Once per fragment; together they have every atom once.",
    )  # fmt: skip


_SPIN = click.option(
    "--spin", type=click.IntRange(min=0), metavar="ELECTRONS",
    help="Unpaired electrons of the complex. [default: those of all fragments]",
)  # fmt: skip


_OUTPUT = click.option(
    "-o", "--output", type=PATH, required=True,
    help="Dataset directory. What is in it already is continued, never done twice.",
)  # fmt: skip
_CALCULATOR = click.option(
    "-c", "--calculator", default="GFN2-xTB", show_default=True,
    help="GFN2-xTB, GFN1-xTB, GFN-FF, tblite:GFN2-xTB, PBE-D4/def2-SVP or another "
    "FUNCTIONAL[-D3BJ|-D4]/BASIS through PySCF, package.module:Factory for any ASE calculator, "
    "or a model directory.",
)  # fmt: skip
_LABELLING = together(
    click.option(
        "--scheduler", default="local", show_default=True, metavar="local|tcp://HOST:PORT",
        help="Label on this machine's cores, or on the workers of a Dask scheduler.",
    ),
    click.option(
        "-w", "--workers", type=click.IntRange(min=1),
        help="Local processes, one label each at a time. [default: one per core, or one if "
        "Dask is not installed]",
    ),
    click.option("--name", help="The dataset's name. [default: the directory's]"),
    click.option("--reference", help="The reference method's name. [default: the calculator]"),
)  # fmt: skip
_DEBUG = click.option("--debug", is_flag=True, help="Show tracebacks.")


@click.group()
def dataset() -> None:
    """Sample a complex, label it and its fragments, write datasets.

    \b
    All of it in one command; stopped at any moment, it continues when it is repeated:
        deltaserver dataset build complex.xyz --fragment water:0-2 --fragment benzene:3-14 \\
            --calculator GFN2-xTB --temperature 300 --frames 300 --output data/complex
    """


@dataset.command("sample")
@click.argument("structures", type=PATH, nargs=-1, required=True, metavar="STRUCTURE...")
@_fragment_option(required=True)
@_SPIN
@_CALCULATOR
@SAMPLING
@_OUTPUT
@_DEBUG
def sample_command(structures: tuple[Path, ...], output: Path, debug: bool, **options: Any) -> None:
    """Sample frames by Langevin dynamics from STRUCTURE...

    Structures are anything ASE reads, with the same atoms in the same order; trajectories start
    from them in turn. With --separations two fragments are sampled apart as well.
    """
    _check_calculators(options["calculator"], options["prepare_calculator"])
    workspace = _open_sampling(structures, output, options)
    with _progress() as progress:
        _sample(workspace, progress)


@dataset.command("label")
@click.argument("frames", type=PATH)
@_fragment_option(required=False)
@_SPIN
@_CALCULATOR
@_LABELLING
@click.option(
    "-o", "--output", type=PATH, help="Dataset directory. [default: FRAMES, if it is one]"
)
@_DEBUG
def label_command(
    frames: Path, fragments: tuple[str, ...], output: Path | None, debug: bool, **options: Any
) -> None:
    """Label FRAMES, a sampled directory or any file of structures.

    A file needs --fragment and --output. Labels that it has are not used.
    """
    from deltaserver.datasets import workspace as place
    from deltaserver.errors import InputError

    _check_calculators(options["calculator"])
    if frames.is_dir():
        if output is not None and output != frames:
            raise InputError("--output is for a file of frames; a directory is labelled in place")
        workspace = place.reopen(frames)
    else:
        if not frames.exists():
            raise InputError(f"{frames}: no such file or directory of frames")
        if output is None or not fragments:
            raise InputError(f"{frames} is a file; expected --fragment and --output as well")
        workspace = place.open_given(
            output, frames, _parse_fragments(fragments), _note, options["spin"]
        )
    with _progress() as progress:
        _label(workspace, progress, options)


@dataset.command("build")
@click.argument("structures", type=PATH, nargs=-1, required=True, metavar="STRUCTURE...")
@_fragment_option(required=True)
@_SPIN
@_CALCULATOR
@click.option(
    "--label-calculator", metavar="CALCULATOR",
    help="What labels the frames. [default: --calculator, which samples]",
)  # fmt: skip
@SAMPLING
@_LABELLING
@_OUTPUT
@_DEBUG
def build_command(structures: tuple[Path, ...], output: Path, debug: bool, **options: Any) -> None:
    """Sample, label and write: all from STRUCTURE... to a dataset.

    \b
    deltaserver dataset build complex.xyz --fragment water:0-2 --fragment benzene:3-14 \\
        --calculator GFN2-xTB --temperature 300 --frames 300 --output data/complex
    \b
    With --separations 2.5:12 the fragments are sampled apart as well, in 20 orientations.
    """
    label_calculator = options["label_calculator"] or options["calculator"]
    _check_calculators(label_calculator, options["calculator"], options["prepare_calculator"])
    workspace = _open_sampling(structures, output, options)
    with _progress() as progress:
        _sample(workspace, progress)
        _label(workspace, progress, {**options, "calculator": label_calculator})


@dataset.command("write")
@click.argument("directory", type=PATH, metavar="DATASET")
@click.option("--name", help="The dataset's name. [default: the directory's]")
@click.option("--reference", help="The reference method's name. [default: the calculator]")
@_DEBUG
def write_command(directory: Path, name: str | None, reference: str | None, debug: bool) -> None:
    """Write what is labelled so far, while the rest goes on."""
    from deltaserver.datasets.workflow import finish
    from deltaserver.datasets.workspace import reopen

    frames = finish(reopen(directory), name or directory.resolve().name, reference)
    _report(frames, directory)


@dataset.command("merge")
@click.argument("datasets", type=PATH, nargs=-1, required=True, metavar="DATASET...")
@_OUTPUT
@click.option("--name", help="The dataset's name. [default: the directory's]")
@click.option("--reference", help="One name for reference methods that are named differently.")
@click.option("--max-binding", type=float, default=float("inf"), metavar="EV",
              help="Leave out frames whose binding energy is higher: a wall that no run climbs, or "
              "fragments that are torn.")  # fmt: skip
@_DEBUG
def merge_command(
    datasets: tuple[Path, ...], output: Path, name: str | None, reference: str | None,
    max_binding: float, debug: bool,
) -> None:  # fmt: skip
    """Write one dataset of several; their trajectories stay apart."""
    from deltaserver.datasets.workflow import merge

    merged = merge(datasets, output, name or output.resolve().name, reference, max_binding)
    _report(merged, output)


@dataset.command("export")
@click.argument("source", type=PATH, metavar="DATASET")
@click.option("-o", "--output", type=PATH, help="Directory. [default: DATASET's]")
@_DEBUG
def export_command(source: Path, output: Path | None, debug: bool) -> None:
    """Write the native sGDML datasets (.npz) of DATASET."""
    from deltaserver.datasets.files import read_dataset
    from deltaserver.datasets.native import write_native_datasets

    frames = read_dataset(source)
    directory = output or (source if source.is_dir() else source.parent)
    for path in write_native_datasets(frames, directory):
        click.echo(str(path))


@dataset.command("check")
@click.argument("source", type=PATH, metavar="DATASET")
@_DEBUG
def check_command(source: Path, debug: bool) -> None:
    """Check DATASET, a directory or .xyz file; tell what is in it."""
    from deltaserver.datasets.files import read_dataset

    _report(read_dataset(source, _note), source)


@dataset.command("complex")
@click.argument("molecules", type=PATH, nargs=-1, required=True, metavar="MOLECULE...")
@click.option(
    "--gap", type=click.FloatRange(min=0.5), default=2.6, show_default=True, metavar="ANGSTROM",
    help="Closest contact between two molecules.",
)  # fmt: skip
@click.option(
    "--seed", type=click.IntRange(min=0), default=2025, show_default=True,
    help="Of the orientations.",
)  # fmt: skip
@click.option("-o", "--output", type=PATH, required=True, help="Structure file, .xyz.")
@_DEBUG
def complex_command(
    molecules: tuple[Path, ...], gap: float, seed: int, output: Path, debug: bool
) -> None:
    """Put MOLECULE... beside each other; print the fragments."""
    from deltaserver.datasets.workspace import place_molecules

    click.echo(
        " ".join(f"--fragment {text}" for text in place_molecules(molecules, gap, seed, output))
    )


def _open_sampling(
    structures: tuple[Path, ...], output: Path, options: dict[str, Any]
) -> Workspace:
    from deltaserver.datasets.workspace import open_sampling

    fragments = _parse_fragments(options["fragments"])
    plan = sampling_plan(structures, fragments, options)
    return open_sampling(output, structures, fragments, plan, _note, options["spin"])


def _check_calculators(*names: str | None) -> None:
    """Refuse what cannot be used before anything is sampled or written."""
    from deltaserver.datasets.calculators import calculator_factory

    for name in filter(None, names):
        calculator_factory(name)


def _parse_fragments(texts: tuple[str, ...]) -> tuple[Any, ...]:
    from deltaserver.datasets.workspace import parse_fragment

    return tuple(parse_fragment(text) for text in texts)


def _sample(workspace: Workspace, progress: Progress | TaskLines) -> None:
    from deltaserver.datasets.sampling.dynamics import read_frames
    from deltaserver.datasets.workflow import run_sampling

    assert workspace.plan is not None
    total, done = workspace.plan.n_frames, len(read_frames(workspace.sampling))
    task = progress.add_task("frames", total=total, completed=done)
    run_sampling(workspace, lambda frame: progress.update(task, advance=1))


def _label(workspace: Workspace, progress: Progress | TaskLines, options: dict[str, Any]) -> None:
    from deltaserver.datasets.labelling import LabelProgress, default_workers
    from deltaserver.datasets.workflow import finish, n_reacted, run_labelling

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
        options["calculator"],
        options["scheduler"],
        options["workers"] or default_workers(),
        show,
    )
    name = options["name"] or workspace.directory.resolve().name
    progress.stop()
    _report(finish(workspace, name, options["reference"]), workspace.directory)
    if reacted := n_reacted(workspace):
        click.echo(f"{reacted} frames left out: a molecule has reacted or is torn", err=True)
    if set_aside:
        click.echo(
            f"{set_aside} labels set aside, their frames left out: see {workspace.rejected}",
            err=True,
        )


def _progress() -> Progress | TaskLines:
    from deltaserver.cli.terminal import MinuteLines, TaskLines
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


def _note(line: str) -> None:
    click.echo(f"note: {line}", err=True)


def _report(frames: LabelledFrames, where: Path) -> None:
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
