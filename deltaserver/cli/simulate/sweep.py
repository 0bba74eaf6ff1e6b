"""Several runs: one for each temperature, or for each window of an umbrella."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

from deltaserver.cli.simulate.asked import (
    DEFAULT_K,
    Place,
    SimulateRequest,
    biased,
    run_request,
)
from deltaserver.errors import InputError
from deltaserver.simulate.recipe import Kind

if TYPE_CHECKING:
    from deltaserver.simulate.sweep import SweepRun


def sweep(request: SimulateRequest, kind: Kind, place: Place) -> None:
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
        run, name = run_request(request, kind, (kelvin,)), f"{kelvin:g}K"
        subject, (run,) = biased(run, request, place.quiet)  # complains before anything is run
        # Equal noise would make runs follow one another, and their errors with them.
        run = run.absolute().with_seed(run.recipe.seed + round(kelvin))
        runs.append(SweepRun(name, place.directory / name, run, f"{subject.slug}.out"))
    _begin_sweep(runs, request.jobs, place)


def windows_of(request: SimulateRequest, place: Place) -> None:
    """Run one run for each window of an umbrella."""
    from deltaserver.simulate.sweep import SweepRun

    if request.learning is not None:
        raise InputError(
            "--on-extrapolation label: windows run apart, each would be taught another model; "
            "teach the model first, with `deltaserver improve`"
        )
    run = run_request(request, "umbrella", request.temperatures_k or (DEFAULT_K,)).absolute()
    subject, windows = biased(run, request, place.quiet)
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


def resume_sweep(request: SimulateRequest, runs: list[SweepRun], place: Place) -> None:
    """Go on with what sweep.json lists, perhaps to another number of steps."""
    from deltaserver.simulate.sweep import write_sweep

    asked = {"models": request.models and request.models.resolve(), "component": request.component}
    for run, (name, now) in product(runs, asked.items()):
        before = getattr(run.request, name)
        if now not in (None, before):
            raise InputError(
                f"{run.directory}: was begun with {name} {before}, not {now}; resume it with the "
                "same options, or choose another --directory"
            )
    if request.steps is not None:
        runs = [run.with_total_steps(request.steps) for run in runs]
        write_sweep(place.directory, runs)
    _run_sweep(runs, request.jobs, place)


def _run_sweep(runs: list[SweepRun], jobs: int, place: Place) -> None:
    from deltaserver.simulate.progress import ProgressLine
    from deltaserver.simulate.record import how_to_go_on
    from deltaserver.simulate.sweep import run_all

    try:
        run_all(runs, jobs, place.resume, None if place.quiet else ProgressLine())
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"interrupted; {how_to_go_on(place.directory)}") from stop
