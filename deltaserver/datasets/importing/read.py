"""Frames that others have labelled: ``.npz`` of MD17, MD22, rMD17 and sGDML, or extended XYZ.

Whatever they come as, they leave in eV, Å and eV/Å. Labels of the complex are kept; fragments'
labels are taken where they are there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.files import stated_steps
from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
from deltaserver.datasets.given import read_structures
from deltaserver.datasets.importing.label_units import LabelUnits, parse_units
from deltaserver.errors import DataError, UnitError
from deltaserver.textio.species import parse_species
from deltaserver.textio.xyz_frames import Frame, Note

ENERGY_KEYS = ("energy_full", "energy", "REF_energy", "Energy", "dft_energy", "total_energy")
FORCES_KEYS = ("forces_full", "forces", "REF_forces", "force", "dft_forces")
# Numbers, positions, energies, forces: as sGDML (MD17, MD22) and rMD17 name them.
NPZ_KEYS = (("z", "R", "E", "F"), ("nuclear_charges", "coords", "energies", "forces"))
NPZ_UNITS = "kcal/mol,Ang"  # of both collections


@dataclass(frozen=True)
class Keys:
    """What the labels are called in an extended XYZ file; None: by one of the usual names."""

    energy: str | None = None
    forces: str | None = None


@dataclass(frozen=True)
class Imported:
    """M labelled frames of a complex; eV, Å, eV/Å. Fragments' labels are None if not there."""

    numbers: Ints  # [N]
    positions: Floats  # [M, N, 3]
    energy: Floats  # [M]
    forces: Floats  # [M, N, 3]
    steps: Ints  # [M, 2]: trajectory and step
    fragment_energies: Floats | None = None  # [M, K]
    fragment_forces: Floats | None = None  # [M, N, 3]

    def select(self, index: Ints) -> Imported:
        """Return the frames at ``index``."""
        energies, forces = self.fragment_energies, self.fragment_forces
        return Imported(
            self.numbers,
            self.positions[index],
            self.energy[index],
            self.forces[index],
            self.steps[index],
            None if energies is None else energies[index],
            None if forces is None else forces[index],
        )

    def labelled(
        self, fragments: tuple[FragmentSpec, ...], name: str, reference: str
    ) -> LabelledFrames | None:
        """Return the frames with all labels, None if those of fragments are not there.

        The only fragment of a complex is the complex.
        """
        energies, forces = self.fragment_energies, self.fragment_forces
        if len(fragments) == 1:
            energies, forces = self.energy[:, None], self.forces
        if energies is None or forces is None:
            return None
        return LabelledFrames(
            name=name,
            reference=reference,
            numbers=self.numbers,
            fragments=fragments,
            positions=self.positions,
            energy=self.energy,
            forces=self.forces,
            fragment_energies=energies,
            fragment_forces=forces,
            trajectory=self.steps[:, 0],
            step=self.steps[:, 1],
        )


def read_labelled(
    path: Path, fragments: Sequence[FragmentSpec], keys: Keys, units: str | None, note: Note
) -> Imported:
    """Read the frames of a file and their labels.

    Raises:
        DataError: no such file, not readable, or labels that are not there or not finite.
        UnitError: units that are not known.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected an .npz or extended XYZ file with labels")
    if path.suffix == ".npz":
        found = _from_npz(path, keys, units, note)
    else:
        found = _from_xyz(path, fragments, keys, parse_units(units or "eV,Ang"), note)
    shape = found.positions.shape
    if found.forces.shape != shape or found.energy.shape != shape[:1]:
        raise DataError(
            f"{path}: energies of shape {found.energy.shape} and forces of {found.forces.shape} "
            f"for positions of {shape}; expected one energy a frame and one force an atom"
        )
    for what in ("positions", "energy", "forces"):
        finite = np.isfinite(getattr(found, what).reshape(len(found.energy), -1)).all(axis=1)
        if not finite.all():
            raise DataError(f"{path}: frame {int(np.argmin(finite))}: {what} is not finite")
    return found


def _from_npz(path: Path, keys: Keys, units: str | None, note: Note) -> Imported:
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {key: file[key] for key in file.files if file[key].dtype.kind in "biufUS"}
    except Exception as error:  # zipfile, numpy and zlib raise what the damage leads to
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise DataError(f"{path}: not readable as .npz ({reason})") from None
    known = [(z, r, keys.energy or e, keys.forces or f) for z, r, e, f in NPZ_KEYS]
    names = next((names for names in known if set(names) <= set(data)), None)
    if names is None:
        raise DataError(
            f"{path}: has {', '.join(sorted(data)) or 'nothing'}; expected z, R, E, F as in MD17, "
            "MD22 and sGDML, or nuclear_charges, coords, energies, forces as in rMD17"
        )
    numbers, positions, energy, forces = (data[name] for name in names)
    _check_npz(path, {name: data[name] for name in names})
    stated = [_text(data[key]) for key in ("e_unit", "r_unit") if key in data]
    if units is None and len(stated) < 2:
        units = NPZ_UNITS
        note(f"{path}: states no units; taken for {units}; --units says otherwise")
    try:
        factor = parse_units(units or ",".join(stated))
    except UnitError as error:
        if units is not None:
            raise
        raise UnitError(f"{path}: e_unit and r_unit are {stated}; give --units") from error
    n_frames = len(positions)
    steps = [data.get("trajectory", np.zeros(n_frames)), data.get("step", np.arange(n_frames))]
    for name, values in zip(("trajectory", "step"), steps, strict=True):
        if values.shape != (n_frames,) or values.dtype.kind not in "biuf":
            raise DataError(
                f"{path}: {name} has shape {values.shape}; expected a number for each of "
                f"{n_frames} frames"
            )
    return Imported(
        numbers=numbers.reshape(-1, numbers.shape[-1])[0].astype(np.int64),
        positions=positions.astype(np.float64) * factor.length_ang,
        energy=energy.ravel() * factor.energy_ev,
        forces=forces.astype(np.float64) * factor.force_ev_per_ang,
        steps=np.column_stack(steps).astype(np.int64),
    )


def _check_npz(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Refuse labels that are no numbers, elements that change, and a file without frames."""
    for name, values in arrays.items():
        if values.dtype.kind not in "iuf":
            raise DataError(f"{path}: {name} holds {values.dtype}; expected numbers")
    numbers, positions = list(arrays.values())[:2]
    if not positions.size:
        raise DataError(f"{path}: no frames in it")
    if (numbers.reshape(-1, numbers.shape[-1]) != numbers.reshape(-1, numbers.shape[-1])[0]).any():
        raise DataError(f"{path}: frames of other atoms than the first; expected one complex")


