"""The command line's options of the guards."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from deltaserver.serve.guard import (
    NOVELTY_LIMIT,
    ON_EXTRAPOLATION,
    GuardSettings,
    OnExtrapolation,
)

Command = TypeVar("Command", bound=Callable[..., Any])


def guard_options(command: Command) -> Command:
    """Add what :func:`guard_settings` takes to a command."""
    options = (
        click.option(
            "--structure-check/--no-structure-check", default=True, show_default=True,
            help="Refuse first structures whose bonds are not those of the training geometries.",
        ),
        click.option(
            "--on-extrapolation", type=click.Choice(ON_EXTRAPOLATION), default="warn",
            show_default=True, help="What to do with structures beyond a limit; ignore "
            "computes neither novelty nor uncertainty.",
        ),
        click.option(
            "--novelty-limit", type=click.FloatRange(min=0, min_open=True), metavar="NUMBER",
            default=NOVELTY_LIMIT, show_default=True, help="1 is how far 99 % of the training "
            "points are from their nearest neighbour.",
        ),
        click.option(
            "--uncertainty-limit", type=click.FloatRange(min=0, min_open=True), metavar="NUMBER",
            default=None, help="Of the forces, eV/Å; none unless given. Models without a "
            "calibrated uncertainty have none to compare.",
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def guard_settings(
    structure_check: bool,
    on_extrapolation: OnExtrapolation,
    novelty_limit: float,
    uncertainty_limit: float | None,
    log_file: Path | None,
    single_precision: bool,
) -> GuardSettings:
    """Turn the options into settings; the frame that ends a run goes beside the log file."""
    beside = Path("deltaserver") if log_file is None else log_file.with_suffix("")
    return GuardSettings(
        structure_check=structure_check,
        extrapolation=on_extrapolation,
        novelty_limit=novelty_limit,
        uncertainty_limit=math.inf if uncertainty_limit is None else uncertainty_limit,
        frame_file=beside.with_name(f"{beside.name}_extrapolation.xyz"),
        single_precision=single_precision,
    )
