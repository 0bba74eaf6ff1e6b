"""A dataset under construction: its directory, its settings, what is sampled or given.

Journals and settings are in ``OUTPUT/journal``. Work continues where it was stopped and is
refused with other settings than it was begun with.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Ints
from deltaserver.datasets.calculators import calculator_factory, check_spins, molecule
from deltaserver.datasets.complexes import place
from deltaserver.datasets.files import JOURNAL, silent, stated_steps
from deltaserver.datasets.frames import (
    FragmentSpec,
    check_fragment_name,
    check_partition,
    describe_fragment,
    numbered_name,
    parse_fragments,
)
from deltaserver.datasets.geometries import check_lengths
from deltaserver.datasets.given import read_structures
from deltaserver.datasets.labelling import REJECTED_NAME
from deltaserver.datasets.sampling.dynamics import POSITION_DECIMALS, SamplingPlan, Start
from deltaserver.errors import DataError, InputError
from deltaserver.model.manifest import parse_atoms
from deltaserver.molecules.elements import SYMBOLS
from deltaserver.textio.journal import changed, keep, write_atomically
from deltaserver.textio.xyz_frames import Note

SETTINGS_NAME = "settings.json"
# What may grow when a run is continued; everything else must stay.
EXTENSIBLE = ("frames_per_trajectory", "frames_per_window")


@dataclass(frozen=True)
class Workspace:
    """A dataset directory under construction: what is sampled or given, and its journals."""

    directory: Path
    starts: tuple[Start, ...]
    fragments: tuple[FragmentSpec, ...]
    plan: SamplingPlan | None  # None: the frames were given
    spin: int | None = None  # unpaired electrons of the complex; None: those of all fragments
    order: int = 2  # 3: every two fragments are labelled as well

    @property
    def sampling(self) -> Path:
        """The journal of sampled states."""
        return self.directory / JOURNAL / "sampling.jsonl"

    @property
    def labels(self) -> Path:
        """The journal of labels."""
        return self.directory / JOURNAL / "labels.jsonl"

    @property
    def rejected(self) -> Path:
        """The journal of labels that failed, with the reason."""
        return self.directory / JOURNAL / REJECTED_NAME

    @property
    def numbers(self) -> Ints:
        """Elements of the complex."""
        return self.starts[0].numbers


def parse_fragment(text: str) -> FragmentSpec:
    """Turn ``name:0-11``, ``name:12:+1`` or ``name:0-1:0:2`` into a fragment; InputError if not.

    The third is a charge in e, the fourth a number of unpaired electrons.
    """
    parts = text.split(":")
    where = f"--fragment {text}"
    if len(parts) not in (2, 3, 4):
        raise InputError(
            f"{where}: expected NAME:ATOMS, NAME:ATOMS:CHARGE or NAME:ATOMS:CHARGE:SPIN, as in "
            "water:0-2"
        )
    check_fragment_name(parts[0], where)
    charge, spin = charge_and_spin(parts[2:], where)
    try:
        return FragmentSpec(parts[0], parse_atoms(parts[1]), charge, spin)
    except ValueError as error:
        raise InputError(f"{where}: {error}") from None


def charge_and_spin(words: Sequence[str], where: str) -> tuple[int, int]:
    """Turn ``+1`` and ``2``, or fewer, into a charge and unpaired electrons; InputError if not."""
    charge, spin = (*words, "", "")[:2]
    charge, spin = charge or "0", spin or "0"
    if not re.fullmatch(r"[+-]?\d{1,3}", charge):
        raise InputError(f"{where}: charge {charge!r} is no whole number of e")
    if not re.fullmatch(r"\d{1,3}", spin):
        raise InputError(f"{where}: spin {spin!r} is no number of unpaired electrons")
    return int(charge), int(spin)


def read_start(path: Path, fragments: tuple[FragmentSpec, ...], note: Note = silent) -> Start:
    """Return the last structure of a file, if the fragments fit it (DataError if not)."""
    last = read_structures(path, note)[-1]
    check_partition(fragments, len(last), str(path))
    check_lengths(last.numbers, last.positions[None], fragments, str(path))
    source = str(last.info.get("source", path.name))
    return Start(last.numbers, last.positions, source, last.isotopes_u)


def open_sampling(
    directory: Path,
    structures: tuple[Path, ...],
    fragments: tuple[FragmentSpec, ...],
    plan: SamplingPlan,
    note: Note = silent,
    spin: int | None = None,
    label_calculator: str | None = None,
) -> Workspace:
    """Set up the sampling of a complex, or continue it; the last structure of each file starts.

    ``label_calculator`` is what will label the frames, if that is known.

    Raises:
        InputError: structures that differ in elements, fragments that do not fit, a calculator
            that is not there, or a directory that was begun with other settings.
    """
    starts = [read_start(path, fragments, note) for path in structures]
    for path, start in zip(structures, starts, strict=True):
        check_elements(str(path), start.numbers, starts[0].numbers)
    calculators = (plan.calculator, plan.prepare_calculator)
    for name in filter(None, calculators):
        calculator_factory(name)
    workspace = Workspace(directory, tuple(starts), fragments, plan, spin)
    _keep_settings(workspace, None, (*calculators, label_calculator))
    return workspace


def open_given(
    directory: Path,
    path: Path,
    fragments: tuple[FragmentSpec, ...],
    note: Note = silent,
    spin: int | None = None,
    label_calculator: str | None = None,
) -> Workspace:
    """Set up the labelling of frames that are given in a file.

    Raises:
        DataError: frames that differ in elements, are no molecules in Å, or do not fit.
    """
    images = read_structures(path, note)
    numbers = images[0].numbers
    check_partition(fragments, len(numbers), str(path))
    for index, frame in enumerate(images):
        check_elements(f"{path}: frame {index}", frame.numbers, numbers)
    positions = np.array([frame.positions for frame in images]).round(POSITION_DECIMALS)
    check_lengths(numbers, positions, fragments, str(path))
    steps = unique_steps(stated_steps(images, str(path)))
    starts = tuple(Start(numbers, frame, path.name) for frame in positions)
    return open_frames(directory, starts, fragments, steps, spin, label_calculator=label_calculator)


def open_frames(
    directory: Path,
    starts: tuple[Start, ...],
    fragments: tuple[FragmentSpec, ...],
    steps: list[list[int]],
    spin: int | None = None,
    order: int = 2,
    label_calculator: str | None = None,
) -> Workspace:
    """Set up the labelling of frames, each with its (trajectory, step), or continue it."""
    workspace = Workspace(directory, starts, fragments, None, spin, order)
    _keep_settings(workspace, steps, (label_calculator,))
    return workspace


def reopen(directory: Path) -> Workspace:
    """Open a dataset directory that ``dataset sample`` or ``dataset label`` began."""
    path = directory / JOURNAL / SETTINGS_NAME
    if not path.is_file():
        raise DataError(f"{path}: no such file; begin with: deltaserver dataset sample")
    try:
        settings = json.loads(path.read_text())
        plan = settings["plan"]
        numbers = np.array(settings["numbers"], dtype=np.int64)
        return Workspace(
            directory,
            tuple(
                Start(
                    numbers,
                    np.array(start["positions"]),
                    start["source"],
                    tuple((int(k), float(u)) for k, u in start.get("isotopes_u", ())),
                )
                for start in settings["starts"]
            ),
            parse_fragments(settings["fragments"], str(path)),
            None if plan is None else SamplingPlan.from_record(plan),
            settings.get("spin"),
            settings.get("order", 2),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: not the settings of a dataset ({error!r})") from None


def place_molecules(paths: tuple[Path, ...], gap: float, seed: int, output: Path) -> list[str]:
    """Write a start structure of several molecules; return their fragments, as options take them.

    Raises:
        DataError: a file is not there or not readable, or would be overwritten.
    """
    keep(paths, output)
    molecules = [read_structures(path)[-1] for path in paths]
    rng = np.random.default_rng(seed)
    together = molecule(np.zeros(0, np.int64), np.zeros((0, 3)), np.zeros(0, np.int64))
    fragments, names = [], [path.stem for path in paths]
    taken = set(names)
    for k, positions in enumerate(place([m.positions for m in molecules], gap, rng)):
        charges = np.zeros(len(positions), np.int64)
        part = molecule(molecules[k].numbers, positions, charges)
        name = names[k] if names.count(names[k]) == 1 else numbered_name(names[k], k + 1, taken)
        taken.add(name)
        check_fragment_name(name, str(paths[k]))
        atoms = tuple(range(len(together), len(together) + len(part)))
        fragments.append(FragmentSpec(name, atoms).as_option())
        together += part
    together.info = {"source": "+".join(path.name for path in paths), "seed": seed}
    output.parent.mkdir(parents=True, exist_ok=True)
    together.write(output, format="extxyz", columns=["symbols", "positions"])
    return fragments


def command_line() -> str:
    """Return the command line as it can be typed, the program without its directory."""
    program = Path(sys.argv[0]).name
    if program == "__main__.py":  # of python -m deltaserver
        program = "deltaserver"
    return shlex.join([program, *sys.argv[1:]])


def check_elements(where: str, numbers: Ints, expected: Ints) -> None:
    """Refuse a structure whose elements are not the first one's, in its order (DataError)."""
    if len(numbers) != len(expected):
        raise DataError(f"{where} has {len(numbers)} atoms; the first has {len(expected)}")
    for index in np.flatnonzero(numbers != expected)[:1]:
        raise DataError(
            f"{where}: atom {index} is {SYMBOLS[numbers[index]]}; the first structure has "
            f"{SYMBOLS[expected[index]]} there"
        )


