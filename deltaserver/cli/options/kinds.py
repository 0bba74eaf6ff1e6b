"""Options of some kinds of simulation, which others have no use for."""

from __future__ import annotations

from typing import Any

import click

from deltaserver.errors import InputError
from deltaserver.simulate.recipe import KINDS, WALLED, Kind

# By the parameter's name. Those that the recipe and the bias look at themselves are not here.
ONLY: dict[str, tuple[Kind, ...]] = {
    "n_beads": ("pimd",),
    "swap_every": ("remd",),
    "pressure_bar": ("npt",),
    "barostat_tau_fs": ("npt",),
    "thermostat": tuple(kind for kind in KINDS if kind not in ("nve", "pimd")),
    "tau_fs": tuple(kind for kind in KINDS if kind != "nve"),
    "spring_ev_per_ang2": ("umbrella",),
    "pull_ang_per_ps": ("umbrella",),
    "hill_height_ev": ("metad",),
    "hill_width_ang": ("metad",),
    "hill_every": ("metad",),
    "bias_factor": ("metad",),
    "wall_spring_ev_per_ang2": WALLED,
    "variable": WALLED,
    "definitions": WALLED,
}
# What a kind does anyway may be said: scripts say it of all kinds.
SAID_ANYWAY: dict[str, Any] = {"n_beads": 1, "thermostat": "none"}


def refuse_of_others(kind: Kind) -> None:
    """Raise InputError where the command line has an option that this kind would ignore."""
    context = click.get_current_context()
    for option in context.command.params:
        name = option.name or ""
        kinds = ONLY.get(name, KINDS)
        told = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if kind in kinds or not told:
            continue
        if kind == "pimd" or context.params.get(name) != SAID_ANYWAY.get(name, ...):
            raise InputError(f"{option.opts[0]}: only with --kind {', '.join(kinds)}")
