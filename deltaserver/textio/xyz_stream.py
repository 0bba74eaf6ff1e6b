"""Frames out of the text of an XYZ trajectory, fast where i-PI has written it.

A block of i-PI's frames is read at once, as a table (:mod:`deltaserver.textio.ipi_table`). Anything
else (plain or extended XYZ, NaN, a frame that a kill cut short) is read line by line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError
from deltaserver.molecules.elements import SYMBOLS
from deltaserver.textio import comment as comments
from deltaserver.textio.compressed import decoded, is_damage
from deltaserver.textio.ipi_table import (
    LINE_BYTES,
    decode_lines,
    headers_alike,
    numbers_at,
    well_formed,
)
from deltaserver.textio.species import ISOTOPES, parse_species
from deltaserver.textio.xyz_frames import BOM, numbers_of

CHUNK_BYTES = 1 << 22
PART_BYTES = 1 << 16
SLOW_FRAMES = 128  # frames in a block that is read line by line
MAX_HEADER_BYTES = 1 << 16

LABEL_BYTES = 8
KNOWN = {*SYMBOLS, *ISOTOPES}
CARRIAGE_RETURN = b"\r"
BLANK = re.compile(rb"(?:[ \t]*\n)*[ \t]*(?=\Z)|(?:[ \t]*\n)*")
UNLIMITED = 1 << 30


@dataclass(frozen=True)
class Header:
    """What the two lines before a frame's atoms say."""

    n_atoms: int
    n_bytes: int
    comment: bytes
    step: int | None
    unit_ang: float
    layout: comments.Layout

    @property
    def step_columns(self) -> tuple[int, int]:
        """Where the number after ``Step:`` begins and ends, in bytes of both lines."""
        match = comments.find_step(self.comment)
        assert match is not None
        before = self.n_bytes - len(self.comment) - 1
        return before + match.start(1), before + match.end(1)

    @property
    def from_ipi(self) -> bool:
        """Whether i-PI has written it, or somebody who writes as i-PI does."""
        return comments.from_ipi_itself(self.comment)


@dataclass(frozen=True)
class Frames:
    """Consecutive frames: steps (B,), positions (B, N, 3) in Å.

    ``repeats`` tells of each, or of none, its cell and along which vectors it repeats.
    """

    steps: Ints
    positions: Floats
    repeats: tuple[tuple[Floats, tuple[bool, bool, bool]] | None, ...] = ()


def _symbol(label: bytes) -> str:
    """Return the element's symbol, or a label that is none: who needs elements says so."""
    try:
        return parse_species(decoded(label)).symbol
    except DataError:
        return decoded(label)


class Malformed(Exception):  # noqa: N818  # a state of the text, which the caller mends
    """The text here is no frame."""


