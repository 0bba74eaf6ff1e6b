"""``deltaserver input`` and ``deltaserver simulate``."""

from __future__ import annotations

import hashlib
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import click

from deltaserver.errors import InputError
from deltaserver.serve.blowup import Limits
from deltaserver.serve.recipe import KINDS, THERMOSTATS, Recipe

PATH = click.Path(path_type=Path)
POSITIVE = click.FloatRange(min=0.0, min_open=True)
Function = TypeVar("Function", bound=Callable[..., Any])


def register_simulate(app: click.Group) -> None:
    """Add ``input`` and ``simulate`` to the command line."""
    app.add_command(input_command)
    app.add_command(simulate)


def recipe_options(function: Function) -> Function:
    """Add the options that make a :class:`Recipe`."""
    d = Recipe("nvt", (300.0,))
    at_least_1 = click.IntRange(min=1)
    options = [
        click.option("--structure", type=PATH, help="Start structure; the model's own if not "
                     "given. XYZ, or anything that ASE reads."),
        click.option("--temperature", "temperatures_k", multiple=True, type=POSITIVE,
                     metavar="K", help="May be repeated: replicas of remd, start and end of a "
                     "ramp; for other kinds simulate makes a sweep."),
        click.option("--timestep", "timestep_fs", type=POSITIVE, default=d.timestep_fs,
                     show_default=True, metavar="FS", help="Of mts the outer one."),
        click.option("--steps", type=at_least_1, default=d.steps, show_default=True),
        click.option("--seed", type=click.IntRange(min=0), default=d.seed, show_default=True),
        click.option("--thermostat", type=click.Choice(THERMOSTATS), default=d.thermostat,
                     show_default=True, help="svr rescales all velocities together and leaves "
                     "diffusion alone; pimd has pile_l, nve none."),
        click.option("--tau", "tau_fs", type=POSITIVE, default=d.tau_fs, show_default=True,
                     metavar="FS", help="Time constant of the thermostat."),
        click.option("--beads", "n_beads", type=at_least_1, default=d.n_beads,
                     show_default=True, help="Of pimd."),
        click.option("--inner-steps", "n_inner", type=at_least_1, default=d.n_inner,
                     show_default=True, help="Steps of the fragments in one of mts."),
        click.option("--swap-every", type=at_least_1, default=d.swap_every, show_default=True,
                     metavar="STEPS", help="Between attempts to exchange, on average, of remd."),
        click.option("--positions-every", "positions_every_fs", type=POSITIVE,
                     default=d.positions_every_fs, show_default=True, metavar="FS",
                     help="Between the frames written."),
        click.option("--energies-every", type=at_least_1, metavar="STEPS",
                     help="Between the energies written; every step up to 2000, then 5 fs."),
        click.option("--checkpoint-every", type=at_least_1, default=d.checkpoint_every,
                     show_default=True, metavar="STEPS"),
    ]  # fmt: skip
    for option in reversed(options):
        function = option(function)
    return function


RECIPE_FLAGS = {
    "timestep_fs": "--timestep", "steps": "--steps", "seed": "--seed",
    "thermostat": "--thermostat", "tau_fs": "--tau", "n_beads": "--beads",
    "n_inner": "--inner-steps", "swap_every": "--swap-every",
    "positions_every_fs": "--positions-every", "energies_every": "--energies-every",
    "checkpoint_every": "--checkpoint-every",
}  # fmt: skip


@click.command("input")
@click.option("-m", "--models", type=PATH, required=True, help="Model directory.")
@click.option("--kind", type=click.Choice(KINDS), required=True)
@click.option("--component", default="total", show_default=True, help="What is to be served.")
@click.option("--address", default="delta", show_default=True, help="Of i-PI's unix socket.")
@click.option("-o", "--output", type=PATH, help="Write a file, not to the terminal.")
@recipe_options
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def input_command(
    models: Path,
    kind: Any,
    component: str,
    address: str,
    output: Path | None,
    structure: Path | None,
    temperatures_k: tuple[float, ...],
    debug: bool,
    **options: Any,
) -> None:
    """Write an i-PI input for a model directory.

    \b
        deltaserver input --models models/c60 --kind nvt --temperature 300 > input.xml
        deltaserver simulate input.xml --models models/c60
    """
    from deltaserver.serve.loading import load_model
    from deltaserver.serve.recipe import render

    recipe = Recipe(kind, temperatures_k or (300.0,), **options)
    model, _ = load_model(models, component)
    text = render(recipe, _subject(models, structure, model, component, kind), address)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--output {output}: {(error.strerror or '').lower()}") from error


def _subject(models: Path, structure: Path | None, model: Any, component: str, kind: str) -> Any:
    """Put together what a recipe is applied to."""
    from deltaserver.serve.recipe import Subject
    from deltaserver.serve.structure import start_structure

    start = start_structure(models, structure, model)
    fragments = [fragment.name for fragment in model.fragments]
    parts = {
        "total": [*fragments, *(["binding"] if model.binding else [])],
        "fragments": fragments,
    }.get(component, [component])
    if kind == "mts" and (component != "total" or not model.binding):
        raise InputError("--kind mts splits fragments from binding: it needs both, and --component"
                         " total")  # fmt: skip
    directory = models if models.is_dir() else models.parent
    slug = re.sub(r"[^A-Za-z0-9_+-]+", "_", directory.resolve().name) or "model"
    return Subject(
        f"{slug}_{kind}", model.name, str(models), start.numbers, start.positions_ang, tuple(parts)
    )


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
@click.option("--resume", is_flag=True, help="Continue what is in the directory.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True,
              help="Runs of a sweep at a time; each takes a core.")  # fmt: skip
