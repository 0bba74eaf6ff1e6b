"""What is looked at while a run goes on."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.model.force_field import ForceField
from deltaserver.serve.answer import Request, Structure
from deltaserver.serve.telemetry import StepTimes, words_of
from deltaserver.simulate.blowup import DriftWatch, GeometryWatch, Limits
from deltaserver.simulate.ipi.input import IpiInput
from deltaserver.simulate.progress import UPDATE_EVERY_S, Progress, ProgressLine, PropertiesTail

SAME_PLACE_ANG = 1e-9  # contracted ring polymers differ by rounding


class Monitor:
    """What is looked at between two structures: their geometry, and what i-PI has written.

    Where an input does more than move in time, trial steps may look like anything: their geometry
    is not judged, nor is a conserved quantity that is none.
    """

    def __init__(
        self,
        ipi_input: IpiInput,
        directory: Path,
        model: ForceField,
        limits: Limits,
        line: ProgressLine | None,
    ) -> None:
        self.geometry = GeometryWatch.of(model, limits) if ipi_input.dynamics else None
        names, steps = ipi_input.outputs(ipi_input.properties), ipi_input.properties_steps
        self.tails = [PropertiesTail(directory / name, steps) for name in names]
        self.drifts = [
            DriftWatch(model.n_atoms, limits) if ipi_input.conserved else None for _ in names
        ]
        self.progress = Progress(ipi_input.total_steps)
        self.line = line
        self.first_round: FirstRound | None = None
        self.last_positions: Floats | None = None
        self.last_cell: Floats | None = None
        self.n_seen = 0  # requests
        self._looked_at = 0.0
        self._newest: Structure | None = None

    def __call__(self, request: Request) -> None:
        """Take in a request's structures; raise BlowUpError where the run has blown up."""
        positions, cells = request.positions, request.cells
        self.last_positions, self.last_cell = positions[-1], cells[-1]
        self.n_seen += 1
        if self.first_round:
            self.first_round.add(positions, len(positions) - request.n_padding)
        if self.geometry:
            self.geometry.check(positions, cells)
        if time.monotonic() - self._looked_at >= UPDATE_EVERY_S:
            self.look()

    def update(self, n_structures: int, last: Structure, times: StepTimes) -> None:
        """Take in the newest structure's result: binding energy, novelty, uncertainty."""
        self._newest = last

    def look(self, final: bool = False) -> None:
        """Read what i-PI has written since the last look, and show it."""
        self._looked_at = time.monotonic()
        for k, (tail, drift) in enumerate(zip(self.tails, self.drifts, strict=True)):
            points = tail.read()
            if k == 0:
                self.progress.add(points)
            for point in points:
                if drift and point.conserved_ev is not None:
                    drift.check(point.step, point.conserved_ev)
        if self.line and self.progress.point:
            self.progress.words = words_of(self._newest) if self._newest else []
            self.line.follow([("", self.progress)], now=final)

    @property
    def step(self) -> int:
        """The last step that i-PI has written."""
        return max((tail.last.step for tail in self.tails if tail.last), default=0)


class FirstRound:
    """Counts the structures of the first evaluation, where beads may all be at the same place.

    Equal structures at the end of a batch are served, and counted, as one: the first round then
    has fewer structures than a step. ``on_missing`` hears how many fewer, if any.
    """

    def __init__(self, per_step: int, on_missing: Callable[[int], None]) -> None:
        self.per_step = per_step
        self.on_missing = on_missing
        self._first: Floats | None = None
        self._n_sent = self._n_counted = 0
        self._over = False

    def add(self, positions: Floats, n_counted: int) -> None:
        """Take in a request's structures, (B, N, 3), Å, and how many of them are counted."""
        if self._over:
            return
        if self._first is None:
            self._first = positions[0].copy()
        if np.allclose(positions, self._first, rtol=0.0, atol=SAME_PLACE_ANG):
            self._n_sent += len(positions)
            self._n_counted += n_counted
            return
        self._over = True
        if self._n_counted < self.per_step <= self._n_sent:
            self.on_missing(self.per_step - self._n_counted)