class XyzText:
    """Reads frames from one open XYZ file.

    Args:
        file: what to read from, decompressed.
        name: of the file, for messages.
        note: called with one line for whatever had to be left out.
    """

    def __init__(self, file: BinaryIO, name: str, note: Callable[[str], None]) -> None:
        self.file = file
        self.name = name
        self.note = note
        self.symbols: tuple[str, ...] = ()
        self.has_steps = False
        self._data = b""
        self._at = 0
        self._ended = False
        self._n_read = 0
        self._n_before = 0  # bytes that were let go
        self._n_blank = 0  # lines between frames
        self._try = UNLIMITED  # frames that are looked at together
        self._labels: list[bytes] = []
        self._first = self._open()

    def _open(self) -> Header:
        """Read the first frame's header and the elements."""
        self._fill(1)
        if not self._data.strip():
            raise DataError(f"{self.name}: empty; expected an XYZ trajectory")
        try:
            header = self._header()
            lines = self._lines(header)
        except Malformed as error:
            raise DataError(f"{self.name}: not an XYZ trajectory ({error})") from None
        self._labels = self._labels_of(header, lines)
        labels = np.array([b"%8s" % label[:LABEL_BYTES] for label in self._labels])
        self._label_bytes = labels.view(np.uint8).reshape(-1, LABEL_BYTES)
        self.symbols = tuple(_symbol(label) for label in self._labels)
        self.has_steps = header.step is not None
        return header

    @property
    def n_atoms(self) -> int:
        """Number of atoms in every frame."""
        return self._first.n_atoms

    @property
    def first_step(self) -> int:
        """The first frame's step, 0 if the file knows no steps."""
        return self._first.step or 0

    # -- reading -------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Frames]:
        while self._available():
            frames = self._fast() or self._slow()
            if frames is not None:
                self._n_read += len(frames.steps)
                yield frames
        if self._n_blank:
            self.note(f"{self.name}: {self._n_blank} blank lines between frames were passed over")

    def _available(self) -> bool:
        """Tell whether there is another frame's text; let go of what has been read."""
        if self._at and len(self._data) - self._at < CHUNK_BYTES // 2:
            self._n_before += self._at
            self._data, self._at = self._data[self._at :], 0
        self._fill(CHUNK_BYTES // 2)
        return self._skip_blank()

    def _skip_blank(self) -> bool:
        """Go past blank lines; tell whether anything follows them."""
        while True:
            text = BLANK.match(self._data, self._at)
            assert text is not None
            if text.end() < len(self._data):
                self._n_blank += text[0].count(b"\n")
                self._at = text.end()
                return True
            if self._ended:
                self._at = len(self._data)
                return False
            self._fill(len(self._data) - self._at + CHUNK_BYTES)

    def _fill(self, n_bytes: int) -> None:
        """Have at least ``n_bytes`` after the current place, unless the file ends before."""
        while not self._ended and len(self._data) - self._at < n_bytes:
            more = self._read()
            if not self._data and not self._n_before:
                more = more.removeprefix(BOM)
            self._data += more.replace(CARRIAGE_RETURN, b"") if CARRIAGE_RETURN in more else more

    def _read(self) -> bytes:
        """Read a chunk, in small parts: a damaged file gives up to the part that is damaged."""
        parts: list[bytes] = []
        while sum(map(len, parts)) < CHUNK_BYTES and not self._ended:
            try:
                part = self.file.read(PART_BYTES)
            except Exception as error:
                if not is_damage(error):
                    raise
                reason = " ".join(str(error).split())
                self.note(
                    f"{self.name}: the file is cut short or damaged ({reason}); "
                    "what is there is used"
                )
                part = b""
            self._ended = not part
            parts.append(part)
        return b"".join(parts)

    def _header(self) -> Header:
        self._fill(MAX_HEADER_BYTES)
        ends = self._data.find(b"\n", self._at)
        comment_ends = self._data.find(b"\n", ends + 1) if ends >= 0 else -1
        if comment_ends < 0:
            raise Malformed("no two lines before the atoms")
        count = self._data[self._at : ends].strip()
        if not count.isdigit() or int(count) == 0:
            raise Malformed(f"{count[:20].decode('utf-8', 'replace')!r} is no number of atoms")
        comment = self._data[ends + 1 : comment_ends]
        step = comments.find_step(comment)
        try:
            unit, layout = comments.length_unit(comment), comments.layout_of(comment)
        except DataError as error:
            raise DataError(f"{self.name}: {error}") from None
        return Header(
            n_atoms=int(count),
            n_bytes=comment_ends + 1 - self._at,
            comment=comment,
            step=int(step[1]) if step else None,
            unit_ang=unit,
            layout=layout,
        )

    # -- by tables of bytes --------------------------------------------------------------------

    def _fast(self) -> Frames | None:
        """Read as many frames as look like the one here; None if that is none."""
        try:
            header = self._header()
        except Malformed:
            return None
        n_bytes = header.n_bytes + LINE_BYTES * header.n_atoms
        n_frames = min(self._try, (len(self._data) - self._at) // n_bytes)
        if not header.from_ipi or header.n_atoms != self.n_atoms or n_frames == 0:
            return None
        table = np.frombuffer(self._data, np.uint8, n_frames * n_bytes, self._at)
        table = table.reshape(n_frames, n_bytes)
        lines = table[:, header.n_bytes :].reshape(n_frames, header.n_atoms, LINE_BYTES)
        alike = headers_alike(table[:, : header.n_bytes]) & well_formed(lines).all(axis=1)
        alike &= (lines[:, :, :LABEL_BYTES] == self._label_bytes).all(axis=(1, 2))
        n_good = n_frames if alike.all() else int(np.argmin(alike))
        # Where frames are not alike, few are looked at together: not a chunk for each of them.
        self._try = min(4 * self._try, UNLIMITED) if n_good == n_frames else max(1, n_good)
        if n_good == 0:
            return None
        self._at += n_good * n_bytes
        positions = decode_lines(lines[:n_good].reshape(-1, LINE_BYTES)) * header.unit_ang
        steps = self._n_read + np.arange(n_good)
        if header.step is not None:
            steps = numbers_at(table[:n_good, : header.n_bytes], *header.step_columns)
        return Frames(steps, positions.reshape(n_good, header.n_atoms, 3))

    # -- line by line --------------------------------------------------------------------------

    def _slow(self) -> Frames | None:
        """Read up to some frames line by line; pass over what is no frame."""
        steps: list[int] = []
        positions: list[Floats] = []
        repeats = []
        while len(steps) < SLOW_FRAMES and self._skip_blank():
            began = self._at
            try:
                header = self._header()
                if header.n_atoms != self.n_atoms:
                    raise Malformed(f"{header.n_atoms} atoms instead of {self.n_atoms}")
                values = self._numbers(header, self._n_read + len(steps))
            except Malformed as error:
                self._at = began
                self._pass_over(error)
                break
            n_here = self._n_read + len(steps)
            steps.append(header.step if header.step is not None else n_here)
            positions.append(values * header.unit_ang)
            repeats.append(comments.repeats_of(header.comment))
            if self._at >= len(self._data) or header.from_ipi:
                break  # back to the fast way, which may have stopped for one frame only
        if not steps:
            return None
        told = tuple(repeats) if any(repeats) else ()
        return Frames(np.array(steps, np.int64), np.array(positions), told)

    def _numbers(self, header: Header, index: int) -> Floats:
        lines = self._lines(header)
        rows = [line.split() for line in lines[2:]]
        try:
            values = numbers_of(rows, header.layout.position)
        except DataError as error:
            raise Malformed(str(error)) from None
        labels = [row[header.layout.species] for row in rows]
        if labels != self._labels:
            self._check_elements(labels, index)
        self._at += sum(len(line) + 1 for line in lines)
        return values

    def _labels_of(self, header: Header, lines: list[bytes]) -> list[bytes]:
        return [line.split()[header.layout.species] for line in lines[2:]]

    def _check_elements(self, labels: list[bytes], index: int) -> None:
        """Refuse a frame whose atoms are not the first one's, in its order (DataError)."""
        for atom, (label, symbol) in enumerate(zip(labels, self.symbols, strict=True)):
            if _symbol(label) != symbol:
                if _symbol(label) not in KNOWN:
                    raise Malformed(f"{decoded(label)[:20]!r} is no element")
                raise DataError(
                    f"{self.name}: frame {index}: atom {atom} is {_symbol(label)}; the first "
                    f"frame has {symbol} there"
                )

    def _lines(self, header: Header) -> list[bytes]:
        n_lines = header.n_atoms + 2
        n_bytes = header.n_bytes + 2 * LINE_BYTES * header.n_atoms
        while True:
            self._fill(n_bytes)
            lines = self._data[self._at : self._at + n_bytes].split(b"\n", n_lines)
            if len(lines) > n_lines or (len(lines) == n_lines and self._is_whole(header, lines)):
                break
            if self._ended and self._at + n_bytes >= len(self._data):
                raise Malformed("the frame is cut short")
            n_bytes *= 2
        least = header.layout.least
        if any(len(line.split()) < least for line in lines[2:n_lines]):
            raise Malformed(
                "an atom's line has no three numbers"
                if header.layout is comments.PLAIN
                else f"an atom's line has fewer than {least} columns"
            )
        return lines[:n_lines]

    def _is_whole(self, header: Header, lines: list[bytes]) -> bool:
        """Tell whether a last line without its newline has all its digits: i-PI's are as long."""
        if not self._ended or not lines[-1].strip():
            return False
        return not header.from_ipi or len(lines[-1]) >= LINE_BYTES - 1

    def _pass_over(self, why: Malformed) -> None:
        """Go to the next frame, past one that a kill cut short, and say so."""
        place = f"byte {self._n_before + self._at}"
        count = b"%d" % self.n_atoms
        pattern = (
            count + rb"\n[ \t]*#" if self._first.from_ipi else rb"\n[ \t]*" + count + rb"\s*\n"
        )
        search = re.compile(pattern)
        while True:
            found = search.search(self._data, self._at + 1)
            if found or self._ended:
                break
            self._fill(len(self._data) - self._at + CHUNK_BYTES)
        what = "a frame in the middle" if found else "the last frame"
        self.note(f"{self.name}: {what} is left out ({why}, at {place})")
        if not found:
            self._at = len(self._data)
        else:
            self._at = found.start() + (0 if self._first.from_ipi else 1)
