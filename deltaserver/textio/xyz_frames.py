"""Whole frames of an XYZ file, with their cell and everything that stands beside the positions.

For structures and datasets, where nothing may be left out: what cannot be read is refused with
its frame and line. Long trajectories are streamed by :mod:`deltaserver.textio.xyz_stream`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError
from deltaserver.textio import comment as comments
from deltaserver.textio.compressed import decoded, is_damage, open_file
from deltaserver.textio.species import ISOTOPES, parse_species

Note = Callable[[str], None]

MAX_ATOMS = 1_000_000
BOM = b"\xef\xbb\xbf"


class BadFrame(Exception):  # noqa: N818  # callers word it for what they read the file for
    """The text here is no frame; ``index`` counts frames from 0."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index
        self.reason = reason


@dataclass(frozen=True, eq=False)
class Frame:
    """One structure.

    Attributes:
        symbols: of the elements; ``D`` and ``T`` stay.
        numbers: atomic numbers, (N,).
        masses_u: (N,); those of D and T are their own.
        positions: Å, (N, 3).
        cell: its vectors in rows, Å, (3, 3), if there is one.
        pbc: along which of them the structure repeats.
        step: as the comment counts, if it does.
        info: the comment's ``key=value`` pairs.
        arrays: the columns that ``Properties`` names, but for elements and positions.
    """

    symbols: tuple[str, ...]
    numbers: Ints
    masses_u: Floats
    positions: Floats
    cell: Floats | None = None
    pbc: tuple[bool, bool, bool] = (False, False, False)
    step: int | None = None
    info: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of atoms."""
        return len(self.numbers)

    @property
    def isotopes_u(self) -> tuple[tuple[int, float], ...]:
        """The atoms that are not of the natural weight, each with its mass in u."""
        marked = [k for k, symbol in enumerate(self.symbols) if symbol in ISOTOPES]
        return tuple((k, float(self.masses_u[k])) for k in marked)


class _Lines:
    """The lines of a file, without their ends, counted from 1."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.n = 0

    def next(self) -> bytes | None:
        line = self.file.readline()
        self.n += 1
        if self.n == 1:
            line = line.removeprefix(BOM)
        return line.rstrip(b"\r\n") if line else None


def xyz_text(symbols: Sequence[str], positions: Floats, comment: str, width: int = 16) -> str:
    """Return one frame, (N, 3) in Å, as XYZ; a comment of ``key=value`` pairs makes it extended."""
    rows = [
        f"{symbol:<2} " + " ".join(f"{value:{width}.8f}" for value in position)
        for symbol, position in zip(symbols, positions, strict=True)
    ]
    return "\n".join([str(len(symbols)), comment, *rows]) + "\n"


def read_frames(path: Path, note: Note, first_only: bool = False) -> list[Frame]:
    """Read all frames of an XYZ file, plain, extended or i-PI's, compressed or not.

    Args:
        path: the file.
        note: called with one line for what was passed over: blank lines between frames.
        first_only: stop after the first frame.

    Raises:
        BadFrame: the first frame that cannot be read, and why.
        DataError: the file cannot be opened.
    """
    frames: list[Frame] = []
    with open_file(path) as file:
        try:
            for frame in iterate(file, str(path), note):
                frames.append(frame)
                if first_only:
                    break
        except Exception as error:
            if isinstance(error, BadFrame) or not is_damage(error):
                raise
            reason = " ".join(str(error).split())[:120]
            raise BadFrame(len(frames), f"the file is damaged ({reason})") from None
    return frames


def iterate(file: BinaryIO, name: str, note: Note) -> Iterator[Frame]:
    """Yield the frames of an open file; see :func:`read_frames`."""
    lines, index, n_blank, waiting = _Lines(file), 0, 0, 0
    while (line := lines.next()) is not None:
        if not line.strip():
            waiting += 1
            continue
        n_blank, waiting = n_blank + waiting, 0
        begins = lines.n
        try:
            yield _frame(line, lines)
        except DataError as error:
            raise BadFrame(index, f"line {begins}: {error}") from None
        index += 1
    if n_blank:
        note(f"{name}: {n_blank} blank lines between frames were passed over")


def _frame(count: bytes, lines: _Lines) -> Frame:
    words = count.split()
    if len(words) != 1 or not words[0].isdigit() or int(words[0]) == 0:
        raise DataError(f"{decoded(count)[:20]!r} is no number of atoms")
    n_atoms = int(words[0])
    if n_atoms > MAX_ATOMS:
        raise DataError(f"{n_atoms} atoms; more than {MAX_ATOMS} are not read")
    comment = lines.next()
    rows = []
    for _ in range(n_atoms):
        line = lines.next()
        if line is None:
            raise DataError("the frame is cut short")
        rows.append(line.split())
    assert comment is not None
    return parse_frame(comment, rows)


def parse_frame(comment: bytes, rows: list[list[bytes]]) -> Frame:
    """Make a frame of its comment and the words of its atoms' lines.

    Raises:
        DataError: what is wrong, without the place.
    """
    layout = comments.layout_of(comment)
    for k, row in enumerate(rows):
        if len(row) < layout.least:
            raise DataError(f"atom {k} has {len(row)} columns; expected {layout.least}")
    species = [parse_species(decoded(row[layout.species])) for row in rows]
    step = comments.find_step(comment)
    return Frame(
        symbols=tuple(s.symbol for s in species),
        numbers=np.array([s.number for s in species], np.int64),
        masses_u=np.array([s.mass_u for s in species]),
        positions=numbers_of(rows, layout.position) * comments.length_unit(comment),
        cell=comments.cell_of(comment),
        pbc=comments.periodic(comment),
        step=int(step[1]) if step else None,
        info=comments.items(decoded(comment)),
        arrays={
            column.name: _array(rows, column)
            for column in layout.columns
            if column.begin not in (layout.species, layout.position)
        },
    )


def numbers_of(rows: list[list[bytes]], begin: int, count: int = 3) -> Floats:
    """Return (N, count) numbers of the words that begin at a column; DataError if none."""
    words = [row[begin : begin + count] for row in rows]
    try:
        return np.array(words, np.float64)
    except ValueError:
        pass
    values = np.empty((len(words), count))
    for k, row in enumerate(words):
        try:
            values[k] = [comments.to_float(decoded(word)) for word in row]
        except ValueError:
            raise DataError(
                f"atom {k} has {b' '.join(row)[:60].decode('utf-8', 'replace')!r}; expected numbers"
            ) from None
    return values


def _array(rows: list[list[bytes]], column: comments.Column) -> NDArray[Any]:
    end = column.begin + column.count
    if column.kind in "RI":
        values: NDArray[Any] = numbers_of(rows, column.begin, column.count)
        values = values.astype(np.int64) if column.kind == "I" else values
    else:
        words = [[decoded(word) for word in row[column.begin : end]] for row in rows]
        values = np.array(words)
        if column.kind == "L":
            values = np.isin(values, ["T", "True", "true", "1"])
    return values[:, 0] if column.count == 1 else values
