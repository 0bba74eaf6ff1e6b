"""Does a liquid keep its energy while pairs go through the ends of what binds them?

    python benchmarks/liquid.py run/liquid [--model models/benzenes] [--steps 20000]  hours; goes on
    python benchmarks/liquid.py run/liquid --pressure 1 --steps 60000 --timestep 1

64 molecules, turned at random, are pressed together to the density of the liquid (benzene at 298
K, 0.874 g/cm³; carbon dioxide at 240 K on the liquid's side of coexistence, 1.09 g/cm³), warmed
(Langevin) and then left alone (NVE). What is not there yet is made, what was stopped
goes on. The drift is the slope of a straight line through the conserved quantity. With --pressure,
in bar, the warmed liquid is run at constant pressure instead, for its density.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import ase
import numpy as np
from ase.io import read, write
from ase.optimize import FIRE

from deltaserver.analysis.measure.thermo import drift_of
from deltaserver.analysis.read.properties import read_properties
from deltaserver.ase import DeltaCalculator
from deltaserver.model import force_field
from deltaserver.model.many.model import ManyModel
from deltaserver.model.many.molecules import Species
from deltaserver.model.many.neighbours import find_neighbours

SIDE = 4  # molecules along an edge
SHRINK, RELAX = 0.985, 12  # the edge by so much, then so many steps downhill
SKIP_PS, SKIP_NPT_PS = 0.1, 10.0
ENDS = {10.0: "triples", 12.0: "pairs"}  # Å


@dataclass(frozen=True)
class Liquid:
    """What a box begins as, and is pressed to.

    Attributes:
        sparse: edge of the grid's cell that one molecule has, Å.
        edge: edge of the box in the end, Å.
        kelvin: temperature.
    """

    sparse: float
    edge: float
    kelvin: int


LIQUIDS = {"benzene": Liquid(6.8, 21.18, 300), "carbon_dioxide": Liquid(5.0, 16.25, 240)}


def command(*arguments: object) -> None:
    """Run deltaserver."""
    subprocess.run([sys.executable, "-m", "deltaserver", *map(str, arguments)], check=True)


def sparse(species: Species, one: ase.Atoms, seed: int) -> ase.Atoms:
    """Return molecules on a cubic grid, turned at random."""
    rng = np.random.default_rng(seed)
    x = one.positions - one.positions.mean(axis=0)
    spacing = LIQUIDS[species.name].sparse
    grid = spacing * np.array(list(itertools.product(range(SIDE), repeat=3)))
    turned = []
    for at in grid:
        q, r = np.linalg.qr(rng.normal(size=(3, 3)))
        turned.append(x @ (q * np.sign(np.diag(r))).T + at)
    symbols = one.get_chemical_symbols() * len(grid)
    return ase.Atoms(symbols, np.concatenate(turned), cell=[SIDE * spacing] * 3, pbc=True)


def press(atoms: ase.Atoms, edge: float) -> None:
    """Bring whole molecules closer, step by step, until the box has its density."""
    n = len(atoms) // SIDE**3
    while atoms.cell[0, 0] > edge:
        factor = max(SHRINK, edge / atoms.cell[0, 0])
        centres = atoms.positions.reshape(SIDE**3, n, 3).mean(axis=1)
        atoms.positions += np.repeat((factor - 1.0) * centres, n, axis=0)
        atoms.set_cell(factor * atoms.cell)
        FIRE(atoms, logfile=None).run(steps=RELAX)
        print(f"edge {atoms.cell[0, 0]:.2f} Å, {atoms.get_potential_energy():.3f} eV", flush=True)


def make_model(directory: Path, of: Path, species: Species) -> Path:
    """Make the box, and the model of it."""
    model, box = directory / "model", directory / "box.xyz"
    if model.exists():
        return model
    directory.mkdir(parents=True, exist_ok=True)
    molecule = read(of / "structure.xyz")[: len(species.numbers)]
    atoms = sparse(species, molecule, 0)
    columns = ["symbols", "positions"]
    write(box, atoms, format="extxyz", columns=columns, write_results=False)
    command("assemble", of, "--structure", box, "--periodic", "-o", directory / "sparse")
    atoms.calc = DeltaCalculator(directory / "sparse")
    press(atoms, LIQUIDS[species.name].edge)
    write(box, atoms, format="extxyz", columns=columns, write_results=False)
    command("assemble", of, "--structure", box, "--periodic", "-o", model)
    return model


def dynamics(directory: Path, model: Path, *options: object) -> None:
    """Run i-PI with the model in its own process, or go on."""
    if (directory / "run.json").exists():
        command("simulate", "--resume", "--directory", directory)
        return
    command(
        "simulate", "--models", model, "--directory", directory, "--plugin", "--threads", 1,
        "--positions-every", 100, "--energies-every", 5, "--on-extrapolation", "ignore",
        "--checkpoint-every", 200, "--quiet", *options,
    )  # fmt: skip


def last_frame(directory: Path, box: Path, into: Path) -> None:
    """Write where a run ended as the structure of another."""
    found = sorted(directory.glob("*pos*.xyz"))[-1]
    atoms = read(box)
    atoms.positions = read(found, index=-1, format="xyz").positions
    write(into, atoms, format="extxyz", columns=["symbols", "positions"], write_results=False)


def tell_drift(directory: Path, n_atoms: int) -> None:
    """Print the drift of all that is there, and of its halves."""
    read_ = read_properties(sorted(directory.glob("*.out")), print)
    time, conserved = read_.time_ps(), read_.energy_ev("conserved")
    kelvin = read_.temperature_k()
    assert time is not None
    assert conserved is not None
    assert kelvin is not None
    kept = time >= SKIP_PS
    time, conserved, kelvin = time[kept], conserved[kept], kelvin[kept]
    middle = len(time) // 2
    halves = {"first half": slice(middle), "second half": slice(middle, None)}
    for name, some in {"all": slice(None), **halves}.items():
        drift = drift_of(time[some], conserved[some], n_atoms)
        print(
            f"{name}: {time[some][0]:.2f} to {time[some][-1]:.2f} ps, {kelvin[some].mean():.1f} K, "
            f"drift {drift.ev_per_ps / drift.n_atoms:+.1e} ± "
            f"{drift.error_ev_per_ps / drift.n_atoms:.1e} eV/atom/ps, "
            f"scatter {drift.scatter_ev:.1e} eV"
        )


def tell_crossings(directory: Path, model: Path) -> None:
    """Print how often pairs went through the ends of what binds two and three."""
    edge = read(model / "structure.xyz").cell.array.T
    frames = read(sorted(directory.glob("*pos*.xyz"))[-1], index=":", format="xyz")
    for end, what in ENDS.items():
        inside = []
        for frame in frames:
            centres = frame.positions.reshape(SIDE**3, -1, 3).mean(axis=1)
            near = find_neighbours(centres, end, edge)
            images = np.rint(near.shift / edge[0, 0]).astype(int)
            inside.append(set(zip(near.i, near.j, map(tuple, images), strict=True)))
        crossed = sum(len(one ^ other) for one, other in itertools.pairwise(inside))
        print(
            f"{end:g} Å, where {what} end: {np.mean([len(some) for some in inside]):.0f} pairs "
            f"within, {crossed} crossings seen in {len(frames)} frames"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--model", type=Path, default=Path("models/benzenes"))
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--timestep", type=float, default=0.5)
    parser.add_argument("--pressure", type=float, default=None)
    parser.add_argument("--warming", type=int, default=3000, help="steps of Langevin dynamics")
    asked = parser.parse_args()
    many = force_field.load(asked.model, threads=1)
    assert isinstance(many, ManyModel)
    (species,) = many.species
    kelvin = LIQUIDS[species.name].kelvin
    model = make_model(asked.directory, asked.model, species)
    warm, free = asked.directory / "nvt", asked.directory / "nve"
    start = asked.directory / "warm.xyz"
    if not start.exists():
        dynamics(warm, model, "--kind", "nvt", "--temperature", kelvin, "--steps", asked.warming)
        last_frame(warm, asked.directory / "box.xyz", start)
    if asked.pressure is not None:
        pressed = asked.directory / "npt"
        dynamics(
            pressed, model, "--kind", "npt", "--temperature", kelvin, "--pressure", asked.pressure,
            "--thermostat", "svr", "--steps", asked.steps, "--timestep", asked.timestep,
            "--structure", start,
        )  # fmt: skip
        command("analyze", "molecules", pressed, "--skip", SKIP_NPT_PS)
        return
    dynamics(
        free, model, "--kind", "nve", "--temperature", kelvin, "--steps", asked.steps,
        "--timestep", asked.timestep, "--structure", start,
    )  # fmt: skip
    tell_drift(free, SIDE**3 * len(species.numbers))
    tell_crossings(free, model)


if __name__ == "__main__":
    main()
