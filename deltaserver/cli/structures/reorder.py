"""``deltaserver reorder``: the atoms of a file in a model's order."""

from __future__ import annotations

from pathlib import Path

import click

from deltaserver.cli.options.common import DEBUG, FORCE, PATH, refuse_existing
from deltaserver.cli.options.directories import MODELS


@click.command()
@click.argument("structure", type=PATH, metavar="FILE")
@MODELS
@click.option(
    "-o",
    "--output",
    type=PATH,
    help="XYZ file to be written. [default: FILE's name with _reordered]",
)
@FORCE
@DEBUG
def reorder(structure: Path, models: Path, output: Path | None, force: bool) -> None:
    """Write the structures of FILE with their atoms in a model's order.

    \b
    deltaserver reorder mine.xyz --models models/c60

    Molecules that a cell has cut are made whole. They are matched by their bonds and by the
    handedness of their centres. Every structure is checked against the model afterwards.
    """
    from deltaserver.simulate.structures.reorder import reorder_file

    written = output or structure.with_name(f"{structure.name.split('.')[0]}_reordered.xyz")
    if written.resolve() != structure.resolve():  # which nothing allows
        refuse_existing(written, force)
    done = reorder_file(structure, models, written)
    structures = "1 structure" if done.n_frames == 1 else f"{done.n_frames} structures"
    whole = f", molecules made whole in {done.n_whole}" if done.n_whole else ""
    click.echo(f"{written}: {structures}, {done.moved} atoms moved in the first{whole}")
