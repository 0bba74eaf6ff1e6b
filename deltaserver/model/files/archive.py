"""Read ``.npz`` archives from anywhere: nothing is unpickled, unpacked to disk, or taken on trust.

``numpy.load`` allocates what an array's header announces before it reads a byte of it, and a zip
archive of some kilobytes can expand to terabytes. Here sizes are compared first: what an archive
may expand to is bounded by its own size, and what an array announces must be what its member
holds.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from deltaserver.textio.journal import write_atomically

# Floats compress by a tenth at best; tables of permutations some tenfold, and those are small.
FREE_BYTES = 16 << 20
MAX_EXPANSION = 50
MAX_MEMBERS = 1000
READ_BYTES = 1 << 20
SUFFIX = ".npy"


class ArchiveLimitError(ValueError):
    """An archive is not damaged but made so that reading it would do harm."""


class NoArchiveError(ValueError):
    """A file is a single array."""


def read_arrays(path: Path, wanted: Collection[str] | None = None) -> dict[str, NDArray[Any]]:
    """Return the arrays of an archive under their names.

    Every member is read through to its checksum, wanted or not: a damaged name in the archive's
    directory would otherwise make an optional array look absent.

    Args:
        path: the archive.
        wanted: names to return; None for all.

    Raises:
        NoArchiveError: it is a single array (``.npy``).
        ArchiveLimitError: it would expand beyond reason, or names files outside itself.
        OSError, ValueError, zipfile.BadZipFile, zlib.error, …: damaged, no archive, or an array of
            Python objects.
    """
    with path.open("rb") as file:
        if file.read(len(npy.MAGIC_PREFIX)) == npy.MAGIC_PREFIX:
            raise NoArchiveError("a single array, not an .npz archive")
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _check_members(members, path.stat().st_size)
        bad = archive.testzip()
        if bad is not None:
            raise zipfile.BadZipFile(f"bad checksum of {bad!r}")
        arrays = {}
        for member in members:
            name = member.filename.removesuffix(SUFFIX)
            if wanted is None or name in wanted:
                with archive.open(member) as file:
                    arrays[name] = _read_array(file, member)
        return arrays


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    if len(members) > MAX_MEMBERS:
        raise ArchiveLimitError(f"it has {len(members)} members; expected an sGDML file's few")
    total = sum(member.file_size for member in members)
    if total > FREE_BYTES + MAX_EXPANSION * size:
        raise ArchiveLimitError(
            f"its {size} bytes would expand to {total}; arrays of numbers do not compress so"
        )
    names = [member.filename.removesuffix(SUFFIX) for member in members]
    for name in names:
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/"):
            raise ArchiveLimitError(f"its member {name[:80]!r} leads out of the archive")
        if names.count(name) > 1:
            raise ArchiveLimitError(f"its member {name[:80]!r} stands twice")


def _read_array(file: IO[bytes], member: zipfile.ZipInfo) -> NDArray[Any]:
    if not member.filename.endswith(SUFFIX):
        return np.array(file.read())  # as numpy.load does: bytes
    shape, is_fortran, dtype = _read_header(file, member.filename)
    if dtype.hasobject:
        raise ValueError(f"{member.filename!r} holds Python objects; read with allow_pickle=False")
    announced = math.prod(shape) * dtype.itemsize
    left = member.file_size - file.tell()
    if announced != left:
        raise ValueError(f"{member.filename!r} announces {announced} bytes and holds {left}")
    data = bytearray(announced)
    view, at = memoryview(data), 0
    while piece := file.read(READ_BYTES):
        view[at : at + len(piece)] = piece
        at += len(piece)
    if at != announced:
        raise EOFError(f"{member.filename!r} ends early")
    array = np.frombuffer(data, dtype) if announced else np.empty(0, dtype)
    return array.reshape(shape, order="F" if is_fortran else "C")


def _read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Return shape, order and type as a ``.npy`` header states them (ValueError if it is none)."""
    try:
        version = npy.read_magic(file)  # type: ignore[no-untyped-call]
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        header: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(file)  # type: ignore[no-untyped-call]
    except OSError:
        raise
    except Exception as error:  # numpy parses Python: a dozen kinds, tokenize's among them
        raise ValueError(f"{name!r} has no header that can be read ({error})") from None
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name!r} has the format version {version}")
    return header


def packed(arrays: Mapping[str, Any], *, compress: bool = True) -> bytes:
    """Return the content of an archive of arrays under their names."""
    buffer = io.BytesIO()
    save = np.savez_compressed if compress else np.savez
    save(buffer, **arrays)
    return buffer.getvalue()


def write_arrays(path: Path, arrays: Mapping[str, Any], *, compress: bool = True) -> None:
    """Write arrays under their names, whole or not at all."""
    write_atomically(path, packed(arrays, compress=compress))
