"""Train again, as the model was trained, on the dataset and what was added to it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.errors import DataError
from deltaserver.model.files.archive import write_arrays
from deltaserver.model.files.parameters import ModelParameters, read_parameters
from deltaserver.training.components import BINDING, FULL, Component, components
from deltaserver.training.directory.files import read_report, split_settings
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.iterative.conjugate import Bounds
from deltaserver.training.linear.frame_weights import FrameWeights
from deltaserver.training.model_directory import train_directory
from deltaserver.training.request import LAMBDA
from deltaserver.training.symmetry import DEFAULT_CAP

SYMMETRY_NAME = "symmetry.npz"
Say = Callable[[str], None]


def joined(base: LabelledFrames, added: list[LabelledFrames]) -> LabelledFrames:
    """Return the dataset with frames that rounds have added, a trajectory a round behind its own.

    The dataset's trajectories keep their numbers, so that its split stays what it was.
    """
    first = int(base.trajectory.max()) + 1
    parts = [base, *added]
    two = [p.two_body_energy for p in parts], [p.two_body_forces for p in parts]
    trajectory = [base.trajectory] + [np.full(len(p), first + k) for k, p in enumerate(added)]
    step = [base.step] + [np.arange(len(p)) for p in added]
    return replace(
        base,
        positions=np.concatenate([p.positions for p in parts]),
        energy=np.concatenate([p.energy for p in parts]),
        forces=np.concatenate([p.forces for p in parts]),
        fragment_energies=np.concatenate([p.fragment_energies for p in parts]),
        fragment_forces=np.concatenate([p.fragment_forces for p in parts]),
        trajectory=np.concatenate(trajectory),
        step=np.concatenate(step),
        two_body_energy=_joined(two[0]),
        two_body_forces=_joined(two[1]),
    )


def _joined(parts: Sequence[Floats | None]) -> Floats | None:
    """Return what frames of order 3 have besides; None of others."""
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None


def trained_parts(directory: Path, frames: LabelledFrames) -> tuple[Component, ...]:
    """Return the components that a directory's rounds train: all but ``full`` and lone atoms.

    Raises:
        DataError: one of them has no model there, or no record of its training.
    """
    there = trained_there(directory, frames)
    for part in _trainable(frames):
        if part not in there:
            raise DataError(
                f"{directory}: no record of how {part.name}, a part of {frames.name}, was trained; "
                "improve continues what deltaserver train has made of that dataset, with its "
                "training.json"
            )
    return there


def trained_there(directory: Path, frames: LabelledFrames) -> tuple[Component, ...]:
    """Return the components that have a model in a directory and a record of its training."""
    report = read_report(directory)["components"]
    return tuple(
        part
        for part in _trainable(frames)
        if (directory / f"{part.name}.npz").exists() and part.name in report
    )


def _trainable(frames: LabelledFrames) -> list[Component]:
    return [c for c in components(frames) if not c.is_lone_atom and c.name != FULL]


def plan_of(first: Path, before: Path, part: Component, n_added: int, threads: int) -> TrainingPlan:
    """Return how a part is trained: as the model of ``first``, beginning with that of ``before``.

    ``n_added`` frames are trained on besides; σ, λ and weight are those that were chosen.
    """
    report = read_report(first)
    entry = report["components"][part.name]
    identity = entry.get("identity", {})
    model = read_parameters(first / f"{part.name}.npz")
    iterative = identity.get("solver") == "iterative"
    prior = "none"
    if part.name == BINDING and "prior" in entry:
        prior = "pairs-limit" if entry["prior"].get("limit") else "pairs"
    return TrainingPlan(
        n_train=len(model.x) + n_added * len(part.atoms),
        n_valid=int(identity.get("n_valid", TrainingPlan.n_valid)),
        sigmas=(float(entry["sigma"]),),
        component=part.name,
        cap=max(DEFAULT_CAP, len(model.perms)),
        lambdas=(float(entry.get("lambda", identity.get("lambda", LAMBDA))),),
        seed=int(report.get("seed", 0)),
        threads=threads,
        solver="iterative" if iterative else "auto",
        tolerance=float(identity.get("tolerance", Bounds.tolerance)),
        warm_start=before,
        prior=prior,
        intra_weights=(_weight(model),),
        linear=str(identity.get("linear") or "none").split(",")[0],
        energies=float(identity.get("energies", 0.0)),
        **split_settings(report, part.name),
    )


def _weight(model: ModelParameters) -> float:
    return 1.0 if model.blocks is None else float(model.blocks.weights[0, 0])


def write_symmetry(first: Path, parts: tuple[Component, ...], output: Path) -> Path:
    """Write the permutations of the first models as a ``--symmetry FILE``: they stay as they are.

    A search, or bonds of frames that were added, might find others.
    """
    path = output / SYMMETRY_NAME
    if not path.exists():
        perms = {p.name: read_parameters(first / f"{p.name}.npz").perms for p in parts}
        write_arrays(path, perms)
    return path


def plans_of(
    first: Path,
    before: Path,
    parts: Sequence[Component],
    n_added: int,
    threads: int,
    dataset: Path,
) -> list[TrainingPlan]:
    """Return how all parts are trained: see :func:`plan_of`.

    Frames of ``dataset`` count in expansions as they did in the first; those that are added, 1.

    Raises:
        DataError: the dataset is not the merged one whose parts count more or less.
    """
    plans, known = [], read_report(first)["components"]
    for part in parts:
        told = str(known[part.name].get("identity", {}).get("linear", ""))
        plan = plan_of(first, before, part, n_added, threads)
        plans.append(replace(plan, frame_weights=FrameWeights.told(dataset, told)))
    return plans


def retrain(
    plans: Sequence[TrainingPlan],
    output: Path,
    frames: LabelledFrames,
    n_added: int,
    symmetry: Path,
    say: Say = lambda line: None,
) -> None:
    """Train every part, each by its plan, on ``frames``, the last ``n_added`` new, into ``output``.

    What was chosen for training is trained on as a whole. Killed, it goes on where it was.
    """
    new = tuple(np.unique(frames.trajectory[len(frames) - n_added :]).tolist()) if n_added else ()
    for number, plan in enumerate(plans, start=1):
        # The directory is ours: a model that a kill has kept from the report is not refused.
        trained = (*plan.trained_trajectories, *new)
        plan = replace(plan, symmetry=str(symmetry), trained_trajectories=trained, overwrite=True)
        train_directory(frames, plan, output, say, others_follow=number < len(plans))
