"""Options of enhanced sampling, and the bias that they ask for."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from deltaserver.bias.coordinate import Coordinate
from deltaserver.bias.settings import Bias
from deltaserver.bias.terms import Spring, UpperWall, WellTempered
from deltaserver.cli.options.common import AT_LEAST_1, PATH, POSITIVE, FiniteRange, finite, together
from deltaserver.errors import InputError
from deltaserver.simulate.recipe import BIASED, WALLED, Kind, Recipe, Subject
from deltaserver.textio.species import parse_species
from deltaserver.units import KB_EV_PER_K, PS_FS

if TYPE_CHECKING:
    from deltaserver.analysis.measure.definitions import Definitions

MOST_WINDOWS = 1000


class Windows(click.ParamType[tuple[float, ...]]):
    """``LOW:HIGH:STEP``, or numbers with commas."""

    name = "low:high:step"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, ...]:
        """Return the centres, both ends among them."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = [finite(part) for part in str(value).replace(":", ",").split(",")]
        except ValueError:
            self.fail(f"{value!r} is no LOW:HIGH:STEP, such as 3.4:8:0.4", param, ctx)
        if ":" not in str(value):
            return tuple(numbers)
        if len(numbers) != 3 or not (0.0 < numbers[0] < numbers[1] and numbers[2] > 0.0):
            self.fail(f"{value!r} is no LOW:HIGH:STEP, such as 3.4:8:0.4", param, ctx)
        low, high, step = numbers
        n = round((high - low) / step) + 1
        if n > MOST_WINDOWS:
            self.fail(f"{value!r}: {n} windows; at most {MOST_WINDOWS}", param, ctx)
        return tuple(round(low + k * step, 9) for k in range(n) if low + k * step < high + 1e-9)


BIAS_OPTIONS = together(
    click.option(
        "--variable",
        metavar="NAME",
        help="Distance that umbrella, metad and --wall act on; the first of analysis.yaml, which "
        "is R_CM where there is none.",
    ),
    click.option(
        "--definitions",
        type=PATH,
        metavar="FILE",
        help="Where --variable is defined; analysis.yaml in the model directory if not given.",
    ),
    click.option(
        "--windows",
        type=Windows(),
        multiple=True,
        metavar="LOW:HIGH:STEP",
        help="Centres of umbrella's windows, Å; may be repeated, or single ones with commas.",
    ),
    click.option(
        "--spring",
        "spring_ev_per_ang2",
        type=POSITIVE,
        metavar="EV/ANG2",
        help="Of the windows, k in ½k(s − s₀)². 4kT/d² if not given, d being the smallest "
        "distance of two windows: neighbours then overlap.",
    ),
    click.option(
        "--pull-speed",
        "pull_ang_per_ps",
        type=POSITIVE,
        default=2.0,
        show_default=True,
        metavar="ANG/PS",
        help="How fast a window's centre moves from the start structure to its place, before "
        "--steps begin.",
    ),
    click.option(
        "--hill-height",
        "hill_height_ev",
        type=POSITIVE,
        metavar="EV",
        help="Of metad's first hill; kT/2 if not given.",
    ),
    click.option(
        "--hill-width",
        "hill_width_ang",
        type=POSITIVE,
        default=0.15,
        show_default=True,
        metavar="ANG",
        help="Standard deviation of a hill.",
    ),
    click.option(
        "--hill-every",
        type=AT_LEAST_1,
        default=200,
        show_default=True,
        metavar="STEPS",
        help="Between two hills.",
    ),
    click.option(
        "--bias-factor",
        type=FiniteRange(min=1.0, min_open=True),
        default=10.0,
        show_default=True,
        help="γ of well-tempered metadynamics: barriers look γ times lower.",
    ),
    click.option(
        "--wall",
        "wall_ang",
        type=POSITIVE,
        metavar="ANG",
        help="Beyond this, a spring pulls back; of umbrella, metad and nvt.",
    ),
    click.option(
        "--wall-spring",
        "wall_spring_ev_per_ang2",
        type=POSITIVE,
        default=1.0,
        show_default=True,
        metavar="EV/ANG2",
    ),
)


@dataclass(frozen=True)
class BiasRequest:
    """What a bias is asked to be; see ``deltaserver simulate --help``."""

    variable: str | None
    definitions: Path | None
    windows: tuple[tuple[float, ...], ...]
    spring_ev_per_ang2: float | None
    pull_ang_per_ps: float
    hill_height_ev: float | None
    hill_width_ang: float
    hill_every: int
    bias_factor: float
    wall_ang: float | None
    wall_spring_ev_per_ang2: float

    @property
    def centres_ang(self) -> tuple[float, ...]:
        """All windows, from the nearest to the farthest, each once."""
        return tuple(sorted({centre for some in self.windows for centre in some}))

    def is_wanted(self, kind: Kind) -> bool:
        """Whether a run of that kind is biased, or wants to be and cannot."""
        return kind in BIASED or bool(self.windows) or self.wall_ang is not None


