"""PDB trajectories, i-PI's among them, whose titles tell step and unit as its XYZ comments do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

import numpy as np

from deltaserver.errors import DataError
from deltaserver.textio import comment as comments
from deltaserver.textio.compressed import decoded, is_damage
from deltaserver.textio.species import Species, parse_species
from deltaserver.textio.xyz_frames import BadFrame, Frame
from deltaserver.textio.xyz_stream import Frames

BLOCK = 128
ATOM_RECORDS = (b"ATOM", b"HETATM")
COORDINATES_AT = (30, 38, 46)
WIDTH = 8


def iterate(file: BinaryIO) -> Iterator[Frame]:
    """Yield the frames of an open file; a last one without its END only if it is the first.

    Raises:
        BadFrame: the first frame that cannot be read, and why.
    """
    index, title, atoms = 0, b"", list[str]()
    try:
        for line in file:
            record = line[:6].strip()
            if record == b"TITLE":
                title += line[6:].strip() + b" "
            elif record in ATOM_RECORDS:
                atoms.append(decoded(line))
            elif record in (b"END", b"ENDMDL") and atoms:
                yield _frame(title, atoms)
                index, title, atoms = index + 1, b"", []
        if atoms and index:
            raise DataError("the frame is cut short")
        if atoms:
            yield _frame(title, atoms)
    except DataError as error:
        raise BadFrame(index, str(error)) from None
    except Exception as error:
        if not is_damage(error):
            raise
        reason = " ".join(str(error).split())[:120]
        raise BadFrame(index, f"the file is damaged ({reason})") from None


def _frame(title: bytes, lines: list[str]) -> Frame:
    try:
        positions = [[float(line[at : at + WIDTH]) for at in COORDINATES_AT] for line in lines]
    except ValueError:
        raise DataError("an atom has no three numbers in columns 31 to 54") from None
    species = [_species(line) for line in lines]
    step = comments.find_step(title)
    return Frame(
        symbols=tuple(s.symbol for s in species),
        numbers=np.array([s.number for s in species], np.int64),
        masses_u=np.array([s.mass_u for s in species]),
        positions=np.array(positions) * comments.length_unit(title),
        step=int(step[1]) if step else None,
        info=comments.items(decoded(title)),
    )


def _species(line: str) -> Species:
    """Return the element of columns 77 and 78, or else what the atom's name says.

    i-PI has the symbol for a name and no element; elsewhere a name of one-letter elements begins
    with a blank or a number: `` CA `` is carbon, ``CA  `` calcium.
    """
    element = line[76:78].strip()
    if element.isalpha():
        return parse_species(element)
    name = line[12:16]
    if (name[:1] == " " or name[:1].isdecimal()) and name[1:2].isalpha():
        return parse_species(name[1])
    return parse_species(name.strip())


class PdbText:
    """Reads frames from one open PDB file, as ``XyzText`` does from XYZ.

    Args:
        file: what to read from, decompressed.
        name: of the file, for messages.
        note: called with one line for whatever had to be left out.
    """

    def __init__(self, file: BinaryIO, name: str, note: Callable[[str], None]) -> None:
        self.name = name
        self.note = note
        self._frames = iterate(file)
        try:
            first = next(self._frames, None)
        except BadFrame as error:
            raise DataError(f"{name}: not a PDB trajectory ({error.reason})") from None
        if first is None:
            raise DataError(f"{name}: empty; expected a PDB trajectory")
        self._first = first
        self.symbols = first.symbols
        self.has_steps = first.step is not None
        self.first_step = first.step or 0

    def __iter__(self) -> Iterator[Frames]:
        waiting, n_read = [self._first], 0
        while waiting:
            steps = [n_read + k if f.step is None else f.step for k, f in enumerate(waiting)]
            yield Frames(np.array(steps, np.int64), np.array([f.positions for f in waiting]))
            n_read += len(waiting)
            waiting = self._more(n_read)

    def _more(self, n_read: int) -> list[Frame]:
        found: list[Frame] = []
        try:
            for frame in self._frames:
                self._check(frame, n_read + len(found))
                found.append(frame)
                if len(found) == BLOCK:
                    break
        except BadFrame as error:
            self.note(f"{self.name}: frame {error.index} is left out ({error.reason})")
        return found

    def _check(self, frame: Frame, index: int) -> None:
        if frame.symbols != self.symbols:
            raise DataError(
                f"{self.name}: frame {index} has other atoms than the first, or in another order"
            )
