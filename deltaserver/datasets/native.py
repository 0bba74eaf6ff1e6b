"""Native sGDML datasets of a complex: W, W⁽¹⁾, W⁽²⁾, …, W⁰ and Wᵇ, which sgdml itself reads.

Lengths in Å, energies in kcal/mol, forces in kcal/mol/Å: what sgdml's tools expect.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.model.files.archive import write_arrays
from deltaserver.units import KCAL_PER_MOL_EV

Native = dict[str, Any]


def native_datasets(frames: LabelledFrames) -> dict[str, Native]:
    """Return sGDML datasets by file name without suffix: full, noninteracting, binding, fragments.

    A lone atom gets none: it has a constant energy and nothing to learn.
    """
    everything = np.arange(len(frames.numbers))
    fragment_energy: Floats = frames.fragment_energies.sum(axis=1)
    parts = {
        "full": (everything, frames.energy, frames.forces),
        "noninteracting": (everything, fragment_energy, frames.fragment_forces),
        "binding": (everything, frames.binding_energy, frames.binding_forces),
    }
    for j, fragment in enumerate(frames.fragments):
        if len(fragment.atoms) > 1:
            parts[fragment.name] = (
                np.array(fragment.atoms),
                frames.fragment_energies[:, j],
                frames.fragment_forces,
            )
    return {
        name: _native(frames, name, atoms, energy, forces)
        for name, (atoms, energy, forces) in parts.items()
    }


def write_native_datasets(frames: LabelledFrames, directory: Path) -> list[Path]:
    """Write every native dataset of ``frames`` into ``directory``; return the files."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, dataset in native_datasets(frames).items():
        paths.append(directory / f"{name}.npz")
        write_arrays(paths[-1], dataset)
    return paths


def dataset_md5(dataset: Native) -> bytes:
    """Return the fingerprint of z, R, E and F that ``sgdml.utils.io.dataset_md5`` gives."""
    digest = hashlib.md5(usedforsecurity=False)
    for key in ("z", "R", "E", "F"):
        content = np.ascontiguousarray(dataset[key]).tobytes()
        digest.update(hashlib.md5(content, usedforsecurity=False).digest())
    return digest.hexdigest().encode()


def _native(
    frames: LabelledFrames, part: str, atoms: Ints, energy: Floats, forces: Floats
) -> Native:
    dataset: Native = {
        "type": np.array("d"),
        "name": np.array(f"{frames.name}_{part}"),
        "theory": np.array(frames.reference),
        "z": frames.numbers[atoms].astype(np.uint8),
        "R": frames.positions[:, atoms],
        "F": forces[:, atoms] / KCAL_PER_MOL_EV,
        "E": energy / KCAL_PER_MOL_EV,
        "r_unit": np.array("Ang"),
        "e_unit": np.array("kcal/mol"),
        "trajectory": frames.trajectory,
        "step": frames.step,
    }
    dataset["md5"] = np.array(dataset_md5(dataset))
    return dataset
