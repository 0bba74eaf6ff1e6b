"""What every rival is measured on, as one .npz a system: read alike in every environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contest.entries import C60, DIMER

ROOT = Path(__file__).parents[2]
# Trajectories of the …_wide datasets that nothing of ours was trained on (models/train.sh counts
# those of the benzene dimer behind two others: 9, 12, 15 and 21).
HELD_OUT = {DIMER: (7, 10, 13, 19), C60: (14, 20)}
DATASETS = {DIMER: "benzene_dimer_wide", C60: "c60_buckycatcher_wide"}
N_FRAMES = 20
# The first fragment is pulled so far along the line of centres, rigid, from the start structure.
DISPLACEMENTS_ANG = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0)
TEMPERATURE_K, TIME_STEP_FS, FRICTION_PER_FS = 400.0, 0.5, 0.01
PATH_STEPS = 64
WARM_UP_STEPS = 400


@dataclass(frozen=True)
class Case:
    """One system; Å, eV, eV/Å.

    Attributes:
        system: its name, that of its directory in models/.
        output: where models that were trained for this are.
        numbers: [N]
        owner: whose fragment each atom is, [N]
        start: the start structure, [N, 3]
        frames: held-out frames, [F, N, 3], with ``forces`` and ``fragment_forces``, the labels.
        path: consecutive steps of dynamics at 400 K, [P, N, 3]: what is timed.
        curve: [V, N, 3], at ``DISPLACEMENTS_ANG``.
    """

    system: str
    output: Path
    numbers: Any
    owner: Any
    start: Any
    frames: Any
    forces: Any
    fragment_forces: Any
    path: Any
    curve: Any

    @property
    def models(self) -> Path:
        return ROOT / "models" / self.system

    @property
    def fragments(self) -> list[Any]:
        return [np.flatnonzero(self.owner == k) for k in range(self.owner.max() + 1)]

    def write(self, file: Path) -> None:
        arrays = {k: v for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        partial = file.with_suffix(".tmp.npz")
        np.savez_compressed(partial, **arrays)
        partial.replace(file)


def read_case(output: Path, system: str) -> Case:
    with np.load(output / f"{system}.npz", allow_pickle=False) as arrays:
        return Case(system, output, **{name: arrays[name] for name in arrays.files})


def make_case(output: Path, system: str) -> Case:
    """Take held-out frames, a curve and a path; the path is 400 K dynamics of our own model."""
    from deltaserver.datasets.files import read_dataset
    from deltaserver.evaluation.scans.curves import RigidPair
    from deltaserver.textio.structures import read_first

    if (output / f"{system}.npz").is_file():
        return read_case(output, system)
    every = read_dataset(ROOT / "data" / DATASETS[system])
    held = np.flatnonzero(np.isin(every.trajectory, HELD_OUT[system]))
    some = every.select(held[np.linspace(0, len(held) - 1, N_FRAMES).round().astype(int)])
    where = ROOT / "models" / system / "structure.xyz"
    start = read_first(where).positions
    owner = np.zeros(len(every.numbers), dtype=int)
    for k, fragment in enumerate(every.fragments):
        owner[list(fragment.atoms)] = k
    pair = RigidPair.of(every.numbers, start, every.fragments, str(where))
    curve = np.array([pair.moved(d).positions for d in DISPLACEMENTS_ANG])
    path = consecutive_steps(system, every.numbers, start)
    case = Case(
        system, output, every.numbers, owner, start, some.positions, some.forces,
        some.fragment_forces, path, curve,
    )  # fmt: skip
    output.mkdir(parents=True, exist_ok=True)
    case.write(output / f"{system}.npz")
    return case


def consecutive_steps(system: str, numbers: Any, start: Any) -> Any:
    """Return steps of dynamics, as a self-consistent method sees them: each near the last."""
    from ase import Atoms

    from benchmarks.contest.survival import langevin
    from deltaserver.ase import DeltaCalculator

    atoms = Atoms(numbers, start, calculator=DeltaCalculator(ROOT / "models" / system))
    dynamics, path = langevin(atoms, seed=1), []
    dynamics.run(WARM_UP_STEPS)
    for _ in range(PATH_STEPS):
        dynamics.run(1)
        path.append(atoms.positions.copy())
    return np.array(path)
