"""What ``deltaserver improve`` was asked for, and where in its directory everything lies."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from deltaserver.datasets.labelling import LOCAL
from deltaserver.errors import DataError, InputError
from deltaserver.textio.journal import changed, hold, write_atomically

SETTINGS_NAME = "improve.json"
DATASET_NAME = "dataset"
LOCK_NAME = ".lock"
Selection = Literal["uncertainty", "random"]
SELECTIONS: tuple[str, ...] = get_args(Selection)


@dataclass(frozen=True)
class Dynamics:
    """How the model is run; see :mod:`deltaserver.improve.dynamics`.

    Attributes:
        temperatures: the runs take turns.
        runs: side by side, in one batch.
        steps: of each.
        interval: steps from one look at it to the next.
        time_step: fs.
        friction: 1/fs.
    """

    temperatures: tuple[float, ...]
    runs: int = 16
    steps: int = 2000
    interval: int = 20
    time_step: float = 0.5
    friction: float = 0.01

    def __post_init__(self) -> None:
        """Refuse what no dynamics can be run with."""
        if not self.temperatures or min(self.temperatures) <= 0.0:
            raise InputError(f"temperatures are {self.temperatures}; must be > 0 K")


@dataclass(frozen=True)
class Stop:
    """When it ends: at an error (kcal/mol/Å), or at a budget of rounds, labels or hours."""

    force_mae: float
    max_labels: int | None = None
    max_hours: float | None = None
    patience: int = 3  # rounds without progress
    max_rounds: int | None = None


@dataclass(frozen=True)
class Settings:
    """Everything that decides what is run, labelled and trained.

    Attributes:
        models: the model directory to begin with; it stays as it is.
        dataset: what that was trained on.
        calculator: that labels, by the reference method of ``dataset``.
        output: the directory of all that is done.
        dynamics: how the model is run.
        labels_per_round: frames that a round labels to train on.
        test_frames: frames that a round labels to be tested on.
        selection: how frames are chosen; ``random`` is there to compare with.
        seed: of everything that is drawn; each round has its own from it.
        scheduler, workers: of the labels.
        threads: of evaluations and trainings.
        pair: where the binding of two, or of three, of many molecules was trained; None:
            ``models`` tell it.
    """

    models: Path
    dataset: Path
    calculator: str
    output: Path
    dynamics: Dynamics
    labels_per_round: int = 20
    test_frames: int = 30
    selection: Selection = "uncertainty"
    seed: int = 0
    scheduler: str = LOCAL
    workers: int = 1
    threads: int = 1
    pair: Path | None = None

    def deciding(self) -> dict[str, Any]:
        """Return what must not change while the work goes on, as JSON holds it."""
        dynamics = asdict(self.dynamics)
        return {
            "models": str(self.models.resolve()),
            "dataset": str(self.dataset.resolve()),
            "calculator": self.calculator,
            **dynamics,
            "temperatures": list(self.dynamics.temperatures),
            "labels_per_round": self.labels_per_round,
            "test_frames": self.test_frames,
            "selection": self.selection,
            "seed": self.seed,
            **({} if self.pair is None else {"pair": str(self.pair.resolve())}),
        }


@dataclass(frozen=True)
class RoundPaths:
    """The files of one round. Each is written whole, when its step is done, and never changed."""

    directory: Path

    @property
    def way(self) -> Path:
        """Of a long run: what led to the structure that it did not know."""
        return self.directory / "way.npz"

    @property
    def dynamics(self) -> Path:
        """Frames that the dynamics of the present model has seen."""
        return self.directory / "dynamics.npz"

    @property
    def chosen(self) -> Path:
        """Which of them are to be labelled, and why."""
        return self.directory / "chosen.json"

    @property
    def labels(self) -> Path:
        """The workspace of their labels."""
        return self.directory / "labels"

    @property
    def models(self) -> Path:
        """What was trained with them."""
        return self.directory / "models"

    @property
    def pair(self) -> Path:
        """Of many molecules: the complex of two that was trained, which ``models`` have taken."""
        return self.directory / "pair"

    @property
    def three(self) -> Path:
        """Of many molecules: what was trained of three, which ``models`` have taken."""
        return self.directory / "three"

    @property
    def test_dynamics(self) -> Path:
        """Frames of fresh dynamics of that model."""
        return self.directory / "test.npz"

    @property
    def test_labels(self) -> Path:
        """The workspace of their labels, which are never trained on."""
        return self.directory / "test"

    @property
    def record(self) -> Path:
        """What the round has found; it is done when this is there."""
        return self.directory / "round.json"


def round_paths(output: Path, number: int) -> RoundPaths:
    """Return where round ``number`` lies; 0 is the model that it begins with."""
    return RoundPaths(output / f"round-{number:02d}")


@contextlib.contextmanager
def alone(output: Path) -> Iterator[None]:
    """Work in ``output`` for the time of a ``with`` block.

    Raises:
        DataError: another process does.
    """
    output.mkdir(parents=True, exist_ok=True)
    with (output / LOCK_NAME).open("w") as lock:
        if not hold(lock):
            raise DataError(f"{output}: another process is improving there; wait, or stop it")
        yield


def keep_settings(settings: Settings) -> None:
    """Write the settings, or refuse to continue with others than the work was begun with.

    Raises:
        DataError: something that decides the result is another, or the file is damaged.
    """
    path, now = settings.output / SETTINGS_NAME, settings.deciding()
    if path.exists():
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
            differing = changed(before, now)
        except (ValueError, AttributeError):
            raise DataError(
                f"{path}: not the settings of an improvement; choose another --output"
            ) from None
        for key in differing:
            raise DataError(
                f"{path}: was begun with {key} {before.get(key)}, not {now[key]}; use another "
                "--output"
            )
        return
    settings.output.mkdir(parents=True, exist_ok=True)
    write_atomically(path, f"{json.dumps(now, indent=1)}\n".encode())
