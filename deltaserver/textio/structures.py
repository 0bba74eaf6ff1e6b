"""Structures of any file: XYZ and PDB are read here, whatever else by ASE, if it is installed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.errors import DataError, InputError, MissingExtraError
from deltaserver.molecules.whole import Repeats, make_whole
from deltaserver.textio import pdb
from deltaserver.textio.compressed import is_pdb, is_xyz, open_file
from deltaserver.textio.species import parse_species
from deltaserver.textio.xyz_frames import BadFrame, Frame, Note, read_frames


def read_structures(path: Path, note: Note, extra: str, first_only: bool = False) -> list[Frame]:
    """Read the structures of a file, lengths in Å.

    Args:
        path: the file; its name's ending tells XYZ and PDB from what ASE is asked for.
        note: called with one line for what was passed over.
        extra: the extra that brings ASE, named where it is not installed.
        first_only: read no more than the first.

    Raises:
        BadFrame: the first frame of XYZ or PDB that cannot be read, and why.
        DataError: the file cannot be opened, or ASE cannot read it.
        MissingExtraError: another format, and no ASE.
    """
    if is_xyz(path):
        return read_frames(path, note, first_only)
    if is_pdb(path):
        with open_file(path) as file:
            frames = pdb.iterate(file)
            return [next(frames)] if first_only else list(frames)
    return _with_ase(path, extra, first_only)


def read_first(path: Path) -> Frame | None:
    """Read the first structure of a file; None where there is none.

    Raises:
        InputError: it cannot be read.
        DataError, MissingExtraError: see :func:`read_structures`.
    """
    try:
        # Nobody is told what lies between frames: it is no part of the first one.
        frames = read_structures(path, lambda line: None, "analysis", first_only=True)
    except BadFrame as error:
        raise InputError(f"{path}: not readable as XYZ ({error.reason})") from None
    return frames[0] if frames else None


def whole_frame(frame: Frame) -> Frame:
    """Return a frame with its molecules whole and together: itself where they are already.

    Raises:
        GeometryError: see :func:`deltaserver.molecules.whole.make_whole`.
    """
    if frame.cell is None:
        return frame
    positions = make_whole(frame.numbers, frame.positions, Repeats(frame.cell, frame.pbc))
    return frame if positions is frame.positions else replace(frame, positions=positions)


def _with_ase(path: Path, extra: str, first_only: bool) -> list[Frame]:
    try:
        from ase.io import read
    except ImportError:
        raise MissingExtraError(f"ASE, which may read {path.name},", extra) from None
    try:
        images = read(path, index="0:1" if first_only else ":")
    except Exception as error:  # ASE's readers raise whatever the damage leads to
        reason = " ".join(str(error).split())[:160] or type(error).__name__
        raise DataError(f"{path}: no structure in it, or ASE cannot read it ({reason})") from None
    return [_from_ase(atoms) for atoms in images]


def _from_ase(atoms: Any) -> Frame:
    symbols = tuple(atoms.get_chemical_symbols())
    cell = np.array(atoms.cell[:], np.float64)
    x, y, z = (bool(flag) for flag in atoms.pbc)
    has_cell = abs(np.linalg.det(cell)) > 1e-6
    results = getattr(atoms.calc, "results", {})  # where ASE keeps labels that a file has
    return Frame(
        symbols=symbols,
        numbers=atoms.numbers.astype(np.int64),
        masses_u=np.array([parse_species(symbol).mass_u for symbol in symbols]),
        positions=np.array(atoms.positions, np.float64),
        cell=cell if has_cell else None,
        pbc=(x, y, z) if has_cell else (False, False, False),
        info={**_some(results, "energy"), **atoms.info},
        arrays={
            **_some(results, "forces"),
            **{k: v for k, v in atoms.arrays.items() if k not in ("numbers", "positions")},
        },
    )


def _some(results: dict[str, Any], name: str) -> dict[str, Any]:
    return {name: results[name]} if results.get(name) is not None else {}
