"""What models make of a labelled scan: binding energies and forces point by point."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.errors import DataError
from deltaserver.evaluation.held_out_errors import BINDING, EvaluatedModel, evaluate_batches
from deltaserver.evaluation.scans.continuity import largest_jump
from deltaserver.evaluation.scans.curves import DISSOCIATION, Curve, RigidPair
from deltaserver.evaluation.scans.labels import LabelledScan

WALL_EV = 0.5  # points whose label is above are on the wall, where nothing stays
WITHIN_EV = (0.02, 0.05)
JUMP_EV_ANG = 1e-6  # what is smaller is rounding


@dataclass(frozen=True)
class CurveErrors:
    """One model on one curve, V points: energies in eV, forces in eV/Å.

    Attributes:
        curve: its values.
        label: binding energies of the labels, shape (V,).
        predicted: the model's.
        force_mae: mean |F_b model − F_b label| of all components at each point.
        jump: the largest jump of the model's binding force along a dissociation, or None.
    """

    curve: Curve
    label: Floats
    predicted: Floats
    force_mae: Floats
    jump: float | None

    @property
    def difference(self) -> Floats:
        """Return predicted − label."""
        return self.predicted - self.label

    @property
    def counts(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Return which points are not on the wall."""
        return self.label < WALL_EV

    @property
    def worst(self) -> int | None:
        """Return the point of the largest |difference| off the wall, or None if all are on it."""
        if not self.counts.any():
            return None
        return int(np.argmax(np.where(self.counts, np.abs(self.difference), -1.0)))


@dataclass(frozen=True)
class ScannedModel:
    """One model on all curves."""

    model: str
    curves: tuple[CurveErrors, ...]

    @property
    def worst(self) -> tuple[CurveErrors, int] | None:
        """Return curve and point of the largest |difference| off the wall."""
        found = [(c, c.worst) for c in self.curves if c.worst is not None]
        return max(found, key=lambda one: abs(one[0].difference[one[1]]), default=None)

    @property
    def within_ev(self) -> float | None:
        """Return the first of ``WITHIN_EV`` that no point off the wall exceeds, or None."""
        if self.worst is None:
            return None
        curve, point = self.worst
        size = abs(curve.difference[point])
        return next((limit for limit in WITHIN_EV if size <= limit), None)

    @property
    def jump(self) -> float | None:
        """Return the largest jump of all curves."""
        return max((c.jump for c in self.curves if c.jump is not None), default=None)

    @property
    def farthest(self) -> CurveErrors | None:
        """Return the dissociation curve with the largest |E_b| of the model at its end."""
        ends = [c for c in self.curves if c.curve.kind == DISSOCIATION]
        return max(ends, key=lambda c: abs(c.predicted[-1]), default=None)


@dataclass(frozen=True)
class ScanErrors:
    """A labelled scan, and what every model makes of it."""

    scan: LabelledScan
    models: tuple[ScannedModel, ...]


def scan_errors(models: Sequence[EvaluatedModel], scan: LabelledScan) -> ScanErrors:
    """Evaluate every model on every point that has labels.

    Raises:
        DataError: a periodic model, whose images would come near.
    """
    for one in models:
        if one.model.periodic:
            raise DataError(f"{one.directory}: a periodic model; a scan is of two in vacuum")
    selected = [scan.select(k) for k in range(len(scan.curves))]
    there = [(curve, frames) for curve, frames in selected if len(frames)]
    return ScanErrors(
        scan,
        tuple(
            ScannedModel(one.label, tuple(_of_curve(one, curve, f) for curve, f in there))
            for one in models
        ),
    )


def _of_curve(one: EvaluatedModel, curve: Curve, frames: LabelledFrames) -> CurveErrors:
    found = evaluate_batches(one.model, frames.positions, BINDING)
    error = np.abs(found.forces - frames.binding_forces)
    jump = _jump(one, curve, frames) if curve.kind == DISSOCIATION and len(frames) > 1 else None
    return CurveErrors(curve, frames.binding_energy, found.energy, error.mean(axis=(1, 2)), jump)


def _jump(one: EvaluatedModel, curve: Curve, frames: LabelledFrames) -> float:
    """Return the largest jump of the model's binding force along a dissociation, in eV/Å."""
    last = RigidPair.of(frames.numbers, frames.positions[-1], frames.fragments, frames.name)
    direction = np.zeros_like(last.positions)
    direction[last.groups[0]] = last.separation / last.distance

    def forces(displacements: Floats) -> Floats:
        back = (displacements - curve.values[-1])[:, None, None]
        return evaluate_batches(one.model, last.positions + back * direction, BINDING).forces

    return largest_jump(forces, curve.values[0], curve.values[-1], JUMP_EV_ANG)
