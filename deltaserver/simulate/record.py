"""``run.json``: what a run directory holds, and how its run ended."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from deltaserver.errors import InputError
from deltaserver.textio.journal import write_atomically

RUN_FILE = "run.json"
FORMAT = "deltaserver-run/1"
Status = Literal["running", "finished", "stopped", "blown up", "failed"]
STATUSES: tuple[Status, ...] = ("running", "finished", "stopped", "blown up", "failed")


@dataclass(frozen=True)
class Restart:
    """A place where a run was continued: outputs after ``step`` come from ``source``."""

    step: int
    source: str


@dataclass(frozen=True)
class RunRecord:
    """One run.

    Attributes:
        models: the model directory, absolute.
        component: what the daemon serves where the input does not say.
        kind: of the recipe, or "custom" for an input given by hand.
        temperatures_k: of the recipe, empty for "custom".
        timestep_fs: of the recipe, or None.
        seed: of the recipe, or None.
        total_steps: how many steps the run is to have; None if the input does not say.
        prefix: of i-PI's output files.
        status: how the run ended, or "running".
        step: the last step written.
        reason: one line: why it ended; of a finished run, what i-PI said if it was done before its
            last step.
        frame: extended XYZ of the structure at which it blew up.
        restarts: where it was continued, in order.
        version: of deltaserver.
        serve: names of the sockets that are served, where not all are.
        device, threads, extras, storage: what the daemon was told; see its options.
        first_missing: structures that the first evaluation sent fewer than a step does, because
            all beads began at the same place and were sent as one.
        bias: of the recipe, as i-PI's input has it; empty where there is none.
        fingerprint: of the models that were served last; empty in older records.
    """

    models: str
    component: str
    kind: str
    temperatures_k: tuple[float, ...]
    timestep_fs: float | None
    seed: int | None
    total_steps: int | None
    prefix: str
    status: Status = "running"
    step: int = 0
    reason: str | None = None
    frame: str | None = None
    restarts: tuple[Restart, ...] = field(default=())
    version: str = ""
    serve: tuple[str, ...] = ()
    device: str | None = None
    threads: int | None = None
    extras: str = "summary"
    storage: str = "auto"
    first_missing: int = 0
    bias: str = ""
    fingerprint: str = ""


def write_record(record: RunRecord, directory: Path) -> None:
    """Write ``run.json``."""
    text = json.dumps({"format": FORMAT, **asdict(record)}, indent=2, ensure_ascii=False)
    write_whole(directory / RUN_FILE, text + "\n")


def write_whole(path: Path, text: str) -> None:
    """Write a file at once; see :func:`deltaserver.textio.journal.write_atomically`.

    Raises:
        InputError: it cannot be written.
    """
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise InputError(f"{path}: {(error.strerror or str(error)).lower()}") from error


def check_same_model(directory: Path, old: RunRecord, new: RunRecord) -> None:
    """Refuse to continue a run on another potential: its energies would jump.

    A directory may have been moved, or its models replaced: where the record has a fingerprint,
    that decides.

    Raises:
        InputError: the models are others than the run's.
    """
    if old.fingerprint and old.fingerprint != new.fingerprint:
        raise InputError(
            f"{directory}: was begun with other models than {new.models} holds now; resume it "
            "with those it was begun with, or choose another --directory"
        )
    if not old.fingerprint and old.models != new.models:
        raise InputError(
            f"{directory}: was begun with models {old.models}, not {new.models}; resume it with "
            "the same options, or choose another --directory"
        )


def make_directory(directory: Path) -> None:
    """Make the directory of a run, or raise InputError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--directory {directory}: {(error.strerror or '').lower()}") from error


def how_to_go_on(directory: Path) -> str:
    """Return what continues the run, or the sweep, of a directory, as part of a message."""
    return f"continue with: deltaserver simulate --resume --directory {directory}"


def read_record(directory: Path) -> RunRecord | None:
    """Read ``run.json``; None if there is none.

    Raises:
        InputError: it is not ours, or of a version that is not known.
    """
    path = directory / RUN_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise InputError(f"{path}: expected a record of format {FORMAT!r}")
    try:
        return _parse(data)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a record of ours ({error!r})") from error


def _parse(data: dict[str, Any]) -> RunRecord:
    known = {f.name for f in fields(RunRecord)}
    values = {key: value for key, value in data.items() if key in known}
    if values["status"] not in STATUSES:
        raise ValueError(values["status"])
    values["serve"] = tuple(str(name) for name in values.get("serve", ()))
    values["temperatures_k"] = tuple(float(t) for t in values["temperatures_k"])
    values["restarts"] = tuple(
        Restart(int(r["step"]), str(r["source"])) for r in values.get("restarts", ())
    )
    return RunRecord(**values)
