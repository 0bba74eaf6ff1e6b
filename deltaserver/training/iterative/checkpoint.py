"""An unfinished iteration on disk: whole or not at all, and only taken up for the same problem."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.model.files.archive import read_arrays, write_arrays
from deltaserver.training.iterative.conjugate import State
from deltaserver.training.iterative.plan import Columns

INTERVAL_S = 30.0


@dataclass
class Checkpoint:
    """Where the state of one iteration is kept; None keeps nothing.

    Attributes:
        path: of the file.
        identity: what decides the iteration; a file of another one is not taken up.
        columns: that precondition: the same again, or the digits would not be.
        interval_s: between two writings.
    """

    path: Path | None
    identity: Mapping[str, Any]
    columns: Columns
    interval_s: float = INTERVAL_S
    _written: float = field(default_factory=time.monotonic)

    def read(self) -> State | None:
        """Return the state that was kept of this iteration, None where there is none."""
        if self.path is None or not self.path.exists():
            return None
        try:
            arrays = read_arrays(self.path)
            if json.loads(str(arrays["identity"])) != self._plain_identity():
                return None
            state = State.of(arrays)
            self.columns = Columns(int(arrays["points"]), bool(arrays["single"]))
        except Exception:  # damaged: a dozen kinds of errors, and nothing lost but time
            return None
        return state

    def keep(self, state: State) -> None:
        """Write the state unless that was done just now."""
        now = time.monotonic()
        if self.path is None or now - self._written < self.interval_s:
            return
        identity = np.array(json.dumps(self.identity))
        columns = {"points": self.columns.points, "single": self.columns.single}
        arrays = {"identity": identity, **columns, **state.arrays()}
        write_arrays(self.path, arrays, compress=False)
        self._written = time.monotonic()

    def drop(self) -> None:
        """Delete the file."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    def _plain_identity(self) -> Any:
        return json.loads(json.dumps(self.identity))