@recipe_options
@click.option("--log-every", type=click.IntRange(min=1), metavar="STRUCTURES",
              help="All of short runs, every tenth of long ones, if not given.")  # fmt: skip
@click.option("--max-stretch", "stretch", type=POSITIVE, default=Limits.stretch,
              show_default=True, help="Longest bond, in sums of covalent radii.")  # fmt: skip
@click.option("--max-separation", "separation_ang", type=POSITIVE, metavar="ANG",
              default=Limits.separation_ang, show_default=True,
              help="How far a fragment may be from the others.")  # fmt: skip
@click.option("--max-drift", "drift_ev_per_atom", type=POSITIVE, metavar="EV",
              default=Limits.drift_ev_per_atom, show_default=True,
              help="How far the conserved quantity may go, per atom.")  # fmt: skip
@click.option("--quiet", is_flag=True, help="Nothing on the terminal but errors.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
def simulate(debug: bool, **options: Any) -> None:
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
    recipe = {name: options.pop(name) for name in RECIPE_FLAGS}
    given = {name for name in recipe if _is_given(name)}
    request = Request(limits=limits, options=recipe, **options)
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
    from deltaserver.serve.ipi_input import read_input
    from deltaserver.serve.run_record import RunRecord, read_record
    from deltaserver.serve.simulate import INPUT_NAME

    old = read_record(request.directory) if request.resume else None
    path = request.ipi_input
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
    record = replace(record, models=str(models.resolve()), component=component)
    _run(request, ipi_input, replace(record, total_steps=ipi_input.total_steps))


def _run(request: Request, ipi_input: Any, record: Any) -> None:
    from deltaserver.serve.loading import load_model
    from deltaserver.serve.run_record import read_record
    from deltaserver.serve.simulate import RunPlan, run

    old = read_record(request.directory) if request.resume else None
    if old and old.status == "blown up":
        raise InputError(f"{request.directory}: this run has blown up; begin it anew, from another "
                         "structure or with a smaller time step")  # fmt: skip
    if old and old.status == "finished" and old.step >= (record.total_steps or 0):
        if not request.quiet:
            click.echo(f"{request.directory}: finished at step {old.step}; nothing to do", err=True)
        return
    model, notes = load_model(Path(record.models), record.component)
    plan = RunPlan(
        ipi_input, record, request.directory, request.resume, request.log_every, request.limits
    )
    run(plan, model, notes, request.quiet)


def _simulate_kind(request: Request) -> None:
    """Run one run whose input is made here."""
    from deltaserver.serve.ipi_input import parse_input
    from deltaserver.serve.recipe import render
    from deltaserver.serve.run_record import RunRecord, read_record
    from deltaserver.serve.simulate import INPUT_NAME

    temperatures = request.temperatures_k or (300.0,)
    recipe, subject = _ingredients(request, temperatures)
    record = RunRecord(
        str(_models(request).resolve()), request.component or "total", recipe.kind, temperatures,
        recipe.timestep_fs, recipe.seed, recipe.steps, subject.slug,
    )  # fmt: skip
    old = read_record(request.directory) if request.resume else None
    if old is not None:
        _check_same(request.directory, old, record)
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
    recipe = Recipe(request.kind, temperatures, **request.options)
    model, _ = load_model(models, component)
    return recipe, _subject(models, request.structure, model, component, request.kind)


def _unique_address(directory: Path) -> str:
    """Name a socket after its directory, so that runs side by side do not meet."""
    digest = hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]
    return f"delta_{digest}"


def _check_same(directory: Path, old: Any, new: Any) -> None:
    for name in ("models", "component", "kind", "temperatures_k", "timestep_fs", "seed"):
        before, now = getattr(old, name), getattr(new, name)
        if before != now:
            raise InputError(
                f"{directory}: was begun with {name} {before}, not {now}; resume it with the same "
                "options, or choose another --directory"
            )


def _sweep(request: Request) -> None:
    """Run one run for each temperature, each in a process of its own."""
    from deltaserver.serve.progress import ProgressLine
    from deltaserver.serve.simulate import make_directory
    from deltaserver.serve.sweep import SweepRun, run_all

    if len(set(request.temperatures_k)) < len(request.temperatures_k):
        raise InputError("--temperature: one stands there twice")
    runs = []
    for kelvin in request.temperatures_k:
        recipe, subject = _ingredients(request, (kelvin,))  # complains before anything is run
        name = f"{kelvin:g}K"
        directory = request.directory / name
        make_directory(directory)
        command = _command(request, kelvin, directory)
        runs.append(SweepRun(name, directory, command, recipe.steps, f"{subject.slug}.out"))
    old = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run_all(runs, request.jobs, request.resume, None if request.quiet else ProgressLine())
    finally:
        signal.signal(signal.SIGTERM, old)


def _command(request: Request, kelvin: float, directory: Path) -> list[str]:
    """Return the command that runs one temperature of a sweep."""
    limits = request.limits
    options: dict[str, Any] = {
        "--models": request.models, "--kind": request.kind, "--temperature": kelvin,
        "--directory": directory, "--structure": request.structure,
        "--component": request.component, "--log-every": request.log_every,
        "--max-stretch": limits.stretch, "--max-separation": limits.separation_ang,
        "--max-drift": limits.drift_ev_per_atom,
        **{flag: request.options[name] for name, flag in RECIPE_FLAGS.items()},
    }  # fmt: skip
    words = [f"{flag}={value}" for flag, value in options.items() if value is not None]
    resume = ["--resume"] if request.resume else []
    return [sys.executable, "-m", "deltaserver", "simulate", *words, "--quiet", *resume]
