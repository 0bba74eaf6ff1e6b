"""Errors of Δ and full models on held-out frames: overall, per fragment, and part by part.

A model directory is judged as a whole in two ways, component ``total`` (the composite Δ of the
paper's Eq. 2) and ``full`` (one model of everything), and each of its parts on the labels it was
trained for: fragments on the isolated fragments', binding on the difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.errors import DataError, StructureError
from deltaserver.evaluation.of_many import load_complex
from deltaserver.model.composite import CompositeEvaluation, CompositeModel
from deltaserver.model.manifest import BOUND_PARTS
from deltaserver.model.parts import Fragment, Part
from deltaserver.model.sgdml import SGDMLModel
from deltaserver.model.trust.structure import ExpectedStructure
from deltaserver.molecules.elements import SYMBOLS
from deltaserver.statistics.bootstrap import BlockBootstrap, Estimate

TOTAL, FULL, BINDING, OVERALL = "total", "full", "binding", "overall"
WHOLES = (FULL, TOTAL)
BATCH_BYTES = 64e6  # of pair displacements in flight


@dataclass(frozen=True)
class FrameErrors:
    """Errors of one quantity, averaged within each frame: what the bootstrap resamples.

    Attributes:
        signed: mean of predicted − label, shape (T,).
        absolute: mean of |predicted − label|, shape (T,).
        squared: mean of (predicted − label)², shape (T,).
    """

    signed: Floats
    absolute: Floats
    squared: Floats

    @classmethod
    def of(cls, errors: Floats) -> FrameErrors:
        """Average errors (T, …) over all but the frames."""
        flat = errors.reshape(len(errors), -1)
        return cls(flat.mean(axis=1), np.abs(flat).mean(axis=1), (flat**2).mean(axis=1))


@dataclass(frozen=True)
class ComponentErrors:
    """Errors of one component of one model directory.

    Attributes:
        model: the directory's label.
        component: ``"total"``, ``"full"``, ``"binding"`` or a fragment's name.
        energy: eV.
        forces: eV/Å per Cartesian component, by ``"overall"`` and, for a whole, by fragment.
    """

    model: str
    component: str
    energy: FrameErrors
    forces: Mapping[str, FrameErrors]

    @property
    def is_whole(self) -> bool:
        """Return whether this is the Δ or the full model, not one of their parts."""
        return self.component in WHOLES


@dataclass(frozen=True)
class Metrics:
    """MAE, RMSE and mean offset (predicted − label) of one quantity, with intervals; eV, Å."""

    mae: Estimate
    rmse: Estimate
    offset: Estimate
    rmse_about_offset: Estimate


@dataclass(frozen=True)
class TrainedPart:
    """What a model file says about itself."""

    name: str
    n_atoms: int
    sigma: float
    n_train: int
    n_perms: int


@dataclass(frozen=True)
class EvaluatedModel:
    """A loaded model directory, matched to a dataset.

    Attributes:
        label: what tables and figures call it.
        directory: where it is.
        model: the model.
        fragments: the model's fragments in the dataset's order.
    """

    label: str
    directory: Path
    model: CompositeModel
    fragments: tuple[Fragment, ...]

    @property
    def parts(self) -> tuple[TrainedPart, ...]:
        """Return what the file of every trained model says."""
        return tuple(
            TrainedPart(part.name, len(m.numbers), float(m.parameters.sigma), m.n_train, m.n_perms)
            for part, m in self.trained
        )

    @property
    def trained(self) -> tuple[tuple[Part, SGDMLModel], ...]:
        """Return every part that is trained, fragments in the dataset's order, and its model."""
        wholes = self.model.parts[len(self.fragments) :]
        return tuple((p, p.trained) for p in (*self.fragments, *wholes) if p.trained)

    @property
    def wholes(self) -> tuple[str, ...]:
        """Return which of ``full`` and ``total`` the directory has."""
        return WHOLES if self.model.full else (TOTAL,)


