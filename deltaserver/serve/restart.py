"""Continue an i-PI run: the newest state that is whole, and outputs cut back to it.

i-PI writes RESTART when it ends in order and checkpoints as it goes. After a kill the outputs
reach further than the state: what lies behind it will be written again, so it is cut off first,
together with a last record that the kill left half written.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from deltaserver.errors import InputError
from deltaserver.serve.ipi_input import IpiInput, set_child
from deltaserver.textio.columns import columns_by_name

RESTART_NAME = "RESTART"
CONTINUED_INPUT = "restart.xml"
STEP_IN_COMMENT = re.compile(rb"Step:\s*(\d+)")


@dataclass(frozen=True)
class RestartState:
    """A state to continue from: the file, the step it was written at, its XML."""

    path: Path
    step: int
    root: ElementTree.Element


def find_restart(directory: Path, ipi_input: IpiInput) -> RestartState | None:
    """Return the newest whole state in a run directory; None if there is none."""
    names = [RESTART_NAME, CONTINUED_INPUT]
    names += [
        path.name
        for checkpoint in ipi_input.checkpoints
        for path in directory.glob(f"{checkpoint}*")
        if re.fullmatch(re.escape(checkpoint) + r"(_\d+)?", path.name)
    ]
    states = [state for name in names if (state := _read_state(directory / name))]
    return max(states, key=lambda state: state.step, default=None)


def _read_state(path: Path) -> RestartState | None:
    try:
        root = ElementTree.fromstring(path.read_bytes())
        step = int(root.findtext("step") or 0)
    except (OSError, ElementTree.ParseError, ValueError):
        return None  # not there, or cut short by a kill: another one will do
    return RestartState(path, step, root) if root.tag == "simulation" else None


def continued_input(state: RestartState, ipi_input: IpiInput) -> str:
    """Return the state as an input, with the input's number of steps and its sockets.

    Raises:
        InputError: nothing is left to be done.
    """
    total = ipi_input.total_steps
    if total is not None:
        set_child(state.root, "total_steps", str(total))
    if state.step >= int(state.root.findtext("total_steps") or 1000):
        raise InputError(
            f"{state.path}: the run has all its {state.step} steps; ask for more to continue it"
        )
    original = {
        node.get("name"): node for node in ElementTree.fromstring(ipi_input.text).iter("ffsocket")
    }
    for node in state.root.iter("ffsocket"):
        ours = original.get(node.get("name"))
        for key in ("address", "port"):
            value = None if ours is None else ours.findtext(key)
            if value is not None:
                set_child(node, key, value)
    return ElementTree.tostring(state.root, encoding="unicode")


def cut_outputs(directory: Path, ipi_input: IpiInput, step: int) -> dict[str, int]:
    """Cut every i-PI output back to ``step``; return the bytes cut off, by file name.

    Formats whose records do not tell their step (pdb, binary) are left as they are.
    """
    cut: dict[str, int] = {}
    for stem in ipi_input.outputs(""):
        for path in directory.glob(f"{stem}*"):
            if path.name.startswith(ipi_input.checkpoints) or not path.is_file():
                continue
            removed = _cut(path, step, _records_of(path))
            if removed:
                cut[path.name] = removed
    return cut


def cut_log(path: Path, first_seq: int) -> int:
    """Cut a daemon's log back to the structures before ``first_seq``; return the bytes cut off."""
    return _cut(path, first_seq - 1, _log_records) if path.is_file() else 0


Record = tuple[int, int | None]  # where it begins, and its step; None: it is not whole
Reader = Callable[[BinaryIO], Iterator[Record]]


def _cut(path: Path, last: int, records: Reader | None) -> int:
    if records is None:
        return 0
    with path.open("r+b") as file:
        for begin, step in records(file):
            if step is None or step > last:
                size = file.seek(0, 2)
                file.truncate(begin)
                return size - begin
    return 0


def _records_of(path: Path) -> Reader | None:
    if path.suffix == ".xyz":
        return _xyz_records
    if path.name.endswith(".remd_idx"):
        return _swap_records
    with path.open("rb") as file:
        head = file.read(4096)
    if b"#EXTRAS" in head[:64]:
        return _extras_records
    column = columns_by_name(head.decode("utf-8", "replace").splitlines()).get("step")
    if column is None:
        return None
    return lambda file: _column_records(file, column.index)


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


def _log_records(file: BinaryIO) -> Iterator[Record]:
    begin = 0
    for line in file:
        try:
            record = json.loads(line)
            if record["event"] == "step":
                yield begin, int(record["seq"])
        except (ValueError, KeyError, TypeError):
            yield begin, None
        begin += len(line)
