"""What ``deltaserver assemble`` has found in the directories that it is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deltaserver.arrays import Ints


@dataclass(frozen=True)
class Species:
    """One kind of molecule.

    Attributes:
        entry: of ``model.yaml``.
        numbers: atomic numbers.
        bonds: by the atoms' numbers; none where training shows no single molecule.
        directory: where it was found.
        reference: what its labels are of.
    """

    entry: dict[str, Any]
    numbers: Ints
    bonds: frozenset[tuple[int, int]]
    directory: Path
    reference: str

    @property
    def name(self) -> str:
        """Return what ``model.yaml`` calls it."""
        return str(self.entry["name"])


@dataclass
class Collected:
    """What the directories have together.

    Attributes:
        species: in the order of ``model.yaml``.
        bindings: entries of ``model.yaml``.
        files: where each file of the new directory comes from.
        references: what the labels are of.
        units: of files that state none.
        ewald: whether a directory of many molecules sums charges, if there is one that repeats.
        cutoff: that of a directory of many molecules, and whether it repeats; None: it states none.
        induction: that of a directory of many molecules.
        notes: what is left out of a directory.
        origins: directories that two molecules were taken of.
    """

    species: list[Species] = field(default_factory=list)
    bindings: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    references: list[str] = field(default_factory=list)
    units: dict[str, str] = field(default_factory=dict)
    ewald: bool | None = None
    cutoff: tuple[list[float], bool] | None = None
    induction: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    origins: list[Path] = field(default_factory=list)

    def take(self, source: Path, name: str) -> str:
        """Return what a file is called in the new directory; other files of its name keep it."""
        stem, suffix = Path(name).stem, Path(name).suffix
        k = 1
        while name in self.files and not _same(self.files[name], source):
            k += 1
            name = f"{stem}-{k}{suffix}"
        self.files[name] = source
        return name


def _same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()
