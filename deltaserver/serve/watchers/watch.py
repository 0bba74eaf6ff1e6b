"""How the daemon is, and who is told: a health file, metrics, systemd."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import Protocol

from deltaserver.errors import NoveltyError
from deltaserver.serve.answer import Structure
from deltaserver.serve.telemetry import configured


class Condition(Enum):
    """What the daemon is doing."""

    CONNECTING = "connecting"  # to a server that was not there yet
    SERVING = "serving"
    RECONNECTING = "reconnecting"  # to a server that was there
    LEARNING = "learning"  # what it did not know, to serve it then
    STOPPED = "stopped"
    FAILED = "failed"


ENDED = (Condition.STOPPED, Condition.FAILED)


@dataclass
class Vitals:
    """The daemon's condition and counts. The daemon changes them; watchers only read."""

    condition: Condition = Condition.CONNECTING
    n_structures: int = 0
    n_connected: int = 0
    n_reconnects: int = 0
    n_log_lines_lost: int = 0
    last_step_unix_s: float | None = None
    last_energy_ev: float | None = None
    novelty: dict[str, float] = field(default_factory=dict)  # of the last structure, by component
    uncertainty_ev_per_ang: dict[str, float] = field(default_factory=dict)  # likewise
    error: str | None = None
    last_binding_energy_ev: float | None = None


class Watcher(Protocol):
    """Something that is told how the daemon is."""

    def step(self, structures: Sequence[Structure], wall_ms: float, component: str) -> None:
        """Hear that a request was answered."""

    def tick(self, vitals: Vitals, now: float) -> None:
        """Hear that time has passed, or something has changed; ``now`` in s, monotonic."""

    def due(self, now: float) -> float | None:
        """Return in how many s the next tick is needed, None for never."""

    def reloaded(self) -> None:
        """Hear that SIGHUP came and the log was reopened."""

    def close(self) -> None:
        """Hear that the daemon has ended."""


class Watch:
    """Tells all watchers; as a context manager also how it ended."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self.watchers = watchers
        self.vitals = Vitals()

    def step(self, structures: Sequence[Structure], wall_ms: float, component: str) -> None:
        """Take over one answered request."""
        last = structures[-1]
        self.vitals.n_structures += len(structures)
        self.vitals.last_energy_ev = last.energy_ev
        self.vitals.last_binding_energy_ev = last.binding_energy_ev
        self.vitals.last_step_unix_s = time.time()
        self.vitals.novelty = dict(last.novelty)
        self.vitals.uncertainty_ev_per_ang = dict(last.uncertainty_ev_per_ang)
        for watcher in self.watchers:
            watcher.step(structures, wall_ms, component)

    def tick(self, condition: Condition) -> None:
        """Tell how we are."""
        if not self.watchers:
            return
        self.vitals.condition = condition
        if (writer := configured()) and writer.file:
            self.vitals.n_log_lines_lost = writer.file.n_lost
        now = time.monotonic()
        for watcher in self.watchers:
            watcher.tick(self.vitals, now)

    def due(self) -> list[float]:
        """Return when ticks are needed, in s from now."""
        now = time.monotonic()
        return [due for watcher in self.watchers if (due := watcher.due(now)) is not None]

    def reloaded(self) -> None:
        """Tell that the log was reopened."""
        for watcher in self.watchers:
            watcher.reloaded()

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.vitals.n_connected = 0
        if error:
            self.vitals.error = " ".join(str(error).split()) or type(error).__name__
        ended = Condition.FAILED if error else Condition.STOPPED
        if isinstance(error, NoveltyError) and error.way is not None:
            ended = Condition.LEARNING
        self.tick(ended)
        for watcher in self.watchers:
            watcher.close()
