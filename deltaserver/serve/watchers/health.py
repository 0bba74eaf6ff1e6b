"""A small JSON file that tells how the daemon is; whoever reads it sees a whole one."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import structlog

import deltaserver
from deltaserver.errors import InputError
from deltaserver.serve.answer import Structure
from deltaserver.serve.logfile import now as utc_now
from deltaserver.serve.logfile import reason
from deltaserver.serve.watchers.watch import Condition, Vitals
from deltaserver.textio.journal import write_atomically

AT_MOST_EVERY_S = 1.0
AT_LEAST_EVERY_S = 10.0  # a file older than a few of these means that the daemon hangs


class HealthFile:
    """Keeps a health file up to date: at once when the condition changes, else now and then.

    Raises:
        InputError: the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started = utc_now()
        self._written_at: float | None = None
        self._condition: Condition | None = None
        self._failing = False
        try:
            self._replace({"state": "starting"})
        except OSError as error:
            raise InputError(f"--health-file {path}: {reason(error)}") from error

    def step(self, structures: Sequence[Structure], wall_ms: float, component: str) -> None:
        """Wait for the next tick."""

    def tick(self, vitals: Vitals, now: float) -> None:
        """Write the file if it is time."""
        changed = self._written_at is None or vitals.condition is not self._condition
        if not changed and now - (self._written_at or 0.0) < AT_MOST_EVERY_S:
            return
        self._written_at, self._condition = now, vitals.condition
        try:
            self._replace(_fields(vitals))
            self._failing = False
        except OSError as error:
            if not self._failing:
                structlog.get_logger().warning(
                    "warning", message=f"the health file {self.path}: {reason(error)}"
                )
            self._failing = True

    def due(self, now: float) -> float | None:
        """Return when the file would be too old."""
        return (
            AT_LEAST_EVERY_S
            if self._written_at is None
            else (max(0.0, self._written_at + AT_LEAST_EVERY_S - now))
        )

    def reloaded(self) -> None:
        """Nothing changes."""

    def close(self) -> None:
        """The last state stays to be read."""

    def _replace(self, fields: dict[str, Any]) -> None:
        """Write a file beside it, then take its place: no reader sees half of it."""
        fields = fields | {
            "time": utc_now(),
            "started": self._started,
            "pid": os.getpid(),
            "version": deltaserver.__version__,
        }
        # What it tells is worth nothing after a power cut: a run need not wait for the disk.
        write_atomically(self.path, f"{json.dumps(fields)}\n".encode("ascii"), durable=False)


def _fields(vitals: Vitals) -> dict[str, Any]:
    last = vitals.last_step_unix_s
    return {
        "state": vitals.condition.value,
        "structures": vitals.n_structures,
        "last_step": last and datetime.fromtimestamp(last, timezone.utc).isoformat(),
        "last_energy_ev": vitals.last_energy_ev,
        "last_binding_energy_ev": vitals.last_binding_energy_ev,
        "novelty": vitals.novelty,
        **(
            {"uncertainty_ev_per_ang": vitals.uncertainty_ev_per_ang}
            if vitals.uncertainty_ev_per_ang
            else {}
        ),
        "connections": vitals.n_connected,
        "reconnects": vitals.n_reconnects,
        "log_lines_lost": vitals.n_log_lines_lost,
        "error": vitals.error,
    }
