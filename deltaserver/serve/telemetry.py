"""What the daemon tells: JSON lines in a file, short lines on the terminal.

Events go through structlog with units in their field names; tests assert on captured events.
The event ``step`` goes to the file; on the terminal one status line stands for all steps.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TextIO

import structlog

from deltaserver.model.manifest import WHOLE_MODEL_PARTS
from deltaserver.model.trust.uncertainty import TOTAL
from deltaserver.serve.answer import UNCERTAINTY, Contribution, Structure
from deltaserver.serve.logfile import LogFile, Rotation, now
from deltaserver.status_line import StatusLine, show

STATUS_EVERY_S = 0.2
PLAIN_STATUS_S = (1.0, 60.0)
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


class Follower(Protocol):
    """Is shown the newest structure of every request."""

    def update(self, n_structures: int, last: Structure, times: StepTimes) -> None:
        """Hear how many structures have been served, and how the last one was."""


class StepLog:
    """Numbers the structures served and reports them: file, status line, both or none.

    Every ``log_every``-th goes to the file, counted for each component by itself: of parts that
    are served in turn, as in multiple time stepping, one could else be passed over for good.
    """

    def __init__(self, log_every: int, status: Follower | None, first_seq: int = 0) -> None:
        self.log_every = log_every
        self.status = status
        self.n_structures = first_seq  # of a run that is continued: not 0
        self._first_seq, self._of_component = first_seq, dict[str, int]()
        self._log = structlog.get_logger()

    def record(self, structures: tuple[Structure, ...], times: StepTimes, origin: Origin) -> None:
        """Report the structures of one request."""
        count = self._of_component.get(origin.component, self._first_seq)
        for structure in structures:
            if count % self.log_every == 0:
                self._log.info("step", **self._fields(structure, times, origin, len(structures)))
            self.n_structures += 1
            count += 1
        self._of_component[origin.component] = count
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
        if structure.uncertainty_ev_per_ang:
            fields[UNCERTAINTY] = dict(structure.uncertainty_ev_per_ang)
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


class StepLine(StatusLine):
    """Follows a run of the daemon."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(stream, clock, every_s=STATUS_EVERY_S, plain_s=PLAIN_STATUS_S)
        self.expected: int | None = None  # structures in the whole run, where that is known
        self._shown_steps = 0

    def update(self, n_structures: int, last: Structure, times: StepTimes) -> None:
        """Show the newest structure if the last showing is long enough ago."""
        if not self.due:
            return
        rate = (n_structures - self._shown_steps) / self.elapsed_s
        self._shown_steps = n_structures
        of_all = f"/{self.expected}" if self.expected else ""
        text = f"step {n_structures}{of_all}  {rate:.1f} steps/s"
        text += f"  {times.evaluate_ms:.2f} ms evaluation  E = {last.energy_ev:.4f} eV"
        self.show("  ".join([text, *words_of(last)]))


def words_of(structure: Structure) -> list[str]:
    """Say what there is of binding energy, largest novelty and uncertainty, for a status line."""
    words = []
    if structure.binding_energy_ev is not None:
        words.append(f"binding {structure.binding_energy_ev:+.4f} eV")
    if structure.novelty:
        part, value = max(structure.novelty.items(), key=lambda item: item[1])
        words.append(f"novelty {value:.2f} ({part})")
    if (forces := structure.uncertainty_ev_per_ang.get(TOTAL)) is not None:
        words.append(f"forces ± {1e3 * forces:.1f} meV/Å")  # some tenths where a model is sure
    return words


class EventWriter:
    """The last structlog processor: routes events to the log file and the terminal."""

    def __init__(
        self, file: LogFile | None, terminal: TextIO | None, status: StatusLine | None
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
    other_status: StatusLine | None = None,
    status_line: bool = True,
) -> StepLine | None:
    """Set up structlog for a run; return the status line to update, None when ``quiet``.

    Where another status line is shown instead, it is cleared before every event; without
    ``status_line`` there is none.

    Raises:
        InputError: the log file cannot be written.
    """
    terminal = terminal or sys.stderr
    status = StepLine(terminal) if status_line and not (quiet or other_status) else None
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


def _one_line(event: Mapping[str, Any]) -> str:
    fields = "  ".join(f"{key}={value}" for key, value in event.items() if key != "event")
    return f"{datetime.now():%H:%M:%S}  {event['event']:<12}  {fields}".rstrip()
