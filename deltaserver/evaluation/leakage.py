"""Whether a model has seen the frames it is to be tested on.

An sGDML file holds the descriptors of its training points, so this needs no record of how the
model was made: a test frame whose descriptor is among them was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.errors import DataError
from deltaserver.evaluation.held_out_errors import EvaluatedModel
from deltaserver.evaluation.training_record import read_report
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.sgdml import SGDMLModel
from deltaserver.training.selection import split_in_time

SAME_DESCRIPTOR_PER_ANG = 1e-6  # labels are kept to 1e-8 Å; neighbouring frames differ by 1e-2


def trained_on(model: SGDMLModel, positions: Floats) -> Ints:
    """Return which of ``positions`` (T, N, 3), Å, are training points of ``model``."""
    pairs = PairDescriptor(len(model.numbers))
    known = model.parameters.x / model.native.length_ang  # [M, D], 1/Å
    found = []
    for index, frame in enumerate(positions):
        descriptor = pairs.geometry(frame[None], model.lattice).descriptor[0]
        candidates = np.abs(known[:, 0] - descriptor[0]) < SAME_DESCRIPTOR_PER_ANG
        if candidates.any():
            distance = np.abs(known[candidates] - descriptor).max(axis=1).min()
            if distance < SAME_DESCRIPTOR_PER_ANG:
                found.append(index)
    return np.array(found, dtype=np.int64)


def training_frames(evaluated: EvaluatedModel, frames: LabelledFrames) -> dict[str, Ints]:
    """Return, for every part of a model directory, which ``frames`` it was trained on."""
    result = {}
    for part, model in evaluated.trained:
        result[part.name] = trained_on(model, frames.positions[:, part.atoms])
    return result


def check_unseen(
    models: Sequence[EvaluatedModel],
    frames: LabelledFrames,
    test: Ints,
    trained: Sequence[Mapping[str, Ints]] | None = None,
) -> dict[str, Ints]:
    """Refuse test frames that a model was trained on or, as far as is known, chosen by.

    ``trained`` are the models' :func:`training_frames`, where they have been found already.

    Returns:
        The dataset's frames that each model directory was trained on, by label.

    Raises:
        DataError: one of the ``test`` frames is among them.
    """
    seen = {}
    known = trained or [training_frames(evaluated, frames) for evaluated in models]
    for evaluated, by_part in zip(models, known, strict=True):
        for name, index in by_part.items():
            refuse_seen(
                evaluated.directory, name, "trained on", np.intersect1d(index, test), len(test)
            )
        validated = _validation_frames(evaluated, frames)
        refuse_seen(
            evaluated.directory, "sigma", "chosen by", np.intersect1d(validated, test), len(test)
        )
        seen[evaluated.label] = np.unique(np.concatenate([*by_part.values(), test[:0]]))
    return seen


def refuse_seen(directory: Path, part: str, how: str, overlap: Ints, n_test: int) -> None:
    """Refuse a test of ``n_test`` frames, some of which a part has seen (DataError)."""
    if len(overlap):
        raise DataError(
            f"{directory}: {part} was {how} {len(overlap)} of the {n_test} test frames "
            f"(frame {overlap[0]} is the first); choose another --split or --test-trajectory, or "
            "a model trained on other frames"
        )


def _validation_frames(evaluated: EvaluatedModel, frames: LabelledFrames) -> Ints:
    """Return the frames that ``deltaserver train`` has validated on, where its report tells."""
    report = read_report(evaluated.directory)
    try:
        if (report["dataset"], report["n_frames"]) != (frames.name, len(frames)):
            return np.zeros(0, dtype=np.int64)
        split = split_in_time(
            frames.trajectory,
            frames.step,
            float(report["train_fraction"]),
            tuple(int(index) for index in report["held_out_trajectories"]),
        )
    except (ValueError, KeyError, TypeError, DataError):
        return np.zeros(0, dtype=np.int64)
    return split.valid