def unique_steps(steps: list[list[int]]) -> list[list[int]]:
    """Return (trajectory, step) of frames as stated, else 0 and their number if two are alike."""
    if len({tuple(step) for step in steps}) < len(steps):
        return [[0, index] for index in range(len(steps))]
    return steps


def _settings(workspace: Workspace) -> dict[str, Any]:
    return {
        "plan": workspace.plan.describe() if workspace.plan else None,
        "numbers": workspace.numbers.tolist(),
        "starts": [
            {
                "source": start.source,
                "positions": start.positions.tolist(),
                **({"isotopes_u": start.isotopes_u} if start.isotopes_u else {}),
            }
            for start in workspace.starts
        ],
        "fragments": [describe_fragment(fragment) for fragment in workspace.fragments],
        "spin": workspace.spin,
        "order": workspace.order,
    }


def _flat(plan: dict[str, Any] | None) -> dict[str, Any]:
    """Return a plan's settings with those of its separations among them."""
    flat = dict(plan or {})
    return flat | (flat.pop("separations", None) or {})


def _keep_settings(
    workspace: Workspace, steps: list[list[int]] | None, calculators: Sequence[str | None]
) -> None:
    """Write the settings, or refuse to continue with others than were written before."""
    # First: a charge that was forgotten is mended, and the same directory must do.
    for name in filter(None, calculators):
        check_spins(name, workspace.numbers, workspace.fragments, workspace.spin)
    path = workspace.directory / JOURNAL / SETTINGS_NAME
    settings = _settings(workspace)
    if path.exists():
        before = _settings(reopen(workspace.directory))
        for key in changed(before, settings, ("numbers", "starts", "fragments", "spin", "order")):
            raise DataError(f"{path}: was begun with other {key}; use another --output")
        old, new = _flat(before["plan"]), _flat(settings["plan"])
        if old and "nearest" not in old:  # windows may be added to a dataset that has none
            new = {key: value for key, value in new.items() if key in old}
        for key in changed(old, new, sorted(set(old) | set(new))):
            if key not in EXTENSIBLE or new.get(key, 0) < old.get(key, 0):
                raise DataError(
                    f"{path}: was begun with {key} {old.get(key)}, not {new.get(key)}; use "
                    f"{old.get(key)} again, or another --output"
                )
    path.parent.mkdir(parents=True, exist_ok=True)
    settings["command"] = command_line()
    if steps is not None:
        settings["steps"] = steps
    write_atomically(path, json.dumps(settings).encode())
