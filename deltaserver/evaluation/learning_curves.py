"""Errors against the number of training points: of directories that exist, or trained on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from deltaserver.datasets.frames import LabelledFrames
from deltaserver.evaluation.held_out_errors import (
    BINDING,
    FULL,
    OVERALL,
    ComponentErrors,
    EvaluatedModel,
    Metrics,
    metrics,
    wholes,
)
from deltaserver.statistics.bootstrap import BlockBootstrap


@dataclass(frozen=True)
class CurvePoint:
    """One model on a learning curve: errors in eV and eV/Å."""

    model: str
    n_train: int
    energy: Metrics
    forces: Metrics


@dataclass(frozen=True)
class LearningCurve:
    """Points of one component and one symmetry, ascending in the number of training points.

    Attributes:
        component: ``"full"`` or ``"total"``.
        permutations: of every part, as ``"c60 120, catcher 4, binding 1"``.
        points: at least two.
    """

    component: str
    permutations: str
    points: tuple[CurvePoint, ...]


def n_train_of(model: EvaluatedModel, component: str) -> int:
    """Return the training points of the full model, or of the Δ model's binding part."""
    by_name = {part.name: part.n_train for part in model.parts}
    wanted = FULL if component == FULL else BINDING
    return by_name.get(wanted, min(by_name.values(), default=0))


def permutations_of(model: EvaluatedModel, component: str) -> str:
    """Return how many permutations every part of a component uses, in words."""
    parts = [p for p in model.parts if (p.name == FULL) == (component == FULL)]
    return ", ".join(f"{part.name} {part.n_perms}" for part in parts)


def learning_curves(
    models: Sequence[EvaluatedModel],
    results: Sequence[ComponentErrors],
    bootstrap: BlockBootstrap,
) -> tuple[LearningCurve, ...]:
    """Join models that differ in nothing but the number of training points into curves."""
    by_name = {model.label: model for model in models}
    groups: dict[tuple[str, str], dict[int, CurvePoint]] = {}
    for (label, component), errors in wholes(results).items():
        model = by_name[label]
        point = CurvePoint(
            label,
            n_train_of(model, component),
            metrics(errors.energy, bootstrap),
            metrics(errors.forces[OVERALL], bootstrap),
        )
        group = groups.setdefault((component, permutations_of(model, component)), {})
        group.setdefault(point.n_train, point)  # equal models in two directories: one point
    return tuple(
        LearningCurve(component, permutations, tuple(points[m] for m in sorted(points)))
        for (component, permutations), points in groups.items()
        if len(points) > 1
    )


def train_series(
    frames: LabelledFrames,
    sizes: Sequence[int],
    symmetries: Sequence[str],
    output: Path,
    seed: int = 0,
    held_out_trajectories: tuple[int, ...] = (),
    say: Callable[[str], None] = lambda line: None,
) -> tuple[Path, ...]:
    """Train one model directory per symmetry and size; those that are finished are kept.

    Args:
        frames: the dataset; the held-out end of each trajectory trains nothing.
        sizes: numbers of training points.
        symmetries: as ``deltaserver train --symmetry`` has them.
        output: directories ``<symmetry>-m<size>`` come in here.
        seed: of the choice of points.
        held_out_trajectories: left for the test as a whole.
        say: where progress goes, line by line.

    Raises:
        InputError: what the trainer refuses, such as more points than there are.
    """
    from deltaserver.training.directory.job import TrainingPlan
    from deltaserver.training.model_directory import train_directory

    directories = []
    for symmetry in symmetries:
        for size in sorted(set(sizes)):
            directory = output / f"{Path(symmetry).stem}-m{size}"
            plan = TrainingPlan(
                n_train=size,
                symmetry=symmetry,
                seed=seed,
                held_out_trajectories=held_out_trajectories,
            )
            say(f"training {directory.name}")
            train_directory(frames, plan, directory, say)
            directories.append(directory)
    return tuple(directories)
