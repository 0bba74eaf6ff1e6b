"""``deltaserver calibrate``: what models that are there know of their own errors."""

from __future__ import annotations

from pathlib import Path

import click

from deltaserver.cli.options.common import DEBUG, PATH, QUIET


@click.command()
@click.argument("models", type=PATH)
@click.option("--dataset", type=PATH, required=True, help="What the models were trained on.")
@QUIET
@DEBUG
def calibrate(models: Path, dataset: Path, quiet: bool) -> None:
    """Calibrate how wrong the forces of MODELS may be.

    \b
    deltaserver calibrate models/water_benzene --dataset data/water_benzene

    That is done on validation frames of their dataset. `deltaserver train` does so by itself: this
    is for models of before. Forces stay as they are.
    """
    from deltaserver.datasets.files import read_dataset
    from deltaserver.errors import DataError
    from deltaserver.model.directories import refuse_shipped
    from deltaserver.training.uncertainty.directory import calibrate_directory

    refuse_shipped(models, "calibrate")
    say = (lambda line: None) if quiet else click.echo
    if not calibrate_directory(models, read_dataset(dataset, say), say):
        raise DataError(
            f"{models}: nothing was calibrated: {dataset} has too few validation frames, or the "
            "models too few points; add frames, and train on them"
        )
