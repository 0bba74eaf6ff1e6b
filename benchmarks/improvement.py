"""`deltaserver improve` against frames at random: force MAE over the number of labels. Markdown.

    python benchmarks/improvement.py run/improvement [--rounds 4] [--labels 10]

The benzene dimer at 150 K: the first model has 50 points of the first trajectory; the second one is
hidden from everything and tested on. Both ways have the same dynamics, seeds and numbers of labels.
Stopped at any moment, the same command goes on.
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
from deltaserver.errors import EndedEarlyError
from deltaserver.evaluation.held_out_errors import evaluate_batches
from deltaserver.improve.settings import SELECTIONS, Dynamics, Settings, Stop, round_paths
from deltaserver.improve.workflow import improve
from deltaserver.training.model_directory import TrainingPlan, train_directory
from deltaserver.units import KCAL_PER_MOL_EV

DATASET = Path(__file__).parents[1] / "data" / "benzene_dimer_gfn2_150K.xyz.gz"
HIDDEN = 2
FIRST = TrainingPlan(n_train=50, n_valid=28, sigmas=(10.0,), held_out_trajectories=(HIDDEN,))
TEST_FRAMES = 8


def first_model(directory: Path) -> Path:
    frames = read_dataset(DATASET)
    for part in (frames.fragments[0].name, "binding"):
        train_directory(frames, replace(FIRST, component=part), directory, print)
    return directory


def hidden_errors(models: Path) -> tuple[float, float, float]:
    """Force MAE and RMSE of the whole, and MAE of the binding: kcal/mol/Å."""
    frames = read_dataset(DATASET)
    frames = frames.select(np.flatnonzero(frames.trajectory == HIDDEN))
    model = CompositeModel.load(models)
    found = evaluate_batches(model, frames.positions, "total")
    error = (found.forces - frames.forces) / KCAL_PER_MOL_EV
    bound = (found.contributions["binding"].forces - frames.binding_forces) / KCAL_PER_MOL_EV
    return (
        float(np.abs(error).mean()),
        float(np.sqrt((error**2).mean())),
        float(np.abs(bound).mean()),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=Path)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--labels", type=int, default=10)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=800)
    parser.add_argument("--temperature", type=float, default=150.0)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    models = first_model(asked.output / "first")
    stop = Stop(1e-6, TEST_FRAMES + asked.rounds * (asked.labels + TEST_FRAMES), patience=99)
    dynamics = Dynamics((asked.temperature,), asked.runs, asked.steps)
    print(
        "| labels added | chosen by | force MAE | RMSE | binding: force MAE | fresh dynamics: MAE |"
    )
    print("|---|---|---|---|---|---|", flush=True)
    for selection in SELECTIONS:
        output = asked.output / f"{selection}-{asked.seed}"
        settings = Settings(
            models, DATASET, "GFN2-xTB", output, dynamics, asked.labels, TEST_FRAMES,
            selection, asked.seed,
        )  # fmt: skip
        try:
            improve(settings, stop, lambda line: print(line, flush=True))
        except EndedEarlyError as error:  # its budget of labels: as it was meant
            print(error)
        rows = json.loads((output / "report.json").read_text())["rounds"]
        for row in rows:
            errors = hidden_errors(round_paths(output, row["round"]).models)
            fresh = row["test"]["parts"]["total"]["force_mae_kcal_mol_ang"]
            cells = [f"{value:.4f}" for value in (*errors, fresh)]
            print(f"| {row['n_added']} | {selection} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
