"""Learning curves of every part of C60@buckycatcher: python models/learning_curves.py [PART[:M] …]

Trains each part with more and more points (into run/curves/; what is there already is kept; of the
full model once without symmetry and once, ``full_product``, with all 480 permutations) and tests it
alone, against its own labels, on trajectories that nothing was trained on: 14 and 20 of
c60_buckycatcher_wide, 300 and 400 K. models/train.sh c60 has to have merged the datasets. Prints
the table of docs/results.md.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

from deltaserver.datasets.files import read_dataset
from deltaserver.model.composite import CompositeModel
from deltaserver.units import KCAL_PER_MOL_EV

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "models" / "c60"
WIDE, MERGED = "data/c60_buckycatcher_wide", "run/merged/c60"
HELD_OUT = (14, 20)  # of wide, whose numbers the merged dataset keeps
ITERATIVE = ["--solver", "iterative", "--max-products", "150", "--max-memory", "8GB"]
ON_ALL = ["--hold-out", "14,20,33,37,41", *ITERATIVE]
ON_SITES = ["--linear", "distances", *ON_ALL]
PARTS = {
    "c60": [MERGED, "--symmetry", "fragment", "--sigma", "20", "--tolerance", "1e-4", *ON_ALL],
    "buckycatcher": [MERGED, "--symmetry", "fragment", "--sigma", "20", "--lambda", "1e-6",
                     "--tolerance", "1e-3", *ON_SITES],
    "binding": [MERGED, "--symmetry", "rotations", "--prior", "pairs", "--sigma", "1",
                "--intra-weight", "0", "--tolerance", "2e-2", *ON_SITES],
    "full": [MERGED, "--symmetry", "none", "--sigma", "20", "--tolerance", "1e-3", *ON_ALL,
             "--max-memory", "15GB"],
    "full_product": [MERGED, "--symmetry", "product", "--sigma", "20", "--tolerance", "1e-3",
                     *ON_ALL],
}  # fmt: skip
COMPONENTS = {"full_product": "full"}  # where it has another name than its curve
SIZES = (50, 100, 200, 400, 600, 1000)
MEMORY = {("binding", 1000): "9GB"}  # where 8 GB hold too few points as preconditioner


def train(curve: str, n_train: int) -> Path:
    """Train one part, or find it trained; the fragments beside it are the shipped ones."""
    part = COMPONENTS.get(curve, curve)
    directory = ROOT / "run" / "curves" / f"{curve}-{n_train}"
    directory.mkdir(parents=True, exist_ok=True)
    for name in {"c60", "buckycatcher"} - {part}:
        shutil.copy(SHIPPED / f"{name}.npz", directory)
    options = ["--component", part, "--n-train", str(n_train), "--n-valid", "60", "--quiet"]
    if (curve, n_train) in MEMORY:
        options += ["--max-memory", MEMORY[curve, n_train]]
    command = [sys.executable, "-m", "deltaserver", "train", PARTS[curve][0], "--output",
               str(directory), *PARTS[curve][1:], *options]  # fmt: skip
    subprocess.run(command, cwd=ROOT, check=True)
    return directory


def whole(directory: Path, part: str) -> CompositeModel:
    """Load the shipped model with this part in the place of its own."""
    copy = directory / "whole"
    shutil.copytree(SHIPPED, copy, dirs_exist_ok=True)
    shutil.copy(directory / f"{part}.npz", copy)
    if part == "binding":  # whose prior is its own
        shutil.copy(directory / "model.yaml", copy)
    return CompositeModel.load(copy)


def force_mae(model: CompositeModel, part: str) -> float:
    """Force MAE of a part against its own labels, kcal/mol/Å."""
    frames = read_dataset(ROOT / WIDE)
    test = frames.select(np.flatnonzero(np.isin(frames.trajectory, HELD_OUT)))
    labels = {"full": test.forces, "binding": test.binding_forces}.get(part, test.fragment_forces)
    atoms = np.arange(model.n_atoms)
    for fragment in model.fragments:
        if fragment.name == part:
            atoms = np.array(fragment.atoms)
    found = model.evaluate(test.positions, part).forces
    found = found if found.shape[1] == len(atoms) else found[:, atoms]
    return float(np.abs(found - labels[:, atoms]).mean() / KCAL_PER_MOL_EV)


def main(parts: list[str]) -> None:
    for asked in parts or list(PARTS):
        curve, _, size = asked.partition(":")
        part = COMPONENTS.get(curve, curve)
        for n_train in [int(size)] if size else SIZES:
            directory = train(curve, n_train)
            report = json.loads((directory / "training.json").read_text())["components"][part]
            error = force_mae(whole(directory, part), part)
            minutes = (report["assembly_s"] + report.get("solve_s", 0.0)) / 60
            print(f"| {curve} | {n_train} | {error:.3f} | {minutes:.1f} "
                  f"| {report.get('residual', 0.0):.0e} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
