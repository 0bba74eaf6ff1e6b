"""``deltaserver train``: from a dataset to a model directory that can be served."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from deltaserver.cli.options.common import (
    AT_LEAST_0,
    AT_LEAST_1,
    DEBUG,
    PATH,
    QUIET,
    FiniteRange,
    integers,
)
from deltaserver.cli.options.directories import MODEL_DIRECTORY
from deltaserver.cli.options.sizes import as_memory
from deltaserver.cli.shell.terminal import MinuteLines


def _numbers(_context: click.Context, _option: click.Parameter, text: str) -> tuple[float, ...]:
    if text.strip().lower() == "auto":
        return ()
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r}; expected auto, or numbers such as 10,20,40") from None
    if not all(0.0 < value < float("inf") for value in values):
        raise click.BadParameter(f"{text!r}; expected positive numbers")
    return values


def _weights(_context: click.Context, _option: click.Parameter, text: str) -> tuple[float, ...]:
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = (float("nan"),)
    if not all(0.0 <= value < float("inf") for value in values):
        raise click.BadParameter(f"{text!r}; expected numbers from 0 on, such as 0,0.1,1")
    return values


def _by_name(_context: click.Context, _option: click.Parameter, text: str) -> dict[str, float]:
    found = dict[str, float]()
    for entry in filter(None, text.split(",")):
        name, sign, number = entry.rpartition("=")
        try:
            found[name.strip()] = float(number)
        except ValueError:
            sign = ""
        if not (sign and name.strip() and 0.0 <= found[name.strip()] < float("inf")):
            raise click.BadParameter(
                f"{entry!r}; expected a dataset's name and a number from 0 on, such as walls=0.5"
            )
    return found


@click.command()
@click.argument("dataset", type=PATH)
@click.option("-o", "--output", type=PATH, required=True, help="Model directory to be written.")
@click.option(
    "--component", default="all", show_default=True, help="all, a fragment's name, binding or full."
)
@click.option(
    "--n-train",
    type=AT_LEAST_0,
    default=100,
    show_default=True,
    help="Training points of each component; 0, of --prior triples, is no kernel beside it.",
)
@click.option(
    "--n-valid",
    type=AT_LEAST_1,
    default=50,
    show_default=True,
    help="Validation frames, later in time, that sigma is chosen by.",
)
@click.option(
    "--sigma",
    "sigmas",
    callback=_numbers,
    default="auto",
    show_default=True,
    metavar="LIST",
    help="Length scales to try, as 10,20,40; auto searches.",
)
@click.option(
    "--prior",
    type=click.Choice(["none", "pairs", "pairs-limit", "triples"]),
    default="none",
    show_default=True,
    help="Of the binding: pairs fits a pair potential first, and the "
    "binding model learns what is left; pairs-limit also an energy of fragments far "
    "apart, for references that leave charge with the wrong one; triples, of a dataset of order 3, "
    "fits the dispersion of three molecules.",
)
@click.option(
    "--induction",
    type=MODEL_DIRECTORY,
    default=None,
    metavar="DIR",
    help="Beside --prior triples, of a dataset of order 3: fit charge that flows in a molecule in "
    "the potential of two others; the charges are those of the prior of DIR, the models of two.",
)
@click.option(
    "--intra-weight",
    "intra_weights",
    callback=_weights,
    default="1",
    show_default=True,
    metavar="LIST",
    help="Weights to try of distances within fragments in the binding "
    "model, as 0,0.1,1; 1 is native sGDML.",
)
@click.option(
    "--linear",
    type=click.Choice(["none", "distances", "units", "products"]),
    default="none",
    show_default=True,
    help="distances fits a linear expansion first, to all training "
    "frames: of a fragment's bonds, angles and torsions (of full, where it is trained alone, "
    "those of all fragments), of pairs of sites between fragments; the kernel learns what is "
    "left. units, for molecules with bonds that turn: also what their stiff units do to each "
    "other; to be trained on contacts within the molecule. products, for small molecules: the "
    "binding is sites and products of two distances, "
    "without a kernel, much the fastest.",
)
@click.option(
    "--frame-weights",
    callback=_by_name,
    default="",
    metavar="NAME=WEIGHT,…",
    help="How much frames of datasets that DATASET was merged of count in linear expansions, as "
    "wide=2,placed=0.5; 1 where not named.",
)
@click.option(
    "--symmetry",
    default="product",
    show_default=True,
    metavar="none|fragment|product|rotations|sgdml|FILE",
    help="Permutations: none; those of each fragment's bonds for its own model; products of "
    "these and exchange for binding and full too; of those only what turns molecules or mirrors "
    "all; sgdml's own search; or a file's.",
)
@click.option(
    "--max-permutations",
    "cap",
    type=AT_LEAST_1,
    default=1000,
    show_default=True,
    help="Use a subgroup of at most this size.",
)
@click.option(
    "--lambda",
    "lambdas",
    callback=_weights,
    default="1e-10",
    show_default=True,
    metavar="LIST",
    help="Regularisations to try, as 1e-10,1e-6.",
)
@click.option(
    "--energies",
    type=FiniteRange(min=0.0),
    default=0.0,
    show_default=True,
    metavar="WEIGHT",
    help="Learn energies beside the forces, so weighted; 1 is sgdml's E_cstr, 0 is forces alone.",
)
@click.option(
    "--train-fraction",
    type=FiniteRange(0.0, 1.0, min_open=True),
    default=0.8,
    show_default=True,
    help="Share of each trajectory, from its start; the rest is held out.",
)
@click.option(
    "--hold-out",
    "held_out_trajectories",
    callback=integers,
    default="",
    metavar="LIST",
    help="Trajectories held out as a whole, as 3,4.",
)
@click.option(
    "--selection",
    type=click.Choice(["random", "strata", "farthest"]),
    default="strata",
    show_default=True,
    help="How points are chosen: at random, by strata of the energy, or the farthest "
    "from those that are, of every trajectory its share.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the points drawn.")
@click.option("--threads", type=AT_LEAST_1, default=None, help="Threads; all cores if not given.")
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="What factorises the kernel matrix, or makes its products.",
)
@click.option(
    "--solver",
    type=click.Choice(["auto", "exact", "iterative"]),
    default="auto",
    show_default=True,
    help="auto: exact where that fits the memory and is the "
    "faster; iterative needs no kernel matrix.",
)
@click.option(
    "--tolerance",
    type=FiniteRange(0.0, 1.0, min_open=True, max_open=True),
    default=3e-7,
    show_default=True,
    help="Relative residual at which the iterative solver may stop.",
)
@click.option(
    "--max-products",
    type=AT_LEAST_1,
    default=3000,
    show_default=True,
    help="Products with the kernel matrix after which it gives up.",
)
@click.option(
    "--scheduler",
    default="local",
    show_default=True,
    metavar="local|tcp://HOST:PORT",
    help="Of the iterative solver: products on this machine, or on the workers of a "
    "Dask scheduler.",
)
@click.option(
    "-w",
    "--workers",
    type=AT_LEAST_1,
    default=1,
    show_default=True,
    help="Local processes that share the products out.",
)
@click.option(
    "--warm-start",
    type=PATH,
    default=None,
    metavar="MODEL",
    help="Directory or file of a model with fewer points, to begin with.",
)
@click.option(
    "--max-memory",
    "max_bytes",
    callback=as_memory,
    default=None,
    metavar="SIZE",
    help="Refuse to use more, as 18GB; what is available if not given.",
)
@click.option("--overwrite", is_flag=True, help="Replace models of other options that are there.")
@QUIET
@DEBUG
def train(
    dataset: Path,
    output: Path,
    quiet: bool,
    threads: int | None,
    frame_weights: dict[str, float],
    **plan_options: Any,
) -> None:
    """Train fragments, binding and full on DATASET.

    \b
    deltaserver train data/water_benzene --output models/water_benzene --n-train 200

    DATASET is a directory that `deltaserver dataset` has made, or a labelled extended XYZ file.
    A training that is interrupted resumes when the same command is given again.
    """
    from deltaserver.compute.cores import usable_cores
    from deltaserver.datasets.files import read_dataset
    from deltaserver.training.directory.job import TrainingPlan
    from deltaserver.training.linear.frame_weights import FrameWeights
    from deltaserver.training.model_directory import train_directory

    weights = FrameWeights.read(dataset, frame_weights) if frame_weights else None
    plan = TrainingPlan(threads=threads or usable_cores(), frame_weights=weights, **plan_options)
    terminal = Terminal(quiet)
    frames = read_dataset(dataset, terminal.say)
    train_directory(frames, plan, output, terminal.say, terminal.progress)
    terminal.say(f"written: {output}")


class Terminal:
    """Lines, and below them one bar that updates; without a terminal a line a minute instead."""

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet
        self.live = not quiet and sys.stderr.isatty()
        self.what, self.began = "", 0.0
        self._lines = MinuteLines(self.say)

    def say(self, line: str) -> None:
        """Print one line above the bar."""
        if self.quiet:
            return
        self._clear()
        click.echo(line)

    def progress(self, what: str, fraction: float) -> None:
        """Draw the bar of ``what``, with the time that is left by linear extrapolation."""
        if not self.live:
            if not self.quiet:
                self._lines.progress(what, fraction)
            return
        now = time.monotonic()
        task = what.split(";")[0]  # what follows changes while the task stays
        if task != self.what:
            self.what, self.began = task, now
        left = (now - self.began) * (1.0 - fraction) / fraction if fraction > 0.0 else 0.0
        bar = "#" * int(30 * fraction)
        self._clear()
        click.echo(
            f"{what} [{bar:<30}] {100 * fraction:3.0f} %, {left:.0f} s left", err=True, nl=False
        )

    def _clear(self) -> None:
        if self.live:
            click.echo("\r\x1b[2K", err=True, nl=False)
