"""Datasets on disk: a directory of ``dataset.yaml`` and ``frames.xyz.gz``, or extended XYZ alone.

Everything is checked once, here: what comes out of :func:`read_dataset` can be trusted. Energies
in eV, lengths in Å, forces in eV/Å. Frames are kept to eight decimals, as extended XYZ has them.
"""

from __future__ import annotations

import gzip
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver import units
from deltaserver.arrays import Ints
from deltaserver.datasets.frames import (
    FragmentSpec,
    LabelledFrames,
    check_fragment_name,
    check_partition,
    describe_fragment,
    parse_fragments,
)
from deltaserver.datasets.geometries import made_whole
from deltaserver.datasets.native import write_native_datasets
from deltaserver.datasets.plausibility import check_plausible
from deltaserver.errors import DataError, UnitError
from deltaserver.molecules.elements import NUMBER_OF, SYMBOLS
from deltaserver.textio.journal import write_atomically
from deltaserver.textio.strict_yaml import Checker, dump_yaml
from deltaserver.textio.xyz_frames import BadFrame, Frame, Note, read_frames

FORMAT = "deltaserver-dataset/1"
MANIFEST_NAME = "dataset.yaml"
FRAMES_NAME = "frames.xyz.gz"
JOURNAL = "journal"  # a directory beside these, while work goes on
ENERGY_OF_PAIRS, FORCES_OF_PAIRS = "energy_two_body", "forces_two_body"  # of order 3
DECIMALS = 8  # of ASE's extended XYZ writer
ENERGY_UNIT, LENGTH_UNIT = "eV", "Ang"
OPTIONAL = ("frames", "order", "elements", "provenance")
STEP_KEYS = ("step", "md_step", "frame_step")


def silent(_: str) -> None:
    """Tell nobody."""


def read_dataset(path: str | Path, note: Note = silent, plausible: bool = True) -> LabelledFrames:
    """Read a dataset directory (or its ``dataset.yaml``), or a labelled extended XYZ file.

    ``note`` is called with one line for what was passed over, such as blank lines. ``plausible``
    refuses frames that no dynamics makes.

    Raises:
        DataError: no such dataset, or anything in it that is wrong, with the frame's number.
    """
    path = Path(path)
    if path.is_dir():
        path = path / MANIFEST_NAME
    if not path.is_file():
        if (path.parent / JOURNAL).is_dir():
            raise DataError(
                f"{path}: not written yet; repeat the command that began {path.parent}, or write "
                f"what is labelled so far: deltaserver dataset write {path.parent}"
            )
        raise DataError(f"{path}: no such file; expected a dataset directory or an .xyz file")
    refuse_npz(path)
    if path.suffix not in (".yaml", ".yml"):
        frames = _read_frames(path, path.name.split(".")[0], "", None, None, note)
        if plausible:
            check_plausible(frames, str(path))
        return frames
    top = read_manifest(path)
    fragments = parse_fragments(top["fragments"], str(path))
    frames_path = path.parent / FRAMES_NAME
    if not frames_path.is_file():
        raise DataError(f"{frames_path}: no such file; {path.name} describes its frames")
    numbers = _stated_numbers(path, top["elements"]) if "elements" in top else None
    frames = _read_frames(frames_path, top["name"], top["reference"], fragments, numbers, note)
    if top.get("order", 2) != frames.order:
        raise DataError(
            f"{frames_path}: has labels of order {frames.order}; {path.name} states "
            f"{top.get('order', 2)!r}: one of the two was replaced"
        )
    if "frames" in top and top["frames"] != len(frames):
        raise DataError(
            f"{frames_path}: has {len(frames)} frames; {path.name} states {top['frames']}: "
            "the file is truncated or was replaced"
        )
    if plausible:
        check_plausible(frames, str(frames_path))
    return frames