def load_models(directories: Sequence[Path], frames: LabelledFrames) -> tuple[EvaluatedModel, ...]:
    """Load model directories and match their fragments to the dataset's.

    Of many molecules, two that are the dataset's.

    Raises:
        InputError: a directory cannot be loaded.
        DataError: its atoms or fragments are not the dataset's, or it is given twice.
    """
    labels = labels_of(directories)
    return tuple(
        matched(label, directory, load_complex(directory, frames), frames)
        for label, directory in zip(labels, directories, strict=True)
    )


def labels_of(directories: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the directories' paths that tell them apart."""
    resolved = [directory.resolve() for directory in directories]
    if len(set(resolved)) < len(resolved):
        raise DataError(f"{directories[0]}: a model directory is given twice; give each once")
    depth = max([len(path.parts) for path in resolved], default=1)
    for length in range(1, depth + 1):
        labels = ["/".join(path.parts[-length:]) for path in resolved]
        if len(set(labels)) == len(labels):
            return labels
    return [str(path) for path in resolved]


def matched(
    label: str, directory: Path, model: CompositeModel, frames: LabelledFrames
) -> EvaluatedModel:
    """Match a loaded model's fragments to the dataset's.

    Raises:
        DataError: its atoms or fragments are not the dataset's, or they are numbered otherwise.
    """
    if not np.array_equal(model.numbers, frames.numbers):
        raise DataError(
            f"{directory}: {_formula(model.numbers)}, but {frames.name} has "
            f"{_formula(frames.numbers)}; expected the same atoms in the same order"
        )
    by_atoms = {frozenset(fragment.atoms.tolist()): fragment for fragment in model.fragments}
    matched = []
    for spec in frames.fragments:
        fragment = by_atoms.get(frozenset(spec.atoms))
        if fragment is None or len(by_atoms) != len(frames.fragments):
            raise DataError(
                f"{directory}: its fragments {', '.join(f.name for f in model.fragments)} are not "
                f"the dataset's {', '.join(f.name for f in frames.fragments)}; expected the same "
                "atoms in each"
            )
        matched.append(fragment)
    _check_numbering(directory, model, frames)
    return EvaluatedModel(label, directory, model, tuple(matched))


def _check_numbering(directory: Path, model: CompositeModel, frames: LabelledFrames) -> None:
    """Refuse frames of molecules that are numbered as mirror images of the model's (DataError)."""
    handedness = ExpectedStructure.of(model).handedness
    if handedness is None:
        return
    for first in np.unique(frames.trajectory, return_index=True)[1]:
        try:
            handedness.check(frames.positions[first])
        except StructureError as error:
            raise DataError(f"{directory}: frame {first} of {frames.name}: {error}") from None


def _formula(numbers: Ints) -> str:
    symbols, counts = np.unique([SYMBOLS[z] for z in numbers], return_counts=True)
    return "".join(f"{symbol}{count}" for symbol, count in zip(symbols, counts, strict=True))


def component_errors(
    evaluated: EvaluatedModel, frames: LabelledFrames, total: CompositeEvaluation | None = None
) -> list[ComponentErrors]:
    """Evaluate one model directory on ``frames``: the wholes first, then the parts.

    Where the ``total`` is known already, the full model is left alone.
    """
    label, wholes = evaluated.label, evaluated.wholes
    if total is None:
        total = evaluate_batches(evaluated.model, frames.positions, TOTAL)
    else:
        wholes = (TOTAL,)
    results = []
    for component in wholes:
        found = (
            total
            if component == TOTAL
            else evaluate_batches(evaluated.model, frames.positions, FULL)
        )
        error = found.forces - frames.forces
        by_fragment = {f.name: FrameErrors.of(error[:, f.atoms]) for f in evaluated.fragments}
        forces = {OVERALL: FrameErrors.of(error), **by_fragment}
        energy = FrameErrors.of(found.energy - frames.energy)
        results.append(ComponentErrors(label, component, energy, forces))
    for index, fragment in enumerate(evaluated.fragments):
        if fragment.trained is None:
            continue
        part = total.contributions[fragment.name]
        error = (part.forces - frames.fragment_forces)[:, fragment.atoms]
        energy = FrameErrors.of(part.energy - frames.fragment_energies[:, index])
        results.append(
            ComponentErrors(label, fragment.name, energy, {OVERALL: FrameErrors.of(error)})
        )
    bound = [total.contributions[name] for name in BOUND_PARTS if name in total.contributions]
    if bound:
        energy = FrameErrors.of(sum(part.energy for part in bound) - frames.binding_energy)
        error = sum(part.forces for part in bound) - frames.binding_forces
        results.append(ComponentErrors(label, BINDING, energy, {OVERALL: FrameErrors.of(error)}))
    return results


def evaluate_batches(
    model: CompositeModel, positions: Floats, component: str
) -> CompositeEvaluation:
    """Evaluate in batches that fit into memory."""
    n_pairs = model.n_atoms * (model.n_atoms - 1) // 2
    size = max(1, int(BATCH_BYTES / (8 * 3 * max(n_pairs, 1))))
    batches = [
        model.evaluate(positions[k : k + size], component) for k in range(0, len(positions), size)
    ]
    return CompositeEvaluation.join(batches)


def metrics(errors: FrameErrors, bootstrap: BlockBootstrap) -> Metrics:
    """Return MAE = ⟨|e|⟩, RMSE = √⟨e²⟩, offset ⟨e⟩ and √(⟨e²⟩ − ⟨e⟩²) with their intervals."""
    squared, signed = bootstrap.means(errors.squared), bootstrap.means(errors.signed)
    mean_squared, offset = float(errors.squared.mean()), float(errors.signed.mean())
    return Metrics(
        mae=bootstrap.estimate_positive(
            float(errors.absolute.mean()), bootstrap.means(errors.absolute)
        ),
        rmse=bootstrap.estimate_positive(np.sqrt(mean_squared), np.sqrt(squared)),
        offset=bootstrap.estimate(offset, signed),
        rmse_about_offset=bootstrap.estimate_positive(
            np.sqrt(max(mean_squared - offset**2, 0.0)),
            np.sqrt(np.maximum(squared - signed**2, 0.0)),
        ),
    )


@dataclass(frozen=True)
class Improvement:
    """How much lower errors are than a baseline's, in percent; negative where they are higher."""

    mae_percent: Estimate
    rmse_percent: Estimate


def improvement(
    errors: FrameErrors, baseline: FrameErrors, bootstrap: BlockBootstrap
) -> Improvement:
    """Return 100 (1 − error/baseline) of MAE and RMSE; both errors resampled together."""
    absolute = bootstrap.means(errors.absolute) / bootstrap.means(baseline.absolute)
    squared = bootstrap.means(errors.squared) / bootstrap.means(baseline.squared)
    mae = float(errors.absolute.mean() / baseline.absolute.mean())
    rmse = float(np.sqrt(errors.squared.mean() / baseline.squared.mean()))
    ratios = (
        bootstrap.estimate_positive(mae, absolute),
        bootstrap.estimate_positive(rmse, np.sqrt(squared)),
    )
    return Improvement(*(_gain(ratio) for ratio in ratios))


def _gain(ratio: Estimate) -> Estimate:
    """Return 100 (1 − ratio): never above 100 %, as a ratio of errors is never below zero."""
    low, high = 100.0 * (1.0 - ratio.high), 100.0 * (1.0 - ratio.low)
    return Estimate(100.0 * (1.0 - ratio.value), low, high)


def wholes(results: Iterable[ComponentErrors]) -> dict[tuple[str, str], ComponentErrors]:
    """Return the Δ and full models by (label, component)."""
    return {(r.model, r.component): r for r in results if r.is_whole}


def baseline_of(results: Sequence[ComponentErrors], model: str) -> ComponentErrors | None:
    """Return what a Δ model is compared with: its own full model, else the first there is."""
    known = wholes(results)
    first = next((r for r in results if r.component == FULL), None)
    return known.get((model, FULL), first)
