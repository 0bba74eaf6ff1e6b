"""A complex by itself, whose dynamics shows what is labelled, frame by frame."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from deltaserver.datasets.frames import LabelledFrames
from deltaserver.improve.doubt import Compared, Doubt
from deltaserver.improve.dynamics import Runs
from deltaserver.improve.retrain import trained_parts
from deltaserver.improve.seen import Seen
from deltaserver.improve.settings import Settings, round_paths
from deltaserver.improve.starts import draw_starts
from deltaserver.improve.subjects.base import Subject, copy_models, limits_at
from deltaserver.model.composite import CompositeModel
from deltaserver.training.uncertainty.directory import calibrate_directory

STARTS = 1 << 20  # beyond the number of any run


class OneComplex(Subject):
    """Models that ``deltaserver train`` has made of ``base``; see :class:`Subject`.

    Raises:
        InputError: they are of something else.
    """

    def __init__(
        self, settings: Settings, base: LabelledFrames, say: Callable[[str], None]
    ) -> None:
        parts = trained_parts(settings.models, base)
        super().__init__(settings, base, settings.models, parts, say)

    def begin(self) -> None:
        """Copy the models, and calibrate them if they are not."""
        first = self.trained(0)
        copy_models(self.settings.models, first)
        models = CompositeModel.load(first).models
        if any(model.parameters.uncertainty is None for model in models):
            calibrate_directory(first, self.base, self.say)

    def trained(self, number: int) -> Path:
        """Return the models of a round, which are served as they are trained."""
        return round_paths(self.settings.output, number).models

    def prepare(self, number: int) -> None:
        """Leave it: all parts are trained."""

    def serve(self, number: int) -> None:
        """Leave it: training has made all of it."""

    def see(
        self, doubt: Compared, number: int, seed: tuple[int, ...], wanted: float, *, returning: bool
    ) -> Seen:
        """Run from training frames; every frame that is looked at is one complex."""
        assert isinstance(doubt, Doubt)
        plan = self.settings.dynamics
        rng = np.random.default_rng([*seed, STARTS])
        starts = draw_starts(self.base, self.train, plan.runs, rng)
        limits = limits_at(doubt, starts, wanted, self.wall)
        return Runs(doubt, plan, limits, seed, returning).run(starts)