def refuse_npz(path: Path) -> None:
    """Refuse what only ``dataset import`` reads (DataError)."""
    if path.suffix == ".npz":
        raise DataError(f"{path}: make a dataset of it with: deltaserver dataset import")


def read_manifest(path: Path) -> dict[str, Any]:
    """Read ``dataset.yaml`` and check everything in it but the fragments.

    Raises:
        DataError: not YAML, a key that is missing or not known, another format or unit.
    """
    check = Checker(path, DataError)
    required = ("format", "name", "reference", "units", "fragments")
    data = check.mapping(check.read(), "the file", required, OPTIONAL)
    check.format(data, FORMAT)
    for key in ("name", "reference"):
        check.text(data[key], key)
    _check_units(path, data["units"])
    return data


def stored_provenance(path: Path) -> Any:
    """Return how a dataset was made, of its directory or ``dataset.yaml``; None of other files."""
    manifest = path / MANIFEST_NAME if path.is_dir() else path
    if manifest.suffix not in (".yaml", ".yml"):
        return None
    return read_manifest(manifest).get("provenance")


def write_dataset(
    frames: LabelledFrames, directory: Path, provenance: Mapping[str, Any] | None = None
) -> list[Path]:
    """Write a dataset directory: native sGDML datasets, ``frames.xyz.gz``, ``dataset.yaml``.

    Each file is written complete or not at all, ``dataset.yaml`` last. Returns the native files.
    """
    frames = rounded(frames)
    native = write_native_datasets(frames, directory)
    write_frames(frames, directory, provenance or {})
    return native


def write_frames(frames: LabelledFrames, directory: Path, provenance: Mapping[str, Any]) -> None:
    """Write ``frames.xyz.gz`` and ``dataset.yaml``."""
    directory.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    # No time stamp: the same frames give the same bytes.
    with gzip.GzipFile(fileobj=buffer, mode="wb", filename="", mtime=0) as file:
        text = io.TextIOWrapper(file, encoding="ascii", newline="\n")
        _write_xyz(text, frames)
        text.flush()
    write_atomically(directory / FRAMES_NAME, buffer.getvalue())
    manifest = {
        "format": FORMAT,
        "name": frames.name,
        "reference": frames.reference,
        "units": {"length": LENGTH_UNIT, "energy": ENERGY_UNIT},
        "frames": len(frames),
        **({"order": frames.order} if frames.order > 2 else {}),
        "elements": " ".join(SYMBOLS[number] for number in frames.numbers),
        "fragments": [describe_fragment(fragment) for fragment in frames.fragments],
        "provenance": dict(provenance),
    }
    dumped = dump_yaml(manifest)
    write_atomically(directory / MANIFEST_NAME, dumped.encode())


def rounded(frames: LabelledFrames) -> LabelledFrames:
    """Return the frames as extended XYZ keeps them, so that every file says the same."""
    return replace(
        frames,
        positions=frames.positions.round(DECIMALS),
        forces=frames.forces.round(DECIMALS),
        fragment_forces=frames.fragment_forces.round(DECIMALS),
        two_body_forces=None
        if frames.two_body_forces is None
        else frames.two_body_forces.round(DECIMALS),
    )


def _write_xyz(file: io.TextIOBase, frames: LabelledFrames) -> None:
    from ase import Atoms
    from ase.io.extxyz import write_xyz

    columns = ["symbols", "positions", "forces_full", "forces_frag"]
    columns += [FORCES_OF_PAIRS] if frames.order == 3 else []
    for m in range(len(frames)):
        atoms = Atoms(numbers=frames.numbers, positions=frames.positions[m])
        atoms.arrays["forces_full"] = frames.forces[m]
        atoms.arrays["forces_frag"] = frames.fragment_forces[m]
        atoms.info = {"energy_full": float(frames.energy[m])}
        for j, energy in enumerate(frames.fragment_energies[m], start=1):
            atoms.info[f"energy_frag{j}"] = float(energy)
        if frames.two_body_energy is not None and frames.two_body_forces is not None:
            atoms.info[ENERGY_OF_PAIRS] = float(frames.two_body_energy[m])
            atoms.arrays[FORCES_OF_PAIRS] = frames.two_body_forces[m]
        atoms.info |= {"traj": int(frames.trajectory[m]), "step": int(frames.step[m])}
        write_xyz(file, [atoms], columns=columns, write_results=False)


