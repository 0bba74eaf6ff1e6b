"""Put the atoms of a file's structures into the order that a model expects."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deltaserver.arrays import Ints
from deltaserver.errors import DeltaserverError, GeometryError, InputError, StructureError
from deltaserver.model.composite import CompositeModel
from deltaserver.model.directories import STRUCTURE_NAME
from deltaserver.molecules.matching import Reference, match_order
from deltaserver.simulate.structure import read_structure
from deltaserver.textio.journal import keep
from deltaserver.textio.structures import read_structures, whole_frame
from deltaserver.textio.xyz_frames import BadFrame, Frame, xyz_text


@dataclass(frozen=True)
class Reordered:
    """What was done: structures, those made whole, and atoms that the first had elsewhere."""

    n_frames: int
    n_whole: int
    moved: int


def reorder_file(path: Path, models: Path, output: Path) -> Reordered:
    """Write ``output``, with molecules whole that a cell has cut.

    Raises:
        InputError: a file cannot be read, a molecule is not the model's, or ``output`` is FILE.
    """
    keep([path], output)
    model = CompositeModel.load(models)
    directory = models if models.is_dir() else models.parent
    own = read_structure(directory / STRUCTURE_NAME)
    reference = Reference(
        model.numbers,
        own.positions_ang,
        tuple((fragment.name, fragment.atoms) for fragment in model.fragments),
    )
    texts, moved, order = [], 0, None
    given = _frames(path)
    frames = [_whole(frame, f"{path}: frame {index}") for index, frame in enumerate(given)]
    for index, frame in enumerate(frames):
        order = _order_of(frame, order, model, reference, f"{path}: frame {index}")
        if index == 0:
            moved = int((order != np.arange(len(order))).sum())
        symbols = [frame.symbols[k] for k in order.tolist()]
        comment = f"frame {index} of {path.name}, atoms as {model.name}"
        texts.append(xyz_text(symbols, frame.positions[order], comment))
    output.write_text("".join(texts), encoding="utf-8")
    n_whole = sum(new is not old for new, old in zip(frames, given, strict=True))
    return Reordered(len(frames), n_whole, moved)


def _whole(frame: Frame, where: str) -> Frame:
    try:
        return whole_frame(frame)
    except GeometryError as error:
        raise InputError(f"{where}: {error}") from None


def _frames(path: Path) -> list[Frame]:
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected structures")
    try:
        frames = read_structures(path, lambda line: None, "analysis")
    except BadFrame as error:
        raise InputError(f"{path}: frame {error.index} cannot be read: {error.reason}") from None
    if not frames:
        raise InputError(f"{path}: no structure in it")
    return frames


def _order_of(
    frame: Frame, known: Ints | None, model: CompositeModel, reference: Reference, where: str
) -> Ints:
    """Return the order that fits: that of the frame before, if it does, so that atoms stay put."""
    if known is not None and _fits(frame, known, model):
        return known
    try:
        order = match_order(reference, frame.numbers, frame.positions)
        model.check_structure(frame.positions[order])
    except StructureError as error:
        raise InputError(f"{where}: {error}") from None
    return order


def _fits(frame: Frame, order: Ints, model: CompositeModel) -> bool:
    if len(frame.numbers) != len(order) or (frame.numbers[order] != model.numbers).any():
        return False
    try:
        model.check_structure(frame.positions[order])
    except DeltaserverError:
        return False
    return True
