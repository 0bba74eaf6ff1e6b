"""``deltaserver dataset import``: datasets of frames that others have labelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deltaserver.cli import dataset as shared


def register_import(app: click.Group) -> None:
    """Add ``deltaserver dataset import`` to the command line."""
    group = app.commands["dataset"]
    assert isinstance(group, click.Group)
    group.add_command(import_command)


@click.command("import")
@click.argument("source", type=shared.PATH, metavar="FILE")
@shared._fragment_option(required=True)
@click.option("--energy-key", metavar="KEY", help="What the file calls the complex's energy.")
@click.option("--forces-key", metavar="KEY", help="What it calls the forces.")
@click.option(
    "--units", metavar="ENERGY,LENGTH,FORCES",
    help="Of the file, such as Hartree,Bohr or eV/Bohr (of forces). [default: what an .npz states, "
    "kcal/mol,Ang if nothing; eV,Ang in XYZ]",
)  # fmt: skip
@click.option(
    "-n", "--frames", type=click.IntRange(min=1), help="Take so many, evenly spaced. [default: all]"
)
@click.option(
    "-c", "--calculator", metavar="CALCULATOR",
    help="Labels the fragments, if the file has no labels of theirs: the method of the file's.",
)  # fmt: skip
@shared._LABELLING
@shared._OUTPUT
@shared._DEBUG
def import_command(
    source: Path, fragments: tuple[str, ...], output: Path, debug: bool, **options: Any
) -> None:
    """Make a dataset of FILE, which has labels of the complex.

    FILE is an .npz as of MD17, MD22, rMD17 or sGDML, or extended XYZ. The complex's labels are
    kept; those of fragments are the file's (energy_frag1, ..., forces_frag), or --calculator's.
    """
    from deltaserver.datasets.importing.read import Keys
    from deltaserver.datasets.importing.write import Request, import_dataset

    calculator = options["calculator"]
    shared._check_calculators(calculator)
    request = Request(
        source=source,
        fragments=shared._parse_fragments(fragments),
        output=output,
        keys=Keys(options["energy_key"], options["forces_key"]),
        units=options["units"],
        n_frames=options["frames"],
        calculator=calculator,
        name=options["name"] or output.resolve().name,
        reference=options["reference"],
    )
    frames, workspace = import_dataset(request, shared._note)
    if frames is not None:
        shared._report(frames, output)
    elif workspace is not None:
        with shared._progress() as progress:
            shared._label(workspace, progress, options)
