"""``deltaserver dataset place`` and ``fold``: geometries that no dynamics reaches."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from deltaserver.cli.dataset.options import TEMPERATURES
from deltaserver.cli.dataset.steps import check_calculators, progress_bars
from deltaserver.cli.options.common import (
    AT_LEAST_0,
    AT_LEAST_1,
    DEBUG,
    PATH,
    Span,
    integers,
    together,
)
from deltaserver.cli.options.directories import MODEL_DIRECTORY
from deltaserver.errors import InputError

SOURCE = click.argument("source", type=PATH, metavar="DATASET")
DRAWN = together(
    click.option(
        "-n",
        "--frames",
        "count",
        type=AT_LEAST_1,
        default=500,
        show_default=True,
        help="Geometries.",
    ),
    click.option(
        "--hold-out",
        "held_out",
        callback=integers,
        default="",
        metavar="LIST",
        help="Trajectories that no molecule is taken from, as 4,5: those to test on.",
    ),
    click.option("--seed", type=AT_LEAST_0, default=2025, show_default=True, help="Of everything."),
    click.option("-o", "--output", type=PATH, required=True, help="Structures, .xyz."),
)


@click.command("place")
@SOURCE
@click.option(
    "--gaps",
    default="1.5:12",
    show_default=True,
    metavar="NEAREST:FARTHEST",
    help="Shortest distances between atoms of the two molecules, Å; dense at contact.",
)
@click.option(
    "--binding",
    type=Span(),
    metavar="LOW:HIGH",
    help="Keep places alone where --models says that the binding energy is so, eV: near its wall.",
)
@click.option(
    "-m",
    "--models",
    type=MODEL_DIRECTORY,
    metavar="DIR",
    help="Model directory, or the name of a shipped model, for --binding.",
)
@DRAWN
@DEBUG
def place_command(
    source: Path,
    gaps: str,
    binding: tuple[float, float] | None,
    models: Path | None,
    count: int,
    held_out: tuple[int, ...],
    seed: int,
    output: Path,
) -> None:
    """Put the molecules of DATASET where no dynamics goes.

    The smaller one is turned at random and comes from any direction, or lies anywhere within the
    larger one where there is room. The command that labels them is printed.
    """
    from deltaserver.datasets.sampling.placements import BindingRange, PlacementPlan
    from deltaserver.datasets.sampling.separations import parse_separations
    from deltaserver.datasets.workflow import place_anew

    plan = PlacementPlan(*parse_separations(gaps, "--gaps"), count, seed)
    if (binding is None) != (models is None):
        raise InputError("--binding and --models: give both, or neither")
    near = None if binding is None or models is None else BindingRange(models, *binding)
    _say_what_labels(*place_anew(source, held_out, plan, output, near), output)


@click.command("fold")
@SOURCE
@click.option(
    "-c",
    "--calculator",
    default="GFN-FF",
    show_default=True,
    help="What moves the atoms: a cheap method, whose bonds hold.",
)
@TEMPERATURES
@DRAWN
@DEBUG
def fold_command(
    source: Path,
    calculator: str,
    temperatures: tuple[float, ...],
    count: int,
    held_out: tuple[int, ...],
    seed: int,
    output: Path,
) -> None:
    """Press molecules of DATASET together with themselves.

    A spring pulls two atoms of one molecule together that more than three bonds keep apart, as
    they meet when it folds: a model that never saw it has no wall there. The command that labels
    the geometries is printed.
    """
    from deltaserver.datasets.sampling.folding import FoldPlan
    from deltaserver.datasets.workflow import fold_anew

    check_calculators(calculator)
    plan = FoldPlan(count, calculator, temperatures, seed)
    with progress_bars() as progress:
        task = progress.add_task("folding", total=count)
        found = fold_anew(
            source, held_out, plan, output, lambda done: progress.update(task, completed=done)
        )
    _say_what_labels(*found, output)


def _say_what_labels(fragments: list[str], method: str, output: Path) -> None:
    words = " ".join(f"--fragment {text}" for text in fragments)
    # Labels of two methods do not go together: the one that the dataset has is named.
    said = f"{words} --calculator {shlex.quote(method)}"
    click.echo(f"deltaserver dataset label {shlex.quote(str(output))} {said} --output DATASET")
