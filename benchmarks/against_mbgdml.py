"""The same one- and two-body models in deltaserver and in mbGDML: clusters of benzenes, in ms.

    python benchmarks/against_mbgdml.py run/mbgdml [--molecules 4,8,16] [--repeats 3]

The molecule is the shipped benzene of models/benzene_dimer, a native file. The pair is a native
model of 200 dimers out of data/benzene_dimer_wide with all 288 permutations and random
coefficients: it costs what a trained one costs, and both programs have to find the same forces.
Clusters are the molecules nearest to the middle of a piece of the crystal in models/benzenes; no
pair is left out.
Processor time of one thread each; mbGDML runs in an environment of its own, made once.
"""

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is loaded

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks.contest, also in mbGDML's environment

import numpy as np

from deltaserver.units import KCAL_PER_MOL_EV

SHIPPED = ROOT / "models" / "benzene_dimer"
CRYSTAL = ROOT / "models" / "benzenes"
N_TRAIN, SIGMA, SEED = 200, 10.0, 0
WHOLE_PAIRS = [
    100.0,
    102.0,
]  # Å: where the pair's model would end, farther than any cluster is wide


def make_models(directory: Path) -> None:
    """Write the two native models."""
    from deltaserver.datasets.files import read_dataset
    from deltaserver.model.descriptor import PairDescriptor
    from deltaserver.model.engines.reference import as_sgdml
    from deltaserver.model.files.parameters import ModelParameters

    if (directory / "pair.npz").exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(SHIPPED / "benzene1.npz", directory / "one.npz")
    with np.load(SHIPPED / "binding.npz") as binding:
        perms, numbers = binding["perms"], binding["z"]
    frames = read_dataset(ROOT / "data" / "benzene_dimer_wide")
    rng = np.random.default_rng(SEED)
    drawn = np.sort(rng.choice(len(frames), N_TRAIN, replace=False))
    x = PairDescriptor(len(numbers)).geometry(frames.positions[drawn]).descriptor
    pair = ModelParameters(numbers, x, rng.normal(size=x.shape), perms, SIGMA, 0.0)
    units = {"use_E": True, "r_unit": "Ang", "e_unit": "kcal/mol"}
    np.savez(directory / "pair.npz", **as_sgdml(pair), **units)


def cluster(n_molecules: int) -> tuple[np.ndarray, np.ndarray]:
    """Return numbers and positions of the molecules nearest to a crystal's middle."""
    from ase.io import read

    cell = read(CRYSTAL / "structure.xyz")
    n = 12
    atoms = cell.repeat((3, 3, 3))
    centres = atoms.positions.reshape(-1, n, 3).mean(axis=1)
    nearest = np.argsort(np.linalg.norm(centres - centres.mean(axis=0), axis=1), kind="stable")
    chosen = np.sort(nearest[:n_molecules])
    some = (n * chosen[:, None] + np.arange(n)).ravel()
    rng = np.random.default_rng(n_molecules)
    moved = atoms.positions[some] + rng.normal(0.0, 0.02, (len(some), 3))
    return atoms.numbers[some], moved


def timed(evaluate, repeats: int) -> tuple[float, float, np.ndarray]:
    """Return milliseconds of processor time (median), energy in eV and forces in eV/Å."""
    evaluate()
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        energy, forces = evaluate()
        spent.append(time.process_time() - start)
    return 1e3 * float(np.median(spent)), energy, forces


def ours(directory: Path, numbers: np.ndarray, x: np.ndarray):
    """Return an evaluation by deltaserver."""
    import yaml
    from ase import Atoms
    from ase.io import write

    from deltaserver.model import force_field

    models = directory / f"models-{len(x)}"
    models.mkdir(exist_ok=True)
    for name in ("one.npz", "pair.npz"):
        shutil.copy(directory / name, models)
    write(
        models / "structure.xyz",
        Atoms(numbers, x),
        format="extxyz",
        columns=["symbols", "positions"],
    )
    manifest = {
        "format": "deltaserver-model/1", "name": "benzenes", "reference": "none",
        "species": [{"name": "benzene", "model": "one.npz"}],
        "bindings": [
            {"between": ["benzene", "benzene"], "model": "pair.npz", "fade": WHOLE_PAIRS}
        ],
    }  # fmt: skip
    (models / "model.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    model = force_field.load(models, threads=1)

    def evaluate() -> tuple[float, np.ndarray]:
        found = model.evaluate(x)
        return float(found.energy), found.forces

    return evaluate


def theirs(directory: Path, numbers: np.ndarray, x: np.ndarray):
    """Return an evaluation by mbGDML."""
    from mbgdml.mbe import mbePredict
    from mbgdml.models import gdmlModel
    from mbgdml.predictors import predict_gdml

    from benchmarks.contest.calculators import native

    files = (directory / "one.npz", directory / "pair.npz")
    models = [
        gdmlModel(native(file), comp_ids=["benzene"] * order) for order, file in enumerate(files, 1)
    ]
    expansion = mbePredict(models, predict_gdml)
    owner = np.repeat(np.arange(len(x) // 12), 12)
    names = np.array(["benzene"] * (len(x) // 12))

    def evaluate() -> tuple[float, np.ndarray]:
        energy, forces = expansion.predict(numbers, x, owner, names)
        return float(energy[0]) * KCAL_PER_MOL_EV, forces[0] * KCAL_PER_MOL_EV

    return evaluate


def worker(directory: Path, n_molecules: int, repeats: int) -> None:
    """Write what mbGDML finds; runs in its environment."""
    numbers, x = np.load(directory / "numbers.npy"), np.load(directory / "x.npy")
    ms, energy, forces = timed(theirs(directory, numbers, x), repeats)
    np.save(directory / "forces.npy", forces)
    print(json.dumps({"ms": ms, "energy": energy, "molecules": n_molecules}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path)
    parser.add_argument("--molecules", default="4,8,16")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--venvs", type=Path, default=None)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker:
        worker(asked.directory, asked.worker, asked.repeats)
        return
    from benchmarks.contest.entries import BY_NAME
    from benchmarks.contest.environments import DEFAULT, python_of

    python = python_of(BY_NAME["mbgdml"], asked.venvs or DEFAULT)
    make_models(asked.directory)
    print("| molecules | pairs | deltaserver, ms | mbGDML, ms | ratio | largest force difference |")
    print("|---|---|---|---|---|---|")
    for n in map(int, asked.molecules.split(",")):
        numbers, x = cluster(n)
        np.save(asked.directory / "numbers.npy", numbers)
        np.save(asked.directory / "x.npy", x)
        ms, energy, forces = timed(ours(asked.directory, numbers, x), 5 * asked.repeats)
        command = [python, __file__, asked.directory, "--worker", n, "--repeats", asked.repeats]
        done = subprocess.run(
            [str(word) for word in command], capture_output=True, text=True, check=True
        )
        other = json.loads(done.stdout.splitlines()[-1])
        off = np.abs(forces - np.load(asked.directory / "forces.npy")).max() / np.abs(forces).max()
        assert abs(energy - other["energy"]) < 1e-8 * abs(energy)
        print(
            f"| {n} | {n * (n - 1) // 2} | {ms:.1f} | {other['ms']:.0f} | {other['ms'] / ms:.0f} "
            f"| {off:.0e} |", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
