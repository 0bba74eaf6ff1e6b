"""``deltaserver evaluate``: errors on held-out frames, full against Δ, and along curves."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deltaserver.cli.options.common import (
    AT_LEAST_0,
    AT_LEAST_1,
    DEBUG,
    PATH,
    FiniteRange,
    WholeRange,
    take,
)
from deltaserver.cli.options.directories import MODEL_DIRECTORY
from deltaserver.cli.options.scan import SCAN_OPTIONS, ScanOptions, label_progress
from deltaserver.errors import InputError
from deltaserver.model.directories import refuse_shipped

if TYPE_CHECKING:
    from deltaserver.datasets.frames import LabelledFrames
    from deltaserver.evaluation.scan_workflow import ScanRequest
    from deltaserver.evaluation.scans.errors import ScanErrors
    from deltaserver.evaluation.splits import SplitKind, SplitRequest
    from deltaserver.evaluation.workflow import EvaluationPlan


def _sizes(_context: click.Context, _option: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise click.BadParameter(f"{text!r}; expected numbers such as 25,50,100") from None
    if any(size < 1 for size in sizes):
        raise click.BadParameter(f"{text!r}; expected positive numbers")
    return sizes


@dataclass(frozen=True)
class EvaluateRequest:
    """What was asked of ``evaluate`` but its scan; see ``deltaserver evaluate --help``."""

    directories: tuple[Path, ...]
    kind: SplitKind | None
    test_trajectories: tuple[int, ...]
    test_fraction: float
    max_test: int | None
    train_sizes: tuple[int, ...]
    symmetries: tuple[str, ...]
    block_length: int | None
    n_resamples: int
    confidence: float
    seed: int
    output: Path
    readme: bool
    made_with: str
    no_figures: bool


@click.command()
@click.argument("dataset", type=PATH, required=False)
@click.option(
    "-m",
    "--models",
    "directories",
    type=MODEL_DIRECTORY,
    multiple=True,
    metavar="DIR",
    help="Model directory, or a shipped model's name; repeat it to compare several.",
)
@click.option(
    "--split",
    "kind",
    type=click.Choice(["time", "trajectory", "random", "all"]),
    default=None,
    help="Test on the end of each trajectory, on whole trajectories, on frames at random, which "
    "have neighbours in time among the training frames, or on all. Default: all of a dataset that "
    "no model was trained on, else time.",
)
@click.option(
    "--test-trajectory",
    "test_trajectories",
    type=int,
    multiple=True,
    help="Test on this whole trajectory; may be repeated.",
)
@click.option(
    "--test-fraction",
    type=FiniteRange(0.0, 1.0, min_open=True, max_open=True),
    default=0.16,
    show_default=True,
    help="Share of each trajectory, at its end.",
)
@click.option(
    "--max-test",
    type=AT_LEAST_1,
    default=None,
    metavar="FRAMES",
    help="Test on so many of these, evenly spaced.",
)
@click.option(
    "--train-sizes",
    callback=_sizes,
    default="",
    metavar="LIST",
    help="First train models of so many points, as 25,50,100.",
)
@click.option(
    "--symmetry",
    "symmetries",
    multiple=True,
    metavar="none|fragment|product|…",
    help="Of --train-sizes; may be repeated. [default: product]",
)
@click.option(
    "--block-length",
    type=AT_LEAST_1,
    default=None,
    metavar="FRAMES",
    help="Of the bootstrap; from the errors' correlation if not given.",
)
@click.option(
    "--resamples",
    "n_resamples",
    type=WholeRange(min=2),
    default=2000,
    show_default=True,
    help="Of the bootstrap.",
)
@click.option(
    "--confidence",
    type=FiniteRange(0.0, 1.0, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="Of the intervals.",
)
@click.option(
    "--seed", type=AT_LEAST_0, default=0, show_default=True, help="Of everything that is drawn."
)
@SCAN_OPTIONS
@click.option(
    "-o",
    "--output",
    type=PATH,
    required=True,
    help="Where evaluation.json, evaluation.md and the figures go.",
)
@click.option("--readme", is_flag=True, help="Write each model directory's README.md too.")
@click.option(
    "--made-with",
    default="",
    metavar="COMMAND",
    help="What trained the models, to be stated in the Markdown.",
)
@click.option("--no-figures", is_flag=True, help="Numbers only; needs no matplotlib.")
@DEBUG
def evaluate(dataset: Path | None, **options: Any) -> None:
    """Test models on held-out frames of DATASET: full against Δ.

    \b
    deltaserver evaluate data/water_benzene --models models/water_benzene --output run/evaluation

    DATASET is a directory that `deltaserver dataset` has made, or a labelled extended XYZ file.
    Frames that a model was trained on are refused.

    --scan compares the binding along dissociation and rotation curves too, or, without DATASET,
    alone:

    \b
    deltaserver evaluate data/water_benzene --models models/water_benzene --output run/evaluation \\
        --scan run/scan --calculator GFN2-xTB
    deltaserver evaluate --scan run/scan --models models/other --output run/other
    """
    scan = take(ScanOptions, options).request(options["seed"])
    asked = EvaluateRequest(**options)
    if asked.symmetries and not asked.train_sizes:
        raise InputError("--symmetry is for --train-sizes; models that exist have their own")
    for directory in asked.directories if asked.readme else ():
        refuse_shipped(directory, "--readme")
    if not asked.directories and not asked.train_sizes:
        raise InputError("--models is missing; expected a directory with a model.yaml")
    if dataset is not None:
        _held_out(dataset, scan, asked)
    elif scan is None:
        raise click.MissingParameter(param_hint="'DATASET'", param_type="argument")
    elif asked.train_sizes or asked.readme:
        raise InputError("--train-sizes and --readme are of held-out errors; give DATASET too")
    else:
        _scan_alone(scan, asked)


def _held_out(dataset: Path, scan: ScanRequest | None, asked: EvaluateRequest) -> None:
    """Evaluate on held-out frames, and along a scan's curves if there is one."""
    from deltaserver.datasets.files import read_dataset
    from deltaserver.evaluation.markdown import grid_table, whole_tables
    from deltaserver.evaluation.scan_workflow import run_scan
    from deltaserver.evaluation.splits import SplitRequest
    from deltaserver.evaluation.workflow import evaluate as run
    from deltaserver.evaluation.workflow import write_evaluation

    kind = asked.kind or ("trajectory" if asked.test_trajectories else "time")
    split = SplitRequest(kind, asked.test_trajectories, asked.test_fraction, asked.seed)
    directories, frames = asked.directories, read_dataset(dataset)
    if frames.order == 3:
        _of_three(dataset, frames, split, scan, asked)
        return
    if asked.train_sizes:
        directories += _train(frames, split, asked)
    # What is trained here is of this dataset; of what exists it shows.
    unseen = kind == "time" and not asked.kind and not asked.train_sizes
    plan = replace(_plan(asked, split), all_if_unseen=unseen)
    found = run(dataset, directories, plan, frames)
    if scan:
        curves = run_scan(scan, directories, found.frames.fragments, label_progress())
        found = replace(found, scan=curves)
    written = write_evaluation(
        found,
        asked.output,
        draw=not asked.no_figures,
        readme=asked.readme,
        made_with=asked.made_with,
        command=_command(click.get_current_context()),
    )
    click.echo(f"{len(found.test)} test frames: {found.request.describe()}\n")
    if found.methods_note:
        click.echo(f"{found.methods_note}\n")
    click.echo(grid_table(found) if len(directories) > 1 else whole_tables(found))
    _print_results(found.scan, written)


