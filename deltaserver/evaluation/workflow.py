"""From a dataset and model directories to numbers, tables and figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from deltaserver.arrays import Ints
from deltaserver.datasets.files import read_dataset
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.errors import DataError
from deltaserver.evaluation.descriptor import N_PAIRS, analyse_descriptor
from deltaserver.evaluation.figures.held_out import draw_all
from deltaserver.evaluation.held_out_errors import (
    OVERALL,
    ComponentErrors,
    EvaluatedModel,
    component_errors,
    load_models,
)
from deltaserver.evaluation.leakage import check_unseen, training_frames
from deltaserver.evaluation.learning_curves import learning_curves
from deltaserver.evaluation.markdown import to_markdown
from deltaserver.evaluation.report import Evaluated, to_json
from deltaserver.evaluation.splits import SplitRequest, choose_split
from deltaserver.statistics.bootstrap import (
    CONFIDENCE,
    N_RESAMPLES,
    BlockBootstrap,
    choose_block_length,
)
from deltaserver.textio.journal import write_atomically


@dataclass(frozen=True)
class EvaluationPlan:
    """How to evaluate.

    Attributes:
        split: which frames are tested on.
        block_length: frames per bootstrap block; None chooses from the errors' correlation.
        n_resamples: of the bootstrap.
        confidence: of the intervals.
        seed: of the bootstrap and of the frame pairs that the descriptor analysis compares.
        n_pairs: so many pairs.
        max_test: evaluate this many test frames, evenly spaced; None takes all.
    """

    split: SplitRequest = field(default_factory=SplitRequest)
    block_length: int | None = None
    n_resamples: int = N_RESAMPLES
    confidence: float = CONFIDENCE
    seed: int = 0
    n_pairs: int = N_PAIRS
    max_test: int | None = None
    all_if_unseen: bool = False


def evaluate(
    dataset: Path,
    directories: Sequence[Path],
    plan: EvaluationPlan,
    frames: LabelledFrames | None = None,
) -> Evaluated:
    """Evaluate model directories on held-out frames of ``dataset``; ``frames`` if they were read.

    Raises:
        InputError: a dataset or model that cannot be read or does not fit, a split that cannot
            be made, test frames that a model has seen.
    """
    frames = frames or read_dataset(dataset)
    models = load_models(directories, frames)
    frames = _named_as(frames, models[0])
    trained = [training_frames(model, frames) for model in models]
    parts = [index for by_part in trained for index in by_part.values()]
    known = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *parts]))
    if plan.all_if_unseen and not len(known):
        plan = replace(plan, split=replace(plan.split, kind="all"))
    test_index = test_frames(frames, known, plan)
    seen = check_unseen(models, frames, test_index, trained)
    test = frames.select(test_index)
    results = tuple(errors for model in models for errors in component_errors(model, test))
    bootstrap = resampled(results, test, plan)
    return Evaluated(
        dataset=str(dataset),
        frames=frames,
        test=test,
        request=plan.split,
        models=models,
        results=results,
        bootstrap=bootstrap,
        trained_on={label: len(index) for label, index in seen.items()},
        descriptor=analyse_descriptor(frames, plan.n_pairs, plan.seed),
        curves=learning_curves(models, results, bootstrap),
    )


def _named_as(frames: LabelledFrames, model: EvaluatedModel) -> LabelledFrames:
    """Return the frames with the model's names of the fragments."""
    renamed = tuple(
        replace(spec, name=fragment.name)
        for spec, fragment in zip(frames.fragments, model.fragments, strict=True)
    )
    return replace(frames, fragments=renamed)


def test_frames(frames: LabelledFrames, known: Ints, plan: EvaluationPlan) -> Ints:
    """Return the frames to test on; ``known`` are those that any part of a model has trained on."""
    test = choose_split(frames, plan.split, known).held_out
    if plan.max_test is not None and plan.max_test < len(test):
        test = test[np.linspace(0, len(test) - 1, plan.max_test).round().astype(np.int64)]
    return test


def resampled(
    results: Sequence[ComponentErrors], test: LabelledFrames, plan: EvaluationPlan
) -> BlockBootstrap:
    """Draw the resamples behind every interval; blocks are as long as errors are correlated."""
    series = [r.energy.absolute for r in results] + [r.forces[OVERALL].absolute for r in results]
    length = plan.block_length or choose_block_length(series, test.trajectory)
    return BlockBootstrap.draw(
        test.trajectory, length, plan.n_resamples, plan.confidence, plan.seed
    )


def write_evaluation(
    found: Evaluated,
    output: Path,
    *,
    draw: bool = True,
    readme: bool = False,
    made_with: str = "",
    command: str = "",
) -> list[Path]:
    """Write ``evaluation.json``, ``evaluation.md`` and the figures into ``output``.

    Args:
        found: the evaluation.
        output: made if it is not there.
        draw: whether to draw.
        readme: whether to write the Markdown, without figures, as the model's ``README.md`` too.
        made_with: the command that trained the models, for the Markdown.
        command: the command that evaluates them, for the Markdown.

    Raises:
        DataError: something cannot be written there.
        MissingExtraError: matplotlib is not installed.
    """
    try:
        output.mkdir(parents=True, exist_ok=True)
        figures = draw_all(found, output) if draw else []
        content = json.dumps(to_json(found), indent=2, ensure_ascii=False) + "\n"
        shown = [Path(path.name) for path in figures]
        texts = {
            output / "evaluation.json": content,
            output / "evaluation.md": to_markdown(found, shown, made_with, command),
        }
        if readme:
            for model in found.models:
                texts[model.directory / "README.md"] = to_markdown(found, (), made_with, command)
        for path, text in texts.items():
            write_atomically(path, text.encode())
    except OSError as error:
        raise DataError(f"{output}: cannot be written to ({error})") from error
    return [*texts, *figures]
