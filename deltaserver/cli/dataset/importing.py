"""``deltaserver dataset import``: datasets of frames that others have labelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deltaserver.cli.dataset.options import LABELLING, OUTPUT, fragment_option
from deltaserver.cli.dataset.steps import (
    LabellingRequest,
    check_calculators,
    label,
    note,
    parse_fragments,
    progress_bars,
    report,
)
from deltaserver.cli.options.common import AT_LEAST_1, DEBUG, PATH


@click.command("import")
@click.argument("source", type=PATH, metavar="FILE")
@fragment_option(required=True)
@click.option("--energy-key", metavar="KEY", help="What the file calls the complex's energy.")
@click.option("--forces-key", metavar="KEY", help="What it calls the forces.")
@click.option(
    "--units",
    metavar="ENERGY,LENGTH,FORCES",
    help="Of the file, such as Hartree,Bohr or eV/Bohr (of forces). [default: what an .npz states, "
    "kcal/mol,Ang if nothing; eV,Ang in XYZ]",
)
@click.option("-n", "--frames", type=AT_LEAST_1, help="Take so many, evenly spaced. [default: all]")
@click.option(
    "-c",
    "--calculator",
    metavar="CALCULATOR",
    help="Labels the fragments, if the file has no labels of theirs: the method of the file's.",
)
@LABELLING
@OUTPUT
@DEBUG
def import_command(
    source: Path,
    fragments: tuple[str, ...],
    output: Path,
    units: str | None,
    energy_key: str | None,
    forces_key: str | None,
    frames: int | None,
    **labelling: Any,
) -> None:
    """Make a dataset of FILE, which has labels of the complex.

    FILE is an .npz as of MD17, MD22, rMD17 or sGDML, or extended XYZ. The complex's labels are
    kept; those of fragments are the file's (energy_frag1, ..., forces_frag), or --calculator's.
    """
    from deltaserver.datasets.importing.read import Keys
    from deltaserver.datasets.importing.write import Request, check_imported, import_dataset

    asked = LabellingRequest(**labelling)
    check_calculators(asked.calculator)
    request = Request(
        source=source,
        fragments=parse_fragments(fragments),
        output=output,
        keys=Keys(energy_key, forces_key),
        units=units,
        n_frames=frames,
        calculator=asked.calculator,
        name=asked.name or output.resolve().name,
        reference=asked.reference,
    )
    written, workspace = import_dataset(request, note)
    if written is not None:
        report(written, output)
    elif workspace is not None:
        with progress_bars() as progress:
            label(
                workspace, progress, asked, lambda frames: check_imported(frames, str(source), note)
            )