def _read_frames(
    path: Path,
    name: str,
    reference: str,
    fragments: tuple[FragmentSpec, ...] | None,
    numbers: Ints | None,
    note: Note,
) -> LabelledFrames:
    images = made_whole(_images(path, note), str(path), note)
    first = images[0]
    if numbers is None:
        numbers = first.numbers
    if fragments is None:
        fragments = _convention_fragments(path, first)
        reference = str(first.info.get("method", "not stated"))
    check_partition(fragments, len(numbers), str(path))
    of_pairs = ENERGY_OF_PAIRS in first.info
    for index, atoms in enumerate(images):
        _check_frame(f"{path}: frame {index}", atoms, numbers, len(fragments), of_pairs)
    steps = np.array(stated_steps(images, str(path)), dtype=np.int64)
    energies = [
        [atoms.info[f"energy_frag{j}"] for j in range(1, len(fragments) + 1)] for atoms in images
    ]
    return LabelledFrames(
        name=name,
        reference=reference,
        numbers=numbers,
        fragments=fragments,
        positions=np.array([atoms.positions for atoms in images]),
        energy=np.array([atoms.info["energy_full"] for atoms in images], dtype=np.float64),
        forces=np.array([atoms.arrays["forces_full"] for atoms in images]),
        fragment_energies=np.array(energies, dtype=np.float64),
        fragment_forces=np.array([atoms.arrays["forces_frag"] for atoms in images]),
        trajectory=steps[:, 0],
        step=steps[:, 1],
        two_body_energy=np.array([atoms.info[ENERGY_OF_PAIRS] for atoms in images], np.float64)
        if of_pairs
        else None,
        two_body_forces=np.array([atoms.arrays[FORCES_OF_PAIRS] for atoms in images])
        if of_pairs
        else None,
    )


def _images(path: Path, note: Note) -> list[Frame]:
    try:
        images = read_frames(path, note)
    except BadFrame as error:
        raise DataError(f"{path}: frame {error.index} cannot be read: {error.reason}") from None
    if not images:
        raise DataError(f"{path}: no frames in it")
    return images


def stated_steps(images: list[Frame], where: str) -> list[list[int]]:
    """Return (trajectory, step) of frames: what they state, else 0 and their number.

    Raises:
        DataError: a number that is none, naming frame and key.
    """
    steps = []
    for index, frame in enumerate(images):
        here = f"{where}: frame {index}"
        key = next((key for key in STEP_KEYS if key in frame.info), None)
        step = index if frame.step is None else frame.step
        if key is not None:
            step = _whole_number(frame.info[key], f"{here}: {key}")
        steps.append([_whole_number(frame.info.get("traj", 0), f"{here}: traj"), step])
    return steps


