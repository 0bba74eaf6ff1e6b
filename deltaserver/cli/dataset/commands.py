"""The commands of ``deltaserver dataset``, from structures to labelled frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deltaserver.cli.dataset.options import (
    CALCULATOR,
    LABELLING,
    NAME,
    OUTPUT,
    REFERENCE,
    SPIN,
    fragment_option,
)
from deltaserver.cli.dataset.sampling import SAMPLING, SamplingRequest, sampling_plan
from deltaserver.cli.dataset.steps import (
    LabellingRequest,
    check_calculators,
    label,
    note,
    parse_fragments,
    progress_bars,
    report,
    sample,
)
from deltaserver.cli.options.common import (
    AT_LEAST_0,
    DEBUG,
    PATH,
    Finite,
    FiniteRange,
    take,
)

if TYPE_CHECKING:
    from deltaserver.datasets.workspace import Workspace


@click.command("sample")
@click.argument("structures", type=PATH, nargs=-1, required=True, metavar="STRUCTURE...")
@fragment_option(required=True)
@SPIN
@CALCULATOR
@SAMPLING
@OUTPUT
@DEBUG
def sample_command(**options: Any) -> None:
    """Sample frames by Langevin dynamics from STRUCTURE...

    Structures are anything ASE reads, with the same atoms in the same order; trajectories start
    from them in turn. With --separations two fragments are sampled apart as well.
    """
    asked = SamplingRequest(**options)
    check_calculators(asked.calculator, asked.prepare_calculator)
    workspace = _open_sampling(asked)
    with progress_bars() as progress:
        sample(workspace, progress)


@click.command("label")
@click.argument("frames", type=PATH)
@fragment_option(required=False)
@SPIN
@CALCULATOR
@LABELLING
@click.option(
    "-o", "--output", type=PATH, help="Dataset directory. [default: FRAMES, if it is one]"
)
@DEBUG
def label_command(
    frames: Path, fragments: tuple[str, ...], spin: int | None, output: Path | None, **options: Any
) -> None:
    """Label FRAMES, a sampled directory or any file of structures.

    A file needs --fragment and --output. Labels that it has are not used.
    """
    from deltaserver.datasets import workspace as place
    from deltaserver.errors import InputError

    asked = LabellingRequest(**options)
    check_calculators(asked.calculator)
    if frames.is_dir():
        if output is not None and output != frames:
            raise InputError("--output is for a file of frames; a directory is labelled in place")
        workspace = place.reopen(frames)
    else:
        if not frames.exists():
            raise InputError(f"{frames}: no such file or directory of frames")
        if output is None or not fragments:
            raise InputError(f"{frames} is a file; expected --fragment and --output as well")
        parts = parse_fragments(fragments)
        workspace = place.open_given(output, frames, parts, note, spin, asked.calculator)
    with progress_bars() as progress:
        label(workspace, progress, asked)


@click.command("build")
@click.argument("structures", type=PATH, nargs=-1, required=True, metavar="STRUCTURE...")
@fragment_option(required=True)
@SPIN
@CALCULATOR
@click.option(
    "--label-calculator",
    metavar="CALCULATOR",
    help="What labels the frames. [default: --calculator, which samples]",
)
@SAMPLING
@LABELLING
@OUTPUT
@DEBUG
def build_command(label_calculator: str | None, **options: Any) -> None:
    """Sample, label and write: all from STRUCTURE... to a dataset.

    \b
    deltaserver dataset build complex.xyz --fragment water:0-2 --fragment benzene:3-14 \\
        --calculator GFN2-xTB --temperature 300 --frames 300 --output data/complex
    \b
    With --separations 2.5:12 the fragments are sampled apart as well, in 20 orientations.
    """
    asked = take(SamplingRequest, options)
    labelling = LabellingRequest(label_calculator or asked.calculator, **options)
    check_calculators(labelling.calculator, asked.calculator, asked.prepare_calculator)
    workspace = _open_sampling(asked, labelling.calculator)
    with progress_bars() as progress:
        sample(workspace, progress)
        label(workspace, progress, labelling)


@click.command("write")
@click.argument("directory", type=PATH, metavar="DATASET")
@NAME
@REFERENCE
@DEBUG
def write_command(directory: Path, name: str | None, reference: str | None) -> None:
    """Write what is labelled so far, while the rest goes on."""
    from deltaserver.datasets.workflow import finish
    from deltaserver.datasets.workspace import reopen

    frames = finish(reopen(directory), name or directory.resolve().name, reference)
    report(frames, directory)


@click.command("merge")
@click.argument("datasets", type=PATH, nargs=-1, required=True, metavar="DATASET...")
@OUTPUT
@NAME
@click.option("--reference", help="One name for reference methods that are named differently.")
@click.option(
    "--max-binding",
    type=Finite(),
    default=float("inf"),
    metavar="EV",
    help="Leave out frames whose binding energy is higher: a wall that no run climbs, or "
    "fragments that are torn.",
)
@click.option(
    "--max-strain",
    type=FiniteRange(min=0.0),
    default=float("inf"),
    metavar="EV",
    help="Leave out frames in which a fragment has so much more energy than where it has "
    "least: it has come apart.",
)
@DEBUG
def merge_command(
    datasets: tuple[Path, ...],
    output: Path,
    name: str | None,
    reference: str | None,
    max_binding: float,
    max_strain: float,
) -> None:
    """Write one dataset of several; their trajectories stay apart."""
    from deltaserver.datasets.workflow import Limits, merge

    name = name or output.resolve().name
    limits = Limits(max_binding, max_strain)
    merged = merge(datasets, output, name, reference, limits, note)
    report(merged, output)


@click.command("export")
@click.argument("source", type=PATH, metavar="DATASET")
@click.option("-o", "--output", type=PATH, help="Directory. [default: DATASET's]")
@DEBUG
def export_command(source: Path, output: Path | None) -> None:
    """Write the native sGDML datasets (.npz) of DATASET."""
    from deltaserver.datasets.files import read_dataset
    from deltaserver.datasets.native import write_native_datasets

    frames = read_dataset(source)
    directory = output or (source if source.is_dir() else source.parent)
    for path in write_native_datasets(frames, directory):
        click.echo(str(path))


@click.command("check")
@click.argument("source", type=PATH, metavar="DATASET")
@DEBUG
def check_command(source: Path) -> None:
    """Check DATASET, a directory or .xyz file; tell what is in it."""
    from deltaserver.datasets.files import read_dataset
    from deltaserver.datasets.importing.write import check_imported

    frames = read_dataset(source, note)
    check_imported(frames, str(source), note)
    report(frames, source)


@click.command("complex")
@click.argument("molecules", type=PATH, nargs=-1, required=True, metavar="MOLECULE...")
@click.option(
    "--gap",
    type=FiniteRange(min=0.5),
    default=2.6,
    show_default=True,
    metavar="ANGSTROM",
    help="Closest contact between two molecules.",
)
@click.option(
    "--seed",
    type=AT_LEAST_0,
    default=2025,
    show_default=True,
    help="Of the orientations.",
)
@click.option("-o", "--output", type=PATH, required=True, help="Structure file, .xyz.")
@DEBUG
def complex_command(molecules: tuple[Path, ...], gap: float, seed: int, output: Path) -> None:
    """Put MOLECULE... beside each other; print the fragments."""
    from deltaserver.datasets.workspace import place_molecules

    click.echo(
        " ".join(f"--fragment {text}" for text in place_molecules(molecules, gap, seed, output))
    )


def _open_sampling(asked: SamplingRequest, label_calculator: str | None = None) -> Workspace:
    from deltaserver.datasets.workspace import open_sampling

    fragments = parse_fragments(asked.fragments)
    plan = sampling_plan(asked, fragments)
    paths = asked.structures
    return open_sampling(asked.output, paths, fragments, plan, note, asked.spin, label_calculator)
