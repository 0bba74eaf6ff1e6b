"""What both kinds of models share that learn from their own dynamics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.improve.doubt import Compared, Doubt
from deltaserver.improve.dynamics import Limits
from deltaserver.improve.measure import errors_by_part
from deltaserver.improve.retrain import plans_of, write_symmetry
from deltaserver.improve.seen import Seen
from deltaserver.improve.settings import Settings
from deltaserver.improve.starts import longest_centre_distance
from deltaserver.model.composite import CompositeModel
from deltaserver.model.directories import MANIFEST_NAME
from deltaserver.model.trust import NOVELTY_LIMIT
from deltaserver.textio.journal import write_atomically
from deltaserver.training.components import Component
from deltaserver.training.directory.files import read_report, split_settings
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.selection import split_in_time

WALL_BEYOND_ANG = 1.0
DOUBTED = 3.0  # times the uncertainty that is wanted, or that is usual: not known any more


class Subject(ABC):
    """What learns. Its dynamics shows complexes like those of the dataset, which are labelled.

    Args:
        settings: what was asked for.
        base: the dataset.
        record: the directory with the ``training.json`` of ``parts``.
        parts: what is trained, the binding last.
        say: takes one line for every step.

    Attributes:
        split: of the frames of the dataset.
        wall: Å between centres of two fragments, beyond which they are pulled together.
    """

    def __init__(
        self,
        settings: Settings,
        base: LabelledFrames,
        record: Path,
        parts: Sequence[Component],
        say: Callable[[str], None],
    ) -> None:
        self.settings, self.base, self.say = settings, base, say
        self.parts = tuple(parts)
        split = split_settings(read_report(record), self.parts[-1].name)
        self.split = split_in_time(base.trajectory, base.step, **split)
        self.wall = longest_centre_distance(base, self.train) + WALL_BEYOND_ANG

    @property
    def train(self) -> Ints:
        """Which frames of the dataset may be trained on."""
        return self.split.train

    @abstractmethod
    def begin(self) -> None:
        """Copy the models to begin with: what was given stays as it is."""

    @abstractmethod
    def trained(self, number: int) -> Path:
        """Return where round ``number`` trains a complex; of 0 what it begins with."""

    @abstractmethod
    def prepare(self, number: int) -> None:
        """Put there what round ``number`` takes over untrained."""

    @abstractmethod
    def serve(self, number: int) -> None:
        """Make what round ``number`` has trained models to be served."""

    @abstractmethod
    def see(
        self, doubt: Compared, number: int, seed: tuple[int, ...], wanted: float, *, returning: bool
    ) -> Seen:
        """Run the model of round ``number`` and return the complexes that were seen.

        Args:
            doubt: that of :meth:`doubt`.
            number: of the round.
            seed: of everything that is drawn.
            wanted: the uncertainty that is good enough, eV/Å.
            returning: whether runs go back where they are not sure; else they go on.
        """

    def doubt(self, number: int) -> Compared:
        """Return the measures of what round ``number`` has trained."""
        return Doubt(self.model(number))

    def errors(self, number: int, frames: LabelledFrames) -> dict[str, Any]:
        """Return how wrong the models of round ``number`` are on frames, by part."""
        return errors_by_part(self.model(number), frames)

    def permutations(self) -> Path:
        """Write those of the first models, as ``--symmetry`` takes them: they stay as they are."""
        return write_symmetry(self.trained(0), self.parts, self.settings.output)

    def plans(self, number: int, n_added: int) -> list[TrainingPlan]:
        """Return how round ``number`` trains its parts on ``n_added`` frames more than the first.

        Raises:
            DataError: the dataset is not the merged one whose parts count more or less.
        """
        settings, first = self.settings, self.trained(0)
        before = self.trained(number - 1)
        return plans_of(first, before, self.parts, n_added, settings.threads, settings.dataset)

    def model(self, number: int) -> CompositeModel:
        """Load the complex that round ``number`` has trained; 0 is the first."""
        return CompositeModel.load(self.trained(number), threads=self.settings.threads)


def limits_at(doubt: Doubt, starts: Floats, wanted: float, wall: float) -> Limits:
    """Return what counts as known: where ``starts`` (B, N, 3) are usual, and more is ``wanted``."""
    usual = np.zeros(0)
    if len(starts):
        usual = doubt(starts, doubt.model.evaluate(starts)).uncertainty
    known = usual[np.isfinite(usual)]
    limit = DOUBTED * max(wanted, float(np.median(known)) if len(known) else 0.0)
    return Limits(NOVELTY_LIMIT, limit, wall)


def copy_models(source: Path, target: Path) -> None:
    """Copy a model directory; what makes it one comes last, and tells that it is done."""
    marker = target / MANIFEST_NAME
    if marker.exists():
        return
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.iterdir()):
        if path.is_file() and path.name != marker.name:
            write_atomically(target / path.name, path.read_bytes())
    write_atomically(marker, (source / marker.name).read_bytes())
