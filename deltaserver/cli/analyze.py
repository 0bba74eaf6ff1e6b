"""``deltaserver analyze``: what runs have written, as numbers, figures and a report."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from deltaserver.cli.options.common import (
    DEBUG,
    PATH,
    POSITIVE,
    QUIET,
    FiniteRange,
    Span,
    WholeRange,
)
from deltaserver.cli.options.directories import MODEL_DIRECTORY
from deltaserver.errors import DataError
from deltaserver.status_line import StatusLine

PROGRESS_EVERY_S = 0.25
DEFAULT = "all"  # not "run": that is the directory that deltaserver simulate makes by default


class DefaultToRun(click.Group):
    """A group for which ``analyze DIR`` means ``analyze all DIR``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put ``all`` before arguments that begin with no command."""
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


@click.group(cls=DefaultToRun, no_args_is_help=True)
def analyze() -> None:
    """Analyse runs: numbers, figures and a report.

    \b
    Everything that the model's analysis.yaml asks for:
        deltaserver analyze run

    DIR is a directory of deltaserver simulate, or one that holds several such as a temperature
    sweep; trajectory files can be given too.
    """


def common(command: Callable[..., None]) -> Callable[..., None]:
    """Add the arguments and options that all these commands have."""
    for option in reversed(
        (
            click.argument("paths", type=PATH, nargs=-1, required=True, metavar="DIR..."),
            click.option(
                "-m",
                "--models",
                type=MODEL_DIRECTORY,
                metavar="DIR",
                help="Model directory, for the fragments; "
                "by default the one that the run's record or log names.",
            ),
            click.option(
                "-y",
                "--definitions",
                type=PATH,
                metavar="FILE",
                help="YAML file with variables, surfaces, …; by default analysis.yaml "
                "in the model directory.",
            ),
            click.option(
                "-o",
                "--output",
                type=PATH,
                metavar="DIR",
                help="Where results go; DIR/analysis by default, ./analysis for several.",
            ),
            click.option(
                "--skip",
                "skip_ps",
                type=FiniteRange(min=0),
                default=0.0,
                metavar="PS",
                help="Leave out this much of the start, in ps; of a window, after its way.",
            ),
            click.option(
                "--until",
                "until_ps",
                type=FiniteRange(min=0),
                metavar="PS",
                help="Leave out what is after this time, in ps.",
            ),
            click.option(
                "--temperature",
                "temperature_k",
                metavar="K",
                type=POSITIVE,
                help="By default what i-PI's input says.",
            ),
            click.option(
                "--timestep",
                "timestep_fs",
                metavar="FS",
                type=POSITIVE,
                help="Of one step (of one frame, in files that count no steps); by "
                "default what i-PI's input says.",
            ),
            click.option(
                "--beads",
                type=click.Choice(("all", "centroid")),
                default="all",
                show_default=True,
                help="Of path integrals: every bead is a sample, or "
                "their centroid is. Rotation is always the centroid's.",
            ),
            click.option(
                "--energy-unit",
                default="kcal/mol",
                show_default=True,
                metavar="UNIT",
                help="Of free energies: kcal/mol, kJ/mol, meV or eV.",
            ),
            QUIET,
            DEBUG,
        )
    ):
        command = option(command)
    return command


WINDOW = click.option(
    "--fit",
    "fit_window_ps",
    type=Span(),
    metavar="FROM:TO",
    help="Lags, in ps, between which 6Dt is fitted; by default 1/50 to 1/10 of the run.",
)


@analyze.command(DEFAULT)
@common
@WINDOW
def everything(**given: Any) -> None:
    """Make everything: numbers, figures and the report of runs."""
    from deltaserver.analysis.workflow import PARTS

    _analyse(PARTS, report=True, **given)


@analyze.command()
@common
@click.option(
    "--variable",
    "variables",
    multiple=True,
    metavar="NAME",
    help="Over what, once or twice; by default what the definitions say.",
)
@click.option("--bins", type=WholeRange(2, 2000), help="Bins a variable.")
@click.option(
    "--range",
    "ranges",
    type=Span(),
    multiple=True,
    metavar="LOW:HIGH",
    help="Of each --variable, in its order.",
)
@click.option(
    "--jacobian",
    type=click.Choice(("keep", "remove")),
    help="Whether R² (distance) or sin θ (angle, plane_angle) stays in P.",
)
@click.option(
    "--bound",
    "bound_ang",
    type=POSITIVE,
    metavar="ANG",
    help="Tell the standard free energy of binding too: nearer than this, molecules are bound.",
)
@click.option(
    "--outer",
    "outer_ang",
    type=Span(),
    metavar="LOW:HIGH",
    help="Where they are free, Å; the outermost tenth of what was sampled, if not given.",
)
def fes(**given: Any) -> None:
    """Free energy surfaces −kT ln P, with errors.

    Of biased runs, the windows of an umbrella are joined and metadynamics is weighted.
    """
    _analyse(("fes",), **given)


@analyze.command()
@common
@WINDOW
@click.option(
    "--longest",
    "longest_ps",
    type=POSITIVE,
    metavar="PS",
    help="Longest lag; half the run by default.",
)
def msad(**given: Any) -> None:
    """Angular displacement (MSAD) and reorientation of guests."""
    _analyse(("msad",), **given)


@analyze.command()
@common
def cv(**given: Any) -> None:
    """Collective variables along time."""
    _analyse(("variables",), **given)


@analyze.command()
@common
def thermo(**given: Any) -> None:
    """Drift of the conserved quantity, and the temperature."""
    _analyse(("thermo",), **given)


@analyze.command()
@common
def rdf(**given: Any) -> None:
    """Distances between the atoms of fragments."""
    _analyse(("rdf",), **given)


@analyze.command()
@common
def molecules(**given: Any) -> None:
    """Diffusion, g(r) and density of many molecules."""
    _analyse(("molecules", "thermo"), **given)


def _analyse(
    parts: Sequence[str],
    *,
    paths: Sequence[Path],
    output: Path | None,
    energy_unit: str,
    quiet: bool,
    report: bool = False,
    **given: Any,
) -> None:
    """Run one of the commands; a part that could not be done makes the exit code 2 at the end."""
    from deltaserver.analysis import workflow
    from deltaserver.analysis.read.directory import find_runs
    from deltaserver.analysis.results import Options
    from deltaserver.analysis.show import figures, profiles, summary
    from deltaserver.analysis.show import output as files

    unit = figures.EnergyUnit(energy_unit)
    _ = unit.ev  # an unknown unit is told before anything is read
    line = FramesLine(quiet)
    analysis = workflow.analyse(
        find_runs(list(paths)), Options(**given), parts, line.note, line.frames
    )
    line.clear()
    directory = output or workflow.one_path(paths)
    title = paths[0].resolve().name if len(paths) == 1 else "Analysis"
    written = files.write_all(analysis, directory, unit, title, parts=parts, report=report)
    if not quiet:
        click.echo(summary.text_of(analysis, unit))
        for profile in analysis.profiles:
            click.echo("\n".join(profiles.text_of(profile, unit)))
        for path in written:
            click.echo(f"wrote {path}")
    if analysis.problems:
        raise DataError(
            f"{len(analysis.problems)} thing(s) could not be done: {analysis.problems[0]}"
            f" (what could be done is in {directory})"
        )


class FramesLine(StatusLine):
    """Tells how many frames have been read, on a terminal, and notes in between."""

    def __init__(self, quiet: bool) -> None:
        super().__init__(sys.stderr, every_s=PROGRESS_EVERY_S, plain_s=(math.inf, math.inf))
        self.quiet = quiet
        self._began = self.clock()
        self._label = ""

    def frames(self, label: str, n_frames: int) -> None:
        """Show progress now and then."""
        if label != self._label:
            self._label, self._began = label, self.clock()
        if self.due and not self.quiet:
            rate = n_frames / max(1e-9, self.clock() - self._began)
            self.show(f"{label}: {n_frames} frames, {rate:.0f} frames/s")

    def note(self, text: str) -> None:
        """Tell one line."""
        if not self.quiet:
            self.clear()
            click.echo(f"note: {text}", err=True)


@analyze.command()
@click.argument("log", type=PATH)
@click.option("--plot", "figure", type=PATH, help="Draw a figure (.png, .svg or .pdf).")
@click.option("--csv", "csv_file", type=PATH, help="Write the numbers.")
@DEBUG
def contributions(log: Path, figure: Path | None, csv_file: Path | None) -> None:
    """Tell what fragments and binding contributed, from LOG."""
    from deltaserver.analysis.read import contributions as analysis
    from deltaserver.analysis.show.figures_contributions import draw_contributions

    series = analysis.read_log(log)
    click.echo(analysis.table(series))
    if figure:
        draw_contributions(series, [figure])
        click.echo(f"figure: {figure}")
    if csv_file:
        analysis.write_csv(series, csv_file)
        click.echo(f"numbers: {csv_file}")
