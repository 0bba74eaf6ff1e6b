"""How much a frame is to be doubted: its calibrated uncertainty, or its novelty without one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.model.composite import CompositeEvaluation, CompositeModel
from deltaserver.model.files.parameters import ModelParameters
from deltaserver.model.trust.novelty import NoveltyMeasure, TrainingDistance
from deltaserver.model.trust.uncertainty import TOTAL, PosteriorSpread, UncertaintyMeasure

LENGTHS = 10.0  # without a calibrated length: of the distance that is novelty 1


@dataclass(frozen=True)
class Look:
    """What is seen of B frames.

    Attributes:
        novelty: the largest of all parts, shape (B,).
        uncertainty: of the whole, eV/Å, shape (B,); NaN of models that are not calibrated.
    """

    novelty: Floats
    uncertainty: Floats


class Compared(Protocol):
    """What frames are compared by, with each other and with training points."""

    @property
    def distance(self) -> TrainingDistance | None:
        """Features and training points; None where these are too few."""

    @property
    def spread(self) -> PosteriorSpread | None:
        """The posterior spread; None where there are too few points."""

    def features(self, positions: Floats) -> Floats:
        """Return what frames are compared by, shape (B, n_features); positions are Å."""


class DoubtOfThree:
    """The measures of what three molecules have beyond their pairs: novelty alone.

    Args:
        parameters: of a kernel, or of no more than the frames that a prior was fitted to.
        length_ang: the unit of length of these.
    """

    def __init__(self, parameters: ModelParameters, length_ang: float) -> None:
        self._parameters, self._unit = parameters, length_ang

    @cached_property
    def distance(self) -> TrainingDistance | None:
        """Features and training points; None where these are too few."""
        return TrainingDistance.of(self._parameters)

    @cached_property
    def spread(self) -> PosteriorSpread | None:
        """The posterior spread of the points; None where there are too few."""
        distance = self.distance
        if distance is None:
            return None
        block = self._parameters.uncertainty
        if block is not None:
            return PosteriorSpread(distance, block.points, block.length)
        return PosteriorSpread(distance, np.arange(len(distance.points)), LENGTHS * distance.scale)

    def features(self, positions: Floats) -> Floats:
        """Return what trimers are compared by, shape (B, n_features); positions are Å."""
        assert self.distance is not None
        return self.distance.features_of(positions / self._unit, None)

    def novelty(self, positions: Floats) -> Floats:
        """Return the novelty of trimers (B, N, 3), Å; 0 where there are too few points."""
        if self.distance is None:
            return np.zeros(len(positions))
        return self.distance.of_features(self.features(positions))

    def __call__(self, positions: Floats) -> Look:
        """Look at trimers (B, N, 3), Å."""
        return Look(self.novelty(positions), np.full(len(positions), np.nan))


class Doubt:
    """The measures of one model."""

    def __init__(self, model: CompositeModel) -> None:
        self.model = model
        self._novelty = NoveltyMeasure(model)
        self._uncertainty = UncertaintyMeasure(model, self._novelty)
        self._part = "binding" if model.binding else model.fragments[0].name

    @property
    def distance(self) -> TrainingDistance | None:
        """Features and training points of the binding model, or of the only fragment's."""
        return self._novelty.distance_of(self._part)

    @property
    def spread(self) -> PosteriorSpread | None:
        """The posterior spread of that model; None where there are too few points."""
        distance = self.distance
        if distance is None:
            return None
        trained = next(p.trained for p in self.model.parts if p.name == self._part)
        block = None if trained is None else trained.parameters.uncertainty
        if block is not None:
            return PosteriorSpread(distance, block.points, block.length)
        return PosteriorSpread(distance, np.arange(len(distance.points)), LENGTHS * distance.scale)

    def features(self, positions: Floats) -> Floats:
        """Return what frames are compared by, shape (B, n_features); positions are Å."""
        distance = self.distance
        assert distance is not None
        part = next(p for p in self.model.parts if p.name == self._part)
        assert part.trained is not None
        unit = part.trained.native.length_ang
        return distance.features_of(positions[:, part.atoms] / unit, None)

    def binding_novelty(self, positions: Floats) -> Floats:
        """Return the novelty of frames (B, N, 3), Å, by that model alone; 0 where it has none."""
        distance = self.distance
        if distance is None:
            return np.zeros(len(positions))
        return distance.of_features(self.features(positions))

    def __call__(self, positions: Floats, result: CompositeEvaluation) -> Look:
        """Look at frames (B, N, 3), Å, and what the model says of them."""
        parts = result.contributions
        features = self._novelty.features(positions, parts)
        known = list(self._novelty.of_features(features).values())
        novelty = np.max(known, axis=0) if known else np.zeros(len(positions))
        found = self._uncertainty.of_features(features, parts)
        return Look(novelty, found.get(TOTAL, np.full(len(positions), np.nan)))
