"""What the comment line of an XYZ frame says: step, units, columns, cell, and other keys.

Three dialects are known. i-PI's: ``# CELL(abcABC): … Step: 5 Bead: 0 positions{angstrom}
cell{angstrom}``, in atomic units where nothing is said. Extended XYZ: ``Lattice="…"
Properties=species:S:1:pos:R:3 key=value``, in Å. Anything else is a plain file's, in Å.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.errors import DataError, UnitError
from deltaserver.units import from_ipi, length_in_ang

# No time step (``timestep=0.5``, ``time step: 1``) is a step's number, and no ``0.5`` is one.
STEPS = (
    re.compile(
        rb"(?<!\w)(?<![Tt]ime )(?<![Tt]ime-)(?:md_|frame_)?[Ss](?:tep|TEP)\s*[:=]\s*\"?(\d+)"
        rb"(?![\w.])"
    ),
    re.compile(rb"\AAtoms\. Timestep: (\d+)"),  # LAMMPS counts so
    re.compile(rb"\A\s*i\s*=\s*(\d+)\s*,\s*time\s*="),  # CP2K
)
UNIT = re.compile(rb"(\w+)\{([^{}]*)\}")
POSITIONS = (b"positions", b"x_centroid")
OTHERS = re.compile(  # what else i-PI writes of every atom
    rb"velocities|forces\w*|Eforces|momenta|bec[xyz]|[vfp]_centroid|kinetic_cv|kinetic_od"
    rb"|r_gyration|isotope_\w+|ms_momenta"
)
PROPERTIES = re.compile(rb"(?<!\w)[Pp]roperties\s*=\s*[\"']?([^\s\"']+)")
POSITION_NAMES = ("pos", "positions", "coordinates", "coords")
SPECIES_NAMES = ("species", "symbols", "symbol", "element", "elements")
NUMBER_NAMES = ("Z", "numbers", "atomic_number", "atomic_numbers")
CELL = re.compile(rb"CELL[(\[{](abcABC|H|GENH)[)\]}]:\s*((?:[-+0-9.eE]+(?:\s+|\Z))+)")
ITEM = re.compile(
    r"(?<!\S)([^\s=\"'{}\[\]]+)\s*=\s*"
    r"(\"(?:[^\"\\]|\\.)*\"|'[^']*'|\{[^{}]*\}|\[[^\]]*\]+|[^\s\"']+)"
)
NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?\Z|[-+]?(?:nan|inf)\Z", re.I)
JSON = "_JSON "
WHOLE = re.compile(r"[-+]?\d+\Z")
BOOLEANS = {"T": True, "True": True, "true": True, "F": False, "False": False, "false": False}


@dataclass(frozen=True)
class Column:
    """Some columns of the atoms' lines: their name, kind (R, I, S, L), first one and number."""

    name: str
    kind: str
    begin: int
    count: int


@dataclass(frozen=True)
class Layout:
    """Which columns of an atom's line say what: the element, the position, and the others."""

    species: int
    position: int
    columns: tuple[Column, ...] = ()

    @property
    def least(self) -> int:
        """How many columns a line has at least."""
        ends = [column.begin + column.count for column in self.columns]
        return max(self.species + 1, self.position + 3, *ends)


PLAIN = Layout(0, 1)


def find_step(comment: bytes) -> re.Match[bytes] | None:
    """Find the number of the step, as group 1; None if the comment tells none."""
    return next((found for step in STEPS if (found := step.search(comment))), None)


def from_ipi_itself(comment: bytes) -> bool:
    """Tell whether i-PI has written the comment, or somebody who writes as i-PI does."""
    return comment.lstrip().startswith(b"#") and b"CELL" in comment


def length_unit(comment: bytes) -> float:
    """Return how many Å the positions' unit is: i-PI's own is Bohr, a plain file's Å.

    Raises:
        DataError: it holds something else than positions, or the unit is not known.
    """
    for quantity, unit in UNIT.findall(comment):
        if quantity in POSITIONS:
            return _in_ang(unit)
        if OTHERS.fullmatch(quantity):
            raise DataError(f"holds {quantity.decode()}; expected a trajectory of positions")
    return length_in_ang("atomic_unit" if from_ipi_itself(comment) else "angstrom")


def _in_ang(unit: bytes) -> float:
    text = unit.decode("utf-8", "replace")
    try:
        return from_ipi("length", text)
    except UnitError as error:
        try:
            return length_in_ang(text)  # positions{bohr} is no i-PI's, but plain enough
        except UnitError:
            raise DataError(str(error)) from None


def layout_of(comment: bytes) -> Layout:
    """Return what the columns are: those that ``Properties`` names, else element, x, y, z.

    Raises:
        DataError: ``Properties`` cannot be understood, or names no positions or elements.
    """
    match = PROPERTIES.search(comment)
    return _named_layout(match[1].decode("utf-8", "replace")) if match else PLAIN


