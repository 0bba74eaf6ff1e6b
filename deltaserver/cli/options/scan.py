"""The options of ``deltaserver evaluate --scan``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deltaserver.cli.options.common import AT_LEAST_0, AT_LEAST_1, PATH, finite, together
from deltaserver.errors import InputError

if TYPE_CHECKING:
    from deltaserver.datasets.labelling import LabelProgress
    from deltaserver.evaluation.scan_workflow import ScanRequest


def _numbers(
    _context: click.Context, _option: click.Parameter, text: str | None
) -> tuple[float, ...] | None:
    try:
        return tuple(finite(part) for part in text.split(",")) if text else None
    except ValueError:
        raise click.BadParameter(f"{text!r}; expected Å such as -1,0,2.5,20") from None


SCAN_OPTIONS = together(
    click.option(
        "--scan",
        type=PATH,
        default=None,
        metavar="DIRECTORY",
        help="Dissociation and rotation curves of two rigid fragments. Their labels are in "
        "DIRECTORY; --calculator puts there what is missing.",
    ),
    click.option(
        "-c",
        "--calculator",
        default=None,
        metavar="CALCULATOR",
        help="Labels the scan: the models' reference method, as `dataset label` takes it.",
    ),
    click.option(
        "--structure",
        type=PATH,
        default=None,
        help="Where the scan starts. [default: structure.xyz of the first model]",
    ),
    click.option(
        "-f",
        "--fragment",
        "fragments",
        multiple=True,
        metavar="NAME:ATOMS[:CHARGE[:SPIN]]",
        help="The two fragments of the scan, with charges. [default: DATASET's]",
    ),
    click.option(
        "--orientations",
        type=AT_LEAST_1,
        default=None,
        help="Dissociation curves: the start's orientation, and random ones. [default: 3]",
    ),
    click.option(
        "--rotations",
        type=AT_LEAST_0,
        default=None,
        help="Rotation curves, each about a random axis. [default: 2]",
    ),
    click.option(
        "--displacements",
        callback=_numbers,
        default=None,
        metavar="LIST",
        help="Of a dissociation, in Å. [default: -1 to 20, dense near the well]",
    ),
    click.option(
        "-w",
        "--workers",
        type=AT_LEAST_1,
        default=None,
        help="Processes that label the scan. [default: one per core]",
    ),
)
OF_CURVES = ("orientations", "rotations", "displacements")


@dataclass(frozen=True)
class ScanOptions:
    """What was asked of a scan, before anything is read: see :data:`SCAN_OPTIONS`."""

    scan: Path | None
    calculator: str | None
    structure: Path | None
    fragments: tuple[str, ...]
    orientations: int | None
    rotations: int | None
    displacements: tuple[float, ...] | None
    workers: int | None

    def request(self, seed: int) -> ScanRequest | None:
        """Return what is to be scanned; None if there is to be no scan.

        Raises:
            InputError: options of a scan without --scan.
        """
        from deltaserver.evaluation.scan_workflow import ScanRequest
        from deltaserver.evaluation.scans.curves import ScanPlan

        given = {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) not in (None, ())
        }
        if self.scan is None:
            if given:
                raise InputError(f"{_spelt(given)}: only with --scan DIRECTORY")
            return None
        chosen = {name: given[name] for name in OF_CURVES if name in given}
        if chosen and self.calculator is None:
            raise InputError(
                f"{_spelt(chosen)}: only with --calculator; the scan's curves are those that its "
                "labels have"
            )
        return ScanRequest(
            self.scan,
            ScanPlan(**chosen, seed=seed),
            self.calculator,
            self.structure,
            self.fragments,
            self.workers,
        )


def _spelt(names: Iterable[str]) -> str:
    return ", ".join("--" + ("fragment" if name == "fragments" else name) for name in names)


def label_progress() -> Callable[[LabelProgress], None]:
    """Return what tells once a minute how far the labels are, and what was set aside."""
    from deltaserver.cli.shell.terminal import MinuteLines

    lines = MinuteLines(lambda line: click.echo(line, err=True))

    def show(state: LabelProgress) -> None:
        done = state.done + state.rejected
        lines.progress(f"labels of {state.total}", done / state.total)
        if done == state.total and state.rejected:
            click.echo(f"{state.rejected} labels set aside, their points left out", err=True)

    return show
