"""``deltaserver simulate``: one run, or a sweep of them."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deltaserver.cli.input import RECIPE_OPTIONS, RecipeRequest, subject_of
from deltaserver.cli.options.bias import BiasRequest, with_bias
from deltaserver.cli.options.common import AT_LEAST_1, DEBUG, DEVICE, PATH, POSITIVE, QUIET, take
from deltaserver.cli.options.directories import MODEL_DIRECTORY
from deltaserver.cli.options.guards import GUARD_OPTIONS
from deltaserver.cli.options.learning import (
    LEARNING_OPTIONS,
    LIMITS,
    LearningOptions,
    make_production,
    remember,
    remembered,
    taught,
)
from deltaserver.errors import InputError
from deltaserver.model.engines import STORAGES
from deltaserver.serve.settings import EXTRAS, GuardSettings
from deltaserver.simulate.blowup import Limits
from deltaserver.simulate.recipe import KINDS, Kind, Subject
from deltaserver.simulate.request import RunOptions, RunRequest, read_request

if TYPE_CHECKING:
    from deltaserver.simulate.ipi.input import IpiInput
    from deltaserver.simulate.record import RunRecord
    from deltaserver.simulate.run import RunPlan
    from deltaserver.simulate.sweep import SweepRun

DEFAULT_K = 300.0


@dataclass(frozen=True)
class Place:
    """Where a run or a sweep goes on, and whether it is to continue what is there."""

    directory: Path
    resume: bool
    quiet: bool

    @property
    def learning(self) -> Path:
        """Where what a run's model was taught on the way is."""
        from deltaserver.simulate.directory import LEARNING_NAME

        return self.directory / LEARNING_NAME


@dataclass(frozen=True)
class SimulateRequest:
    """What was asked of ``simulate`` beside the place; see ``deltaserver simulate --help``.

    Attributes:
        steps: if they were given, and are not the default.
        learning: how its model is taught on the way; None where it is not.
    """

    ipi_input: Path | None
    models: Path | None
    kind: Kind | None
    temperatures_k: tuple[float, ...]
    structure: Path | None
    component: str | None
    jobs: int
    serve: tuple[str, ...]
    recipe: RecipeRequest
    bias: BiasRequest
    steps: int | None
    options: RunOptions
    learning: LearningOptions | None

    @property
    def models_there(self) -> Path:
        """Return the model directory, or raise InputError where none was given."""
        if self.models is None:
            raise InputError("--models is missing; expected a directory with a model.yaml")
        return self.models


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
        _run_recipe(read_request(handed_over), place)
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
        _simulate_input(request, place)
    elif request.ipi_input is not None:
        raise InputError("INPUT.xml and --kind: give the one or the other")
    elif request.kind == "umbrella":
        _windows(request, place)
    elif len(request.temperatures_k) > 1 and request.kind not in ("remd", "ramp"):
        _sweep(request, request.kind, place)
    else:
        _simulate_kind(request, request.kind, place)


