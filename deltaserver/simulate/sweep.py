"""A set of runs, one for each temperature: side by side or one after the other, each a process.

One run that blows up or fails does not end the others. Repeated with ``resume`` the set goes on
where it was: what is finished, or has blown up, is passed over.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from deltaserver.errors import (
    ConnectionLostError,
    DeltaserverError,
    EndedEarlyError,
    GuardError,
    InputError,
)
from deltaserver.serve.signals import stoppable_once
from deltaserver.simulate.directory import SWEEP_FILE
from deltaserver.simulate.ipi.process import end_with_parent
from deltaserver.simulate.progress import Progress, ProgressLine, PropertiesTail
from deltaserver.simulate.record import RunRecord, make_directory, read_record, write_whole
from deltaserver.simulate.request import RunRequest, write_request

POLL_S = 0.25
PATIENCE_S = 30.0  # for runs that were asked to stop
OUTPUT_NAME = "simulate.err"
REQUEST_NAME = "request.json"
FORMAT = "deltaserver-sweep/2"
PASSED_OVER = ("finished", "blown up")


@dataclass(frozen=True)
class SweepRun:
    """One run of the set.

    Attributes:
        name: of the run, and of its directory in the sweep's.
        directory: where it runs.
        request: what it is.
        properties: name of i-PI's properties file.
    """

    name: str
    directory: Path
    request: RunRequest
    properties: str

    @property
    def total_steps(self) -> int:
        """How many steps it is to have."""
        return self.request.recipe.steps

    def with_total_steps(self, steps: int) -> SweepRun:
        """Return the same run with another number of steps."""
        return replace(self, request=self.request.with_total_steps(steps))

    def command(self, resume: bool) -> list[str]:
        """Return the command that runs it, once its request is written."""
        words = [sys.executable, "-m", "deltaserver", "simulate", "--quiet"]
        words += ["--resume"] if resume else []
        request = self.directory / REQUEST_NAME
        return [*words, f"--request={request}", f"--directory={self.directory}"]


def write_sweep(directory: Path, runs: Sequence[SweepRun]) -> None:
    """Write ``sweep.json``, from which the set is resumed.

    Raises:
        InputError: the directory is that of a run, which alone would be analysed.
    """
    if read_record(directory) is not None and not (directory / SWEEP_FILE).exists():
        raise InputError(
            f"{directory}: is the directory of a run, which an analysis would take in place of "
            "those below it; choose another --directory"
        )
    entries = [
        {"name": run.name, "properties": run.properties, "request": run.request.record()}
        for run in runs
    ]
    text = json.dumps({"format": FORMAT, "runs": entries}, indent=2, ensure_ascii=False)
    write_whole(directory / SWEEP_FILE, text + "\n")


def read_sweep(directory: Path) -> list[SweepRun] | None:
    """Read ``sweep.json``; None if there is none.

    Raises:
        InputError: it is not ours.
    """
    path = directory / SWEEP_FILE
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise ValueError(data["format"])
        return [
            SweepRun(
                str(run["name"]),
                directory / Path(str(run["name"])).name,
                RunRequest.from_record(run["request"]),
                str(run["properties"]),
            )
            for run in data["runs"]
        ]
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a sweep of ours ({error!r})") from error


@dataclass
class Child:
    """A run that is going on."""

    run: SweepRun
    process: subprocess.Popen[bytes]
    tail: PropertiesTail
    progress: Progress = field(init=False)
    before: RunRecord | None = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(self.run.total_steps)
        self.before = read_record(self.run.directory)

    @property
    def was_refused(self) -> bool:
        """Whether it ended before it began: the record is still that of the run before."""
        return self.process.returncode != 0 and read_record(self.run.directory) == self.before


def run_all(runs: Sequence[SweepRun], jobs: int, resume: bool, line: ProgressLine | None) -> None:
    """Run them all, ``jobs`` at a time.

    Raises:
        GuardError: one or more have blown up.
        EndedEarlyError: all that did not finish have ended in order, too early.
        ConnectionLostError, InputError: one or more have failed otherwise.
        KeyboardInterrupt: a signal has stopped them.
    """
    waiting = [run for run in runs if not (resume and _is_over(run))]
    for run in runs:
        if run not in waiting:
            _say(line, f"{run.name}: {_outcome(run)}; passed over")
    going: list[Child] = []
    refused: list[SweepRun] = []
    with stoppable_once() as ending, _ended(going, ending):
        while waiting or going:
            while waiting and len(going) < jobs:
                going.append(_start(waiting.pop(0), resume))
            time.sleep(POLL_S)
            for child in list(going):
                child.progress.add(child.tail.read())
                if child.process.poll() is not None:
                    going.remove(child)
                    refused += [child.run] if child.was_refused else []
                    _say(line, f"{child.run.name}: {_outcome(child.run, refused)}")
            if line and going:
                line.follow([(child.run.name, child.progress) for child in going])
    _report(runs, refused)


def _is_over(run: SweepRun) -> bool:
    record = read_record(run.directory)
    if record is None or record.status not in PASSED_OVER:
        return False
    if record.status == "blown up" or record.reason is not None:
        return True
    return record.step >= run.total_steps


def _start(run: SweepRun, resume: bool) -> Child:
    make_directory(run.directory)
    write_request(run.directory / REQUEST_NAME, run.request)
    with (run.directory / OUTPUT_NAME).open("wb") as errors:
        process = subprocess.Popen(
            run.command(resume),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            start_new_session=True,  # Ctrl-C reaches us, and we end the runs in order
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )
    return Child(run, process, PropertiesTail(run.directory / run.properties))


@contextlib.contextmanager
def _ended(going: list[Child], ending: threading.Event) -> Iterator[None]:
    """Leave no run behind, whatever signals come meanwhile."""
    try:
        yield
    finally:
        ending.set()
        for child in going:
            child.process.terminate()
        for child in going:
            try:
                child.process.wait(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                child.process.kill()


def _say(line: ProgressLine | None, text: str) -> None:
    if line:
        line.clear()
        click.echo(text, err=True)


def _outcome(run: SweepRun, refused: Sequence[SweepRun] = ()) -> str:
    record = read_record(run.directory)
    if record is None or record.status == "running" or run in refused:
        return f"failed: {_last_error(run)}"
    reason = f": {record.reason}" if record.reason else ""
    return f"{record.status} at step {record.step}{reason}"


def _last_error(run: SweepRun) -> str:
    with contextlib.suppress(OSError):
        text = (run.directory / OUTPUT_NAME).read_text(encoding="utf-8", errors="replace")
        if text.strip():
            return text.strip().splitlines()[-1].removeprefix("deltaserver: ")
    return f"see {run.directory}"


def _report(runs: Sequence[SweepRun], refused: Sequence[SweepRun]) -> None:
    records: dict[str, RunRecord | None] = {
        run.name: None if run in refused else read_record(run.directory) for run in runs
    }
    blown = [n for n, record in records.items() if record and record.status == "blown up"]
    failed = [r for r in runs if _status(records[r.name]) not in PASSED_OVER]
    texts = []
    if blown:
        texts.append(f"blown up: {', '.join(blown)}")
    if failed:
        texts += [f"{run.name}: {_outcome(run, refused)}" for run in failed]
    if not texts:
        return
    error: type[DeltaserverError] = GuardError if blown else ConnectionLostError
    if not blown and all(_status(records[run.name]) == "stopped" for run in failed):
        error = EndedEarlyError
    if not blown and all(records[run.name] is None for run in failed):
        error = InputError
    raise error("; ".join(texts))


def _status(record: RunRecord | None) -> str:
    return record.status if record else "failed"
