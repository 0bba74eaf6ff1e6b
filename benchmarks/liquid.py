"""Does a liquid of benzenes keep its energy while pairs go through the ends of what binds them?

    python benchmarks/liquid.py run/liquid [--steps 20000] [--timestep 0.5]     hours; goes on

64 benzenes, turned at random, are pressed together to the density of the liquid at 298 K, 0.874
g/cm³, warmed (Langevin) and then left alone (NVE). What is not there yet is made, what was stopped
goes on. The drift is the slope of a straight line through the conserved quantity.
"""

from __future__ import annotations

import argparse
import itertools
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import ase
import numpy as np
from ase.io import read, write
from ase.optimize import FIRE

from deltaserver.analysis.measure.thermo import drift_of
from deltaserver.analysis.read.properties import read_properties
from deltaserver.ase import DeltaCalculator
from deltaserver.model.many.neighbours import find_neighbours

SIDE = 4  # molecules along an edge
SPARSE, DENSE = 6.8, 21.18 / SIDE  # Å of the edge for each
SHRINK, RELAX = 0.985, 12  # the edge by so much, then so many steps downhill
SKIP_PS = 0.1
ENDS = {10.0: "triples", 12.0: "pairs"}  # Å
MODEL = Path("models/benzenes")


def command(*arguments: object) -> None:
    """Run deltaserver."""
    subprocess.run([sys.executable, "-m", "deltaserver", *map(str, arguments)], check=True)


def sparse(seed: int) -> ase.Atoms:
    """Return benzenes on a cubic grid, turned at random."""
    rng = np.random.default_rng(seed)
    one = read(MODEL / "structure.xyz")[:12]
    x = one.positions - one.positions.mean(axis=0)
    grid = SPARSE * np.array(list(itertools.product(range(SIDE), repeat=3)))
    turned = []
    for at in grid:
        q, r = np.linalg.qr(rng.normal(size=(3, 3)))
        turned.append(x @ (q * np.sign(np.diag(r))).T + at)
    edge = SIDE * SPARSE
    symbols = one.get_chemical_symbols() * len(grid)
    return ase.Atoms(symbols, np.concatenate(turned), cell=[edge] * 3, pbc=True)


def press(atoms: ase.Atoms) -> None:
    """Bring whole molecules closer, step by step, until the box has its density."""
    while atoms.cell[0, 0] > SIDE * DENSE:
        factor = max(SHRINK, SIDE * DENSE / atoms.cell[0, 0])
        centres = atoms.positions.reshape(SIDE**3, 12, 3).mean(axis=1)
        atoms.positions += np.repeat((factor - 1.0) * centres, 12, axis=0)
        atoms.set_cell(factor * atoms.cell)
        FIRE(atoms, logfile=None).run(steps=RELAX)
        print(f"edge {atoms.cell[0, 0]:.2f} Å, {atoms.get_potential_energy():.3f} eV", flush=True)


def make_model(directory: Path) -> Path:
    """Make the box, and the model of it."""
    model, box = directory / "model", directory / "box.xyz"
    if model.exists():
        return model
    directory.mkdir(parents=True, exist_ok=True)
    atoms = sparse(0)
    columns = ["symbols", "positions"]
    write(box, atoms, format="extxyz", columns=columns, write_results=False)
    command("assemble", MODEL, "--structure", box, "--periodic", "-o", directory / "sparse")
    atoms.calc = DeltaCalculator(directory / "sparse")
    press(atoms)
    write(box, atoms, format="extxyz", columns=columns, write_results=False)
    command("assemble", MODEL, "--structure", box, "--periodic", "-o", model)
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


def tell_drift(directory: Path) -> None:
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
        drift = drift_of(time[some], conserved[some], 12 * SIDE**3)
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
            centres = frame.positions.reshape(-1, 12, 3).mean(axis=1)
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
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--timestep", type=float, default=0.5)
    parser.add_argument("--warming", type=int, default=3000, help="steps of Langevin dynamics")
    asked = parser.parse_args()
    model = make_model(asked.directory)
    warm, free = asked.directory / "nvt", asked.directory / "nve"
    start = asked.directory / "warm.xyz"
    if not start.exists():
        dynamics(warm, model, "--kind", "nvt", "--temperature", 300, "--steps", asked.warming)
        last_frame(warm, asked.directory / "box.xyz", start)
    dynamics(
        free, model, "--kind", "nve", "--temperature", 300, "--steps", asked.steps,
        "--timestep", asked.timestep, "--structure", start,
    )  # fmt: skip
    tell_drift(free)
    tell_crossings(free, model)


if __name__ == "__main__":
    main()