def _is_given(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def _simulate_input(request: SimulateRequest, place: Place) -> None:
    """Run an input that is there; with --resume it may be the directory's own."""
    from deltaserver.simulate.directory import INPUT_NAME
    from deltaserver.simulate.ipi.input import read_input
    from deltaserver.simulate.record import RunRecord, read_record
    from deltaserver.simulate.sweep import read_sweep

    path, directory = request.ipi_input, place.directory
    if place.resume and path is None and (runs := read_sweep(directory)):
        _resume_sweep(request, runs, place)
        return
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
    try:
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
    except SystemExit:  # a signal: for the daemon a clean end, for a run no end at all
        raise KeyboardInterrupt from None
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


def _simulate_kind(request: SimulateRequest, kind: Kind, place: Place) -> None:
    """Run one run whose input is made here."""
    run = _run_request(request, kind, request.temperatures_k or (DEFAULT_K,))
    if request.bias.is_wanted(kind):
        _, (run,) = _biased(run, request, place.quiet)
    _run_recipe(run, place, request.serve, request.learning)


def _run_request(
    request: SimulateRequest, kind: Kind, temperatures_k: tuple[float, ...]
) -> RunRequest:
    """Return what one run is asked."""
    models, component = request.models_there, request.component or "total"
    recipe = request.recipe.recipe(kind, temperatures_k)
    return RunRequest(models, recipe, request.structure, component, request.options)


def _biased(
    run: RunRequest, request: SimulateRequest, quiet: bool
) -> tuple[Subject, list[RunRequest]]:
    """Return what is simulated, and the run with each of the biases that are asked for."""
    subject = _subject(run, quiet)
    recipes = with_bias(run.recipe, request.bias, subject)
    return subject, [replace(run, recipe=recipe) for recipe in recipes]


def _run_recipe(
    request: RunRequest,
    place: Place,
    serve: tuple[str, ...] = (),
    learning: LearningOptions | None = None,
) -> None:
    """Make the input of a recipe, and run it."""
    from deltaserver.simulate.directory import INPUT_NAME
    from deltaserver.simulate.ipi.input import parse_input
    from deltaserver.simulate.ipi.plugin import parameters_text
    from deltaserver.simulate.recipe import render
    from deltaserver.simulate.record import RunRecord, read_record

    subject = _subject(request, place.quiet)
    recipe = request.recipe
    record = RunRecord(
        str(request.models.resolve()),
        request.component,
        recipe.kind,
        recipe.temperatures_k,
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


def _subject(request: RunRequest, quiet: bool) -> Subject:
    """Return what the recipe is applied to, or raise InputError."""
    from deltaserver.serve.loading import load_model

    models, component = request.models, request.component
    model, _ = load_model(models, component, threads=1, quiet=quiet)  # nothing is served
    return subject_of(models, request.structure, model, component, request.recipe.kind)


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


def _sweep(request: SimulateRequest, kind: Kind, place: Place) -> None:
    """Run one run for each temperature."""
    from deltaserver.simulate.sweep import SweepRun

    if request.learning is not None:
        raise InputError(
            "--on-extrapolation label: one run at a time, each would be taught another model; "
            "teach the model first, with `deltaserver improve` at all temperatures"
        )
    if len(set(request.temperatures_k)) < len(request.temperatures_k):
        raise InputError("--temperature: one stands there twice")
    runs = []
    for kelvin in request.temperatures_k:
        run, name = _run_request(request, kind, (kelvin,)), f"{kelvin:g}K"
        subject, (run,) = _biased(run, request, place.quiet)  # complains before anything is run
        # Equal noise would make runs follow one another, and their errors with them.
        run = run.absolute().with_seed(run.recipe.seed + round(kelvin))
        runs.append(SweepRun(name, place.directory / name, run, f"{subject.slug}.out"))
    _begin_sweep(runs, request.jobs, place)


def _windows(request: SimulateRequest, place: Place) -> None:
    """Run one run for each window of an umbrella."""
    from deltaserver.simulate.sweep import SweepRun

    if request.learning is not None:
        raise InputError(
            "--on-extrapolation label: windows run apart, each would be taught another model; "
            "teach the model first, with `deltaserver improve`"
        )
    run = _run_request(request, "umbrella", request.temperatures_k or (DEFAULT_K,)).absolute()
    subject, windows = _biased(run, request, place.quiet)
    runs = []
    for window in windows:
        bias = window.recipe.bias
        assert bias is not None
        assert bias.spring is not None
        name = f"{bias.coordinate.name}_{bias.spring.centre_ang:g}"
        # A window's random numbers are its own, whichever others there are.
        window = window.with_seed(window.recipe.seed + round(1e3 * bias.spring.centre_ang))
        runs.append(SweepRun(name, place.directory / name, window, f"{subject.slug}.out"))
    _begin_sweep(runs, request.jobs, place)


def _begin_sweep(runs: list[SweepRun], jobs: int, place: Place) -> None:
    """Write down what the sweep is, and run it; resumed, others may have joined what was there."""
    from deltaserver.simulate.record import make_directory
    from deltaserver.simulate.sweep import read_sweep, write_sweep

    make_directory(place.directory)
    if place.resume:
        names = {run.name for run in runs}
        runs += [run for run in read_sweep(place.directory) or () if run.name not in names]
    write_sweep(place.directory, runs)
    _run_sweep(runs, jobs, place)


def _resume_sweep(request: SimulateRequest, runs: list[SweepRun], place: Place) -> None:
    """Go on with what sweep.json lists, perhaps to another number of steps."""
    from deltaserver.simulate.sweep import write_sweep

    if request.steps is not None:
        runs = [run.with_total_steps(request.steps) for run in runs]
        write_sweep(place.directory, runs)
    _run_sweep(runs, request.jobs, place)


def _run_sweep(runs: list[SweepRun], jobs: int, place: Place) -> None:
    from deltaserver.simulate.progress import ProgressLine
    from deltaserver.simulate.sweep import run_all

    run_all(runs, jobs, place.resume, None if place.quiet else ProgressLine())
