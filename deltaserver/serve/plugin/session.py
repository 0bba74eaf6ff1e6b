"""The daemon's counterpart in i-PI's process: structures in, results out, the same refusals."""

from __future__ import annotations

import functools
import sys
import time
from pathlib import Path

import structlog

from deltaserver.arrays import Floats
from deltaserver.compute.blas import keep_blas_threads
from deltaserver.errors import EXIT_OK, DeltaserverError
from deltaserver.model.engines import Backend, Precision, Storage
from deltaserver.model.force_field import ForceField
from deltaserver.serve import telemetry
from deltaserver.serve.answer import Examined, Inspect, Request, examine
from deltaserver.serve.guard import ServingGuard
from deltaserver.serve.loading import announce, load_model
from deltaserver.serve.plugin.settings import PluginSettings
from deltaserver.serve.signals import Stopped
from deltaserver.serve.telemetry import Origin, StepLog, StepTimes
from deltaserver.units import BOHR_ANG

PLACE = "plug-in"  # what the log has in the place of a connection's address
REFUSED = "refused"  # the event that ends a run, which a process that watches it looks for


class Session:
    """One ffdirect of i-PI's input; several of one process share models and log.

    ``inspect`` sees every structure before it is evaluated; what it raises ends the run.

    Raises:
        InputError: the settings cannot be used.
    """

    def __init__(self, settings: PluginSettings) -> None:
        self.settings = settings
        self.steps = _steps(settings.log_file, settings.log_every, settings.first_seq)
        self.model = _model(
            settings.models,
            settings.device,
            settings.precision,
            settings.threads,
            settings.storage,
        )
        self.model.check_component(settings.component)
        self.inspect: Inspect | None = None
        self._guard = ServingGuard(self.model, settings.guard)
        self._guard.introduced(self)
        self._origin = Origin(PLACE, settings.component)
        self._log = structlog.get_logger()
        self._log.info("introduced", address=PLACE, component=settings.component)

    def __call__(self, cells: Floats, positions: Floats) -> Examined:
        """Evaluate structures as i-PI has them.

        Args:
            cells: Bohr, lattice vectors in columns, shape (B, 3, 3).
            positions: Bohr, shape (B, N, 3).

        Raises:
            GuardError: a structure is not the model's, or a result cannot be right.
            GeometryError: the number of atoms is not the model's.
        """
        began = time.perf_counter()
        request = Request(BOHR_ANG * positions, BOHR_ANG * cells)
        try:
            found = self._examine(request)
        except DeltaserverError as error:
            self._note(error, request)
            raise
        times = StepTimes(0.0, 1e3 * (time.perf_counter() - began), 0.0)
        self.steps.record(found.structures, times, self._origin)
        return found

    def _examine(self, request: Request) -> Examined:
        settings, guard = self.settings, self._guard
        if self.inspect:
            self.inspect(request)
        guard.before(self, request, settings.component)
        return examine(
            self.model,
            request.positions,
            request.cells,
            settings.component,
            settings.extras,
            guard.after,
        )

    def _note(self, error: DeltaserverError, request: Request) -> None:
        """Log why the run ends, and where."""
        self._log.error(
            REFUSED,
            kind=type(error).__name__,
            message=" ".join(str(error).split()),
            structures=self.steps.n_structures,
            positions_ang=request.positions[-1].tolist(),
            cell_ang=request.cells[-1].tolist(),
        )


@functools.cache
def _steps(log_file: Path | None, log_every: int, first_seq: int) -> StepLog:
    """Open the log; what is no step is told on the terminal too, as the daemon does."""
    telemetry.configure(log_file, status_line=False, terminal=sys.stderr)
    return StepLog(log_every, None, first_seq)


@functools.cache
def _model(
    models: Path,
    device: str | None,
    precision: Precision,
    threads: int | None,
    storage: Storage,
) -> ForceField:
    """Load a model directory, once however many ffdirects serve it."""
    backend: Backend = "torch" if device or precision != "float64" else "numpy"
    try:
        model, notes = load_model(
            models, "total", backend, device or "auto", precision, threads, storage=storage
        )
    except Stopped:  # a signal, by which i-PI ends in order
        sys.exit(EXIT_OK)
    keep_blas_threads(1 if model.compiled else threads or 1)
    announce(model, models, backend, notes)
    return model
