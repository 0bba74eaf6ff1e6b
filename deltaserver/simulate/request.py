"""What was asked of a run, as one file: what a sweep hands to each of its processes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from math import gcd
from pathlib import Path
from typing import Any

from deltaserver.bias.settings import Bias
from deltaserver.errors import InputError
from deltaserver.serve.settings import GuardSettings
from deltaserver.simulate.blowup import Limits
from deltaserver.simulate.recipe import Recipe
from deltaserver.simulate.record import write_whole

FORMAT = "deltaserver-request/1"
LONG_RUN_STRUCTURES, LONG_RUN_STRIDE = 10_000, 10


@dataclass(frozen=True)
class RunOptions:
    """What a run is told, whatever its input is.

    Attributes:
        log_every: structures between two lines of the daemon's log; None: every one in short
            runs, some in long ones (:meth:`stride`).
        limits: beyond which the run has blown up.
        guard: what the daemon refuses.
        device, threads, extras, storage: what the daemon is told; None: as the record says.
    """

    log_every: int | None = None
    limits: Limits = field(default_factory=Limits)
    guard: GuardSettings = field(default_factory=GuardSettings)
    device: str | None = None
    threads: int | None = None
    extras: str | None = None
    storage: str | None = None

    def stride(self, steps: int, structures_per_step: int) -> int:
        """Return how many structures are between two lines of the log.

        Of long runs every tenth is in the log; where replicas or beads take turns, every
        eleventh or so, for none of them to be passed over: 10 has a divisor in common with 2, 5,
        8 and so on.
        """
        if self.log_every:
            return self.log_every
        if steps * structures_per_step <= LONG_RUN_STRUCTURES:
            return 1
        return next(n for n in count(LONG_RUN_STRIDE) if gcd(n, structures_per_step) == 1)


@dataclass(frozen=True)
class RunRequest:
    """A run whose input is made of a recipe.

    Attributes:
        models: the model directory.
        recipe: what the input is made of.
        structure: where the run starts; None takes the model's own structure.
        component: what is served.
        options: what else the run is told.
    """

    models: Path
    recipe: Recipe
    structure: Path | None = None
    component: str = "total"
    options: RunOptions = field(default_factory=RunOptions)

    def with_total_steps(self, steps: int) -> RunRequest:
        """Return the same run with another number of steps, those on the way to a window apart."""
        way = self.recipe.bias.settled_at if self.recipe.bias else 0
        return replace(self, recipe=replace(self.recipe, steps=steps + way))

    def with_seed(self, seed: int) -> RunRequest:
        """Return the same run with other random numbers."""
        return replace(self, recipe=replace(self.recipe, seed=seed))

    def absolute(self) -> RunRequest:
        """Return the same run, as it is asked from any directory."""
        structure = self.structure and self.structure.resolve()
        return replace(self, models=self.models.resolve(), structure=structure)

    def record(self) -> dict[str, Any]:
        """Return what :meth:`from_record` reads, fit for JSON."""
        record: dict[str, Any] = json.loads(json.dumps(asdict(self), default=str))
        bias = self.recipe.bias
        record["recipe"]["bias"] = bias.parameters() if bias else None
        return record

    @staticmethod
    def from_record(record: dict[str, Any]) -> RunRequest:
        """Return the request that a record is of.

        Raises:
            KeyError, TypeError, ValueError: it is no record of a request.
        """
        recipe, options = record["recipe"], record["options"]
        guard = options["guard"]
        bias = Bias.parse(recipe["bias"]) if recipe.get("bias") else None
        kelvin = tuple(recipe["temperatures_k"])
        return RunRequest(
            models=Path(record["models"]),
            recipe=Recipe(**{**recipe, "temperatures_k": kelvin, "bias": bias}),
            structure=Path(record["structure"]) if record["structure"] else None,
            component=str(record["component"]),
            options=RunOptions(
                **{
                    **options,
                    "limits": Limits(**options["limits"]),
                    "guard": GuardSettings(**{**guard, "frame_file": Path(guard["frame_file"])}),
                }
            ),
        )


def write_request(path: Path, request: RunRequest) -> None:
    """Write a request; see :func:`deltaserver.simulate.record.write_whole`."""
    text = json.dumps({"format": FORMAT, **request.record()}, indent=2, ensure_ascii=False)
    write_whole(path, text + "\n")


def read_request(path: Path) -> RunRequest:
    """Read a request.

    Raises:
        InputError: it is not ours, or of a version that is not known.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise ValueError(record["format"])
        return RunRequest.from_record(record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a request of ours ({error!r})") from error
