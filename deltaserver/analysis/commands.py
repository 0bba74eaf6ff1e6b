"""``deltaserver analyze``: what a run has written, as tables and figures."""

from __future__ import annotations

from pathlib import Path

import click

PATH = click.Path(path_type=Path)


def register_analyze(app: click.Group) -> None:
    """Add ``deltaserver analyze`` to the command line."""
    app.add_command(analyze)


@click.group(no_args_is_help=False)
def analyze() -> None:
    """Analyse what a run has written."""


@analyze.command()
@click.argument("log", type=PATH)
@click.option("--plot", "figure", type=PATH, help="Draw a figure (.png, .svg or .pdf).")
@click.option("--csv", "csv_file", type=PATH, help="Write the numbers.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def contributions(log: Path, figure: Path | None, csv_file: Path | None, debug: bool) -> None:
    """Tell what fragments and binding contributed, from LOG."""
    from deltaserver.analysis import contributions as analysis

    series = analysis.read_log(log)
    click.echo(analysis.table(series))
    if figure:
        analysis.plot(series, figure)
        click.echo(f"figure: {figure}")
    if csv_file:
        analysis.write_csv(series, csv_file)
        click.echo(f"numbers: {csv_file}")
