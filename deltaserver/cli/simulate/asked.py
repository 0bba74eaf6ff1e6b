"""What ``deltaserver simulate`` is asked: where to run, and what."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from deltaserver.cli.input import RecipeRequest, subject_of
from deltaserver.cli.options.bias import BiasRequest, with_bias
from deltaserver.cli.options.common import tell
from deltaserver.cli.options.learning import LearningOptions
from deltaserver.errors import InputError
from deltaserver.simulate.recipe import Kind, Subject
from deltaserver.simulate.request import RunOptions, RunRequest

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


def run_request(
    request: SimulateRequest, kind: Kind, temperatures_k: tuple[float, ...]
) -> RunRequest:
    """Return what one run is asked."""
    models, component = request.models_there, request.component or "total"
    recipe = request.recipe.recipe(kind, temperatures_k)
    return RunRequest(models, recipe, request.structure, component, request.options)


def biased(
    run: RunRequest, request: SimulateRequest, quiet: bool
) -> tuple[Subject, list[RunRequest]]:
    """Return what is simulated, and the run with each of the biases that are asked for."""
    subject = subject_in(run, quiet)
    recipes = with_bias(run.recipe, request.bias, subject)
    return subject, [replace(run, recipe=recipe) for recipe in recipes]


def subject_in(request: RunRequest, quiet: bool) -> Subject:
    """Return what the recipe is applied to, or raise InputError."""
    from deltaserver.serve.loading import load_model

    models, component = request.models, request.component
    model, _ = load_model(models, component, threads=1, quiet=quiet)  # nothing is served
    subject = subject_of(models, request.structure, model, component, request.recipe)
    if not quiet:
        tell([*subject.notes, *request.recipe.notes(subject.numbers)])
    return subject
