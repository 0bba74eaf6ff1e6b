"""Files by what their first bytes say: plain, or compressed with gzip, bzip2 or xz."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from deltaserver.errors import DataError

COMPRESSED: tuple[tuple[bytes, Callable[..., object]], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)
PACKED_ENDINGS = (".gz", ".bz2", ".xz")
XYZ_ENDINGS = (".xyz", ".extxyz")
PDB_ENDINGS = (".pdb", ".ent")


def open_file(path: Path) -> BinaryIO:
    """Open a file, decompressed by what its first bytes say.

    Raises:
        DataError: it cannot be read.
    """
    try:
        file = path.open("rb")
        start = file.read(8)
        file.seek(0)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    for magic, opener in COMPRESSED:
        if start.startswith(magic):
            return cast(BinaryIO, opener(file))
    return file


def is_damage(error: Exception) -> bool:
    """Tell whether an exception is what a file raises that ends too early or is damaged."""
    known = isinstance(error, (OSError, EOFError, ValueError))
    return known or type(error).__name__ in ("LZMAError", "error")  # the latter is zlib's


def is_xyz(path: Path) -> bool:
    """Tell whether the name is an XYZ file's, a backup's or a compressed one's."""
    return plain_name(path).endswith(XYZ_ENDINGS)


def is_pdb(path: Path) -> bool:
    """Tell whether the name is a PDB file's, a backup's or a compressed one's."""
    return plain_name(path).endswith(PDB_ENDINGS)


def plain_name(path: Path) -> str:
    """Return the name before i-PI made it a backup, ``#name#0#``, or somebody compressed it."""
    name = path.name
    for _ in range(2):  # a backup that was compressed, or the other way round
        if name.startswith("#") and name.endswith("#"):
            name = name[1:].rsplit("#", 2)[0]
        for ending in PACKED_ENDINGS:
            name = name.removesuffix(ending)
    return name


def decoded(text: bytes) -> str:
    """Decode UTF-8, or else Latin-1, which older programs write and which takes any byte."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")
