"""`deltaserver improve` against frames of plain dynamics: force MAE over the number of labels.

    python benchmarks/improvement.py run/improvement --seed 1 [--rounds 4] [--labels 10]

The benzene dimer. The first model has 50 points of the first trajectory, at 150 K. What is compared
has as many labels of GFN2-xTB each time: `improve` at 150 and 400 K, and frames taken at random of
GFN2-xTB dynamics at these temperatures, which is what one would do without it. Tested on frames
that neither has seen: the second trajectory, 150 K, hidden from everything; independent GFN2-xTB
dynamics at 400 K; the two molecules pressed together and pulled apart (data/benzene_dimer_wall,
and those of _apart whose centres are within 8 Å). Markdown. Stopped at any moment, the same command
goes on; with `--selection random` `improve` takes frames of its own dynamics at random.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from deltaserver import CompositeModel
from deltaserver.datasets.files import read_dataset
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.datasets.sampling.dynamics import SamplingPlan
from deltaserver.datasets.workflow import finish, run_labelling, run_sampling
from deltaserver.datasets.workspace import open_sampling
from deltaserver.errors import EndedEarlyError
from deltaserver.evaluation.held_out_errors import evaluate_batches
from deltaserver.improve.retrain import joined, plans_of, retrain, trained_parts, write_symmetry
from deltaserver.improve.settings import SELECTIONS, Dynamics, Settings, Stop, round_paths
from deltaserver.improve.workflow import improve
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.model_directory import train_directory
from deltaserver.units import KCAL_PER_MOL_EV

ROOT = Path(__file__).parents[1]
DATASET = ROOT / "data" / "benzene_dimer_gfn2_150K.xyz.gz"
START = ROOT / "ipi_inputs" / "benzene_dimer.xyz"
CALCULATOR = "GFN2-xTB"
HIDDEN = 2
TEMPERATURES = (150.0, 400.0)
FIRST = TrainingPlan(n_train=50, n_valid=28, sigmas=(10.0,), held_out_trajectories=(HIDDEN,))
TEST_FRAMES = 8
APART_ANG = 8.0
PLAIN = SamplingPlan(
    CALCULATOR, TEMPERATURES, trajectories=2, frames_per_trajectory=20, interval=25,
    equilibrate_steps=300, relax=False, wall_distance=6.0,
)  # fmt: skip
HOT_SEED = 1000


def first_model(directory: Path) -> Path:
    frames = read_dataset(DATASET)
    for part in (frames.fragments[0].name, "binding"):
        train_directory(frames, replace(FIRST, component=part), directory, print)
    return directory


def sampled(directory: Path, plan: SamplingPlan) -> LabelledFrames:
    """Frames of the reference method's own dynamics, labelled."""
    known = read_dataset(DATASET)
    workspace = open_sampling(directory, (START,), known.fragments, plan)
    run_sampling(workspace, lambda frame: None)
    run_labelling(workspace, CALCULATOR, "local", 1, lambda progress: None)
    return finish(workspace, known.name, known.reference)


def tests(output: Path) -> dict[str, LabelledFrames]:
    known, apart = read_dataset(DATASET), read_dataset(ROOT / "data" / "benzene_dimer_apart")
    one, two = (np.array(fragment.atoms) for fragment in apart.fragments)
    between = apart.positions[:, one].mean(axis=1) - apart.positions[:, two].mean(axis=1)
    near = np.flatnonzero(np.linalg.norm(between, axis=1) < APART_ANG)
    hot = replace(PLAIN, temperatures=(TEMPERATURES[-1],), seed=HOT_SEED)
    return {
        "150 K": known.select(np.flatnonzero(known.trajectory == HIDDEN)),
        f"{TEMPERATURES[-1]:g} K": sampled(output / "hot", hot),
        "pressed": read_dataset(ROOT / "data" / "benzene_dimer_wall"),
        "apart": apart.select(near),
    }


def errors(models: Path, frames: dict[str, LabelledFrames]) -> list[float]:
    """Force MAE of the whole on each, kcal/mol/Å; of the first also the binding's."""
    model, found = CompositeModel.load(models), []
    for some in frames.values():
        result = evaluate_batches(model, some.positions, "total")
        found.append(float(np.abs(result.forces - some.forces).mean()) / KCAL_PER_MOL_EV)
        if len(found) == 1:
            bound = result.contributions["binding"].forces - some.binding_forces
            found.append(float(np.abs(bound).mean()) / KCAL_PER_MOL_EV)
    return found


def of_improve(models: Path, asked: argparse.Namespace) -> dict[int, Path]:
    """Return the models of `improve` by the number of frames that were added."""
    output = asked.output / f"{asked.selection}-{asked.seed}"
    dynamics = Dynamics(TEMPERATURES, asked.runs, asked.steps)
    settings = Settings(
        models, DATASET, CALCULATOR, output, dynamics, asked.labels, TEST_FRAMES, asked.selection,
        asked.seed,
    )  # fmt: skip
    return models_by_round(settings, asked.rounds)


def models_by_round(settings: Settings, rounds: int) -> dict[int, Path]:
    """Let `improve` do so many rounds; return their models by the number of frames added."""
    n_test = settings.test_frames
    stop = Stop(1e-6, n_test + rounds * (settings.labels_per_round + n_test), patience=99)
    try:
        improve(settings, stop, lambda line: print(line, flush=True))
    except EndedEarlyError as error:  # its budget of labels: as it was meant
        print(error)
    rows = json.loads((settings.output / "report.json").read_text())["rounds"]
    return {row["n_added"]: round_paths(settings.output, row["round"]).models for row in rows}


def of_plain(models: Path, asked: argparse.Namespace) -> dict[int, Path]:
    """Return models with as many frames of plain dynamics, each trained from the first."""
    output = asked.output / f"plain-{asked.seed}"
    pool = sampled(output / "data", replace(PLAIN, seed=asked.seed))
    order = np.random.default_rng(asked.seed).permutation(len(pool))
    base = read_dataset(DATASET)
    parts = trained_parts(models, base)
    symmetry = write_symmetry(models, parts, output)
    found = {}
    for n in range(asked.labels, asked.labels * asked.rounds + 1, asked.labels):
        found[n] = output / f"models-{n}"
        frames = joined(base, [pool.select(order[:n])])
        plans = plans_of(models, models, parts, n, 1, DATASET)
        retrain(plans, found[n], frames, n, symmetry, print)
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--labels", type=int, default=10)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--selection", choices=SELECTIONS, default="uncertainty")
    asked = parser.parse_args()
    models, frames = first_model(asked.output / "first"), tests(asked.output)
    rows = {"plain": of_plain(models, asked), asked.selection: of_improve(models, asked)}
    names = list(frames)
    print(f"| frames added | by | {names[0]} | its binding | {' | '.join(names[1:])} |")
    for by, known in rows.items():
        for n, directory in sorted(known.items()):
            cells = " | ".join(f"{value:.4f}" for value in errors(directory, frames))
            print(f"| {n} | {by} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
