"""Which of three predicts a model's force error: measured on held-out frames. Prints Markdown.

    python benchmarks/uncertainty.py MODEL DATASET [--hold-out 4,5] [--frames 400]
        [--committee OTHER]…

Novelty, posterior spread and force, alone and together, are fitted to validation frames as
u = u₀ s^p F^q (deltaserver/training/uncertainty) and looked at on frames that neither training
nor validation has: rank correlation (Spearman) of u with the RMS force error of a frame, area
under the ROC curve for the worst tenth, and how many force components differ by less than u,
where 68.3 % should. With other models of the same parts, of other points, also their spread with
MODEL (standard deviation of a force component, RMS over the part), which costs their evaluations.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from deltaserver import CompositeModel
from deltaserver.datasets.files import read_dataset
from deltaserver.evaluation.held_out_errors import evaluate_batches
from deltaserver.model.trust.novelty import NoveltyMeasure
from deltaserver.model.trust.uncertainty import (
    PosteriorSpread,
    UncertaintyMeasure,
    forces_of,
    rms,
)
from deltaserver.training.selection import split_in_time
from deltaserver.training.uncertainty.calibrate import LENGTHS, ONE_SIGMA, neighbours, subset
from deltaserver.training.uncertainty.directory import spread_evenly


def rank(values: np.ndarray) -> np.ndarray:
    return np.argsort(np.argsort(values)).astype(float)


def roc(score: np.ndarray, bad: np.ndarray) -> float:
    above = score[bad][:, None] > score[~bad]
    return float(above.mean() + 0.5 * (score[bad][:, None] == score[~bad]).mean())


def predictors(model, part, frames, parts, measure, others):
    """ln of novelty, of the spread at each length, a committee's, and the force; (B,) each."""
    atoms = next(p.atoms for p in model.parts if p.name == part)
    distance = measure.distance_of(part)
    f = distance.features_of(frames.positions[:, atoms])
    nearest = np.sqrt(((f[:, None, :] - distance.points) ** 2).sum(-1).min(1)) / distance.scale
    found = {"novelty": nearest}
    for multiple in LENGTHS:
        spread = PosteriorSpread(distance, subset(distance), multiple * neighbours(distance))
        found[f"spread, ℓ = {multiple:g} d"] = spread(f)
    if others:
        said = [forces_of(part, some)[:, atoms] for some in (parts, *others)]
        found["committee"] = rms(np.std(said, axis=0, ddof=1))
    found["force"] = rms(forces_of(part, parts)[:, atoms])
    return {name: np.log(values) for name, values in found.items()}


def errors_of(model, part, frames, parts):
    if part == "binding":
        return forces_of(part, parts) - frames.binding_forces
    atoms = next(p.atoms for p in model.parts if p.name == part)
    return (parts[part].forces - frames.fragment_forces)[:, atoms]


def report(model: CompositeModel, part: str, known: dict) -> None:
    error = {use: rms(known[use][1]) for use in ("valid", "test")}
    bad = error["test"] >= np.quantile(error["test"], 0.9)
    names = list(known["valid"][0])
    tried = [[name] for name in names] + [[name, "force"] for name in names[:-1]]
    for some in tried:
        matrix = {
            use: np.stack([np.ones(len(error[use])), *(known[use][0][n] for n in some)], axis=1)
            for use in error
        }
        solution = np.linalg.lstsq(matrix["valid"], np.log(error["valid"]), rcond=None)[0]
        u = {use: np.exp(matrix[use] @ solution) for use in error}
        scale = np.quantile(np.abs(known["valid"][1]) / u["valid"][:, None, None], ONE_SIGMA)
        covered = np.mean(np.abs(known["test"][1]) <= scale * u["test"][:, None, None])
        correlation = np.corrcoef(rank(u["test"]), rank(error["test"]))[0, 1]
        print(
            f"| {part} | {' and '.join(some)} | {correlation:.2f} | {roc(u['test'], bad):.3f} | "
            f"{100 * covered:.1f} % |"
        )


def milliseconds(call) -> float:
    call()
    times = []
    for _ in range(30):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return 1e3 * float(np.median(times))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--hold-out", default="")
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--committee", type=Path, action="append", default=[])
    asked = parser.parse_args()
    model = CompositeModel.load(asked.model)
    committee = [CompositeModel.load(path) for path in asked.committee]
    frames = read_dataset(asked.dataset)
    hold_out = tuple(int(k) for k in asked.hold_out.split(",") if k)
    split = split_in_time(frames.trajectory, frames.step, 0.8, hold_out)
    measure = NoveltyMeasure(model)
    evaluated = {}
    for use, index in (("valid", split.valid), ("test", split.held_out)):
        some = frames.select(index[spread_evenly(len(index), asked.frames)])
        said = [
            evaluate_batches(one, some.positions, "total").contributions
            for one in (model, *committee)
        ]
        evaluated[use] = (some, said[0], said[1:])
    print("| part | predicted by | Spearman | ROC of the worst tenth | within u |")
    print("|---|---|---|---|---|")
    done = set()
    for part in model.parts:
        if part.trained is None or part.name == "full" or id(part.model) in done:
            continue
        done.add(id(part.model))
        known = {
            use: (
                predictors(model, part.name, some, parts, measure, others),
                errors_of(model, part.name, some, parts),
            )
            for use, (some, parts, others) in evaluated.items()
        }
        report(model, part.name, known)
    x = frames.positions[:1]
    parts = model.evaluate(x).contributions
    uncertain = UncertaintyMeasure(model, measure)
    print(
        f"\nuncertainty {milliseconds(lambda: uncertain(x, parts)):.3f} ms, "
        f"evaluation {milliseconds(lambda: model.evaluate(x)):.3f} ms"
    )


if __name__ == "__main__":
    main()