@lru_cache(maxsize=64)
def _named_layout(text: str) -> Layout:
    words = text.split(":")
    columns, begin = [], 0
    for name, kind, count in zip(words[::3], words[1::3], words[2::3], strict=False):
        if kind not in ("S", "R", "I", "L") or not count.isdecimal():
            raise DataError(f"Properties={text[:80]}: expected name:R:3 and the like")
        columns.append(Column(name, kind, begin, int(count)))
        begin += int(count)
    position = _of(columns, POSITION_NAMES, "R", 3)
    species = _of(columns, SPECIES_NAMES, "S", 1) or _of(columns, NUMBER_NAMES, "I", 1)
    if position is None or species is None or len(words) % 3:
        raise DataError(f"Properties={text[:80]}: expected species:S:1 and pos:R:3 among them")
    centroid = _of(columns, ("x_centroid",), "R", 3)  # i-PI leaves pos at zero beside it
    return Layout(species.begin, (centroid or position).begin, tuple(columns))


def _of(columns: list[Column], names: tuple[str, ...], kind: str, count: int) -> Column | None:
    for name in names:
        for column in columns:
            if column.name == name and (column.kind, column.count) == (kind, count):
                return column
    return None


def cell_of(comment: bytes) -> Floats | None:
    """Return the cell's vectors in rows, Å; None if the comment tells none, or no volume."""
    match = CELL.search(comment)
    if match:
        numbers = np.array([float(w) for w in match[2].split() if NUMBER.match(w.decode())])
        units = dict(UNIT.findall(comment))
        ang = _in_ang(units.get(b"cell", b"atomic_unit"))
        cell = _from_abc(numbers, ang) if match[1] == b"abcABC" else _from_columns(numbers, ang)
    else:
        lattice = items(comment.decode("utf-8", "replace")).get("Lattice")
        numbers = lattice if isinstance(lattice, np.ndarray) else np.zeros(0)
        cell = numbers.reshape(3, 3).astype(np.float64) if numbers.size == 9 else None
    if cell is None or not np.isfinite(cell).all() or abs(np.linalg.det(cell)) < 1e-6:
        return None
    return cell


def _from_abc(numbers: Floats, ang: float) -> Floats | None:
    if len(numbers) < 6:
        return None
    a, b, c = numbers[:3] * ang
    alpha, beta, gamma = np.radians(numbers[3:6])
    x = (np.cos(alpha) - np.cos(beta) * np.cos(gamma)) / np.sin(gamma)
    height = np.sqrt(max(0.0, 1.0 - np.cos(beta) ** 2 - x**2))
    return np.array(
        [
            [a, 0.0, 0.0],
            [b * np.cos(gamma), b * np.sin(gamma), 0.0],
            [c * np.cos(beta), c * x, c * height],
        ]
    )


def _from_columns(numbers: Floats, ang: float) -> Floats | None:
    return numbers[:9].reshape(3, 3).T * ang if len(numbers) >= 9 else None


def periodic(comment: bytes) -> tuple[bool, bool, bool]:
    """Return along which vectors of the cell the frame is said to repeat.

    As extended XYZ has it: ``pbc``, else all of them where there is a ``Lattice``. i-PI's
    comments always have a cell and never say; what it writes is not wrapped.
    """
    if b"ipi_comment" in comment:
        return False, False, False
    found = items(comment.decode("utf-8", "replace"))
    stated = found.get("pbc", found.get("PBC"))
    if stated is None:
        everywhere = "Lattice" in found
        return everywhere, everywhere, everywhere
    flags = np.atleast_1d(np.asarray(stated))
    if flags.dtype.kind not in "bif" or flags.size not in (1, 3):
        raise DataError(f"pbc is {str(stated)[:40]!r}; expected three of T and F")
    x, y, z = np.broadcast_to(flags.astype(bool), 3).tolist()
    return x, y, z


def repeats_of(comment: bytes) -> tuple[Floats, tuple[bool, bool, bool]] | None:
    """Return the cell and along which of its vectors a frame repeats; None if it does not."""
    if b"Lattice" not in comment:
        return None
    pbc, cell = periodic(comment), cell_of(comment)
    return (cell, pbc) if cell is not None and any(pbc) else None


def items(comment: str) -> dict[str, Any]:
    """Return the ``key=value`` pairs of a comment: numbers, truth values, arrays of them, text."""
    return {key: _value(text) for key, text in ITEM.findall(comment)}


def _value(text: str) -> Any:
    inner = text[1:-1].replace('\\"', '"') if text[0] == '"' else text
    if inner.startswith(JSON):
        return _json(inner.removeprefix(JSON))
    bare = inner.strip("'{}[]").strip()
    words = [word for word in re.split(r"[\s,]+", bare) if word]
    if words and all(word in BOOLEANS for word in words):
        truth = [BOOLEANS[word] for word in words]
        return truth[0] if len(truth) == 1 else np.array(truth)
    if not words or not all(NUMBER.match(word) for word in words):
        return bare
    whole = all(WHOLE.match(word) and len(word) < 18 for word in words)
    numbers = [int(w) if whole else to_float(w) for w in words]
    return numbers[0] if len(numbers) == 1 else np.array(numbers)


def _json(text: str) -> Any:
    """Read what ASE writes of a list or a mapping; its text if that is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    try:
        numbers = np.array(value)
    except ValueError:  # lists of different lengths
        return value
    return numbers if numbers.dtype.kind in "bif" and numbers.ndim else value


def to_float(word: str) -> float:
    """Read a number, also one of Fortran's: 1.0D+00."""
    try:
        return float(word)
    except ValueError:
        return float(word.replace("D", "E").replace("d", "e"))
