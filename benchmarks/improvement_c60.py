"""`deltaserver improve` on C60@buckycatcher from 100 points of one trajectory: force MAE a round.

    python benchmarks/improvement_c60.py run/improve_c60 [--rounds 4] [--steps 800] [--random 40]

The first model has 130 frames at equal intervals of the one 4 ps trajectory at 400 K, 100 of them
points, with the expansions, the prior and the permutations of models/train.sh. Every round is
tested on the frames that the shipped model is tested on, and that nothing here has seen: two
trajectories of data/c60_buckycatcher_wide and three of _turned. `--random N` trains on N random
frames of eleven trajectories of _wide in the place of rounds. Markdown. Stopped at any moment, the
same command goes on; with more `--rounds` it continues.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from improvement import models_by_round

from deltaserver import CompositeModel
from deltaserver.datasets.files import read_dataset, write_frames
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.evaluation.held_out_errors import evaluate_batches
from deltaserver.improve.retrain import joined, plans_of, retrain, trained_parts, write_symmetry
from deltaserver.improve.settings import Dynamics, Settings
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.model_directory import train_directory
from deltaserver.units import KCAL_PER_MOL_EV

DATA = Path(__file__).parents[1] / "data"
CALCULATOR = "GFN2-xTB"
FIRST_FRAMES, FIRST_POINTS, TEST_FRAMES = 130, 100, 10
TESTS = {"wide": (14, 20), "turned": (3, 7, 11)}
ORIENTATIONS = (0, 1, 2, 3, 4, 5, 18, 19, 21, 22, 23)  # of wide, 100 and 400 K
SHARED = TrainingPlan(
    FIRST_POINTS, FIRST_FRAMES - FIRST_POINTS, (20.0,), "fragment", train_fraction=1.0,
    solver="iterative", linear="distances", max_bytes=6e9,
)  # fmt: skip
PARTS = (
    replace(SHARED, component="c60", lambdas=(1e-11,), tolerance=1e-4),
    replace(SHARED, component="buckycatcher", lambdas=(1e-6,), tolerance=1e-3, max_products=120),
    replace(
        SHARED, component="binding", symmetry="rotations", sigmas=(1.0,), intra_weights=(0.0,),
        prior="pairs", tolerance=2e-2, max_products=80,
    ),
)  # fmt: skip


def first(output: Path) -> tuple[Path, LabelledFrames]:
    """The first model and the dataset that it has seen."""
    known = read_dataset(DATA / "c60_buckycatcher_gfn2_400K.xyz.gz")
    chosen = known.select(np.linspace(0, len(known) - 1, FIRST_FRAMES).astype(int))
    chosen = replace(chosen, name="c60_130", reference=CALCULATOR)
    if not (output / "dataset" / "dataset.yaml").exists():
        write_frames(chosen, output / "dataset", {})
    frames = read_dataset(output / "dataset")
    for plan in PARTS:
        train_directory(frames, plan, output / "first", print)
    return output / "first", frames


def of_improve(models: Path, asked: argparse.Namespace) -> dict[int, Path]:
    """Return the models of `improve` by the number of frames that were added."""
    output = asked.output / f"rounds-{asked.steps}-{asked.seed}"
    settings = Settings(
        models, asked.output / "dataset", CALCULATOR, output,
        Dynamics((100.0, 400.0), steps=asked.steps), asked.labels, TEST_FRAMES, seed=asked.seed,
    )  # fmt: skip
    return models_by_round(settings, asked.rounds)


def of_random(models: Path, base: LabelledFrames, n: int, output: Path, seed: int) -> Path:
    """Return a model with n random frames of other orientations, trained from the first."""
    wide = read_dataset(DATA / "c60_buckycatcher_wide")
    pool = np.flatnonzero(np.isin(wide.trajectory, ORIENTATIONS))
    drawn = np.random.default_rng(seed).choice(pool, n, replace=False)
    parts = trained_parts(models, base)
    symmetry = write_symmetry(models, parts, output)
    directory = output / f"random-{n}-{seed}"
    frames = joined(base, [wide.select(np.sort(drawn))])
    plans = plans_of(models, models, parts, n, 1, output / "dataset")
    retrain(plans, directory, frames, n, symmetry, print)
    return directory


def errors(models: Path) -> list[float]:
    """Force MAE of the whole and of the binding on each test, kcal/mol/Å."""
    model, found = CompositeModel.load(models), []
    for name, trajectories in TESTS.items():
        frames = read_dataset(DATA / f"c60_buckycatcher_{name}")
        test = frames.select(np.flatnonzero(np.isin(frames.trajectory, trajectories)))
        result = evaluate_batches(model, test.positions, "total")
        bound = sum(result.contributions[key].forces for key in ("prior", "binding"))
        bound = bound - test.binding_forces
        for difference in (result.forces - test.forces, bound):
            found.append(float(np.abs(difference).mean()) / KCAL_PER_MOL_EV)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--labels", type=int, default=20)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--random", type=int, default=0)
    asked = parser.parse_args()
    models, frames = first(asked.output)
    if asked.random:
        name = "random, eleven orientations"
        directory = of_random(models, frames, asked.random, asked.output, asked.seed)
        rows = {asked.random: directory}
    else:
        name, rows = "`improve`", of_improve(models, asked)
    print("| frames added | by | held out, 300 and 400 K | turned |")
    for n, directory in sorted(({0: models} | rows).items()):
        wide, wide_bound, turned, bound = (f"{value:.3f}" for value in errors(directory))
        print(f"| {n} | {name} | {wide}, {wide_bound} | {turned}, {bound} |", flush=True)


if __name__ == "__main__":
    main()
