"""``deltaserver assemble``: a model of many molecules out of models of two."""

from __future__ import annotations

import shutil
from pathlib import Path

import click

from deltaserver.cli.options.common import DEBUG, PATH
from deltaserver.errors import DeltaserverError


@click.command()
@click.argument("models", nargs=-1, required=True, type=PATH, metavar="DIRECTORY...")
@click.option(
    "--structure",
    type=PATH,
    metavar="FILE",
    help="XYZ of all molecules, the atoms of each in its model's order; tells how many there are.",
)
@click.option("-o", "--output", type=PATH, required=True, help="Model directory to be written.")
@click.option("--name", help="The model's name. [default: the directory's]")
@click.option("--periodic", is_flag=True, help="The structure repeats: a crystal or a liquid.")
@click.option(
    "--ewald/--no-ewald",
    default=None,
    help="Charges beyond the cutoff by an Ewald sum. [default: of ions and polar molecules]",
)
@DEBUG
def assemble(
    models: tuple[Path, ...],
    structure: Path | None,
    output: Path,
    name: str | None,
    periodic: bool,
    ewald: bool | None,
) -> None:
    """Make a model of many molecules of two.

    \b
        deltaserver assemble models/benzene_dimer --structure box.xyz --periodic -o models/liquid
        deltaserver check --models models/liquid

    DIRECTORY is that of a complex of two fragments, whose models every molecule and every pair
    then has; several make a mixture. Or it is of many molecules, to be used for another structure.
    What was trained of trimers comes after the directory of their pairs.
    """
    from deltaserver.model.force_field import load
    from deltaserver.simulate.structures import assemble as assembling

    made = not output.exists()
    path, notes = assembling.assemble(models, structure, output, name, periodic, ewald)
    for note in notes:
        click.echo(note)
    if structure is None:
        click.echo(f"wrote {path}; it lacks structure.xyz, or count: NUMBER of every species")
        return
    try:
        model = load(path)
    except DeltaserverError:  # the same command, with another structure, must not be in its way
        if made:
            shutil.rmtree(output, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        raise
    counts = ", ".join(f"{len(one.atoms)} {one.name}" for one in getattr(model, "species", ()))
    summed = "; charges by an Ewald sum" if getattr(model, "ewald", None) else ""
    click.echo(f"wrote {path}: {counts}, {model.n_atoms} atoms{summed}")
