"""The structure a simulation starts from: read from a file, checked against the model.

Plain XYZ is read here; anything else through ASE, where it is installed.
"""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deltaserver.errors import InputError, MissingExtraError
from deltaserver.model.composite import CompositeModel
from deltaserver.model.elements import NUMBER_OF, SYMBOLS

Floats = NDArray[np.float64]
STRUCTURE_NAME = "structure.xyz"
MAX_ATOMS = 1_000_000


@dataclass(frozen=True)
class StartStructure:
    """Atomic numbers and positions in Å, shape (N, 3), and where they come from."""

    numbers: tuple[int, ...]
    positions_ang: Floats
    source: Path


def start_structure(models: Path, given: Path | None, model: CompositeModel) -> StartStructure:
    """Read the structure given, else the model directory's own; check it against the model.

    Raises:
        InputError: there is none, it cannot be read, or its elements are not the model's.
    """
    directory = models if models.is_dir() else models.parent
    path = given or directory / STRUCTURE_NAME
    if given is None and not path.is_file():
        raise InputError(f"{directory} ships no {STRUCTURE_NAME}; give one with --structure FILE")
    structure = read_structure(path)
    check_elements(structure, model.numbers.tolist(), model.name)
    return structure


def check_elements(structure: StartStructure, expected: Sequence[int], model: str) -> None:
    """Raise InputError unless the structure has the model's elements, in its order."""
    if len(structure.numbers) != len(expected):
        raise InputError(
            f"{structure.source}: {len(structure.numbers)} atoms; {model} has {len(expected)}"
        )
    for k, (found, wanted) in enumerate(zip(structure.numbers, expected, strict=True)):
        if found != wanted:
            raise InputError(
                f"{structure.source}: atom {k} (the first is 0) is {SYMBOLS[found]}; "
                f"{model} has {SYMBOLS[wanted]} there: give the atoms in the model's order"
            )


def read_structure(path: Path) -> StartStructure:
    """Read the first frame of an XYZ file (also .gz), or of what ASE reads.

    Raises:
        InputError: no such file, or not readable.
        MissingExtraError: another format, and ASE is not installed.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a structure")
    name = path.name.removesuffix(".gz")
    if name.endswith((".xyz", ".extxyz")):
        return _read_xyz(path)
    return _read_with_ase(path)


def _read_xyz(path: Path) -> StartStructure:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            n_atoms = int(file.readline())
            if not 0 < n_atoms <= MAX_ATOMS:
                raise ValueError(f"{n_atoms} atoms")
            file.readline()
            rows = [file.readline().split() for _ in range(n_atoms)]
        numbers = tuple(_number(row[0]) for row in rows)
        positions = np.array([[float(value) for value in row[1:4]] for row in rows])
        if positions.shape != (n_atoms, 3) or not np.isfinite(positions).all():
            raise ValueError("positions are missing or not finite")
    except (OSError, EOFError, ValueError, KeyError, IndexError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: not readable as XYZ ({reason})") from error
    return StartStructure(numbers, positions, path)


def _number(label: str) -> int:
    if label.isdecimal() and 0 < int(label) < len(SYMBOLS):
        return int(label)
    return NUMBER_OF[label.capitalize()]


def _read_with_ase(path: Path) -> StartStructure:
    try:
        from ase.io import read
    except ImportError as error:
        raise MissingExtraError(f"{path.name} is no XYZ file and ASE, which may read it,",
                                "analysis") from error  # fmt: skip
    try:
        atoms = read(path, index=0)
        numbers = tuple(int(z) for z in atoms.numbers)
        positions = np.array(atoms.positions, dtype=np.float64)
    except Exception as error:  # ASE's readers raise anything
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path}: ASE cannot read it ({reason})") from error
    if not numbers or not np.isfinite(positions).all():
        raise InputError(f"{path}: no atoms, or positions that are not finite")
    return StartStructure(numbers, positions, path)
