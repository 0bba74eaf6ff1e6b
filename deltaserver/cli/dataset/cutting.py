"""``deltaserver dataset cut``: dimers and trimers out of many molecules."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deltaserver.cli.dataset.options import CALCULATOR, LABELLING, OUTPUT
from deltaserver.cli.dataset.steps import (
    LabellingRequest,
    check_calculators,
    label,
    note,
    progress_bars,
)
from deltaserver.cli.options.common import (
    AT_LEAST_0,
    AT_LEAST_1,
    DEBUG,
    PATH,
    POSITIVE,
    WholeRange,
    take,
)

if TYPE_CHECKING:
    from deltaserver.datasets.cut import Source

WITHIN_ANG = {2: 8.0, 3: 5.0}  # where a binding of two ends; of three, whose energies are smaller


@click.command("cut")
@click.argument("sources", type=PATH, nargs=-1, required=True, metavar="SOURCE...")
@click.option(
    "--order",
    type=WholeRange(2, 3),
    default=2,
    show_default=True,
    help="2 for dimers; 3 for trimers, whose binding is what they have beyond their dimers.",
)
@click.option(
    "--within",
    "within_ang",
    type=POSITIVE,
    metavar="ANGSTROM",
    help="Each two molecules have atoms no farther apart. [default: 8 of dimers, 5 of trimers]",
)
@click.option(
    "-n", "--frames", "count", type=AT_LEAST_1, default=500, show_default=True, help="To be cut."
)
@click.option(
    "--between",
    metavar="A,B[,C]",
    help="Which molecules, by the model's names or their formulas, where there are several kinds.",
)
@click.option(
    "--charge",
    "charged",
    multiple=True,
    metavar="NAME:CHARGE[:SPIN]",
    help="Charge in e and unpaired electrons of the molecules of a name, as in Na:+1; once for "
    "each that has any. [default: as the run's model has it, else 0]",
)
@click.option("--seed", type=AT_LEAST_0, default=2025, show_default=True, help="Of what is drawn.")
@CALCULATOR
@LABELLING
@OUTPUT
@DEBUG
def cut_command(
    sources: tuple[Path, ...],
    order: int,
    within_ang: float | None,
    between: str | None,
    charged: tuple[str, ...],
    output: Path,
    **options: Any,
) -> None:
    """Cut dimers or trimers out of many molecules and label them.

    \b
    deltaserver dataset cut run/liquid --order 3 --frames 300 --output data/trimers

    SOURCE is the directory of a run, or a file of structures: a cluster, or an extended XYZ with a
    cell. Each is a trajectory of the dataset. Those are taken that differ most.
    """
    from deltaserver.datasets.cut import Charged, CutRequest, open_cut

    asked = take(LabellingRequest, options)
    check_calculators(asked.calculator)
    names = tuple(name.strip() for name in between.split(",")) if between else ()
    request = CutRequest(
        order,
        within_ang or WITHIN_ANG[order],
        options["count"],
        names,
        options["seed"],
        tuple(map(Charged.parse, charged)),
        asked.calculator,
    )
    workspace = open_cut(output, _sources(sources), request, note)
    with progress_bars() as progress:
        label(workspace, progress, asked)


def _sources(paths: tuple[Path, ...]) -> tuple[Source, ...]:
    """Return the trajectories in directories of runs, and files as they are."""
    from deltaserver.analysis.read.directory import find_runs
    from deltaserver.datasets.cut import Source
    from deltaserver.errors import InputError

    found = []
    for path in paths:
        if path.is_dir():
            found += [
                Source(run.label, run.beads[0], run.models, is_run=True)
                for run in find_runs([path])
            ]
        elif path.is_file():
            found.append(Source(path.name, (path,)))
        else:
            raise InputError(f"{path}: no such file, or directory of a run")
    return tuple(found)
