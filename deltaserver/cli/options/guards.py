"""The command line's options of the guards: fields of :class:`GuardSettings`."""

from __future__ import annotations

import click

from deltaserver.cli.options.common import POSITIVE, together
from deltaserver.model.trust import NOVELTY_LIMIT
from deltaserver.serve.settings import ON_EXTRAPOLATION

GUARD_OPTIONS = together(
    click.option(
        "--structure-check/--no-structure-check",
        default=True,
        show_default=True,
        help="Refuse first structures whose bonds are not those of the training geometries.",
    ),
    click.option(
        "--on-extrapolation",
        "extrapolation",
        type=click.Choice(ON_EXTRAPOLATION),
        default="warn",
        show_default=True,
        help="What to do with structures beyond a limit; label ends, labels, trains and goes on; "
        "ignore computes neither novelty nor uncertainty.",
    ),
    click.option(
        "--novelty-limit",
        type=POSITIVE,
        metavar="NUMBER",
        default=NOVELTY_LIMIT,
        show_default=True,
        help="1 is how far 99 % of the training points are from their nearest neighbour.",
    ),
    click.option(
        "--uncertainty-limit",
        type=POSITIVE,
        metavar="NUMBER",
        default=None,
        help="Of the forces, eV/Å; none unless given. Models without a "
        "calibrated uncertainty have none to compare.",
    ),
)
