"""What the daemon tells: JSON lines in a file, short lines on the terminal.

Events go through structlog with units in their field names; tests assert on captured events.
The event ``step`` goes to the file; on the terminal one status line stands for all steps.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TextIO

import structlog

from deltaserver.errors import InputError
from deltaserver.serve.answer import Contribution, Structure

STATUS_EVERY_S = 0.2
PLAIN_STATUS_FIRST_S, PLAIN_STATUS_LAST_S = 1.0, 60.0  # ever rarer: a batch log stays short
WHOLE_MODEL_PARTS = ("binding", "full")


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

    def __init__(self, log_every: int, status: StatusLine | None) -> None:
        self.log_every = log_every
        self.status = status
        self.n_structures = 0
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
        if "binding" in last.contributions:
            text += f"  binding {last.contributions['binding'].energy_ev:+.4f} eV"
        if self.in_place:
            self.stream.write("\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            self.stream.write(text + "\n")
            self._every_s = min(2 * self._every_s, PLAIN_STATUS_LAST_S)
        self.stream.flush()

    def clear(self) -> None:
        """Make room for another line."""
        if self.in_place and self._width:
            self.stream.write("\r" + " " * self._width + "\r")
            self._width = 0


class EventWriter:
    """The last structlog processor: routes events to the log file and the terminal."""

    def __init__(
        self, file: TextIO | None, terminal: TextIO | None, status: StatusLine | None
    ) -> None:
        self.file = file
        self.terminal = terminal
        self.status = status

    def __call__(
        self, logger: Any, method: str, event: MutableMapping[str, Any]
    ) -> Mapping[str, Any]:
        """Write one event and stop structlog from printing it itself."""
        if self.file:
            record = {"event": event["event"], "level": method, "timestamp": _now()}
            self.file.write(json.dumps(record | dict(event), default=str) + "\n")
        if self.terminal and event["event"] != "step":
            if self.status:
                self.status.clear()
            self.terminal.write(_one_line(event) + "\n")
            self.terminal.flush()
        raise structlog.DropEvent


def configure(
    log_file: Path | None, *, quiet: bool = False, terminal: TextIO | None = None
) -> StatusLine | None:
    """Set up structlog for a run; return the status line to update, None when ``quiet``.

    Raises:
        InputError: the log file cannot be written.
    """
    terminal = terminal or sys.stderr
    status = None if quiet else StatusLine(terminal)
    writer = EventWriter(
        _open_log(log_file) if log_file else None, None if quiet else terminal, status
    )
    structlog.configure(processors=[writer], cache_logger_on_first_use=False)
    return status


def _open_log(path: Path) -> TextIO:
    try:
        # Line-buffered: what was logged survives a kill.
        return path.open("a", buffering=1, encoding="utf-8")
    except OSError as error:
        raise InputError(f"--log-file {path}: {(error.strerror or str(error)).lower()}") from error


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def _one_line(event: Mapping[str, Any]) -> str:
    fields = "  ".join(f"{key}={value}" for key, value in event.items() if key != "event")
    return f"{datetime.now():%H:%M:%S}  {event['event']:<12}  {fields}".rstrip()