def _text(value: NDArray[Any]) -> str:
    found = value.item() if value.size == 1 else str(value)
    return found.decode("utf-8", "replace") if isinstance(found, bytes) else str(found)


def _from_xyz(
    path: Path, fragments: Sequence[FragmentSpec], keys: Keys, factor: LabelUnits, note: Note
) -> Imported:
    frames = read_structures(path, note)
    numbers = frames[0].numbers
    for index, frame in enumerate(frames):
        if not np.array_equal(frame.numbers, numbers):
            raise DataError(f"{path}: frame {index} has other atoms than the first one")
    energy_key = _key(path, "energy", keys.energy, ENERGY_KEYS, frames[0].info)
    forces_key = _key(path, "forces", keys.forces, FORCES_KEYS, frames[0].arrays)
    alone = [f"energy_frag{j}" for j in range(1, len(fragments) + 1)]
    has_alone = all(set(alone) <= set(f.info) and "forces_frag" in f.arrays for f in frames)
    steps = np.array(stated_steps(frames, str(path)), dtype=np.int64)
    return Imported(
        numbers=numbers,
        positions=np.array([frame.positions for frame in frames]) * factor.length_ang,
        energy=_energies(path, frames, [energy_key])[:, 0] * factor.energy_ev,
        forces=_forces(path, frames, forces_key) * factor.force_ev_per_ang,
        steps=steps,
        fragment_energies=_energies(path, frames, alone) * factor.energy_ev if has_alone else None,
        fragment_forces=(
            _forces(path, frames, "forces_frag") * factor.force_ev_per_ang if has_alone else None
        ),
    )


def _key(path: Path, what: str, asked: str | None, usual: Sequence[str], there: Any) -> str:
    wanted = (asked,) if asked else usual
    for key in wanted:
        if key in there:
            return str(key)
    raise DataError(
        f"{path}: frame 0 has no {what} called {' or '.join(wanted)}; it has "
        f"{', '.join(sorted(there)) or 'none'}: give --{what}-key"
    )


def _energies(path: Path, frames: Sequence[Frame], keys: Sequence[str]) -> Floats:
    values = np.empty((len(frames), len(keys)))
    for index, frame in enumerate(frames):
        for k, key in enumerate(keys):
            value = frame.info.get(key)
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise DataError(f"{path}: frame {index}: {key} is {value!r}; expected a number")
            values[index, k] = value
    return values


def _forces(path: Path, frames: Sequence[Frame], key: str) -> Floats:
    for index, frame in enumerate(frames):
        values = frame.arrays.get(key)
        if values is None or values.shape != (len(frame), 3) or values.dtype.kind not in "if":
            raise DataError(f"{path}: frame {index}: {key} is no force of every atom")
    return np.array([frame.arrays[key] for frame in frames], dtype=np.float64)


def elements_known(numbers: Ints, where: str) -> None:
    """Refuse atomic numbers that are none (DataError)."""
    for number in numbers.tolist():
        try:
            parse_species(str(number))
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
