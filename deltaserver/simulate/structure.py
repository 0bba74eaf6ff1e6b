"""The structure a simulation starts from: read from a file, checked against the model.

XYZ and PDB are read by ourselves; anything else through ASE, where it is installed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.errors import GeometryError, InputError, StructureError
from deltaserver.model.directories import STRUCTURE_NAME
from deltaserver.model.force_field import ForceField
from deltaserver.molecules.elements import SYMBOLS
from deltaserver.textio.structures import read_first, whole_frame


@dataclass(frozen=True)
class StartStructure:
    """Atomic numbers, positions in Å, shape (N, 3), where they come from, symbols, and the cell.

    The cell has its vectors in columns, Å; None where the file has none. ``moved`` tells whether
    molecules stand elsewhere than in the file, since the cell had cut or parted them.
    """

    numbers: tuple[int, ...]
    positions_ang: Floats
    source: Path
    symbols: tuple[str, ...]
    cell_ang: Floats | None = None
    moved: bool = False

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user may not expect."""
        told = "molecules that the cell had cut or parted were made whole and put together"
        return (f"{self.source}: {told}",) if self.moved else ()


def start_structure(models: Path, given: Path | None, model: ForceField) -> StartStructure:
    """Read the structure given, else the model directory's own; check it against the model.

    Raises:
        InputError: there is none, it cannot be read, or its elements are not the model's.
        StructureError: the one given has not the model's bonds, as in another unit of length.
    """
    directory = models if models.is_dir() else models.parent
    path = given or directory / STRUCTURE_NAME
    if given is None and not path.is_file():
        raise InputError(f"{directory} ships no {STRUCTURE_NAME}; give one with --structure FILE")
    structure = read_structure(path, whole=model.one_complex or not model.periodic)
    check_elements(structure, model.numbers.tolist(), model.name)
    # i-PI has a cell always: molecules that repeat would be a cluster in a large one, unnoticed.
    if model.periodic and not model.one_complex and structure.cell_ang is None:
        raise InputError(
            f"{path}: has no cell, and {model.name} is periodic: state it in the comment line, "
            'Lattice="…" or as i-PI does'
        )
    if given is not None:
        _check_bonds(structure, model)
    return structure


def _check_bonds(structure: StartStructure, model: ForceField) -> None:
    """Refuse a file in another unit or with torn molecules, before anything starts from it."""
    try:
        cell = None if model.one_complex else structure.cell_ang
        model.check_structure(structure.positions_ang, cell)
    except StructureError as error:
        raise StructureError(f"{structure.source}: {error}") from None


def check_elements(structure: StartStructure, expected: Sequence[int], model: str) -> None:
    """Raise InputError unless the structure has the model's elements, in its order."""
    if len(structure.numbers) != len(expected):
        raise InputError(
            f"{structure.source}: {len(structure.numbers)} atoms; {model} has {len(expected)}: "
            "expected all of them, and no others"
        )
    for k, (found, wanted) in enumerate(zip(structure.numbers, expected, strict=True)):
        if found != wanted:
            raise InputError(
                f"{structure.source}: atom {k} (the first is 0) is {SYMBOLS[found]}; "
                f"{model} has {SYMBOLS[wanted]} there: give the atoms in the model's order, as "
                "deltaserver reorder FILE --models DIR does"
            )


def read_structure(path: Path, whole: bool = True) -> StartStructure:
    """Read the first frame of an XYZ or PDB file, compressed or not, or of what ASE reads.

    Molecules that a cell has cut are made whole and put together, unless that is left to the model.

    Raises:
        InputError: no such file, or not readable.
        MissingExtraError: another format, and ASE is not installed.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a structure")
    frame = read_first(path)
    if frame is None or not np.isfinite(frame.positions).all():
        raise InputError(
            f"{path}: not readable as XYZ (no atoms, or positions that are not finite)"
        )
    cell = None if frame.cell is None else frame.cell.T
    try:
        found = whole_frame(frame) if whole else frame
    except GeometryError as error:
        raise InputError(f"{path}: {error}") from None
    numbers, moved = tuple(frame.numbers.tolist()), found is not frame
    return StartStructure(numbers, found.positions, path, frame.symbols, cell, moved)


def on_its_cell(structure: Path, periodic: bool) -> list[str]:
    """Refuse what is to repeat and has no cell; tell of a cell that will be ignored."""
    cell = read_structure(structure, whole=False).cell_ang
    if periodic and cell is None:
        raise InputError(
            f"{structure}: has no cell that --periodic could repeat; state it in the comment line, "
            'Lattice="…" or as i-PI does'
        )
    if cell is None or periodic:
        return []
    return [f"the cell of {structure} is ignored, as of a cluster; --periodic repeats it"]
