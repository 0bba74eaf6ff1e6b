"""Structures that users give to be sampled or labelled: read, and made whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deltaserver.datasets.files import refuse_npz, silent
from deltaserver.datasets.geometries import made_whole
from deltaserver.errors import DataError
from deltaserver.textio.structures import read_structures as read_any
from deltaserver.textio.xyz_frames import BadFrame, Frame, Note


def read_structures(path: Path, note: Note = silent) -> list[Frame]:
    """Return every structure of a file, in Å, with molecules whole that a cell has cut.

    Raises:
        DataError: no such file, not readable, empty, not finite, or molecules without end.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected a structure that ASE reads")
    refuse_npz(path)
    try:
        frames = read_any(path, note, "train")
    except BadFrame as error:
        raise DataError(f"{path}: frame {error.index} cannot be read: {error.reason}") from None
    if not frames:
        raise DataError(f"{path}: no structure in it")
    for index, frame in enumerate(frames):
        if not np.isfinite(frame.positions).all():
            raise DataError(f"{path}: frame {index} has positions that are not finite")
    return made_whole(frames, str(path), note)
