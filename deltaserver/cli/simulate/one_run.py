"""One run: of an input that is there, or of one that is made; taught on the way or not."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deltaserver.cli.options.learning import LearningOptions, make_production, remember, taught
from deltaserver.cli.simulate.asked import (
    DEFAULT_K,
    Place,
    SimulateRequest,
    biased,
    run_request,
    subject_in,
)
from deltaserver.errors import InputError
from deltaserver.simulate.recipe import Kind
from deltaserver.simulate.request import RunOptions, RunRequest

if TYPE_CHECKING:
    from deltaserver.simulate.ipi.input import IpiInput
    from deltaserver.simulate.record import RunRecord
    from deltaserver.simulate.run import RunPlan


def simulate_input(request: SimulateRequest, place: Place) -> None:
    """Run an input that is there; with --resume it may be the directory's own."""
    from deltaserver.simulate.directory import INPUT_NAME
    from deltaserver.simulate.ipi.input import read_input
    from deltaserver.simulate.record import RunRecord, read_record

    path, directory = request.ipi_input, place.directory
    old = read_record(directory) if place.resume else None
    if path is None:
        if not place.resume:
            raise InputError("expected INPUT.xml, or --kind to make one, or --resume")
        if old is None:
            raise InputError(f"{directory}: no run to be resumed")
        path = directory / INPUT_NAME
    models = Path(old.models) if old and not request.models else request.models_there
    ipi_input = read_input(path)
    if request.steps is not None:
        ipi_input = ipi_input.with_total_steps(request.steps)
    component = request.component or (old.component if old else "total")
    record = old or RunRecord(
        str(models.resolve()), component, "custom", (), None, None, None, ipi_input.prefix
    )
    if old is not None:
        _check_same(directory, old, replace(old, component=component))
    serve = request.serve or record.serve
    ipi_input = ipi_input.serving(serve)
    record = replace(record, models=str(models.resolve()), component=component, serve=serve)
    record = replace(record, total_steps=ipi_input.total_steps)
    _run(ipi_input, record, request.options, place, request.learning)


def _run(
    ipi_input: IpiInput,
    record: RunRecord,
    options: RunOptions,
    place: Place,
    learning: LearningOptions | None,
) -> None:
    from deltaserver.simulate.record import read_record
    from deltaserver.simulate.run import RunPlan

    old = read_record(place.directory) if place.resume else None
    if old and old.status == "blown up":
        raise InputError(
            f"{place.directory}: this run has blown up; begin it anew, from another structure or "
            "with a smaller time step"
        )
    if old and _nothing_left(old, ipi_input.last_step):
        if not place.quiet:
            done = f"{place.directory}: finished at step {old.step}; nothing to do"
            if old.step > ipi_input.last_step:
                done += ": --steps counts from the beginning of the run"
            click.echo(done, err=True)
        return
    record = replace(
        record,
        device=options.device or record.device,
        threads=options.threads or record.threads,
        extras=options.extras or record.extras,
        storage=options.storage or record.storage,
    )
    plan = RunPlan(ipi_input, record, place.directory, place.resume, options)
    if learning is None:
        _run_with(plan, Path(record.models), place.quiet)
    elif ipi_input.has_plugin:
        raise InputError(
            "--on-extrapolation label: i-PI evaluates this input's model itself and cannot be "
            "given a better one; leave out --plugin"
        )
    else:
        _run_taught(plan, learning, place)


def _run_with(plan: RunPlan, models: Path, quiet: bool) -> None:
    """Run with one model directory."""
    from deltaserver.serve.loading import load_model
    from deltaserver.simulate.run import run

    record = plan.record
    model, notes = load_model(
        models,
        record.component,
        plan.backend,
        record.device or "auto",
        # Of a plug-in the model here only tells what is simulated: nothing is measured.
        threads=1 if plan.ipi_input.has_plugin else record.threads,
        quiet=quiet,
        storage="double" if plan.ipi_input.has_plugin else record.storage,
    )
    run(replace(plan, models=models), model, notes, quiet)


def _run_taught(plan: RunPlan, learning: LearningOptions, place: Place) -> None:
    """Run, and wherever the run leaves what is known have the model taught, and go on."""
    if place.learning.exists() and not place.resume:
        raise InputError(
            f"{place.learning}: is of an earlier run; continue that with --resume, or choose "
            "another --directory"
        )
    guard, record = plan.options.guard, plan.record
    kelvin = learning.kelvin or record.temperatures_k or plan.ipi_input.temperatures_k
    learning = replace(learning, kelvin=kelvin)
    production = make_production(
        learning, guard, Path(record.models), place.learning, record.threads, place.quiet
    )
    remember(place.learning, learning, guard)
    taught(
        production,
        lambda models: _run_with(
            replace(plan, resume=place.resume or production.n_done > 0), models, place.quiet
        ),
    )


def _nothing_left(old: RunRecord, last_step: int) -> bool:
    """Tell whether a run has had all its steps, or was done in fewer than it had."""
    if old.status != "finished":
        return False
    return old.step >= last_step or old.reason is not None


def simulate_kind(request: SimulateRequest, kind: Kind, place: Place) -> None:
    """Run one run whose input is made here."""
    run = run_request(request, kind, request.temperatures_k or (DEFAULT_K,))
    if request.bias.is_wanted(kind):
        _, (run,) = biased(run, request, place.quiet)
    run_recipe(run, place, request.serve, request.learning)


def run_recipe(
    request: RunRequest,
    place: Place,
    serve: tuple[str, ...] = (),
    learning: LearningOptions | None = None,
) -> None:
    """Make the input of a recipe, and run it."""
    from deltaserver.simulate.directory import INPUT_NAME
    from deltaserver.simulate.ipi.input import parse_input
    from deltaserver.simulate.ipi.plugin import parameters_text
    from deltaserver.simulate.record import RunRecord, read_record
    from deltaserver.simulate.render import render

    subject = subject_in(request, place.quiet)
    recipe = request.recipe
    record = RunRecord(
        str(request.models.resolve()),
        request.component,
        recipe.kind,
        recipe.systems_k if recipe.n_replicas else recipe.temperatures_k,
        recipe.timestep_fs,
        recipe.seed,
        recipe.steps,
        subject.slug,
        bias=parameters_text(recipe.bias.parameters()) if recipe.bias else "",
    )
    old = read_record(place.directory) if place.resume else None
    if old is not None:
        _check_same(place.directory, old, record)
        record = replace(
            record,
            device=old.device,
            threads=old.threads,
            extras=old.extras,
            storage=old.storage,
        )
    if serve:
        raise InputError("--serve: only with INPUT.xml; all sockets of an input made here are ours")
    text = render(recipe, subject, _unique_address(place.directory))
    ipi_input = parse_input(place.directory / INPUT_NAME, text)
    _run(ipi_input, record, request.options, place, learning)


def _unique_address(directory: Path) -> str:
    """Name a socket after its directory, so that runs side by side do not meet."""
    digest = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]
    return f"delta_{digest}"


def _check_same(directory: Path, old: RunRecord, new: RunRecord) -> None:
    from deltaserver.textio.journal import changed

    before, now = asdict(old), asdict(new)
    settings = ("models", "component", "kind", "temperatures_k", "timestep_fs", "seed", "bias")
    for name in changed(before, now, settings):
        raise InputError(
            f"{directory}: was begun with {name} {before[name]}, not {now[name]}; resume it with "
            "the same options, or choose another --directory"
        )
