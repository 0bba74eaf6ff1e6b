"""What an evaluation has found, and the same as JSON: every number in eV and in kcal/mol."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from deltaserver.datasets.frames import LabelledFrames
from deltaserver.evaluation.descriptor import DescriptorAnalysis
from deltaserver.evaluation.held_out_errors import (
    FULL,
    TOTAL,
    ComponentErrors,
    EvaluatedModel,
    Improvement,
    Metrics,
    baseline_of,
    improvement,
    metrics,
    wholes,
)
from deltaserver.evaluation.learning_curves import LearningCurve, n_train_of
from deltaserver.evaluation.scans.errors import ScanErrors
from deltaserver.evaluation.scans.report import scan_json
from deltaserver.evaluation.splits import SplitRequest
from deltaserver.evaluation.training_record import read_report, sigma_search
from deltaserver.model.trust import methods
from deltaserver.statistics.bootstrap import BlockBootstrap, Estimate
from deltaserver.units import KCAL_PER_MOL_EV

FORMAT = "deltaserver-evaluation/1"


@dataclass(frozen=True)
class Evaluated:
    """Everything a report is made of.

    Attributes:
        dataset: the path it was read from, as the user gave it.
        frames: all of the dataset.
        test: the held-out frames.
        request: how they were chosen.
        models: the model directories.
        results: errors of every component of each.
        bootstrap: the resamples behind every interval.
        trained_on: how many of the dataset's frames each directory was trained on, by label.
        descriptor: what the descriptor compares, over all frames.
        curves: learning curves, where models differ in their number of points.
        scan: dissociation and rotation curves, if they were asked for.
    """

    dataset: str
    frames: LabelledFrames
    test: LabelledFrames
    request: SplitRequest
    models: tuple[EvaluatedModel, ...]
    results: tuple[ComponentErrors, ...]
    bootstrap: BlockBootstrap
    trained_on: Mapping[str, int]
    descriptor: DescriptorAnalysis
    curves: tuple[LearningCurve, ...] = ()
    scan: ScanErrors | None = None

    @property
    def test_per_trajectory(self) -> dict[int, int]:
        """Return how many test frames each trajectory has."""
        return _per_trajectory(self.test)

    @property
    def methods_note(self) -> str:
        """Return which models are of another method than the labels; empty if none is."""
        models = [(one.label, one.model.reference) for one in self.models]
        note = methods.labels_of_another(self.frames.reference, models)
        return note and f"{note}: errors are those of the models and what the methods differ by."


def to_json(found: Evaluated) -> dict[str, Any]:
    """Return the report as JSON can hold it; every field with a unit names it."""
    bootstrap, request = found.bootstrap, found.request
    return {
        "format": FORMAT,
        "dataset": {
            **dataset_json(found.dataset, found.frames),
            "fragments": {f.name: len(f.atoms) for f in found.frames.fragments},
        },
        "split": split_json(request, found.test),
        "bootstrap": bootstrap_json(bootstrap),
        "note": found.methods_note,
        "models": [_model_json(model, found.trained_on) for model in found.models],
        "errors": [errors_json(result, bootstrap) for result in found.results],
        "improvements": list(_improvements_json(found)),
        "learning_curves": [_curve_json(curve) for curve in found.curves],
        "descriptor": _descriptor_json(found.descriptor),
        **({"scan": scan_json(found.scan)} if found.scan else {}),
    }


def dataset_json(path: str, frames: LabelledFrames) -> dict[str, Any]:
    """Return what was evaluated on."""
    return {
        "path": path,
        "name": frames.name,
        "reference": frames.reference,
        "n_frames": len(frames),
        "n_atoms": len(frames.numbers),
    }


def split_json(request: SplitRequest, test: LabelledFrames) -> dict[str, Any]:
    """Return which frames are tested on."""
    return {
        "kind": request.kind,
        "description": request.describe(),
        "n_test": len(test),
        "n_test_by_trajectory": {str(k): n for k, n in _per_trajectory(test).items()},
        "seed": request.seed,
    }


def _per_trajectory(test: LabelledFrames) -> dict[int, int]:
    numbers, counts = np.unique(test.trajectory, return_counts=True)
    return {int(k): int(n) for k, n in zip(numbers, counts, strict=True)}


def bootstrap_json(bootstrap: BlockBootstrap) -> dict[str, Any]:
    """Return what stands behind intervals."""
    return {
        "kind": f"{_resampled(bootstrap)}, percentiles widened by Student's t",
        "block_length_frames": bootstrap.block_length,
        "n_blocks": bootstrap.n_blocks,
        "n_whole_trajectories": bootstrap.n_whole,
        "n_resamples": len(bootstrap.times),
        "confidence": bootstrap.confidence,
        "seed": bootstrap.seed,
    }


def _resampled(bootstrap: BlockBootstrap) -> str:
    if bootstrap.n_whole == bootstrap.n_blocks:
        return "whole trajectories"
    within = "circular blocks within each trajectory"
    return f"{within}, whole ones that are no longer than a block" if bootstrap.n_whole else within


def _model_json(model: EvaluatedModel, trained_on: Mapping[str, int]) -> dict[str, Any]:
    report = read_report(model.directory)
    return {
        "label": model.label,
        "directory": str(model.directory),
        "name": model.model.name,
        "reference": model.model.reference,
        "n_frames_trained_on": trained_on[model.label],
        "parts": {
            part.name: {
                "n_atoms": part.n_atoms,
                "sigma": part.sigma,
                "n_train": part.n_train,
                "n_perms": part.n_perms,
                "valid_force_mae_kcal_mol_ang_by_sigma": sigma_search(report, part),
            }
            for part in model.parts
        },
    }


def errors_json(result: ComponentErrors, bootstrap: BlockBootstrap) -> dict[str, Any]:
    """Return the errors of one component, with intervals."""
    return {
        "model": result.model,
        "component": result.component,
        "energy": _metrics_json(metrics(result.energy, bootstrap), "ev", "kcal_mol"),
        "forces": {
            where: _metrics_json(metrics(errors, bootstrap), "ev_per_ang", "kcal_mol_ang")
            for where, errors in result.forces.items()
        },
    }


def _metrics_json(found: Metrics, unit: str, kcal: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    named = {
        "mae": found.mae,
        "rmse": found.rmse,
        "mean_offset": found.offset,
        "rmse_about_offset": found.rmse_about_offset,
    }
    for name, estimate in named.items():
        result |= _estimate_json(f"{name}_{unit}", estimate)
        result |= _estimate_json(f"{name}_{kcal}", estimate.scaled(1.0 / KCAL_PER_MOL_EV))
    return result


def _estimate_json(name: str, estimate: Estimate) -> dict[str, Any]:
    # JSON has no infinity, where an interval of one block or two ends.
    ends = [end if np.isfinite(end) else None for end in (estimate.low, estimate.high)]
    return {name: estimate.value, f"{name}_interval": ends}


def _improvements_json(found: Evaluated) -> Iterable[dict[str, Any]]:
    """Yield the improvement of every pair of :func:`compared`."""
    for result, baseline in compared(found):
        entry: dict[str, Any] = {
            "model": result.model,
            "component": result.component,
            "baseline_model": baseline.model,
            "baseline_component": baseline.component,
            "energy": _improvement_json(
                improvement(result.energy, baseline.energy, found.bootstrap)
            ),
            "forces": {
                where: _improvement_json(
                    improvement(errors, baseline.forces[where], found.bootstrap)
                )
                for where, errors in result.forces.items()
                if where in baseline.forces
            },
        }
        yield entry


def compared(found: Evaluated) -> list[tuple[ComponentErrors, ComponentErrors]]:
    """Return every Δ with its baseline, and every whole with its :func:`reference`."""
    pairs: list[tuple[ComponentErrors, ComponentErrors]] = []
    for (label, component), result in wholes(found.results).items():
        own = baseline_of(found.results, label) if component == TOTAL else None
        for baseline in (own, reference(found, label)):
            if baseline is None or baseline is result:
                continue
            if not any(result is a and baseline is b for a, b in pairs):
                pairs.append((result, baseline))
    return pairs


def reference(found: Evaluated, label: str) -> ComponentErrors | None:
    """Return what every model of one size is compared with, so that effects are told apart.

    The first full model of as many training points as ``label`` has, else the first of all.
    """
    by_name = {model.label: model for model in found.models}
    fulls = [result for result in found.results if result.component == FULL]
    size = n_train_of(by_name[label], TOTAL)
    same = [full for full in fulls if n_train_of(by_name[full.model], FULL) == size]
    return next(iter([*same, *fulls]), None)


def _improvement_json(found: Improvement) -> dict[str, Any]:
    return _estimate_json("mae_percent", found.mae_percent) | _estimate_json(
        "rmse_percent", found.rmse_percent
    )


def _curve_json(curve: LearningCurve) -> dict[str, Any]:
    return {
        "component": curve.component,
        "permutations": curve.permutations,
        "points": [
            {
                "model": point.model,
                "n_train": point.n_train,
                "energy": _metrics_json(point.energy, "ev", "kcal_mol"),
                "forces": _metrics_json(point.forces, "ev_per_ang", "kcal_mol_ang"),
            }
            for point in curve.points
        ],
    }


def _descriptor_json(found: DescriptorAnalysis) -> dict[str, Any]:
    sigma, sigma_squared = found.sigma(), found.sigma(squared=True)
    return {
        "n_pairs": len(found.pairs),
        "mean_squared_distance_per_ang2": float(found.total.mean()),
        "sigma_inter_over_intra": None if np.isnan(found.sigma_ratio) else found.sigma_ratio,
        "blocks": [
            {
                "fragments": list(label),
                "n_entries": int((found.blocks.of_pair == k).sum()),
                "mean_squared_per_ang2": float(found.squared[:, k].mean()),
                "share_of_squared_distance": float(found.shares[k]),
                "sigma_delta_per_ang": None if np.isnan(sigma[k]) else float(sigma[k]),
                "sigma_delta_squared_per_ang2": (
                    None if np.isnan(sigma_squared[k]) else float(sigma_squared[k])
                ),
            }
            for k, label in enumerate(found.blocks.labels)
        ],
    }
