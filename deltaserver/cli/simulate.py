"""``deltaserver simulate``: one run, or a sweep of them."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from deltaserver.cli.input import (
    RECIPE_FLAGS,
    recipe_of,
    recipe_options,
    subject_of,
)
from deltaserver.cli.options.common import AT_LEAST_1, DEBUG, PATH, POSITIVE, QUIET
from deltaserver.cli.options.guards import GUARD_OPTIONS, guard_settings
from deltaserver.errors import InputError
from deltaserver.serve.settings import EXTRAS
from deltaserver.simulate.blowup import Limits
from deltaserver.simulate.recipe import KINDS, Recipe

GUARD_NAMES = ("structure_check", "on_extrapolation", "novelty_limit")


@dataclass(frozen=True)
class Request:
    """What was asked of ``simulate``, before anything is read."""

    ipi_input: Path | None
    models: Path | None
    kind: Any
    temperatures_k: tuple[float, ...]
    structure: Path | None
    component: str | None
    directory: Path
    resume: bool
    jobs: int
    log_every: int | None
    limits: Limits
    guard: dict[str, Any]
    serve: tuple[str, ...]
    device: str | None
    threads: int | None
    extras: str | None
    quiet: bool
    options: dict[str, Any]


@click.command()
@click.argument("ipi_input", type=PATH, metavar="[INPUT.xml]", required=False)
@click.option("-m", "--models", type=PATH, help="Model directory.")
@click.option("--kind", type=click.Choice(KINDS), help="Make the input too; see deltaserver input.")
@click.option(
    "-d", "--directory", type=PATH, default=Path("run"), show_default=True,
    help="Where i-PI runs and the log goes; of a sweep, where its runs' directories go.",
)  # fmt: skip
@click.option("--component", help="What to serve; total if not given.")
@click.option(
    "--serve",
    multiple=True,
    metavar="NAME",
    help="Name of an ffsocket of the input that "
    "is ours; may be repeated. All, if not given and each names a component.",
)
@click.option(
    "--device",
    metavar="DEVICE",
    help="Evaluate with torch on cpu, cuda, cuda:1, …, or auto: a GPU if there is one.",
)
@click.option(
    "--threads",
    type=AT_LEAST_1,
    help="Threads of the evaluation; see deltaserver --help.",
)
@click.option(
    "--extras",
    type=click.Choice(EXTRAS),
    help="What i-PI gets beside forces: a summary, or every contribution's forces too.  [summary]",
)
@click.option("--resume", is_flag=True, help="Continue what is in the directory.")
@click.option("--jobs", type=AT_LEAST_1, default=1, show_default=True,
              help="Runs of a sweep at a time; each takes a core.")  # fmt: skip
@recipe_options
@click.option("--log-every", type=AT_LEAST_1, metavar="STRUCTURES",
              help="All of short runs, every tenth of long ones, if not given.")  # fmt: skip
@click.option("--max-stretch", "stretch", type=POSITIVE, default=Limits.stretch,
              show_default=True, help="Longest bond, in sums of covalent radii.")  # fmt: skip
@click.option("--max-separation", "separation_ang", type=POSITIVE, metavar="ANG",
              default=Limits.separation_ang, show_default=True,
              help="How far a fragment may be from the others.")  # fmt: skip
@click.option("--max-drift", "drift_ev_per_atom", type=POSITIVE, metavar="EV",
              default=Limits.drift_ev_per_atom, show_default=True,
              help="How far the conserved quantity may go, per atom.")  # fmt: skip
@GUARD_OPTIONS
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
    limits = Limits(*(options.pop(n) for n in ("stretch", "separation_ang", "drift_ev_per_atom")))
    guard = {name: options.pop(name) for name in GUARD_NAMES}
    recipe = {name: options.pop(name) for name in RECIPE_FLAGS}
    given = {name for name in recipe if _is_given(name)}
    request = Request(limits=limits, guard=guard, options=recipe, **options)
    if request.kind is None:
        useless = given | {n for n in ("temperatures_k", "structure") if options[n]}
        if useless - {"steps"}:
            raise InputError(f"{', '.join(sorted(useless))}: only with --kind, which makes the "
                             "input")  # fmt: skip
        _simulate_input(request, recipe["steps"] if "steps" in given else None)
    elif request.ipi_input is not None:
        raise InputError("INPUT.xml and --kind: give the one or the other")
    elif len(request.temperatures_k) > 1 and request.kind not in ("remd", "ramp"):
        _sweep(request)
    else:
        _simulate_kind(request)


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def _simulate_input(request: Request, steps: int | None) -> None:
    """Run an input that is there; with --resume it may be the directory's own."""
    from deltaserver.simulate.directory import INPUT_NAME
    from deltaserver.simulate.ipi.input import read_input
    from deltaserver.simulate.record import RunRecord, read_record
    from deltaserver.simulate.sweep import read_sweep

    path = request.ipi_input
    if request.resume and path is None and (runs := read_sweep(request.directory)):
        _resume_sweep(request, runs, steps)
        return
    old = read_record(request.directory) if request.resume else None
    if path is None:
        if not request.resume:
            raise InputError("expected INPUT.xml, or --kind to make one, or --resume")
        if old is None:
            raise InputError(f"{request.directory}: no run to be resumed")
        path = request.directory / INPUT_NAME
    models = request.models or (Path(old.models) if old else None)
    if models is None:
        raise InputError("--models is missing; expected a directory with a model.yaml")
    ipi_input = read_input(path)
    if steps is not None:
        ipi_input = ipi_input.with_total_steps(steps)
    component = request.component or (old.component if old else "total")
    record = old or RunRecord(
        str(models.resolve()), component, "custom", (), None, None, None, ipi_input.prefix
    )
    serve = request.serve or record.serve
    ipi_input = ipi_input.serving(serve)
    record = replace(record, models=str(models.resolve()), component=component, serve=serve)
    _run(request, ipi_input, replace(record, total_steps=ipi_input.total_steps))


