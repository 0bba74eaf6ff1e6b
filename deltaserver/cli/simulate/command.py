"""The command: its options, and which kind of run they ask for."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from deltaserver.cli.input import RECIPE_OPTIONS, RecipeRequest
from deltaserver.cli.options.bias import BiasRequest
from deltaserver.cli.options.common import AT_LEAST_1, DEBUG, DEVICE, PATH, POSITIVE, QUIET, take
from deltaserver.cli.options.directories import MODEL_DIRECTORY
from deltaserver.cli.options.guards import GUARD_OPTIONS
from deltaserver.cli.options.kinds import refuse_of_others
from deltaserver.cli.options.learning import (
    LEARNING_OPTIONS,
    LIMITS,
    LearningOptions,
    remembered,
)
from deltaserver.cli.simulate.asked import Place, SimulateRequest
from deltaserver.cli.simulate.one_run import run_recipe, simulate_input, simulate_kind
from deltaserver.cli.simulate.sweep import resume_sweep, sweep, windows_of
from deltaserver.errors import InputError
from deltaserver.model.engines import STORAGES
from deltaserver.serve.settings import EXTRAS, GuardSettings
from deltaserver.simulate.blowup import Limits
from deltaserver.simulate.recipe import KINDS
from deltaserver.simulate.request import RunOptions, read_request


@click.command()
@click.argument("ipi_input", type=PATH, metavar="[INPUT.xml]", required=False)
@click.option(
    "-m",
    "--models",
    type=MODEL_DIRECTORY,
    metavar="DIR",
    help="Model directory, or the name of a shipped model.",
)
@click.option("--kind", type=click.Choice(KINDS), help="Make the input too; see deltaserver input.")
@click.option(
    "-d",
    "--directory",
    type=PATH,
    default=Path("run"),
    show_default=True,
    help="Where i-PI runs and the log goes; of a sweep, where its runs' directories go.",
)
@click.option("--component", help="What to serve; total if not given.")
@click.option(
    "--serve",
    multiple=True,
    metavar="NAME",
    help="Name of an ffsocket of the input that "
    "is ours; may be repeated. All, if not given and each names a component.",
)
@DEVICE
@click.option(
    "--threads",
    type=AT_LEAST_1,
    help="Threads of the evaluation; see deltaserver --help.",
)
@click.option(
    "--storage",
    type=click.Choice(STORAGES),
    envvar="DELTASERVER_STORAGE",
    help="Of training points; see deltaserver --help.  [auto]",
)
@click.option(
    "--extras",
    type=click.Choice(EXTRAS),
    help="What i-PI gets beside forces: a summary, or every contribution's forces too.  [summary]",
)
@click.option("--resume", is_flag=True, help="Continue what is in the directory.")
@click.option(
    "--jobs",
    type=AT_LEAST_1,
    default=1,
    show_default=True,
    help="Runs of a sweep at a time; each takes a core.",
)
@RECIPE_OPTIONS
@click.option(
    "--log-every",
    type=AT_LEAST_1,
    metavar="STRUCTURES",
    help="All of short runs, every tenth of long ones, if not given.",
)
@click.option(
    "--max-stretch",
    "stretch",
    type=POSITIVE,
    default=Limits.stretch,
    show_default=True,
    help="Longest bond, in sums of covalent radii.",
)
@click.option(
    "--max-separation",
    "separation_ang",
    type=POSITIVE,
    metavar="ANG",
    default=Limits.separation_ang,
    show_default=True,
    help="How far a fragment may be from the others.",
)
@click.option(
    "--max-drift",
    "drift_ev_per_atom",
    type=POSITIVE,
    metavar="EV",
    default=Limits.drift_ev_per_atom,
    show_default=True,
    help="How far the conserved quantity may go, per atom.",
)
@GUARD_OPTIONS
@LEARNING_OPTIONS
@click.option("--request", type=PATH, hidden=True, help="Run what a sweep has written there.")
@QUIET
@DEBUG
def simulate(**options: Any) -> None:
    """Run i-PI and serve it, both from this one command.

    \b
    An i-PI input, or one made for a model; several temperatures make a sweep:
        deltaserver simulate ipi_inputs/c60_nvt.xml --models models/c60 --directory run
        deltaserver simulate --models models/c60 --kind nvt --temperature 100 \\
            --temperature 300 --steps 100000 --directory sweep --jobs 2
    Continue a run or a sweep that was stopped or killed:
        deltaserver simulate --resume --directory run
    """
    place = take(Place, options)
    if (handed_over := options.pop("request")) is not None:
        run_recipe(read_request(handed_over), place)
        return
    known = (*fields(RecipeRequest), *fields(BiasRequest))
    given = {field.name for field in known if _is_given(field.name)}
    recipe, bias = take(RecipeRequest, options), take(BiasRequest, options)
    limits, guard = take(Limits, options), take(GuardSettings, options)
    learning = take(LearningOptions, options)
    if place.resume and not _is_given("extrapolation"):
        told = [name for name in LIMITS if _is_given(name)]
        learning, guard = remembered(place.learning, learning, guard, told)
    request = SimulateRequest(
        recipe=recipe,
        bias=bias,
        steps=recipe.steps if "steps" in given else None,
        options=replace(take(RunOptions, options), limits=limits, guard=guard),
        learning=learning.checked(guard),
        **options,
    )
    if request.kind is None:
        useless = given | {n for n in ("temperatures_k", "structure") if options[n]}
        if useless - {"steps"}:
            raise InputError(
                f"{', '.join(sorted(useless))}: only with --kind, which makes the input"
            )
        _simulate_given(request, place)
        return
    refuse_of_others(request.kind)
    if request.ipi_input is not None:
        raise InputError("INPUT.xml and --kind: give the one or the other")
    if request.kind == "umbrella":
        windows_of(request, place)
    elif len(request.temperatures_k) > 1 and not _is_one_run(request):
        sweep(request, request.kind, place)
    else:
        simulate_kind(request, request.kind, place)


def _is_one_run(request: SimulateRequest) -> bool:
    """Tell whether one i-PI takes all temperatures."""
    return request.kind in ("remd", "ramp") or request.recipe.n_replicas is not None


def _simulate_given(request: SimulateRequest, place: Place) -> None:
    """Run an input that is there, or go on with what the directory holds, a run or a sweep."""
    from deltaserver.simulate.sweep import read_sweep

    if place.resume and request.ipi_input is None and (runs := read_sweep(place.directory)):
        resume_sweep(request, runs, place)
    else:
        simulate_input(request, place)


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE
