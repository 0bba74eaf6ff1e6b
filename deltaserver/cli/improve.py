"""``deltaserver improve``: models that are there learn from their own dynamics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deltaserver.cli.options.common import (
    AT_LEAST_0,
    AT_LEAST_1,
    DEBUG,
    PATH,
    POSITIVE,
    QUIET,
    WholeRange,
    take,
)
from deltaserver.cli.options.directories import MODEL_DIRECTORY


@click.command()
@click.argument("models", type=MODEL_DIRECTORY)
@click.option(
    "--dataset", type=PATH, required=True, help="The dataset that MODELS were trained on."
)
@click.option(
    "--calculator",
    required=True,
    metavar="NAME",
    help="Method of the labels: the one that the dataset was labelled with.",
)
@click.option(
    "--temperature",
    "temperatures",
    type=POSITIVE,
    multiple=True,
    required=True,
    metavar="KELVIN",
    help="Temperature of the dynamics; may be repeated.",
)
@click.option(
    "--until-force-mae",
    "force_mae",
    type=POSITIVE,
    required=True,
    metavar="NUMBER",
    help="Stop when the force MAE on fresh dynamics is below, kcal/mol/Å.",
)
@click.option(
    "-o",
    "--output",
    type=PATH,
    required=True,
    help="Directory for rounds, labels and the new models.",
)
@click.option(
    "--pair",
    "--trimers",
    "pair",
    type=PATH,
    metavar="DIR",
    help="If MODELS are of many molecules: the directory in which deltaserver train made the "
    "binding of two, or of three where DATASET is of trimers. [default, of two: MODELS, if they "
    "have its training.json]",
)
@click.option(
    "--max-rounds", type=AT_LEAST_1, default=None, help="Stop after so many rounds of training."
)
@click.option(
    "--max-labels",
    type=AT_LEAST_1,
    default=None,
    help="Stop after so many labelled frames, those of the tests included.",
)
@click.option(
    "--max-hours", type=POSITIVE, default=None, help="Begin no other round after so many hours."
)
@click.option(
    "--labels-per-round",
    type=AT_LEAST_1,
    default=20,
    show_default=True,
    help="Frames that each round labels and adds.",
)
@click.option(
    "--test-frames",
    type=AT_LEAST_1,
    default=30,
    show_default=True,
    help="Frames of fresh dynamics that each round is tested on.",
)
@click.option(
    "--runs",
    type=AT_LEAST_1,
    default=16,
    show_default=True,
    help="Runs side by side; the temperatures take turns.",
)
@click.option(
    "--steps",
    type=WholeRange(min=20),
    default=2000,
    show_default=True,
    help="Time steps of each run.",
)
@click.option(
    "--time-step",
    type=POSITIVE,
    default=0.5,
    show_default=True,
    metavar="FS",
    help="Time step of the dynamics.",
)
@click.option(
    "--selection",
    type=click.Choice(["uncertainty", "random"]),
    default="uncertainty",
    show_default=True,
    help="How frames are chosen; random is for comparison.",
)
@click.option(
    "--patience",
    type=AT_LEAST_1,
    default=3,
    show_default=True,
    help="Stop after so many rounds without progress.",
)
@click.option(
    "--seed", type=AT_LEAST_0, default=0, show_default=True, help="Of all random numbers."
)
@click.option(
    "--scheduler",
    default="local",
    show_default=True,
    metavar="local|tcp://HOST:PORT",
    help="Where the labels are computed: here, or by a Dask scheduler.",
)
@click.option(
    "-w",
    "--workers",
    type=AT_LEAST_1,
    default=1,
    show_default=True,
    help="Local processes that compute labels.",
)
@click.option(
    "--threads",
    type=AT_LEAST_1,
    default=1,
    show_default=True,
    help="Threads of evaluation and training.",
)
@QUIET
@DEBUG
def improve(models: Path, dataset: Path, output: Path, **options: Any) -> None:
    """Let MODELS learn from their own dynamics.

    \b
    deltaserver improve models/water_benzene --dataset data/water_benzene --calculator GFN2-xTB \\
        --temperature 100 --temperature 400 --until-force-mae 0.1 --output run/improved

    In rounds: run, choose frames, label, train, test on fresh dynamics. Interrupted at any moment,
    the same command goes on. MODELS stay as they are. Of many molecules, dimers that the dynamics
    shows are chosen and labelled, and the binding of two is trained; with a DATASET of trimers,
    trimers, and what three molecules have beyond their pairs.
    """
    from deltaserver.improve.settings import Dynamics, Settings, Stop
    from deltaserver.improve.workflow import improve as run

    quiet = options.pop("quiet")
    stop, dynamics = take(Stop, options), take(Dynamics, options)
    settings = Settings(models, dataset, options.pop("calculator"), output, dynamics, **options)
    run(settings, stop, (lambda line: None) if quiet else click.echo)