def with_bias(recipe: Recipe, asked: BiasRequest, subject: Subject) -> list[Recipe]:
    """Return the recipe with the bias that is asked for: one a window, else one.

    Raises:
        InputError: what is asked for does not go together, or no such variable.
    """
    kind = recipe.kind
    if asked.windows and kind != "umbrella":
        raise InputError("--windows: only with --kind umbrella")
    if asked.wall_ang is not None and kind not in WALLED:
        raise InputError(f"--wall: only with --kind {', '.join(WALLED)}")
    if not asked.is_wanted(kind):
        return [recipe]
    if subject.cell_ang is not None:
        raise InputError(f"--kind {kind}: a bias takes no images; it is for complexes in vacuum")
    coordinate, apart = _coordinate(asked, subject)
    wall = asked.wall_ang and UpperWall(asked.wall_ang, asked.wall_spring_ev_per_ang2)
    bias = Bias(coordinate, wall=wall or None)
    if kind == "metad":
        if apart and wall is None:
            raise InputError(
                f"--kind metad: nothing holds the molecules that {coordinate.name} is between, and "
                "hills drive them apart for good; give --wall ANG, where they are free already"
            )
        bias = replace(bias, growth=_growth(recipe, asked))
    if kind != "umbrella":
        return [replace(recipe, bias=bias)]
    springs = _springs(recipe, asked, bias, subject)
    return [_window(recipe, bias, spring) for spring in springs]


def _growth(recipe: Recipe, asked: BiasRequest) -> WellTempered:
    kelvin = recipe.temperatures_k[0]
    return WellTempered(
        asked.hill_height_ev or 0.5 * KB_EV_PER_K * kelvin,
        asked.hill_width_ang,
        asked.hill_every,
        asked.bias_factor,
        kelvin,
    )


def _springs(recipe: Recipe, asked: BiasRequest, bias: Bias, subject: Subject) -> list[Spring]:
    """Return a spring a window, which moves there from where the structure is."""
    centres = asked.centres_ang
    if not centres:
        raise InputError("--kind umbrella needs --windows LOW:HIGH:STEP, such as 3.4:8:0.4")
    constant = asked.spring_ev_per_ang2
    if constant is None:
        if len(centres) < 2:
            raise InputError("--windows: a single one says nothing of the spring; give --spring")
        nearest = float(np.diff(centres).min())
        constant = 4.0 * KB_EV_PER_K * recipe.temperatures_k[0] / nearest**2
    start = bias.coordinate.value(subject.positions_ang)
    ang_per_step = asked.pull_ang_per_ps * recipe.timestep_fs / PS_FS
    return [
        Spring(c, constant, start, int(np.ceil(abs(c - start) / ang_per_step))) for c in centres
    ]


def _window(recipe: Recipe, bias: Bias, spring: Spring) -> Recipe:
    steps = recipe.steps + spring.pull_steps
    return replace(recipe, bias=replace(bias, spring=spring), steps=steps)


def _coordinate(asked: BiasRequest, subject: Subject) -> tuple[Coordinate, bool]:
    """Return the variable as a bias takes it, and whether nothing holds its groups together."""
    definitions = _definitions(Path(subject.models), asked.definitions)
    if asked.variable is None and not definitions.variables:
        raise InputError("--variable: the model has one fragment, and no variable is defined")
    variable = definitions.variable(asked.variable or definitions.variables[0].name)
    if variable.kind != "distance":
        raise InputError(
            f"--variable {variable.name}: is of kind {variable.kind}; a bias acts on a distance"
        )
    first, second = variable.groups
    masses = [parse_species(symbol).mass_u for symbol in subject.species]
    if beyond := variable.atoms_beyond(len(masses)):
        raise InputError(
            f"--variable {variable.name}: atom {beyond[0]} is out of range; the model has atoms "
            f"0 to {len(masses) - 1}"
        )
    plain = variable.centre == "geometry"
    left, right = (tuple(1.0 if plain else masses[a] for a in group) for group in (first, second))
    coordinate = Coordinate(variable.name, (first, second), (left, right))
    both = {*first, *second}
    held = any(both <= set(atoms) for atoms in definitions.fragments.values())
    return coordinate, not held


def _definitions(models: Path, given: Path | None) -> Definitions:
    """Return the variables that an analysis of the model has."""
    from deltaserver.analysis.measure.definitions import (
        FILE_NAME,
        default_definitions,
        read_definitions,
    )
    from deltaserver.model.manifest import read_manifest

    manifest = read_manifest(models)
    fragments = {entry.name: entry.atoms for entry in manifest.fragments}
    beside = manifest.path.parent / FILE_NAME
    path = given or (beside if beside.is_file() else None)
    return read_definitions(path, fragments) if path else default_definitions(fragments)