def _run(request: Request, ipi_input: Any, record: Any) -> None:
    from deltaserver.serve.loading import load_model
    from deltaserver.simulate.record import read_record
    from deltaserver.simulate.run import RunPlan, run

    old = read_record(request.directory) if request.resume else None
    if old and old.status == "blown up":
        raise InputError(f"{request.directory}: this run has blown up; begin it anew, from another "
                         "structure or with a smaller time step")  # fmt: skip
    if old and _nothing_left(old, ipi_input.last_step):
        if not request.quiet:
            click.echo(f"{request.directory}: finished at step {old.step}; nothing to do", err=True)
        return
    record = replace(
        record,
        device=request.device or record.device,
        threads=request.threads or record.threads,
        extras=request.extras or record.extras,
    )
    backend = "torch" if record.device else "numpy"
    try:
        model, notes = load_model(
            Path(record.models), record.component, backend, record.device or "auto",
            threads=record.threads, quiet=request.quiet,
        )  # fmt: skip
    except SystemExit:  # a signal: for the daemon a clean end, for a run no end at all
        raise KeyboardInterrupt from None
    frame = request.directory / "deltaserver.jsonl"
    guard = guard_settings(**request.guard, log_file=frame, single_precision=False)
    plan = RunPlan(
        ipi_input, record, request.directory, request.resume, request.log_every, request.limits,
        guard, backend,
    )  # fmt: skip
    run(plan, model, notes, request.quiet)


def _nothing_left(old: Any, last_step: int) -> bool:
    """Tell whether a run has had all its steps, or was done in fewer than it had."""
    if old.status != "finished":
        return False
    return old.step >= last_step or old.reason is not None


def _simulate_kind(request: Request) -> None:
    """Run one run whose input is made here."""
    from deltaserver.simulate.directory import INPUT_NAME
    from deltaserver.simulate.ipi.input import parse_input
    from deltaserver.simulate.recipe import render
    from deltaserver.simulate.record import RunRecord, read_record

    temperatures = request.temperatures_k or (300.0,)
    recipe, subject = _ingredients(request, temperatures)
    record = RunRecord(
        str(_models(request).resolve()), request.component or "total", recipe.kind, temperatures,
        recipe.timestep_fs, recipe.seed, recipe.steps, subject.slug,
    )  # fmt: skip
    old = read_record(request.directory) if request.resume else None
    if old is not None:
        _check_same(request.directory, old, record)
        record = replace(record, device=old.device, threads=old.threads, extras=old.extras)
    if request.serve:
        raise InputError("--serve: only with INPUT.xml; all sockets of an input made here are ours")
    text = render(recipe, subject, _unique_address(request.directory))
    _run(request, parse_input(request.directory / INPUT_NAME, text), record)


