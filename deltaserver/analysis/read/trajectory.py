"""Trajectories in pieces and beads, read as a stream of blocks of frames.

A run that was resumed has written pieces: appended to one file, as ``#name#0#`` backups beside
it, or files given one by one. A frame counts unless a later piece has begun at or before its step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError, GeometryError, MissingExtraError
from deltaserver.molecules.whole import Repeats, make_whole
from deltaserver.textio.compressed import is_pdb, is_xyz, open_file
from deltaserver.textio.pdb import PdbText
from deltaserver.textio.species import parse_species
from deltaserver.textio.xyz_stream import Frames, XyzText

Note = Callable[[str], None]

ASE_BLOCK = 128


@dataclass(frozen=True)
class Block:
    """Consecutive frames: steps (B,), positions (B, P, N, 3) in Å of P beads."""

    steps: Ints
    positions: Floats


def _text(path: Path, file: BinaryIO, note: Note) -> XyzText | PdbText:
    return PdbText(file, str(path), note) if is_pdb(path) else XyzText(file, str(path), note)


def _is_text(path: Path) -> bool:
    return is_xyz(path) or is_pdb(path)


class Trajectory:
    """Pieces of one trajectory, of one or more beads.

    Args:
        beads: for every bead, its pieces in the order of writing.
        note: called with one line for whatever had to be left out.

    Raises:
        DataError: no file, not a trajectory, or beads and pieces of different atoms.
    """

    def __init__(self, beads: Sequence[Sequence[Path]], note: Note) -> None:
        if not beads or not all(beads):
            raise DataError("no trajectory given")
        self.beads = beads
        self.note = note
        self.symbols: tuple[str, ...] = ()
        self.has_steps = True
        self._first_steps: dict[Path, int] = {}
        for pieces in beads:
            for path in pieces:
                self._look_into(path)

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.symbols)

    def _look_into(self, path: Path) -> None:
        if _is_text(path):
            with open_file(path) as file:
                text = _text(path, file, lambda _: None)
                symbols, step, has_steps = text.symbols, text.first_step, text.has_steps
        else:
            symbols, step, has_steps = _ase_symbols(path), 0, False
        if self.symbols and symbols != self.symbols:
            raise DataError(
                f"{path}: {len(symbols)} atoms that differ from the {self.n_atoms} of "
                f"{self.beads[0][0]}; expected pieces of one trajectory"
            )
        self.symbols = symbols
        self.has_steps &= has_steps
        self._first_steps[path] = step

    def blocks(self) -> Iterator[Block]:
        """Yield all frames in the order of writing; memory holds one block."""
        streams = [self._bead(pieces) for pieces in self.beads]
        if len(streams) == 1:
            for frames in streams[0]:
                yield Block(frames.steps, frames.positions[:, None])
            return
        yield from _together(streams)

    def _bead(self, pieces: Sequence[Path]) -> Iterator[Frames]:
        """Yield the frames of one bead's pieces, without those that later pieces replace."""
        n_before = 0
        for k, path in enumerate(pieces):
            limit = min((self._first_steps[later] for later in pieces[k + 1 :]), default=None)
            if self.has_steps and limit is not None and self._first_steps[path] >= limit:
                continue
            for frames in self._piece(path):
                if not self.has_steps:
                    steps = n_before + np.arange(len(frames.steps))
                    n_before += len(steps)
                    yield Frames(steps, frames.positions)
                elif limit is None:
                    yield frames
                else:
                    kept = frames.steps < limit
                    yield Frames(frames.steps[kept], frames.positions[kept])

    def _piece(self, path: Path) -> Iterator[Frames]:
        if not _is_text(path):
            yield from _ase_frames(path, self.note)
            return
        with open_file(path) as file:
            n_changed = 0
            for frames in _text(path, file, self.note):
                whole, n = self._whole(frames, path)
                n_changed += n
                yield whole
            if n_changed:
                self.note(
                    f"{path}: molecules that the cell had cut were made whole in {n_changed} frames"
                )

    def _whole(self, frames: Frames, path: Path) -> tuple[Frames, int]:
        """Make whole what a stated cell has cut; return how many frames that were."""
        if not frames.repeats:
            return frames, 0
        positions, n_changed = frames.positions.copy(), 0
        numbers = np.array([parse_species(symbol).number for symbol in self.symbols])
        for k, stated in enumerate(frames.repeats):
            if stated is None or not np.isfinite(positions[k]).all():
                continue
            try:
                found = make_whole(numbers, positions[k], Repeats(*stated))
            except GeometryError as error:
                raise DataError(
                    f"{path}: the frame of step {frames.steps[k]} cannot be made whole: {error}"
                ) from None
            n_changed += not np.array_equal(found, positions[k])
            positions[k] = found
        return Frames(frames.steps, positions), n_changed


def _together(streams: list[Iterator[Frames]]) -> Iterator[Block]:
    """Yield blocks of all beads at the same steps; a frame that one bead lacks is left out."""
    waiting: list[Frames] = []
    for stream in streams:
        frames = next(stream, None)
        if frames is None:
            return
        waiting.append(frames)
    while True:
        n = min(len(frames.steps) for frames in waiting)
        steps = np.stack([frames.steps[:n] for frames in waiting])
        alike = (steps == steps[0]).all(axis=0)
        n = n if alike.all() else int(np.argmin(alike))
        if n:
            yield Block(steps[0, :n], np.stack([f.positions[:n] for f in waiting], axis=1))
            waiting = [Frames(f.steps[n:], f.positions[n:]) for f in waiting]
        elif steps.size:
            behind = int(np.argmin(steps[:, 0]))
            frames = waiting[behind]
            waiting[behind] = Frames(frames.steps[1:], frames.positions[1:])
        for k, frames in enumerate(waiting):
            while not len(frames.steps):
                more = next(streams[k], None)
                if more is None:
                    return
                frames = waiting[k] = more


# -- other formats, through ASE ----------------------------------------------------------------


def _ase_symbols(path: Path) -> tuple[str, ...]:
    try:
        from ase.io import read
    except ImportError as error:
        raise MissingExtraError("ase", "analysis") from error
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a trajectory")
    try:
        return tuple(read(path, index=0).get_chemical_symbols())
    except Exception as error:  # ASE's readers raise whatever they stumble over
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"{path}: not a trajectory that ASE can read ({reason})") from None


def _ase_frames(path: Path, note: Note) -> Iterator[Frames]:
    from ase.io import iread

    waiting: list[Floats] = []
    frames = iter(iread(path, index=":"))
    while True:
        try:
            atoms = next(frames, None)
        except Exception as error:  # ASE's readers raise whatever they stumble over
            note(f"{path}: damaged ({type(error).__name__}); what is before is used")
            atoms = None
        if atoms is not None:
            waiting.append(atoms.get_positions())
        if waiting and (atoms is None or len(waiting) == ASE_BLOCK):
            yield Frames(np.arange(len(waiting)), np.array(waiting))
            waiting = []
        if atoms is None:
            return
