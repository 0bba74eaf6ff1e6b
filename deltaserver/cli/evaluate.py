"""``deltaserver evaluate``: errors on held-out frames, full against Δ, and along curves."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deltaserver.cli.options.common import AT_LEAST_0, AT_LEAST_1, DEBUG, PATH
from deltaserver.cli.options.scan import scan_options, take_request, tell_labels

if TYPE_CHECKING:
    from deltaserver.evaluation.scan_workflow import ScanRequest
    from deltaserver.evaluation.scans.errors import ScanErrors


def _sizes(_context: click.Context, _option: click.Parameter, text: str) -> tuple[int, ...]:
    try:
        sizes = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise click.BadParameter(f"{text!r}; expected numbers such as 25,50,100") from None
    if any(size < 1 for size in sizes):
        raise click.BadParameter(f"{text!r}; expected positive numbers")
    return sizes


@click.command()
@click.argument("dataset", type=PATH, required=False)
@click.option("-m", "--models", "directories", type=PATH, multiple=True,
              help="Model directory; repeat it to compare several.")  # fmt: skip
@click.option(
    "--split", "kind", type=click.Choice(["time", "trajectory", "random", "all"]), default=None,
    help="Test on the end of each trajectory, on whole trajectories, on frames at random, which "
    "have neighbours in time among the training frames, or on all. Default: all of a dataset that "
    "no model was trained on, else time.",
)  # fmt: skip
@click.option("--test-trajectory", "test_trajectories", type=int, multiple=True,
              help="Test on this whole trajectory; may be repeated.")  # fmt: skip
@click.option("--test-fraction", type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
              default=0.16, show_default=True,
              help="Share of each trajectory, at its end.")  # fmt: skip
@click.option("--max-test", type=AT_LEAST_1, default=None, metavar="FRAMES",
              help="Test on so many of these, evenly spaced.")  # fmt: skip
@click.option("--train-sizes", callback=_sizes, default="", metavar="LIST",
              help="First train models of so many points, as 25,50,100.")  # fmt: skip
@click.option("--symmetry", "symmetries", multiple=True, metavar="none|fragment|product|…",
              help="Of --train-sizes; may be repeated. [default: product]")  # fmt: skip
@click.option("--block-length", type=AT_LEAST_1, default=None, metavar="FRAMES",
              help="Of the bootstrap; from the errors' correlation if not given.")  # fmt: skip
@click.option("--resamples", "n_resamples", type=click.IntRange(min=2), default=2000,
              show_default=True, help="Of the bootstrap.")  # fmt: skip
@click.option("--confidence", type=click.FloatRange(0.0, 1.0, min_open=True, max_open=True),
              default=0.95, show_default=True, help="Of the intervals.")  # fmt: skip
@click.option("--seed", type=AT_LEAST_0, default=0, show_default=True,
              help="Of everything that is drawn.")  # fmt: skip
@scan_options
@click.option("-o", "--output", type=PATH, required=True,
              help="Where evaluation.json, evaluation.md and the figures go.")  # fmt: skip
@click.option("--readme", is_flag=True, help="Write each model directory's README.md too.")
@click.option("--made-with", default="", metavar="COMMAND",
              help="What trained the models, to be stated in the Markdown.")  # fmt: skip
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
    from deltaserver.errors import InputError

    scan = take_request(options, options["seed"])
    sizes = options["train_sizes"]
    if options["symmetries"] and not sizes:
        raise InputError("--symmetry is for --train-sizes; models that exist have their own")
    if not options["directories"] and not sizes:
        raise InputError("--models is missing; expected a directory with a model.yaml")
    if dataset is not None:
        _held_out(dataset, scan, options)
    elif scan is None:
        raise click.MissingParameter(param_hint="'DATASET'", param_type="argument")
    elif sizes or options["readme"]:
        raise InputError("--train-sizes and --readme are of held-out errors; give DATASET too")
    else:
        _scan_alone(scan, options)


def _held_out(dataset: Path, scan: ScanRequest | None, options: dict[str, Any]) -> None:
    """Evaluate on held-out frames, and along a scan's curves if there is one."""
    from deltaserver.evaluation.markdown import grid_table, whole_tables
    from deltaserver.evaluation.scan_workflow import run_scan
    from deltaserver.evaluation.splits import SplitRequest
    from deltaserver.evaluation.workflow import EvaluationPlan, write_evaluation
    from deltaserver.evaluation.workflow import evaluate as run

    trajectories, given = options.pop("test_trajectories"), options.pop("kind")
    kind: Any = given or ("trajectory" if trajectories else "time")
    split = SplitRequest(kind, trajectories, options.pop("test_fraction"), options["seed"])
    directories, sizes = options.pop("directories"), options.pop("train_sizes")
    symmetries, output = options.pop("symmetries"), options.pop("output")
    writing = {name: options.pop(name) for name in ("readme", "made_with")}
    draw = not options.pop("no_figures")
    if sizes:
        directories += _train(dataset, sizes, symmetries, output, split)
    # What is trained here is of this dataset; of what exists it shows.
    plan = EvaluationPlan(split=split, all_if_unseen=kind == "time" and not given and not sizes,
                          **options)  # fmt: skip
    found = run(dataset, directories, plan)
    if scan:
        curves = run_scan(scan, directories, found.frames.fragments, tell_labels())
        found = replace(found, scan=curves)
    command = _command(click.get_current_context())
    written = write_evaluation(found, output, draw=draw, command=command, **writing)
    click.echo(f"{len(found.test)} test frames: {found.request.describe()}\n")
    click.echo(grid_table(found) if len(directories) > 1 else whole_tables(found))
    _tell(found.scan, written)


def _scan_alone(scan: ScanRequest, options: dict[str, Any]) -> None:
    """Evaluate along a scan's curves."""
    from deltaserver.evaluation.scan_workflow import run_scan, write_scan

    found = run_scan(scan, options["directories"], (), tell_labels())
    command = _command(click.get_current_context())
    _tell(found, write_scan(found, options["output"], draw=not options["no_figures"],
                            command=command))  # fmt: skip


def _tell(scan: ScanErrors | None, written: list[Path]) -> None:
    from deltaserver.evaluation.scans.report import scan_summary

    if scan:
        click.echo(f"\n{scan_summary(scan)}")
    click.echo(f"\nwritten: {', '.join(str(path) for path in written)}")


def _train(
    dataset: Path, sizes: tuple[int, ...], symmetries: tuple[str, ...], output: Path, split: Any
) -> tuple[Path, ...]:
    from deltaserver.datasets.files import read_dataset
    from deltaserver.evaluation.learning_curves import train_series

    return train_series(
        read_dataset(dataset), sizes, symmetries or ("product",), output / "models", split.seed,
        split.test_trajectories, click.echo,
    )  # fmt: skip


def _command(context: click.Context) -> str:
    """Return the command line that was given, options by their long names."""
    words = ["deltaserver", "evaluate"]
    for parameter in context.command.params:
        name = parameter.name or ""
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
