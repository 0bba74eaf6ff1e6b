"""A run whose model i-PI evaluates itself: what its plug-in is told, and how it is watched."""

from __future__ import annotations

import contextlib
import json
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver import errors
from deltaserver.errors import GuardError, InputError
from deltaserver.serve.plugin.session import REFUSED
from deltaserver.simulate.blowup import BlowUpError
from deltaserver.simulate.ipi.input import IpiInput
from deltaserver.simulate.ipi.plugin import plugins, read_parameters, write_parameters
from deltaserver.simulate.ipi.process import IpiProcess
from deltaserver.simulate.monitor import Monitor
from deltaserver.simulate.progress import UPDATE_EVERY_S
from deltaserver.simulate.record import RunRecord
from deltaserver.simulate.request import RunOptions


@dataclass(frozen=True)
class PluginTold:
    """What a run tells the plug-ins of its input.

    What stands in their own ``<parameters>`` stays, but for log, numbers and models.
    """

    record: RunRecord
    options: RunOptions
    log_file: Path
    log_every: int
    first_seq: int
    resumed: bool

    def tell(self, ipi_input: IpiInput) -> IpiInput:
        """Return the input with the plug-ins told.

        Raises:
            InputError: they evaluate another model than the run's.
        """
        root = ElementTree.fromstring(ipi_input.text)
        models = self.record.models
        for node in plugins(root):
            other = read_parameters(node).get("models", models)
            if Path(other).resolve() != Path(models):
                raise InputError(
                    f"{ipi_input.path}: its plug-in evaluates {other}, --models is {models}; "
                    "give the same"
                )
        told: dict[str, object] = {
            "models": models,
            "log_file": self.log_file.resolve(),
            "log_every": self.log_every,
            "first_seq": self.first_seq,
        }
        if self.resumed:
            told["continues"] = True
        write_parameters(root, self._defaults(ipi_input.dynamics), told)
        return replace(ipi_input, text=ElementTree.tostring(root, encoding="unicode"))

    def _defaults(self, dynamics: bool) -> dict[str, object]:
        record, guard, limits = self.record, self.options.guard, self.options.limits
        values: dict[str, object | None] = {
            "component": record.component,
            "extras": record.extras,
            "device": record.device,
            "threads": record.threads,
            "storage": record.storage,
            "structure_check": guard.structure_check,
            "on_extrapolation": guard.extrapolation,
            "novelty_limit": guard.novelty_limit,
            "uncertainty_limit": guard.uncertainty_limit,
            "max_stretch": limits.stretch if dynamics else None,
            "max_separation": limits.separation_ang if dynamics else None,
        }
        return {key: value for key, value in values.items() if value is not None}


class Watched:
    """A run seen from outside i-PI: by what it writes, and by what its plug-in logs."""

    def __init__(self, log: Path, first_seq: int) -> None:
        self.log = log
        self.first_seq = first_seq
        self._start = log.stat().st_size if log.exists() else 0

    def follow(self, ipi: IpiProcess, monitor: Monitor) -> None:
        """Watch i-PI to its end.

        Raises:
            BlowUpError: the conserved quantity is not conserved.
            DeltaserverError: what the plug-in has refused.
        """
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                ipi.wait(UPDATE_EVERY_S)
                break
            self._look(monitor)
        for event in self._refusals():
            monitor.n_seen = event["structures"] - self.first_seq + 1
            monitor.last_positions = np.array(event["positions_ang"])
            monitor.last_cell = np.array(event["cell_ang"])
            raise _error(event)

    def _look(self, monitor: Monitor) -> None:
        try:
            monitor.look()
        except BlowUpError:
            monitor.n_seen = monitor.step + 1  # that it ran is known by what it has written
            raise

    def _refusals(self) -> Iterator[dict[str, Any]]:
        """Yield what the plug-in has refused; of the log's other lines nothing is made."""
        with self.log.open("rb") as file:
            file.seek(self._start)
            for line in file:
                if REFUSED.encode() not in line:
                    continue
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    if event["event"] == REFUSED:
                        yield event


def _error(event: dict[str, Any]) -> errors.DeltaserverError:
    """Return the error that the plug-in had."""
    if event["kind"] == BlowUpError.__name__:
        return BlowUpError(event["message"])
    kind = getattr(errors, event["kind"], GuardError)
    found: errors.DeltaserverError = kind(event["message"])
    return found
