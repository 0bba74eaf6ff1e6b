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

    Molecules are matched by their bonds and by the handedness of their centres. Every structure
    is checked against the model afterwards.
    """
    from deltaserver.simulate.structures.reorder import reorder_file

    written = output or structure.with_name(f"{structure.name.split('.')[0]}_reordered.xyz")
    if written.resolve() != structure.resolve():  # which nothing allows
        refuse_existing(written, force)
    moved, n_frames = reorder_file(structure, models, written)
    structures = "1 structure" if n_frames == 1 else f"{n_frames} structures"
    click.echo(f"{written}: {structures}, {moved} atoms moved in the first")
