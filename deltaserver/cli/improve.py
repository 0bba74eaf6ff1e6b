"""Models that are there, made better: ``deltaserver improve`` and ``calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

PATH = click.Path(path_type=Path)


def register_improve(app: click.Group) -> None:
    """Add ``improve`` and ``calibrate`` to ``app``."""
    app.add_command(improve)
    app.add_command(calibrate)


@click.command()
@click.argument("models", type=PATH)
@click.option("--dataset", type=PATH, required=True, help="What the models were trained on.")
@click.option("--quiet", is_flag=True, help="Nothing on the terminal but errors.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def calibrate(models: Path, dataset: Path, quiet: bool, debug: bool) -> None:
    """Calibrate how wrong the forces of MODELS may be.

    \b
    deltaserver calibrate models/water_benzene --dataset data/water_benzene

    That is done on validation frames of their dataset. `deltaserver train` does so by itself: this
    is for models of before. Forces stay as they are.
    """
    from deltaserver.datasets.files import read_dataset
    from deltaserver.training.uncertainty.directory import calibrate_directory

    say = (lambda line: None) if quiet else click.echo
    calibrate_directory(models, read_dataset(dataset, say), say)


@click.command()
@click.argument("models", type=PATH)
@click.option("--dataset", type=PATH, required=True, help="What the models were trained on.")
@click.option("--calculator", required=True, metavar="NAME",
              help="Labels: the method that labelled the dataset.")  # fmt: skip
@click.option("--temperature", "temperatures", type=click.FloatRange(min=0, min_open=True),
              multiple=True, required=True, metavar="KELVIN",
              help="Of the dynamics; may be repeated.")  # fmt: skip
@click.option("--until-force-mae", "force_mae", type=click.FloatRange(min=0, min_open=True),
              required=True, metavar="NUMBER",
              help="Wanted on fresh dynamics, kcal/mol/Å.")  # fmt: skip
@click.option("-o", "--output", type=PATH, required=True, help="Directory of everything.")
@click.option("--max-labels", type=click.IntRange(min=1), default=None,
              help="Frames that may be labelled, those of the tests included.")  # fmt: skip
@click.option("--max-hours", type=click.FloatRange(min=0, min_open=True), default=None,
              help="After which no other round is begun.")  # fmt: skip
@click.option("--labels-per-round", type=click.IntRange(min=1), default=20, show_default=True,
              help="Frames that a round adds.")  # fmt: skip
@click.option("--test-frames", type=click.IntRange(min=1), default=30, show_default=True,
              help="Frames of fresh dynamics that a round is tested on.")  # fmt: skip
@click.option("--runs", type=click.IntRange(min=1), default=16, show_default=True,
              help="Runs side by side; the temperatures take turns.")  # fmt: skip
@click.option("--steps", type=click.IntRange(min=20), default=2000, show_default=True,
              help="Of every run.")  # fmt: skip
@click.option("--time-step", type=click.FloatRange(min=0, min_open=True), default=0.5,
              show_default=True, metavar="FS")  # fmt: skip
@click.option("--selection", type=click.Choice(["uncertainty", "random"]), default="uncertainty",
              show_default=True,
              help="How frames are chosen; random is to compare with.")  # fmt: skip
@click.option("--patience", type=click.IntRange(min=1), default=3, show_default=True,
              help="Rounds without progress after which it ends.")  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--scheduler", default="local", show_default=True, metavar="local|tcp://HOST:PORT",
              help="Of the labels.")  # fmt: skip
@click.option("-w", "--workers", type=click.IntRange(min=1), default=1, show_default=True,
              help="Local processes that label.")  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True,
              help="Of evaluations and trainings.")  # fmt: skip
@click.option("--quiet", is_flag=True, help="Nothing on the terminal but errors.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def improve(models: Path, dataset: Path, output: Path, **options: Any) -> None:
    """Let MODELS learn from their own dynamics.

    \b
    deltaserver improve models/water_benzene --dataset data/water_benzene --calculator GFN2-xTB \\
        --temperature 100 --temperature 400 --until-force-mae 0.1 --output run/improved

    In rounds: run, choose frames, label, train, test on fresh dynamics. Interrupted at any moment,
    the same command goes on. MODELS stay as they are.
    """
    from deltaserver.improve.settings import Dynamics, Settings, Stop
    from deltaserver.improve.workflow import improve as run

    quiet = options.pop("quiet")
    options.pop("debug")
    stop = Stop(**{key: options.pop(key) for key in
                   ("force_mae", "max_labels", "max_hours", "patience")})  # fmt: skip
    dynamics = Dynamics(**{key: options.pop(key) for key in
                           ("temperatures", "runs", "steps", "time_step")})  # fmt: skip
    settings = Settings(models, dataset, options.pop("calculator"), output, dynamics, **options)
    run(settings, stop, (lambda line: None) if quiet else click.echo)
