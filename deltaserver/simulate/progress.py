"""Follow a run by what i-PI writes: step, time, temperature, conserved quantity, time left."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import structlog

from deltaserver.errors import UnitError
from deltaserver.status_line import StatusLine
from deltaserver.textio.columns import Column, parse_column, take
from deltaserver.units import PS_FS

UPDATE_EVERY_S = 0.5
PLAIN_S = (5.0, 300.0)
BAR_WIDTH = 20


@dataclass(frozen=True)
class Point:
    """One line of i-PI's properties; what it does not say is None."""

    step: int
    time_ps: float | None
    temperature_k: float | None
    conserved_ev: float | None


class PropertiesTail:
    """Reads what has been added to an i-PI properties file since the last look.

    Lines without a step are counted: ``steps`` holds the first one's and the stride.
    """

    def __init__(self, path: Path, steps: tuple[int, int] | None = None) -> None:
        self.path = path
        self.steps = steps
        self.last: Point | None = None
        self._offset = 0
        self._n_lines = 0
        self._columns: dict[str, Column] = {}
        self._factors: dict[str, float | None] = {}

    def read(self) -> list[Point]:
        """Return the new points; a line that is not whole yet waits for the next look."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, 2) < self._offset:
                    self._offset = self._n_lines = 0  # another run has begun
                file.seek(self._offset)
                data = file.read()
        except OSError:
            return []
        whole = data.rfind(b"\n") + 1
        self._offset += whole
        points = []
        for line in data[:whole].decode("utf-8", "replace").splitlines():
            if column := parse_column(line):
                take(self._columns, column)
            elif (point := self._parse(line)) is not None:
                points.append(point)
        self.last = points[-1] if points else self.last
        return points

    def _parse(self, line: str) -> Point | None:
        try:
            values = [float(word) for word in line.split()]
            step = self._step(values)
            conserved = self._value(values, "conserved", "energy")
            time_fs = self._value(values, "time", "time")
            kelvin = self._value(values, "temperature", "temperature")
        except (ValueError, IndexError):
            return None
        time_ps = None if time_fs is None else time_fs / PS_FS
        return None if step is None else Point(int(step), time_ps, kelvin, conserved)

    def _step(self, values: Sequence[float]) -> float | None:
        if "step" in self._columns or self.steps is None or not values:
            return self._value(values, "step")
        first, stride = self.steps
        self._n_lines += 1
        return first + (self._n_lines - 1) * stride

    def _value(self, values: Sequence[float], name: str, kind: str = "") -> float | None:
        column = self._columns.get(name)
        if column is None:
            return None
        if name not in self._factors:
            self._factors[name] = self._factor(column, kind) if kind else 1.0
        factor = self._factors[name]
        return None if factor is None else values[column.index] * factor

    def _factor(self, column: Column, kind: str) -> float | None:
        try:
            return column.factor(kind)
        except UnitError as error:
            reason = str(error)
            structlog.get_logger().warning("a property is not followed", reason=reason)
            return None


class Progress:
    """Turns points into a line: step, ps, K, conserved quantity, steps/s, time left."""

    def __init__(self, total: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self.total = total
        self.clock = clock
        self.first_conserved_ev: float | None = None
        self._began: tuple[float, int] | None = None
        self.point: Point | None = None
        self.words: list[str] = []  # of the newest structure: binding energy, novelty, …

    def add(self, points: Sequence[Point]) -> None:
        """Take in new points."""
        for point in points:
            if self.first_conserved_ev is None:
                self.first_conserved_ev = point.conserved_ev
        if points:
            self.point = points[-1]
            if self._began is None:
                self._began = (self.clock(), self.point.step)

    @property
    def steps_per_s(self) -> float:
        """Average since the first look."""
        if self._began is None or self.point is None:
            return 0.0
        began, step = self._began
        elapsed = self.clock() - began
        return (self.point.step - step) / elapsed if elapsed > 0.0 else 0.0

    @property
    def fraction(self) -> float:
        """Of the run that is done; 0 where the number of steps is not known."""
        if self.point is None or not self.total:
            return 0.0
        return min(1.0, self.point.step / self.total)

    def text(self) -> str:
        """Return the line."""
        point = self.point
        if point is None:
            return "starting"
        words = [f"step {point.step}" + (f"/{self.total}" if self.total else "")]
        if point.time_ps is not None:
            words.append(f"{point.time_ps:.2f} ps")
        if point.temperature_k is not None:
            words.append(f"{point.temperature_k:.0f} K")
        if point.conserved_ev is not None and self.first_conserved_ev is not None:
            change = point.conserved_ev - self.first_conserved_ev
            words.append(f"conserved {point.conserved_ev:.4f} eV ({change:+.4f})")
        rate = self.steps_per_s
        if rate > 0.0:
            words.append(f"{rate:.1f} steps/s")
            if self.total:
                words.append(f"{duration((self.total - point.step) / rate)} left")
        return "  ".join([*words, *self.words])


def duration(seconds: float) -> str:
    """Format a duration as 5:07 or 2:05:07."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressLine(StatusLine):
    """Shows one run or several."""

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(stream or sys.stderr, clock, every_s=UPDATE_EVERY_S, plain_s=PLAIN_S)

    def follow(self, runs: Sequence[tuple[str, Progress]], now: bool = False) -> None:
        """Show the runs if the last showing is long enough ago, or ``now``."""
        if not now and not self.due:
            return
        room = shutil.get_terminal_size((100, 24)).columns - 1  # a full line would wrap
        text = "  |  ".join(_with_bar(name, run, len(runs), room) for name, run in runs)[:room]
        self.show(text, [(f"{name}: " if name else "") + run.text() for name, run in runs])


def _with_bar(name: str, run: Progress, n_runs: int, room: int) -> str:
    filled = "#" * int(BAR_WIDTH * run.fraction)
    head = f"{name} " if name else ""
    if n_runs > 1:
        step = f"{run.point.step}/{run.total}" if run.point else "starting"
        return f"{head}{100 * run.fraction:.0f} % ({step})"
    text = head + run.text()
    bar = f"[{filled:<{BAR_WIDTH}}] " if run.total else ""
    return bar + text if len(bar + text) <= room else text
