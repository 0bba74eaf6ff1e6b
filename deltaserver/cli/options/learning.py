"""The options of ``--on-extrapolation label``: a run that has its model taught on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from deltaserver.cli.options.common import AT_LEAST_1, PATH, POSITIVE, together
from deltaserver.errors import InputError, NoveltyError
from deltaserver.serve.settings import GuardSettings

if TYPE_CHECKING:
    from deltaserver.improve.production import Production

Result = TypeVar("Result")

REQUEST_NAME = "learning.json"
LIMITS = ("novelty_limit", "uncertainty_limit")
RUNS, STEPS = 8, 400  # short ones, from where the run was sure

LEARNING_OPTIONS = together(
    click.option(
        "--dataset",
        type=PATH,
        default=None,
        help="With --on-extrapolation label: what the models were trained on.",
    ),
    click.option(
        "--calculator",
        metavar="NAME",
        default=None,
        help="Likewise: the method that labelled it.",
    ),
    click.option(
        "--labels-per-stop",
        type=AT_LEAST_1,
        default=None,
        help="Frames that are labelled whenever the run leaves what is known.  [20]",
    ),
    click.option(
        "--max-labels",
        type=AT_LEAST_1,
        default=None,
        help="Frames that may be labelled altogether; then the run ends.",
    ),
    click.option(
        "--label-workers",
        type=AT_LEAST_1,
        default=None,
        help="Processes that label.  [1]",
    ),
    click.option(
        "--look-around",
        "kelvin",
        type=POSITIVE,
        multiple=True,
        metavar="KELVIN",
        help="Temperatures of short runs that look around there.  [those of the run]",
    ),
)


@dataclass(frozen=True)
class LearningOptions:
    """What was asked of ``--on-extrapolation label``, before anything is read."""

    dataset: Path | None = None
    calculator: str | None = None
    labels_per_stop: int | None = None
    max_labels: int | None = None
    label_workers: int | None = None
    kelvin: tuple[float, ...] = ()

    def checked(self, guard: GuardSettings) -> LearningOptions | None:
        """Return what is to be taught; None where nothing is.

        Raises:
            InputError: options of one and not of the other.
        """
        if guard.extrapolation != "label":
            if any(getattr(self, field.name) not in (None, ()) for field in fields(self)):
                raise InputError(
                    "--dataset, --calculator, --labels-per-stop, --max-labels, --label-workers and "
                    "--look-around: only with --on-extrapolation label"
                )
            return None
        if self.dataset is None or self.calculator is None:
            raise InputError(
                "--on-extrapolation label: needs --dataset, what the models were trained on, and "
                "--calculator, the method that labelled it"
            )
        return self


def make_production(
    asked: LearningOptions,
    guard: GuardSettings,
    models: Path,
    directory: Path,
    threads: int | None,
    quiet: bool,
) -> Production:
    """Return what teaches a run, in ``directory``.

    Raises:
        InputError: models, dataset or calculator do not fit each other; no temperature is known.
    """
    from deltaserver.improve.dynamics import Limits
    from deltaserver.improve.production import Production
    from deltaserver.improve.settings import Dynamics, Settings

    assert asked.dataset is not None
    assert asked.calculator is not None
    if not asked.kelvin:
        raise InputError(
            "--on-extrapolation label: the temperature is not known here; give it with "
            "--look-around KELVIN"
        )
    settings = Settings(
        models,
        asked.dataset,
        asked.calculator,
        directory,
        Dynamics(asked.kelvin, RUNS, STEPS),
        labels_per_round=asked.labels_per_stop or Settings.labels_per_round,
        workers=asked.label_workers or Settings.workers,
        threads=threads or Settings.threads,
    )
    limits = Limits(guard.novelty_limit, guard.uncertainty_limit or float("inf"), 0.0)
    say = (lambda line: None) if quiet else _say
    return Production(settings, limits, asked.max_labels, say)


def learning_beside(log_file: Path | None) -> Path:
    """Name the directory of what a daemon is taught after its log file, beside it."""
    beside = Path("deltaserver") if log_file is None else log_file.with_suffix("")
    return beside.with_name(f"{beside.name}_learning")


def _say(line: str) -> None:
    click.echo(f"learning: {line}", err=True)


def taught(production: Production, serve: Callable[[Path], Result]) -> Result:
    """Call ``serve`` with models, and again with better ones whenever it leaves what is known."""
    while True:
        models = production.learn()  # what a kill has interrupted, or nothing
        try:
            return serve(models)
        except NoveltyError as error:
            if error.way is None:
                raise
            production.note(error.way, " ".join(str(error).split()))


def remember(directory: Path, asked: LearningOptions, guard: GuardSettings) -> None:
    """Write what was asked, so that a run that is resumed goes on with it."""
    from deltaserver.textio.journal import write_atomically

    directory.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        **asdict(asked),
        "dataset": str(asked.dataset and asked.dataset.resolve()),
        **{name: getattr(guard, name) for name in LIMITS},
    }
    write_atomically(directory / REQUEST_NAME, f"{json.dumps(record, indent=1)}\n".encode())


def remembered(
    directory: Path, asked: LearningOptions, guard: GuardSettings, told: Sequence[str] = ()
) -> tuple[LearningOptions, GuardSettings]:
    """Return what :func:`remember` has written there where nothing else is asked, and the guard.

    ``told``: of :data:`LIMITS` those that are asked for now; they are the guard's.

    Raises:
        InputError: the file is damaged.
    """
    path = directory / REQUEST_NAME
    if not path.exists():
        return asked, guard
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        limits = {name: record.pop(name) for name in LIMITS}
        record |= {"dataset": Path(record["dataset"]), "kelvin": tuple(record["kelvin"])}
        given = {key: value for key, value in vars(asked).items() if value not in (None, ())}
        before = {name: limit for name, limit in limits.items() if name not in told}
        return LearningOptions(**record | given), replace(guard, extrapolation="label", **before)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not what a run was asked to learn ({error!r})") from error
