"""The options of ``deltaserver evaluate --scan``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from deltaserver.datasets.labelling import LabelProgress
    from deltaserver.evaluation.scan_workflow import ScanRequest

PATH = click.Path(path_type=Path)


def _numbers(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> tuple[float, ...] | None:
    try:
        return tuple(float(part) for part in text.split(",")) if text else None
    except ValueError:
        raise click.BadParameter(f"{text!r}; expected Å such as -1,0,2.5,20") from None


_OPTIONS = (
    click.option(
        "--scan", type=PATH, default=None, metavar="DIRECTORY",
        help="Dissociation and rotation curves of two rigid fragments. Their labels are in "
        "DIRECTORY; --calculator puts there what is missing.",
    ),
    click.option(
        "-c", "--calculator", default=None, metavar="CALCULATOR",
        help="Labels the scan: the models' reference method, as `dataset label` takes it.",
    ),
    click.option(
        "--structure", type=PATH, default=None,
        help="Where the scan starts. [default: structure.xyz of the first model]",
    ),
    click.option(
        "-f", "--fragment", "fragments", multiple=True, metavar="NAME:ATOMS[:CHARGE[:SPIN]]",
        help="The two fragments of the scan, with charges. [default: DATASET's]",
    ),
    click.option(
        "--orientations", type=click.IntRange(min=1), default=None,
        help="Dissociation curves: the start's orientation, and random ones. [default: 3]",
    ),
    click.option(
        "--rotations", type=click.IntRange(min=0), default=None,
        help="Rotation curves, each about a random axis. [default: 2]",
    ),
    click.option(
        "--displacements", callback=_numbers, default=None, metavar="LIST",
        help="Of a dissociation, in Å. [default: -1 to 20, dense near the well]",
    ),
    click.option(
        "-w", "--workers", type=click.IntRange(min=1), default=None,
        help="Processes that label the scan. [default: one per core]",
    ),
)  # fmt: skip
NAMES = ("calculator", "structure", "fragments", "orientations", "rotations", "displacements",
         "workers")  # fmt: skip


def scan_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_request(options: dict[str, Any], seed: int) -> ScanRequest | None:
    """Take a scan's options out of all of them; None if there is to be no scan.

    Raises:
        InputError: options of a scan without --scan.
    """
    from deltaserver.errors import InputError
    from deltaserver.evaluation.scan_workflow import ScanRequest
    from deltaserver.evaluation.scans.curves import ScanPlan

    directory = options.pop("scan")
    given = {name: value for name in NAMES if (value := options.pop(name)) not in (None, ())}
    if directory is None:
        if given:
            raise InputError(f"{_spelt(given)}: only with --scan DIRECTORY")
        return None
    chosen = {
        name: given.pop(name)
        for name in ("orientations", "rotations", "displacements")
        if name in given
    }
    if chosen and "calculator" not in given:
        raise InputError(
            f"{_spelt(chosen)}: only with --calculator; the scan's curves are those that its "
            "labels have"
        )
    return ScanRequest(directory, ScanPlan(**chosen, seed=seed), **given)


def _spelt(names: Iterable[str]) -> str:
    return ", ".join("--" + ("fragment" if name == "fragments" else name) for name in names)


def tell_labels() -> Callable[[LabelProgress], None]:
    """Return what tells once a minute how far the labels are, and what was set aside."""
    from deltaserver.cli.terminal import MinuteLines

    lines = MinuteLines(lambda line: click.echo(line, err=True))

    def tell(state: LabelProgress) -> None:
        done = state.done + state.rejected
        lines.progress(f"labels of {state.total}", done / state.total)
        if done == state.total and state.rejected:
            click.echo(f"{state.rejected} labels set aside, their points left out", err=True)

    return tell
