"""The file that i-PI loads to have a Δ model in its own process, without a socket.

    <ffdirect name="delta">
      <pes>custom</pes> <pes_path>…/deltaserver/ipi_pes.py</pes_path>
      <parameters>{models:/path/of/models/c60}</parameters>
    </ffdirect>

``deltaserver pes-path`` prints where it is. i-PI reads its first two names without running it, so
that they are literals; it makes an object of the class with ``<parameters>``, and calls that with
cells and positions in atomic units.
"""

from __future__ import annotations

import atexit
import os
import sys
from typing import Any, NoReturn

import numpy as np
from ipi.pes.dummy import Dummy_driver
from ipi.utils.softexit import softexit

from deltaserver.arrays import Floats
from deltaserver.errors import DeltaserverError
from deltaserver.serve.answer import Inspect, Request
from deltaserver.serve.plugin.session import Session
from deltaserver.serve.plugin.settings import parse_settings
from deltaserver.simulate.blowup import GeometryWatch, Limits

__DRIVER_NAME__ = "deltaserver"
__DRIVER_CLASS__ = "DeltaDriver"

CLEANUP_S = 10.0  # how long i-PI may take to write its state
Result = tuple[float, Floats, Floats, str]


class DeltaDriver(Dummy_driver):  # type: ignore[misc]
    """Energies, forces, virials and extras of a Δ model; see ``docs/serving.md`` for parameters.

    What the daemon refuses is refused here too: i-PI writes its state and ends with the exit code
    that the daemon would have.
    """

    def __init__(self, **parameters: Any) -> None:
        self.parameters = parameters
        try:
            self.check_parameters()
        except DeltaserverError as error:
            _say(error)
            raise SystemExit(error.exit_code) from None
        _flush_short_batches(sys._getframe(1).f_locals.get("self"))

    def check_parameters(self) -> None:
        """Read the parameters and load the model.

        Raises:
            InputError: something cannot be used.
        """
        settings = parse_settings(self.parameters)
        self.session = Session(settings)
        if settings.max_stretch or settings.max_separation:
            limits = Limits(
                settings.max_stretch or np.inf, settings.max_separation or np.inf, np.inf
            )
            self.session.inspect = _geometry_watch(self.session, limits)

    def compute(
        self, cell: Floats | list[Floats], pos: Floats | list[Floats]
    ) -> Result | list[Result]:
        """Evaluate one structure, or a list of structures together.

        Args:
            cell: Bohr, lattice vectors in columns, shape (3, 3).
            pos: Bohr, shape (N, 3).

        Returns:
            energy (Hartree), forces (Hartree/Bohr), virial (Hartree), extras (JSON), for each.
        """
        if isinstance(pos, list):
            return self._evaluate(cell, pos)
        return self._evaluate([cell], [pos])[0]

    def _evaluate(self, cells: Any, positions: Any) -> list[Result]:
        try:
            found = self.session(np.stack(cells), np.stack(positions))
        except DeltaserverError as error:
            _end_run(error)
        energies = found.energies.tolist()
        return list(zip(energies, found.forces, found.virials, found.extras, strict=True))


def _geometry_watch(session: Session, limits: Limits) -> Inspect:
    watch = GeometryWatch.of(session.model, limits)

    def inspect(request: Request) -> None:
        watch.check(request.positions, request.cells)

    return inspect


def _flush_short_batches(forcefield: Any) -> None:
    """Keep i-PI from waiting for ever for a batch that is not full.

    It does so where a step's structures are no multiple of ``batch_size``, unless the ffdirect is
    ``threaded``: then it evaluates what it has once nothing more comes. i-PI asks for that when
    it starts, after the driver is made.
    """
    if getattr(forcefield, "batch_size", 1) > 1 and not getattr(forcefield, "threaded", True):
        forcefield.threaded = True


def _say(error: DeltaserverError) -> None:
    print(f"deltaserver: {' '.join(str(error).split())}", file=sys.stderr, flush=True)


def _end_run(error: DeltaserverError) -> NoReturn:
    """Have i-PI write its state and outputs, then end it, whichever of its threads this is.

    Its main thread may see that a soft exit was asked for and end before we do, with code 0.
    """
    _say(error)
    atexit.register(_leave, error.exit_code, CLEANUP_S)
    softexit.cleanup("bad", f"deltaserver: {' '.join(str(error).split())}.")
    _leave(error.exit_code)


def _leave(code: int, patience_s: float = 0.0) -> NoReturn:
    """End the process; another thread that cleans up holds the lock until it has done so."""
    softexit.lock.acquire(timeout=patience_s)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
