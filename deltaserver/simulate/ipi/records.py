"""Where records begin in the files that i-PI and the daemon write, and which step each is of."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from deltaserver.simulate.ipi.outputs import Output
from deltaserver.textio.columns import columns_by_name

STEP_IN_COMMENT = re.compile(rb"Step:\s*(\d+)")
Record = tuple[int, int | None]  # where it begins, and its step; None: it is not whole
Reader = Callable[[BinaryIO], Iterator[Record]]


def records_of(path: Path, output: Output, first_step: int) -> Reader | None:
    """Return what reads the records of one of i-PI's files; None for states.

    Args:
        path: the file.
        output: what it is of.
        first_step: that the run began with, 0 but for a continuation.
    """
    if output.kind == "checkpoint":
        return None
    if output.kind == "swaps":
        return _swap_records
    if output.kind == "properties":
        header = _header(path)
        column = columns_by_name(header).get("step")
        if column is not None:
            return partial(_column_records, column=column.index)
        return partial(_counted_lines, steps=output.steps_from(first_step))
    return TRAJECTORIES.get(output.extension)


def _header(path: Path) -> list[str]:
    lines = []
    with path.open("rb") as file:
        for line in file:
            if line.strip() and not line.lstrip().startswith(b"#"):
                break
            lines.append(line.decode("utf-8", "replace"))
    return lines


def _counted_lines(file: BinaryIO, steps: tuple[int, int]) -> Iterator[Record]:
    """Count the lines of properties that do not tell their step: first step, stride."""
    begin, n_lines = 0, 0
    for line in file:
        if line.strip() and not line.lstrip().startswith(b"#"):
            yield begin, steps[0] + n_lines * steps[1] if line.endswith(b"\n") else None
            n_lines += 1
        begin += len(line)


def _column_records(file: BinaryIO, column: int, shift: int = 0) -> Iterator[Record]:
    begin = 0
    for line in file:
        if line.strip() and not line.lstrip().startswith(b"#"):
            try:
                step = int(float(line.split()[column])) + shift
                yield begin, step if line.endswith(b"\n") else None
            except (ValueError, IndexError):
                yield begin, None
        begin += len(line)


def _swap_records(file: BinaryIO) -> Iterator[Record]:
    return _column_records(file, 0, shift=1)  # it counts steps from 0


def _extras_records(file: BinaryIO) -> Iterator[Record]:
    begin, step = 0, None
    position = 0
    whole = True
    for line in file:
        if line.lstrip().startswith(b"#EXTRAS"):
            match = STEP_IN_COMMENT.search(line)
            begin, step = position, int(match[1]) if match else None
            whole = False
        elif step is not None:
            whole = line.endswith(b"\n")
            if whole:
                yield begin, step
        position += len(line)
    if not whole:
        yield begin, None


def _xyz_records(file: BinaryIO) -> Iterator[Record]:
    begin = 0
    while count := file.readline():
        comment = file.readline()
        lines = [count, comment]
        try:
            lines += [file.readline() for _ in range(int(count))]
        except ValueError:
            yield begin, None
            return
        match = STEP_IN_COMMENT.search(comment)
        whole = lines[-1].endswith(b"\n")
        if match is None and whole:
            return  # not a trajectory that tells its steps
        yield begin, int(match[1]) if match and whole else None
        begin += sum(map(len, lines))


def _pdb_records(file: BinaryIO) -> Iterator[Record]:
    begin, position, step = 0, 0, None
    for line in file:
        if match := STEP_IN_COMMENT.search(line) if line.startswith(b"TITLE") else None:
            step = int(match[1])
        position += len(line)
        if line.rstrip() == b"END":
            yield begin, step if line.endswith(b"\n") else None
            begin, step = position, None
    if begin < position:
        yield begin, None


def _binary_records(file: BinaryIO) -> Iterator[Record]:
    """Read i-PI's binary frames: cell, N, 3 N coordinates, names, title, the texts in UTF-32."""
    begin = 0
    while head := file.read(80):
        n_atoms = _integer(head[72:])
        names = file.read(24 * n_atoms + 8)[24 * n_atoms :]
        file.seek(4 * _integer(names), 1)
        title = _utf32(file)
        match = STEP_IN_COMMENT.search(title)
        yield begin, int(match[1]) if match else None
        begin = file.tell()


def _integer(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _utf32(file: BinaryIO) -> bytes:
    """Read text as long as there is any: what follows are numbers."""
    text = bytearray()
    while len(letter := file.read(4)) == 4 and 32 <= _integer(letter) < 127:
        text.append(letter[0])
    file.seek(-len(letter), 1)
    return bytes(text)


def log_records(file: BinaryIO) -> Iterator[Record]:
    """Yield the structures of a daemon's log, by their number."""
    begin = 0
    for line in file:
        try:
            record = json.loads(line)
            if record["event"] == "step":
                yield begin, int(record["seq"])
        except (ValueError, KeyError, TypeError):
            yield begin, None
        begin += len(line)


TRAJECTORIES: dict[str, Reader] = {
    "": _extras_records,
    ".xyz": _xyz_records,
    ".extxyz": _xyz_records,
    ".pdb": _pdb_records,
    ".bin": _binary_records,
}
