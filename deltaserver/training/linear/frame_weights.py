"""How much the frames of a merged dataset count in a linear expansion, by where they are from.

A fit to all frames alike is decided by what there is most of. Contacts put together anew by the
hundred cost the well, of which dynamics brings few; where the well counts twice and they count
half, both can be right. Of two benzenes, 233 dimers of clusters that were held out and 68 contacts
with E_b of 0.1 to 0.5 eV: without contacts 0.021 kcal/mol/Å and 0.066 eV at most, with all frames
alike 0.025 and 0.020, so weighted 0.020 and 0.022.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.files import MANIFEST_NAME, stored_provenance
from deltaserver.errors import DataError

TOLD = re.compile(r", (\S+) counts ([-+.0-9e]+)")


@dataclass(frozen=True)
class FrameWeights:
    """What rows of every frame are multiplied by; of datasets that are not named, 1.

    Attributes:
        named: how much the frames of a dataset count, by its name.
        of_trajectory: the same by the trajectories that it became.
    """

    named: Mapping[str, float]
    of_trajectory: Mapping[int, float]

    @classmethod
    def read(cls, dataset: Path, named: Mapping[str, float]) -> FrameWeights:
        """Find the trajectories of the ``named`` in the directory of a merged dataset.

        Raises:
            DataError: it was not merged, or has no such part.
        """
        path = dataset / MANIFEST_NAME if dataset.is_dir() else dataset
        parts = (stored_provenance(path) or {}).get("merged")
        if not parts:
            raise DataError(f"{path}: not merged of datasets that could count more or less")
        known = [part["dataset"] for part in parts]
        if missing := [name for name in named if name not in known]:
            raise DataError(
                f"{path}: was not merged of {missing[0]!r}; expected one of {', '.join(known)}"
            )
        of_trajectory = {
            int(number): named[part["dataset"]]
            for part in parts
            if part["dataset"] in named
            for number in part["trajectories"].values()
        }
        return cls(named, of_trajectory)

    @classmethod
    def told(cls, dataset: Path, basis: str) -> FrameWeights | None:
        """Return those that a report tells at the end of what was fitted; None where it has none.

        Raises:
            DataError: see :meth:`read`.
        """
        named = {name: float(weight) for name, weight in TOLD.findall(basis)}
        return cls.read(dataset, named) if named else None

    def of(self, trajectory: Ints) -> Floats:
        """Return the weights of frames of these trajectories, shape (M,)."""
        return np.array([self.of_trajectory.get(int(number), 1.0) for number in trajectory])

    def __str__(self) -> str:
        """Tell them, for a report."""
        return ", ".join(f"{name} counts {weight:g}" for name, weight in self.named.items())
