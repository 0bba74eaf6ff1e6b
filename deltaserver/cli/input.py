"""``deltaserver input``: write an i-PI input for a model directory."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from deltaserver.cli.options.bias import BIAS_OPTIONS, BiasRequest, with_bias
from deltaserver.cli.options.common import (
    AT_LEAST_0,
    AT_LEAST_1,
    DEBUG,
    FORCE,
    PATH,
    POSITIVE,
    Finite,
    refuse_existing,
    take,
    tell,
    together,
)
from deltaserver.cli.options.directories import MODELS
from deltaserver.cli.options.kinds import refuse_of_others
from deltaserver.errors import InputError
from deltaserver.simulate.recipe import KINDS, THERMOSTATS, Kind, Recipe, Subject, Thermostat

RECIPE_OPTIONS = together(
    click.option(
        "--structure",
        type=PATH,
        help="Start structure; the model's own if not given. XYZ, or anything that ASE reads.",
    ),
    click.option(
        "--temperature",
        "temperatures_k",
        multiple=True,
        type=POSITIVE,
        metavar="K",
        help="May be repeated: replicas of remd, start and end of a "
        "ramp; for other kinds simulate makes a sweep.",
    ),
    click.option(
        "--timestep",
        "timestep_fs",
        type=POSITIVE,
        metavar="FS",
        help="With inner steps the outer one. 0.5 if not given, 0.5 for each inner step.",
    ),
    click.option("--steps", type=AT_LEAST_1, default=Recipe.steps, show_default=True),
    click.option("--seed", type=AT_LEAST_0, default=Recipe.seed, show_default=True),
    click.option(
        "--thermostat",
        type=click.Choice(THERMOSTATS),
        default=Recipe.thermostat,
        show_default=True,
        help="svr rescales all velocities together and leaves "
        "diffusion alone; pimd has pile_l, nve none.",
    ),
    click.option(
        "--tau",
        "tau_fs",
        type=POSITIVE,
        default=Recipe.tau_fs,
        show_default=True,
        metavar="FS",
        help="Time constant of the thermostat.",
    ),
    click.option(
        "--beads",
        "n_beads",
        type=AT_LEAST_1,
        default=Recipe.n_beads,
        show_default=True,
        help="Of pimd.",
    ),
    click.option(
        "--inner-steps",
        "n_inner",
        type=AT_LEAST_1,
        help="Steps of the fragments in one of the binding: of mts (2 if not given), and of "
        "umbrella and metad, which have none if not given.",
    ),
    click.option(
        "--replicas",
        "n_replicas",
        type=AT_LEAST_1,
        help="Runs of each temperature, side by side in one i-PI and evaluated in one batch; of "
        "nvt, nve, npt and mts.",
    ),
    click.option(
        "--swap-every",
        type=AT_LEAST_1,
        default=Recipe.swap_every,
        show_default=True,
        metavar="STEPS",
        help="Between attempts to exchange, on average, of remd.",
    ),
    click.option(
        "--positions-every",
        "positions_every_fs",
        type=POSITIVE,
        default=Recipe.positions_every_fs,
        show_default=True,
        metavar="FS",
        help="Between the frames written.",
    ),
    click.option(
        "--energies-every",
        type=AT_LEAST_1,
        metavar="STEPS",
        help="Between the energies written; every step up to 2000, then 5 fs.",
    ),
    click.option(
        "--pressure",
        "pressure_bar",
        type=Finite(),
        default=Recipe.pressure_bar,
        show_default=True,
        metavar="BAR",
        help="Of npt.",
    ),
    click.option(
        "--barostat-tau",
        "barostat_tau_fs",
        type=POSITIVE,
        default=Recipe.barostat_tau_fs,
        show_default=True,
        metavar="FS",
        help="Time constant of npt's barostat.",
    ),
    click.option(
        "--checkpoint-every",
        type=AT_LEAST_1,
        default=Recipe.checkpoint_every,
        show_default=True,
        metavar="STEPS",
    ),
    click.option(
        "--plugin",
        is_flag=True,
        help="i-PI evaluates the model in its own process: no socket, no daemon.",
    ),
    BIAS_OPTIONS,
)


@dataclass(frozen=True)
class RecipeRequest:
    """What a :class:`Recipe` is asked to be, but for kind and temperatures."""

    timestep_fs: float | None
    steps: int
    seed: int
    thermostat: Thermostat
    tau_fs: float
    n_beads: int
    n_inner: int | None
    n_replicas: int | None
    swap_every: int
    positions_every_fs: float
    energies_every: int | None
    checkpoint_every: int
    pressure_bar: float
    barostat_tau_fs: float
    plugin: bool

    def recipe(self, kind: Kind, temperatures_k: tuple[float, ...]) -> Recipe:
        """Make the recipe; raise InputError where something does not fit."""
        split = kind != "mts" and self.n_inner is not None
        n_inner = self.n_inner or Recipe.n_inner
        per_step = n_inner if split or kind == "mts" else 1
        settings = asdict(self) | {"n_inner": n_inner, "split": split}
        settings["timestep_fs"] = self.timestep_fs or Recipe.timestep_fs * per_step
        return Recipe(kind, temperatures_k, **settings)


@click.command("input")
@MODELS
@click.option("--kind", type=click.Choice(KINDS), required=True)
@click.option("--component", default="total", show_default=True, help="What is to be served.")
@click.option("--address", default="delta", show_default=True, help="Of i-PI's unix socket.")
@click.option("-o", "--output", type=PATH, help="Write a file, not to the terminal.")
@FORCE
@RECIPE_OPTIONS
@DEBUG
def input_command(
    models: Path,
    kind: Kind,
    component: str,
    address: str,
    output: Path | None,
    force: bool,
    structure: Path | None,
    temperatures_k: tuple[float, ...],
    **options: Any,
) -> None:
    """Write an i-PI input for a model directory.

    \b
        deltaserver input --models models/c60 --kind nvt --temperature 300 > input.xml
        deltaserver simulate input.xml --models models/c60
    """
    from deltaserver.serve.loading import load_model
    from deltaserver.simulate.render import render

    if output is not None:
        refuse_existing(output, force)
    refuse_of_others(kind)
    biased = take(BiasRequest, options)
    recipe = RecipeRequest(**options).recipe(kind, temperatures_k or (300.0,))
    model, _ = load_model(models, component, threads=1)  # nothing is served
    subject = subject_of(models, structure, model, component, recipe)
    tell([*subject.notes, *recipe.notes(subject.numbers)])
    recipes = with_bias(recipe, biased, subject)
    if len(recipes) > 1:
        raise InputError(f"--windows: an input is of one window, not of {len(recipes)}")
    text = render(recipes[0], subject, address)
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--output {output}: {(error.strerror or '').lower()}") from error


def subject_of(
    models: Path, structure: Path | None, model: Any, component: str, recipe: Recipe
) -> Subject:
    """Put together what a recipe is applied to."""
    from deltaserver.simulate.structure import start_structure

    start = start_structure(models, structure, model)
    fragments, binding = list(model.own_names), list(model.bound)
    parts = {
        "total": [*fragments, *binding],
        "binding": binding,
        "fragments": fragments,
    }.get(component, [component])
    if recipe.is_split and (component != "total" or not binding):
        how = "--kind mts" if recipe.kind == "mts" else "--inner-steps"
        raise InputError(
            f"{how} splits fragments from binding: it needs both, and --component total"
        )
    directory = models if models.is_dir() else models.parent
    slug = re.sub(r"[^A-Za-z0-9_+-]+", "_", directory.resolve().name) or "model"
    return Subject(
        f"{slug}_{recipe.kind}",
        model.name,
        str(models),
        start.numbers,
        start.positions_ang,
        tuple(parts),
        start.symbols,
        start.cell_ang if model.periodic and not model.one_complex else None,
        {"models": str(directory.resolve())}
        | ({} if component == "total" else {"component": component}),
        start.notes,
    )


@click.command("pes-path")
@DEBUG
def pes_path() -> None:
    """Print the file that i-PI's <pes_path> takes.

    With it i-PI evaluates models in its own process.

    \b
    In i-PI's input:
        <ffdirect name="delta"> <pes>custom</pes> <pes_path>…/ipi_pes.py</pes_path>
          <parameters>{models:/path/of/models/c60}</parameters> </ffdirect>
    """
    from deltaserver.simulate.ipi.plugin import PES_PATH

    click.echo(str(PES_PATH))
