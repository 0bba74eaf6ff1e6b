"""Models of many molecules against GFN2-xTB on clusters that nothing was trained on.

    python models/clusters.py run/clusters [--models models/benzenes …]      some minutes

Clusters of 4, 8, 16 and 20, pressed together and warmed with the fragments and the prior alone, so
that none of the models compared has chosen them: Langevin at two temperatures, a frame every
picosecond. The fragments and the prior are those of the first model.
Frames and labels are kept and taken up again. Energies are model less GFN2-xTB a molecule.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import ase
import numpy as np
import yaml
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read, write
from ase.md.langevin import Langevin
from ase.optimize import FIRE
from ase.units import fs, kB
from crystal import cluster, gfn2, molecule_of, species_of

from deltaserver.ase import DeltaCalculator
from deltaserver.model import force_field
from deltaserver.units import KCAL_PER_MOL_EV

SHIPPED = Path("models/benzenes")
SIZES = (4, 8, 16, 20)
SPACINGS_ANG = {"benzene": 6.0, "carbon_dioxide": 4.2}  # of the grid that molecules come from
KELVIN = {"benzene": (150, 250), "carbon_dioxide": (80, 150)}
TIMESTEP_FS, FRICTION_PER_FS = 0.5, 0.01
EVERY, FRAMES = 2000, 3  # steps between frames, the first of which come after as many


def beginning(model: Path, count: int, seed: int) -> ase.Atoms:
    """Return molecules near each other on a grid, turned at random."""
    rng = np.random.default_rng(seed)
    one = molecule_of(model)
    x = one.positions - one.positions.mean(axis=0)
    grid = np.array(list(itertools.product(range(3), repeat=3)), dtype=float) - 1.0
    near = grid[np.argsort(np.linalg.norm(grid + 0.01, axis=1), kind="stable")[:count]]
    turned = []
    for at in SPACINGS_ANG[species_of(model).name] * near:
        q, r = np.linalg.qr(rng.normal(size=(3, 3)))
        turned.append(x @ (q * np.sign(np.diag(r))).T + at)
    return ase.Atoms(one.get_chemical_symbols() * count, np.concatenate(turned))


def without_learned_pairs(model: Path, count: int, folder: Path) -> Path:
    """Make a model of so many molecules with the prior alone."""
    into = cluster(model, count, folder)
    path = into / "model.yaml"
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    for entry in data["bindings"]:
        entry.pop("model", None)
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return into


def thermal(atoms: ase.Atoms, kelvin: int, rng: np.random.Generator) -> np.ndarray:
    """Return velocities of Maxwell and Boltzmann in ASE's unit, shape (N, 3)."""
    width = np.sqrt(kB * kelvin / atoms.get_masses())
    return width[:, None] * rng.normal(size=(len(atoms), 3))


def sample(model: Path, count: int, kelvin: int, seed: int) -> list[ase.Atoms]:
    """Return frames of a warm cluster."""
    atoms, frames = beginning(model, count, seed), []
    with tempfile.TemporaryDirectory() as folder:
        atoms.calc = DeltaCalculator(without_learned_pairs(model, count, Path(folder)))
        FIRE(atoms, logfile=None).run(fmax=0.05, steps=300)
        rng = np.random.default_rng(seed)
        atoms.set_velocities(thermal(atoms, kelvin, rng))
        dynamics = Langevin(
            atoms, TIMESTEP_FS * fs, temperature_K=kelvin, friction=FRICTION_PER_FS / fs, rng=rng,
            fixcm=False,
        )  # fmt: skip
        for _ in range(FRAMES):
            dynamics.run(EVERY)
            frames.append(ase.Atoms(atoms.get_chemical_symbols(), atoms.positions))
    return frames


def labelled(path: Path, model: Path, count: int, kelvin: int, seed: int) -> list[ase.Atoms]:
    """Return frames with GFN2-xTB's energy and forces, made if they are not there."""
    if not path.exists():
        frames = sample(model, count, kelvin, seed)
        label = gfn2(species_of(model).numbers)
        for atoms in frames:
            energy, forces = label(atoms.positions)
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path.with_suffix(".part"), frames, format="extxyz")
        path.with_suffix(".part").replace(path)
    return read(path, ":")


def compare(model: Path, count: int, frames: list[ase.Atoms]) -> str:
    """Return a model's errors, with and without triples: kcal/mol a molecule, kcal/mol/Å."""
    with tempfile.TemporaryDirectory() as folder:
        field = force_field.load(cluster(model, count, Path(folder)))
    found = field.evaluate(np.array([atoms.positions for atoms in frames]))
    label = np.array([atoms.get_potential_energy() for atoms in frames])
    forces = np.array([atoms.get_forces() for atoms in frames])
    ways: list[tuple[str, Any, Any]] = [("", 0.0, 0.0)]
    if triples := found.contributions.get("triples"):
        ways.append(("pairs alone: ", triples.energy, triples.forces))
    parts = []
    for what, e, f in ways:
        energy = (found.energy - e - label) / count / KCAL_PER_MOL_EV
        wrong = np.abs(found.forces - f - forces).mean(axis=(1, 2)) / KCAL_PER_MOL_EV
        parts.append(
            f"{what}energy {' '.join(f'{one:+.3f}' for one in energy)}, "
            f"force MAE {' '.join(f'{one:.3f}' for one in wrong)}"
        )
    return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--models", type=Path, nargs="+", default=[SHIPPED])
    asked = parser.parse_args()
    first = asked.models[0]
    temperatures = KELVIN[species_of(first).name]
    for seed, (count, kelvin) in enumerate(itertools.product(SIZES, temperatures)):
        path = asked.folder / f"{count}_{kelvin}K.xyz"
        frames = labelled(path, first, count, kelvin, seed)
        for model in asked.models:
            print(f"{count} at {kelvin} K, {model}: {compare(model, count, frames)}", flush=True)


if __name__ == "__main__":
    main()
