"""Continue an i-PI run: the newest state that is whole, and outputs cut back to it.

i-PI writes RESTART when it ends in order and checkpoints as it goes. After a kill the outputs
reach further than the state: what lies behind it will be written again, so it is cut off first,
together with a last record that the kill left half written.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.errors import InputError
from deltaserver.simulate.ipi.bias import continue_biases
from deltaserver.simulate.ipi.input import IpiInput, set_child
from deltaserver.simulate.ipi.plugin import plugins
from deltaserver.simulate.ipi.records import Reader, log_records, records_of
from deltaserver.units import BOHR_ANG

RESTART_NAME = "RESTART"
CONTINUED_INPUT = "restart.xml"


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
        InputError: nothing is left to be done, or the model was evaluated elsewhere.
    """
    total = ipi_input.total_steps
    if total is not None:
        set_child(state.root, "total_steps", str(total))
    if state.step >= int(state.root.findtext("total_steps") or 1000):
        raise InputError(
            f"{state.path}: the run has all its {state.step} steps; ask for more to continue it"
        )
    root = ElementTree.fromstring(ipi_input.text)
    if prefix := root.get("sockets_prefix"):
        state.root.set("sockets_prefix", prefix)
    original = {node.get("name"): node for node in root.iter("ffsocket")}
    for node in state.root.iter("ffsocket"):
        ours = original.get(node.get("name"))
        for key in ("address", "port"):
            value = None if ours is None else ours.findtext(key)
            if value is not None:
                set_child(node, key, value)
    _continue_plugins(state, root)
    continue_biases(state.root, root, state.path)
    return ElementTree.tostring(state.root, encoding="unicode")


def last_positions(path: Path, n_atoms: int) -> Floats | None:
    """Return the first bead of a state's first system, (N, 3), Å; None if it cannot be read."""
    state = _read_state(path)
    text = "" if state is None else state.root.findtext(".//beads/q") or ""
    bohr = [float(word) for word in text.strip(" []\n").split(",") if word.strip()]
    if len(bohr) < 3 * n_atoms:
        return None
    return BOHR_ANG * np.array(bohr[: 3 * n_atoms]).reshape(n_atoms, 3)


def _continue_plugins(state: RestartState, root: ElementTree.Element) -> None:
    """Tell a state's plug-ins what those of the input are told."""
    original = {node.get("name", "").strip(): node for node in plugins(root)}
    ours = {node.get("name", "").strip(): node for node in plugins(state.root)}
    if original.keys() != ours.keys():
        raise InputError(
            f"{state.path}: was begun {'with' if ours else 'without'} --plugin; resume it so"
        )
    for name, node in ours.items():
        set_child(node, "parameters", original[name].findtext("parameters") or "{}")


def cut_outputs(directory: Path, ipi_input: IpiInput, step: int) -> dict[str, int]:
    """Cut every i-PI output back to ``step``; return the bytes cut off, by file name."""
    cut: dict[str, int] = {}
    for path, output in ipi_input.written(directory):
        removed = _cut(path, step, records_of(path, output, ipi_input.first_step))
        if removed:
            cut[path.name] = removed
    return cut


def cut_log(path: Path, first_seq: int) -> int:
    """Cut a daemon's log back to the structures before ``first_seq``; return the bytes cut off."""
    return _cut(path, first_seq - 1, log_records) if path.is_file() else 0


def next_seq(path: Path) -> int:
    """Return the number of the structure behind the last one of a daemon's log."""
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        return 1 + max((seq for _, seq in log_records(file) if seq is not None), default=-1)


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
