"""What the daemon tells: JSON lines in a file, short lines on the terminal.

Events go through structlog with units in their field names; tests assert on captured events.
The event ``step`` goes to the file; on the terminal one status line stands for all steps.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TextIO

import structlog

from deltaserver.model.manifest import BOUND_PARTS, WHOLE_MODEL_PARTS
from deltaserver.serve.answer import Contribution, Structure
from deltaserver.serve.logfile import LogFile, Rotation, now

STATUS_EVERY_S = 0.2
PLAIN_STATUS_FIRST_S, PLAIN_STATUS_LAST_S = 1.0, 60.0  # ever rarer: a batch log stays short
HEADER_EVENT = "loaded"  # what every file begins with: the model and its version


@dataclass(frozen=True)
class StepTimes:
    """How long one request took, in ms: receiving it, evaluating it, sending the reply."""

    receive_ms: float
    evaluate_ms: float
    send_ms: float

    @property
    def wall_ms(self) -> float:
        """From the request's first byte to the reply's last."""
        return self.receive_ms + self.evaluate_ms + self.send_ms


@dataclass(frozen=True)
class Origin:
    """Which connection a structure came through."""

    address: str
    component: str


class StepLog:
    """Numbers the structures served and reports them: file, status line, both or none."""

    def __init__(self, log_every: int, status: StatusLine | None, first_seq: int = 0) -> None:
        self.log_every = log_every
        self.status = status
        self.n_structures = first_seq  # of a run that is continued: not 0
        self._log = structlog.get_logger()

    def record(self, structures: tuple[Structure, ...], times: StepTimes, origin: Origin) -> None:
        """Report the structures of one request."""
        for structure in structures:
            if self.n_structures % self.log_every == 0:
                self._log.info("step", **self._fields(structure, times, origin, len(structures)))
            self.n_structures += 1
        if self.status:
            self.status.update(self.n_structures, structures[-1], times)

    def _fields(
        self, structure: Structure, times: StepTimes, origin: Origin, n_batch: int
    ) -> dict[str, Any]:
        fields: dict[str, Any] = {
            "seq": self.n_structures,
            "energy_ev": structure.energy_ev,
            "fragments": {},
        }
        for name, part in structure.contributions.items():
            target = fields if name in WHOLE_MODEL_PARTS else fields["fragments"]
            target[name] = _as_fields(part)
        if structure.novelty:
            fields["novelty"] = dict(structure.novelty)
        return fields | {
            "component": origin.component,
            "connection": origin.address,
            "batch": n_batch,
            "wall_ms": round(times.wall_ms, 4),
            "receive_ms": round(times.receive_ms, 4),
            "evaluate_ms": round(times.evaluate_ms, 4),
            "send_ms": round(times.send_ms, 4),
        }


def _as_fields(part: Contribution) -> dict[str, float]:
    return {"energy_ev": part.energy_ev, "force_rms_ev_per_ang": part.force_rms_ev_per_ang}


class StatusLine:
    """One line that follows the run: rewritten in place on a terminal, now and then elsewhere."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self.stream = stream
        self.clock = clock
        self.in_place = stream.isatty()
        self.expected: int | None = None  # structures in the whole run, where that is known
        self._every_s = STATUS_EVERY_S if self.in_place else PLAIN_STATUS_FIRST_S
        self._shown_at = clock()
        self._shown_steps = 0
        self._width = 0

    def update(self, n_structures: int, last: Structure, times: StepTimes) -> None:
        """Show the newest structure if the last showing is long enough ago."""
        now = self.clock()
        elapsed = now - self._shown_at
        if elapsed < self._every_s:
            return
        rate = (n_structures - self._shown_steps) / elapsed
        self._shown_at, self._shown_steps = now, n_structures
        of_all = f"/{self.expected}" if self.expected else ""
        text = f"step {n_structures}{of_all}  {rate:.1f} steps/s"
        text += f"  {times.evaluate_ms:.2f} ms evaluation  E = {last.energy_ev:.4f} eV"
        between = [last.contributions[k] for k in BOUND_PARTS if k in last.contributions]
        if between:
            text += f"  binding {sum(part.energy_ev for part in between):+.4f} eV"
        if self.in_place:
            show(self.stream, "\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            show(self.stream, text + "\n")
            self._every_s = min(2 * self._every_s, PLAIN_STATUS_LAST_S)

    def clear(self) -> None:
        """Make room for another line."""
        if self.in_place and self._width:
            show(self.stream, "\r" + " " * self._width + "\r")
            self._width = 0


class Clearable(Protocol):
    """A status line that can make room for another line."""

    def clear(self) -> None:
        """Make room."""


class EventWriter:
    """The last structlog processor: routes events to the log file and the terminal."""

    def __init__(
        self, file: LogFile | None, terminal: TextIO | None, status: Clearable | None
    ) -> None:
        self.file = file
        self.terminal = terminal
        self.status = status

    def __call__(
        self, logger: Any, method: str, event: MutableMapping[str, Any]
    ) -> Mapping[str, Any]:
        """Write one event and stop structlog from printing it itself."""
        if self.file:
            self._to_file(self.file, method, event)
        if event["event"] != "step":
            self._to_terminal(event)
        raise structlog.DropEvent

    def _to_file(self, file: LogFile, method: str, event: Mapping[str, Any]) -> None:
        """Write one line; tell once when that stops to work, and once when it works again."""
        before = file.problem
        record = {"event": event["event"], "level": method, "timestamp": now()}
        file.write(record | dict(event), header=event["event"] == HEADER_EVENT)
        if file.problem and not before:
            self._to_terminal(
                {
                    "event": "warning",
                    "message": f"the log {file.path} cannot be written ({file.problem}); "
                    "the run goes on without it",
                }
            )
        elif before and not file.problem:
            self._to_terminal({"event": "log written again", "file": file.path})

    def _to_terminal(self, event: Mapping[str, Any]) -> None:
        if self.terminal:
            if self.status:
                self.status.clear()
            show(self.terminal, _one_line(event) + "\n")

    def reopen(self) -> None:
        """Open the log file by its name again."""
        if self.file and (problem := self.file.reopen()):
            self._to_terminal(
                {"event": "warning", "message": f"{self.file.path} cannot be reopened: {problem}"}
            )


def configure(
    log_file: Path | None,
    *,
    quiet: bool = False,
    terminal: TextIO | None = None,
    rotation: Rotation | None = None,
    other_status: Clearable | None = None,
) -> StatusLine | None:
    """Set up structlog for a run; return the status line to update, None when ``quiet``.

    Where another status line is shown instead, it is cleared before every event.

    Raises:
        InputError: the log file cannot be written.
    """
    terminal = terminal or sys.stderr
    status = None if quiet or other_status else StatusLine(terminal)
    file = LogFile(log_file, rotation) if log_file else None
    writer = EventWriter(file, None if quiet else terminal, other_status or status)
    structlog.configure(processors=[writer], cache_logger_on_first_use=False)
    return status


def configured() -> EventWriter | None:
    """Return what :func:`configure` has set up, None if it was not called."""
    for processor in structlog.get_config()["processors"]:
        if isinstance(processor, EventWriter):
            return processor
    return None


def show(stream: TextIO, text: str) -> None:
    """Write to a terminal that may be gone: a run does not end because nobody looks."""
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        # What is left in the stream's buffer must go somewhere, or Python ends with code 120.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _one_line(event: Mapping[str, Any]) -> str:
    fields = "  ".join(f"{key}={value}" for key, value in event.items() if key != "event")
    return f"{datetime.now():%H:%M:%S}  {event['event']:<12}  {fields}".rstrip()
