"""The command line's options of the guards."""

from __future__ import annotations

from pathlib import Path

import click

from deltaserver.cli.options.common import POSITIVE, together
from deltaserver.serve.settings import (
    NOVELTY_LIMIT,
    ON_EXTRAPOLATION,
    GuardSettings,
    OnExtrapolation,
)

GUARD_OPTIONS = together(
    click.option(
        "--structure-check/--no-structure-check", default=True, show_default=True,
        help="Refuse first structures whose bonds are not those of the training geometries.",
    ),
    click.option(
        "--on-extrapolation", type=click.Choice(ON_EXTRAPOLATION), default="warn",
        show_default=True, help="What to do with structures beyond the novelty limit; ignore "
        "does not compute the novelty.",
    ),
    click.option(
        "--novelty-limit", type=POSITIVE, metavar="NUMBER", default=NOVELTY_LIMIT,
        show_default=True, help="1 is how far 99 % of the training points are from their nearest "
        "neighbour.",
    ),
)  # fmt: skip


def guard_settings(
    structure_check: bool,
    on_extrapolation: OnExtrapolation,
    novelty_limit: float,
    log_file: Path | None,
    single_precision: bool,
) -> GuardSettings:
    """Turn the options into settings; the frame that ends a run goes beside the log file."""
    beside = Path("deltaserver") if log_file is None else log_file.with_suffix("")
    return GuardSettings(
        structure_check=structure_check,
        extrapolation=on_extrapolation,
        novelty_limit=novelty_limit,
        frame_file=beside.with_name(f"{beside.name}_extrapolation.xyz"),
        single_precision=single_precision,
    )
