"""Progress where there is no terminal: a line a minute, as a batch job's log wants it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

EVERY_S = 60.0


@dataclass
class MinuteLines:
    """Tells how far something is, at most once a minute.

    Attributes:
        write: prints a line.
        clock: seconds.
    """

    write: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _of_what: str = ""
    _began: tuple[float, float] = (0.0, 0.0)  # when, and at what fraction
    _fraction: float = 0.0
    _told: float = 0.0

    def progress(self, what: str, fraction: float) -> None:
        """Take in that ``fraction`` of ``what`` is done; tell it if the last line is old."""
        now, of_what = self.clock(), what.split(maxsplit=1)[0]
        # The words change as work goes on; it is other work whose fraction falls.
        if of_what != self._of_what or fraction < self._fraction:
            self._of_what, self._began = of_what, (now, fraction)
            self._told = self._told or now
        self._fraction = fraction
        if now - self._told < EVERY_S:
            return
        self._told = now
        began, first = self._began
        left = ""
        if first < fraction < 1.0:
            left = f", {(now - began) * (1.0 - fraction) / (fraction - first) / 60.0:.0f} min left"
        self.write(f"{what}: {100.0 * fraction:.0f} %{left}")


@dataclass
class TaskLines:
    """What rich's progress bar is to the commands that sample and label, without a terminal."""

    lines: MinuteLines
    _tasks: list[dict[str, Any]] = field(default_factory=list)

    def __enter__(self) -> TaskLines:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is to be cleared."""

    def add_task(self, description: str, total: float | None = None, completed: float = 0) -> int:
        """Begin a task; return its number."""
        self._tasks.append({"description": description, "total": total, "completed": completed})
        return len(self._tasks) - 1

    def update(
        self,
        task: int,
        total: float | None = None,
        completed: float | None = None,
        advance: float = 0,
        description: str | None = None,
    ) -> None:
        """Take in how far a task is."""
        state = self._tasks[task]
        given = {"total": total, "completed": completed, "description": description}
        state.update({key: value for key, value in given.items() if value is not None})
        state["completed"] += advance
        total_now = state["total"]
        what = str(state["description"])
        if total_now:
            self.lines.progress(f"{what} of {total_now:.0f}", state["completed"] / total_now)

    def stop(self) -> None:
        """End; nothing is to be cleared."""
