"""What is told of structures that are far from everything the models were trained on."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import structlog

from deltaserver.arrays import Floats, Ints
from deltaserver.molecules.elements import SYMBOLS
from deltaserver.serve.answer import Novelty
from deltaserver.textio.xyz_frames import xyz_text

NOVELTY = "novelty"


@dataclass
class _Count:
    n_structures: int = 0
    largest: float = 0.0


class ExtrapolationWatch:
    """Warns of structures beyond the limit: at the 1st, the 10th, the 100th, … of a component.

    A run that extrapolates at every step then costs a log one line a decade. ``quantity`` is what
    is looked at, and the field of the event that says it.
    """

    def __init__(self, limit: float, quantity: str = NOVELTY) -> None:
        self.limit = limit
        self.quantity = quantity
        self._counts: dict[str, _Count] = {}
        self._log = structlog.get_logger()

    def look(self, values: Novelty, structure: int) -> tuple[str, float] | None:
        """Count one structure; return the component that is farthest beyond the limit, if any."""
        beyond = {name: value for name, value in values.items() if not value <= self.limit}
        for name, value in beyond.items():
            count = self._counts.setdefault(name, _Count())
            count.n_structures += 1
            count.largest = max(count.largest, value)
            if is_power_of_ten(count.n_structures):
                self._log.warning(
                    "extrapolation",
                    component=name,
                    **{self.quantity: value},
                    limit=self.limit,
                    structure=structure,
                    structures_beyond=count.n_structures,
                    largest=count.largest,
                )
        return max(beyond.items(), key=lambda item: item[1]) if beyond else None


def is_power_of_ten(number: int) -> bool:
    """Return whether a positive number is 1, 10, 100, …"""
    return str(number).strip("0") == "1"


def write_frame(
    path: Path,
    numbers: Ints,
    positions: Floats,
    beyond: tuple[str, float],
    structure: int,
    quantity: str = NOVELTY,
) -> None:
    """Write one structure, Å, as extended XYZ; a disk that is full must not hide the refusal."""
    component, value = beyond
    comment = (
        f"Properties=species:S:1:pos:R:3 component={component} {quantity}={value} "
        f'structure={structure} pbc="F F F"'
    )
    text = xyz_text([SYMBOLS[number] for number in numbers], positions, comment)
    with contextlib.suppress(OSError):
        path.write_text(text, encoding="ascii")