def _models(request: Request) -> Path:
    if request.models is None:
        raise InputError("--models is missing; expected a directory with a model.yaml")
    return request.models


def _ingredients(request: Request, temperatures: tuple[float, ...]) -> tuple[Recipe, Any]:
    """Return the recipe and what it is applied to, or raise InputError."""
    from deltaserver.serve.loading import load_model

    models, component = _models(request), request.component or "total"
    recipe = recipe_of(request.kind, temperatures, request.options)
    model, _ = load_model(models, component, quiet=request.quiet)
    return recipe, subject_of(models, request.structure, model, component, request.kind)


def _unique_address(directory: Path) -> str:
    """Name a socket after its directory, so that runs side by side do not meet."""
    digest = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]
    return f"delta_{digest}"


def _check_same(directory: Path, old: Any, new: Any) -> None:
    from deltaserver.textio.journal import changed

    before, now = asdict(old), asdict(new)
    settings = ("models", "component", "kind", "temperatures_k", "timestep_fs", "seed")
    for name in changed(before, now, settings):
        raise InputError(
            f"{directory}: was begun with {name} {before[name]}, not {now[name]}; resume it with "
            "the same options, or choose another --directory"
        )


def _sweep(request: Request) -> None:
    """Run one run for each temperature."""
    from deltaserver.simulate.record import make_directory
    from deltaserver.simulate.sweep import SweepRun, read_sweep, write_sweep

    if len(set(request.temperatures_k)) < len(request.temperatures_k):
        raise InputError("--temperature: one stands there twice")
    runs = []
    for kelvin in request.temperatures_k:
        recipe, subject = _ingredients(request, (kelvin,))  # complains before anything is run
        name, options = f"{kelvin:g}K", _run_options(request, kelvin)
        directory = request.directory / name
        runs.append(SweepRun(name, directory, options, recipe.steps, f"{subject.slug}.out"))
    make_directory(request.directory)
    if request.resume:  # with other temperatures a sweep grows
        names = {run.name for run in runs}
        runs += [run for run in read_sweep(request.directory) or () if run.name not in names]
    write_sweep(request.directory, runs)
    _run_sweep(request, runs)


def _resume_sweep(request: Request, runs: list[Any], steps: int | None) -> None:
    """Go on with what sweep.json lists, perhaps to another number of steps."""
    from deltaserver.simulate.sweep import write_sweep

    if steps is not None:
        runs = [run.with_total_steps(steps) for run in runs]
        write_sweep(request.directory, runs)
    _run_sweep(request, runs)


def _run_sweep(request: Request, runs: list[Any]) -> None:
    from deltaserver.simulate.progress import ProgressLine
    from deltaserver.simulate.sweep import run_all

    run_all(runs, request.jobs, request.resume, None if request.quiet else ProgressLine())


def _run_options(request: Request, kelvin: float) -> tuple[str, ...]:
    """Return the options that run one temperature of a sweep, from any directory."""
    limits, structure = request.limits, request.structure
    options: dict[str, Any] = {
        "--models": _models(request).resolve(), "--kind": request.kind, "--temperature": kelvin,
        "--structure": structure and structure.resolve(),
        "--component": request.component, "--log-every": request.log_every,
        "--max-stretch": limits.stretch, "--max-separation": limits.separation_ang,
        "--max-drift": limits.drift_ev_per_atom,
        "--on-extrapolation": request.guard["on_extrapolation"],
        "--novelty-limit": request.guard["novelty_limit"],
        "--device": request.device, "--threads": request.threads, "--extras": request.extras,
        **{flag: request.options[name] for name, flag in RECIPE_FLAGS.items()},
        # Equal noise would make runs follow one another, and their errors with them.
        "--seed": request.options["seed"] + round(kelvin),
    }  # fmt: skip
    words = [f"{flag}={value}" for flag, value in options.items() if value is not None]
    words += [] if request.guard["structure_check"] else ["--no-structure-check"]
    return tuple(words)
