"""The files of a model directory beside its models: what a training tells, and what is served."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.datasets.frames import LabelledFrames
from deltaserver.errors import DataError, InputError
from deltaserver.model.composite import CompositeModel
from deltaserver.model.directories import MANIFEST_NAME, REPORT_NAME, STRUCTURE_NAME
from deltaserver.model.manifest import FORMAT, format_atoms
from deltaserver.model.trust.stored_frame import CHECK_NAME, store
from deltaserver.molecules.elements import SYMBOLS
from deltaserver.textio.journal import changed, write_atomically
from deltaserver.textio.strict_yaml import dump_yaml
from deltaserver.textio.xyz_frames import xyz_text
from deltaserver.training.components import BINDING, FULL, Component, lone_atom_energy
from deltaserver.training.selection import TRAIN_FRACTION, Split


def read_report(output: Path) -> dict[str, Any]:
    """Return what a training has told; no components where there was none.

    Raises:
        DataError: the file is another.
    """
    path = output / REPORT_NAME
    if not path.exists():
        return {"components": {}}
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(report["components"], dict):
            raise TypeError
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"{path}: not a report of deltaserver train; choose another --output"
        ) from None
    known: dict[str, Any] = report
    return known


def split_settings(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return how a component's frames were split: what :func:`split_in_time` is called with."""
    told = {**report, **report["components"].get(name, {})}
    return {
        "train_fraction": float(told.get("train_fraction", TRAIN_FRACTION)),
        "held_out_trajectories": tuple(told.get("held_out_trajectories", ())),
        "trained_trajectories": tuple(told.get("trained_trajectories", ())),
    }


def write_report(output: Path, report: dict[str, Any]) -> None:
    """Write what a training tells."""
    text = json.dumps(report, indent=2, ensure_ascii=False)
    write_atomically(output / REPORT_NAME, f"{text}\n".encode())


def refuse_other_frames(output: Path, report: dict[str, Any], frames: dict[str, Any]) -> None:
    """Refuse to mix models of other data or another hold-out: their test would mean nothing.

    Raises:
        DataError: the report's models were trained with other ``frames``.
    """
    if not report["components"]:
        return
    for key in changed(report, frames, [key for key in frames if key in report]):
        raise DataError(
            f"{output}: its models were trained with {key} = {report[key]}, now it is "
            f"{frames[key]}; choose another --output"
        )


def refuse_another(
    output: Path, report: dict[str, Any], name: str, identity: dict[str, Any]
) -> None:
    """Refuse to replace a model that is there by one of other options, or of other frames.

    Raises:
        InputError: the component ``name`` has a model of another identity.
    """
    path = output / f"{name}.npz"
    if not path.exists():
        return
    known = report["components"].get(name, {}).get("identity", {})
    # What is not said now, and was then, is another model too; but for which solver it was.
    keys = [*identity, *(key for key in known if key not in (*identity, "solver", "tolerance"))]
    if differing := changed(known, identity, keys):
        how = f"trained with other options ({', '.join(differing)})"
        raise InputError(
            f"{path}: is there already, {how if known else 'not ours to judge'}; give --overwrite "
            "to replace it, or choose another --output"
        )


def write_served(
    output: Path,
    frames: LabelledFrames,
    available: tuple[Component, ...],
    split: Split,
    report: dict[str, Any],
) -> list[str]:
    """Write the report and, once no model is missing, what makes the directory one to be served.

    Returns:
        The components that are missing.
    """
    write_report(output, report)
    there = {c.name for c in available if (output / f"{c.name}.npz").exists()}
    needed = {c.name for c in available if not c.is_lone_atom and c.name != FULL}
    if missing := sorted(needed - there):
        return missing
    manifest = _manifest(frames, available, FULL in there and len(frames.fragments) > 1)
    if "prior" in report["components"].get(BINDING, {}):
        manifest["prior"] = report["components"][BINDING]["prior"]
    write_atomically(output / MANIFEST_NAME, dump_yaml(manifest).encode())
    write_atomically(output / STRUCTURE_NAME, _start_structure(frames, split).encode())
    stored = store(CompositeModel.load(output), frames.positions[split.train[0]])
    write_atomically(output / CHECK_NAME, f"{stored}\n".encode())
    return []


def _start_structure(frames: LabelledFrames, split: Split) -> str:
    """Format the training frame of the lowest energy as XYZ, Å."""
    lowest = int(split.train[np.argmin(frames.energy[split.train])])
    symbols = [SYMBOLS[number] for number in frames.numbers]
    comment = f"frame {lowest} of {frames.name}, in Å"
    return xyz_text(symbols, frames.positions[lowest], comment, width=14)


def _manifest(
    frames: LabelledFrames, available: tuple[Component, ...], with_full: bool
) -> dict[str, Any]:
    entries: dict[int, dict[str, Any]] = {}
    for component in available:
        for member, atoms in zip(component.members, component.atoms, strict=False):
            entry: dict[str, Any] = {
                "name": frames.fragments[member].name,
                "atoms": format_atoms(atoms),
            }
            entries[member] = {**entry, **_source(frames, component)}
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "name": frames.name,
        "reference": frames.reference or "not stated",
        "fragments": [entries[member] for member in sorted(entries)],
    }
    if len(frames.fragments) > 1:
        manifest["binding"] = {"model": "binding.npz"}
    if with_full:
        manifest["full"] = {"model": "full.npz"}
    return manifest


def _source(frames: LabelledFrames, component: Component) -> dict[str, Any]:
    if not component.is_lone_atom:
        return {"model": f"{component.name}.npz"}
    symbol = SYMBOLS[frames.numbers[component.atoms[0][0]]]
    energy = lone_atom_energy(frames, component)
    return {"species": [symbol], "energy": energy, "energy_unit": "eV"}