def _whole_number(value: Any, where: str) -> int:
    """Return a whole number that a frame's comment states; DataError, begun with ``where``."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_))
    if not whole and not (isinstance(value, float) and value.is_integer()):
        raise DataError(f"{where} is {str(value)[:40]!r}; expected a whole number")
    return int(value)


def _convention_fragments(path: Path, atoms: Frame) -> tuple[FragmentSpec, ...]:
    """Two fragments from ``frag1=`` (atoms of the first), ``frag_charges`` and ``frag_names``."""
    count = atoms.info.get("frag1")
    if count is None and "forces_full" not in atoms.arrays:
        raise DataError(
            f"{path}: frame 0 has no labels; compute them with deltaserver dataset label, or take "
            "those that it has by other names with deltaserver dataset import"
        )
    if not isinstance(count, (int, np.integer)) or not 0 < count < len(atoms):
        raise DataError(
            f"{path}: frame 0: frag1 is {count}; expected the first fragment's number of atoms; "
            "deltaserver dataset import takes files with labels by other names"
        )
    stated = np.atleast_1d(np.asarray(atoms.info.get("frag_charges", [0, 0])))
    if stated.shape != (2,):
        raise DataError(f"{path}: frame 0: frag_charges is {stated.tolist()!r}; expected two")
    first, second = (
        _whole_number(charge, f"{path}: frame 0: frag_charges") for charge in stated.tolist()
    )
    names = str(atoms.info.get("frag_names", "fragment1 fragment2")).split()
    if len(names) != 2:
        raise DataError(f"{path}: frame 0: frag_names is {' '.join(names)!r}; expected two")
    for name in names:
        check_fragment_name(name, f"{path}: frame 0")
    atoms_of = (tuple(range(count)), tuple(range(count, len(atoms))))
    return tuple(map(FragmentSpec, names, atoms_of, (first, second)))


def _check_frame(where: str, atoms: Frame, numbers: Any, n_fragments: int, of_pairs: bool) -> None:
    if len(atoms) != len(numbers):
        raise DataError(f"{where} has {len(atoms)} atoms; expected {len(numbers)}")
    for index in np.flatnonzero(atoms.numbers != numbers)[:1]:
        found, expected = SYMBOLS[atoms.numbers[index]], SYMBOLS[numbers[index]]
        raise DataError(f"{where}: atom {index} is {found}; expected {expected}")
    stated = atoms.info.get("units")
    if stated is not None and str(stated).lower() not in ("ev,angstrom", "ev,ang"):
        raise DataError(f"{where}: units are {stated!r}; expected eV,Angstrom: convert it first")
    labels: dict[str, Any] = {"positions": atoms.positions}
    energies = ["energy_full", *(f"energy_frag{j}" for j in range(1, n_fragments + 1))]
    for key in ("forces_full", "forces_frag", *([FORCES_OF_PAIRS] if of_pairs else [])):
        labels[key] = atoms.arrays.get(key)
    for key in (*energies, *([ENERGY_OF_PAIRS] if of_pairs else [])):
        labels[key] = atoms.info.get(key)
    for key, value in labels.items():
        if value is None:
            raise DataError(f"{where} lacks {key}; label it with: deltaserver dataset label")
        array = np.asarray(value)
        if array.dtype.kind not in "if" or array.shape not in ((), (len(numbers), 3)):
            raise DataError(f"{where}: {key} is {str(value)[:40]!r}; expected numbers")
        if not np.isfinite(array).all():
            raise DataError(f"{where}: {key} has a value that is not finite; remove the frame")


def _stated_numbers(path: Path, stated: Any) -> Ints:
    symbols = str(stated).split()
    if unknown := [symbol for symbol in symbols if symbol not in NUMBER_OF]:
        raise DataError(f"{path}: {unknown[0]!r} is no element symbol")
    return np.array([NUMBER_OF[symbol] for symbol in symbols], dtype=np.int64)


def _check_units(path: Path, data: Any) -> None:
    if not isinstance(data, dict) or set(data) != {"length", "energy"}:
        raise DataError(f"{path}: units is {data!r}; expected length: Ang and energy: eV")
    for key, look_up in (("length", units.length_in_ang), ("energy", units.energy_in_ev)):
        try:
            factor = look_up(str(data[key]))
        except UnitError as error:
            raise DataError(f"{path}: units.{key}: {error}") from None
        if factor != 1.0:
            raise DataError(
                f"{path}: units.{key} is {data[key]!r}; {FORMAT} keeps {LENGTH_UNIT} and "
                f"{ENERGY_UNIT}: convert the frames first"
            )
