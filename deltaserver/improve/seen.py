"""What dynamics has seen, as a file of a round; and what was chosen of it, and why."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Bools, Floats, Ints
from deltaserver.errors import DataError
from deltaserver.improve.choose import Choice
from deltaserver.model.files.archive import read_arrays, write_arrays


@dataclass
class Seen:
    """What dynamics has seen: frames with what was thought of them, run by run.

    Attributes:
        positions: Å, (N, 3) each.
        run, step: where they come from.
        temperature: of the run, K.
        novelty, uncertainty: see :class:`Look`.
        sure: whether they were known.
        returns: of each run, how often it went back.
        lost: of each run, whether it was torn or went out of what can be evaluated.
    """

    positions: list[Floats] = field(default_factory=list)
    run: list[int] = field(default_factory=list)
    step: list[int] = field(default_factory=list)
    temperature: list[float] = field(default_factory=list)
    novelty: list[float] = field(default_factory=list)
    uncertainty: list[float] = field(default_factory=list)
    sure: list[bool] = field(default_factory=list)
    returns: list[int] = field(default_factory=list)
    lost: list[bool] = field(default_factory=list)

    def arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return everything as arrays by name."""
        return {name: np.array(values) for name, values in vars(self).items()}


def write_seen(path: Path, seen: Seen) -> None:
    """Write what was seen, whole or not at all."""
    write_arrays(path, seen.arrays())


def read_seen(path: Path) -> dict[str, Any]:
    """Return the arrays of :class:`Seen` by name."""
    return read_arrays(path)


def positions_of(dynamics: Path, chosen: Path) -> Floats:
    """Return the frames of a file of dynamics that a file of a choice names, Å, (K, N, 3)."""
    told = json.loads(chosen.read_text(encoding="utf-8"))
    found: Floats = read_seen(dynamics)["positions"][[one["place"] for one in told["chosen"]]]
    return found


def told_of(
    path: Path, seen: dict[str, Any], fine: Bools, chosen: tuple[Ints, Choice]
) -> dict[str, Any]:
    """Return what was chosen of the frames ``seen``, and why, as JSON holds it.

    Args:
        path: where they are, for the message.
        seen: what dynamics has seen.
        fine: which of it are neither torn nor have reacted.
        chosen: those that could be, and which of these were.

    Raises:
        DataError: none was.
    """
    usable, found = chosen
    if not len(found.places):
        raise DataError(
            f"{path}: no frame is worth a label of {len(fine)}, of which "
            f"{int((~fine).sum())} are torn; run longer (--steps), or at another --temperature"
        )
    pairs = zip(usable[found.places], found.distance, strict=True)
    return {
        "chosen": [_why(seen, int(place), float(d)) for place, d in pairs],
        "set_aside": int((~fine).sum()),
        "n_seen": len(fine),
        "returns": seen["returns"].tolist(),
    }


def _why(seen: dict[str, Any], place: int, distance: float) -> dict[str, Any]:
    """Return one chosen frame as the report tells of it."""
    return {
        "place": place,
        "run": int(seen["run"][place]),
        "step": int(seen["step"][place]),
        "temperature_k": _number(seen["temperature"][place]),
        "novelty": float(seen["novelty"][place]),
        "uncertainty_ev_per_ang": _number(seen["uncertainty"][place]),
        "distance": _number(distance),
        "sure": bool(seen["sure"][place]),
    }


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
