"""The options of ``deltaserver dataset`` that say how to sample, and the plan they make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deltaserver.cli.dataset.options import TEMPERATURES
from deltaserver.cli.options.common import AT_LEAST_0, AT_LEAST_1, POSITIVE, together

if TYPE_CHECKING:
    from deltaserver.datasets.frames import FragmentSpec
    from deltaserver.datasets.sampling.dynamics import SamplingPlan
    from deltaserver.datasets.sampling.separations import SeparationPlan

WALL_MARGIN_ANG = 2.0
# Options of windows, and the settings they are.
WINDOW_OPTIONS = {
    "orientations": "orientations",
    "windows": "windows",
    "window_frames": "frames_per_window",
    "window_spring": "spring",
    "pulled": "pulled",
}

SAMPLING = together(
    TEMPERATURES,
    click.option(
        "-n",
        "--frames",
        type=AT_LEAST_0,
        default=300,
        show_default=True,
        help="Frames in the well in all, shared evenly among its trajectories; 0 for none beside "
        "--separations.",
    ),
    click.option(
        "--trajectories",
        type=AT_LEAST_1,
        default=3,
        show_default=True,
        help="Trajectories per temperature. Test on other ones than you train on.",
    ),
    click.option(
        "--interval",
        type=AT_LEAST_1,
        default=25,
        show_default=True,
        metavar="STEPS",
        help="Steps between two frames.",
    ),
    click.option(
        "--equilibrate",
        type=AT_LEAST_0,
        default=1000,
        show_default=True,
        metavar="STEPS",
        help="Steps before the first frame.",
    ),
    click.option(
        "--time-step",
        type=POSITIVE,
        default=1.0,
        show_default=True,
        metavar="FS",
        help="Time step.",
    ),
    click.option(
        "--friction",
        type=POSITIVE,
        default=0.01,
        show_default=True,
        metavar="1/FS",
        help="Friction of the Langevin thermostat.",
    ),
    click.option(
        "--seed",
        type=AT_LEAST_0,
        default=2025,
        show_default=True,
        help="Seed; trajectory k draws from (seed, k).",
    ),
    click.option(
        "--wall",
        default="auto",
        show_default=True,
        metavar="ANGSTROM|auto|none",
        help="Largest distance between fragments' centres of mass before a spring of "
        f"1 eV/Å² pulls them back; auto is the start's and {WALL_MARGIN_ANG:g} Å.",
    ),
    click.option(
        "--relax/--no-relax",
        default=True,
        show_default=True,
        help="Minimise the energy of the start structure first.",
    ),
    click.option(
        "--prepare-calculator",
        metavar="CALCULATOR",
        help="A cheap calculator, GFN-FF say, that relaxes and runs --prepare steps first.",
    ),
    click.option(
        "--prepare",
        type=AT_LEAST_0,
        default=0,
        show_default=True,
        metavar="STEPS",
        help="Steps with --prepare-calculator, before equilibration.",
    ),
    click.option(
        "--separations",
        metavar="NEAREST:FARTHEST",
        help="Sample two fragments apart as well: windows that begin with so many Å between their "
        "nearest atoms, 2.5:12 say, dense at contact, in random orientations.",
    ),
    click.option(
        "--orientations",
        type=AT_LEAST_1,
        metavar="N",
        help="Random orientations of --separations. [default: 20]",
    ),
    click.option(
        "--pulled",
        type=AT_LEAST_1,
        metavar="N",
        help="Of these, so many are STRUCTURE's own, one fragment pulled out of the other: random "
        "ones seldom find into a host. [default: 0]",
    ),
    click.option(
        "--windows",
        type=AT_LEAST_1,
        metavar="N",
        help="Windows of each orientation, a trajectory each. [default: 8]",
    ),
    click.option(
        "--window-frames",
        type=AT_LEAST_1,
        metavar="N",
        help="Frames of each window, beside --frames. [default: 2]",
    ),
    click.option(
        "--window-spring",
        type=POSITIVE,
        metavar="EV/ANG^2",
        help="Spring that holds a window's distance of centres. [default: 2]",
    ),
)


@dataclass(frozen=True)
class SamplingRequest:
    """What to sample, and how, as asked: see ``deltaserver dataset sample --help``."""

    structures: tuple[Path, ...]
    fragments: tuple[str, ...]
    spin: int | None
    output: Path
    calculator: str
    temperatures: tuple[float, ...]
    frames: int
    trajectories: int
    interval: int
    equilibrate: int
    time_step: float
    friction: float
    seed: int
    wall: str
    relax: bool
    prepare_calculator: str | None
    prepare: int
    separations: str | None
    orientations: int | None
    pulled: int | None
    windows: int | None
    window_frames: int | None
    window_spring: float | None


def sampling_plan(asked: SamplingRequest, fragments: tuple[FragmentSpec, ...]) -> SamplingPlan:
    """Return the plan that was asked for; InputError if none."""
    from deltaserver.datasets.sampling.dynamics import SamplingPlan

    trajectories = len(asked.temperatures) * asked.trajectories
    return SamplingPlan(
        calculator=asked.calculator,
        temperatures=asked.temperatures,
        trajectories=asked.trajectories,
        frames_per_trajectory=-(-asked.frames // trajectories),
        interval=asked.interval,
        equilibrate_steps=asked.equilibrate,
        time_step=asked.time_step,
        friction=asked.friction,
        seed=asked.seed,
        relax=asked.relax,
        prepare_calculator=asked.prepare_calculator,
        prepare_steps=asked.prepare,
        wall_distance=_wall(asked.wall, asked.structures, fragments),
        separations=_separations(asked, fragments),
    )


def _separations(
    asked: SamplingRequest, fragments: tuple[FragmentSpec, ...]
) -> SeparationPlan | None:
    from deltaserver.datasets.sampling.separations import (
        SeparationPlan,
        check_two_fragments,
        parse_separations,
    )
    from deltaserver.errors import InputError

    given = {name: value for name in WINDOW_OPTIONS if (value := getattr(asked, name))}
    if asked.separations is None:
        if given:
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(
                f"{names} without --separations; give both, as in --separations 2.5:12"
            )
        return None
    check_two_fragments(fragments)
    settings = {WINDOW_OPTIONS[name]: value for name, value in given.items()}
    return SeparationPlan(*parse_separations(asked.separations), **settings)


def _wall(
    text: str, structures: tuple[Path, ...], fragments: tuple[FragmentSpec, ...]
) -> float | None:
    from deltaserver.datasets.sampling.dynamics import centre_distance
    from deltaserver.datasets.workspace import read_start
    from deltaserver.errors import InputError

    if text == "none" or len(fragments) < 2:
        return None
    if text == "auto":
        distances = [centre_distance(read_start(path, fragments), fragments) for path in structures]
        return round(max(distances) + WALL_MARGIN_ANG, 3)
    try:
        distance = float(text)
    except ValueError:
        distance = math.nan
    if not 0.0 < distance < math.inf:
        raise InputError(f"--wall {text}: expected a distance in Å, auto or none")
    return distance