def _plan(asked: EvaluateRequest, split: SplitRequest) -> EvaluationPlan:
    """Return how errors are taken."""
    from deltaserver.evaluation.workflow import EvaluationPlan

    return EvaluationPlan(
        split=split,
        block_length=asked.block_length,
        n_resamples=asked.n_resamples,
        confidence=asked.confidence,
        seed=asked.seed,
        max_test=asked.max_test,
    )


def _of_three(
    dataset: Path,
    frames: LabelledFrames,
    split: SplitRequest,
    scan: ScanRequest | None,
    asked: EvaluateRequest,
) -> None:
    """Evaluate what three molecules have beyond their pairs."""
    from deltaserver.evaluation.of_three import evaluate_three
    from deltaserver.evaluation.three_report import table, write_three

    if scan or asked.train_sizes or asked.readme or asked.made_with:
        raise InputError(
            f"{dataset}: of order 3, on which directories of many molecules are tested; --scan, "
            "--train-sizes, --readme and --made-with are of one complex"
        )
    found = evaluate_three(dataset, frames, asked.directories, _plan(asked, split))
    written = write_three(found, asked.output, _command(click.get_current_context()))
    click.echo(f"{len(found.test)} test frames: {found.request.describe()}\n")
    for note in found.notes:
        click.echo(f"{note}\n")
    click.echo(f"in kcal/mol and kcal/mol/Å\n\n{table(found)}")
    _print_results(None, written)


def _scan_alone(scan: ScanRequest, asked: EvaluateRequest) -> None:
    """Evaluate along a scan's curves."""
    from deltaserver.evaluation.scan_workflow import run_scan, write_scan

    found = run_scan(scan, asked.directories, (), label_progress())
    command = _command(click.get_current_context())
    _print_results(
        found, write_scan(found, asked.output, draw=not asked.no_figures, command=command)
    )


def _print_results(scan: ScanErrors | None, written: list[Path]) -> None:
    from deltaserver.evaluation.scans.report import scan_summary

    if scan:
        click.echo(f"\n{scan_summary(scan)}")
    click.echo(f"\nwritten: {', '.join(str(path) for path in written)}")


def _train(frames: LabelledFrames, split: SplitRequest, asked: EvaluateRequest) -> tuple[Path, ...]:
    from deltaserver.evaluation.learning_curves import train_series

    return train_series(
        frames,
        asked.train_sizes,
        asked.symmetries or ("product",),
        asked.output / "models",
        split.seed,
        split.test_trajectories,
        click.echo,
    )


def _command(context: click.Context) -> str:
    """Return the command line that was given, options by their long names."""
    words = ["deltaserver", "evaluate"]
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in context.params:  # --debug
            continue
        if context.get_parameter_source(name) is not click.core.ParameterSource.COMMANDLINE:
            continue
        value, option = context.params[name], parameter.opts[-1]
        if isinstance(parameter, click.Argument):
            words.append(str(value))
        elif isinstance(parameter, click.Option) and parameter.is_flag:
            words.append(option)
        elif isinstance(parameter, click.Option) and parameter.multiple:
            for one in value:
                words += [option, str(one)]
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            words += [option, text]
    return shlex.join(words)
