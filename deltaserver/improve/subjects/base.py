"""What both kinds of models share that learn from their own dynamics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.improve.doubt import Doubt
from deltaserver.improve.dynamics import Limits
from deltaserver.improve.seen import Seen
from deltaserver.improve.settings import Settings
from deltaserver.improve.starts import longest_centre_distance
from deltaserver.model.composite import CompositeModel
from deltaserver.model.directories import MANIFEST_NAME
from deltaserver.model.trust import NOVELTY_LIMIT
from deltaserver.textio.journal import write_atomically
from deltaserver.training.components import Component
from deltaserver.training.directory.files import read_report, split_settings
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
        self, doubt: Doubt, number: int, seed: tuple[int, ...], wanted: float, *, returning: bool
    ) -> Seen:
        """Run the model of round ``number`` and return the complexes that were seen.

        Args:
            doubt: of that round's complex.
            number: of the round.
            seed: of everything that is drawn.
            wanted: the uncertainty that is good enough, eV/Å.
            returning: whether runs go back where they are not sure; else they go on.
        """

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
