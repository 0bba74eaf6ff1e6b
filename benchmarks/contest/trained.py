"""Models of rivals that are trained for the table, on the frames that ours are trained on.

The benzene dimer: sgdml's one model by its own recipe (its symmetry search), the two-body model of
mbGDML (native, no prior, all 288 permutations), and a small MACE. Each is made once.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contest.cases import ROOT
from benchmarks.contest.entries import DIMER
from deltaserver.errors import DataError

# As models/train.sh merges them, and what it holds out.
DATA = ("benzene_dimer_gfn2_150K.xyz.gz", "benzene_dimer_wide", "benzene_dimer_apart",
        "benzene_dimer_wall", "benzene_dimer_pressed", "benzene_dimer_around")  # fmt: skip
HOLD_OUT = (9, 12, 15, 21)
MOST_BINDING = "1"
NATIVE = ("--n-train", "200", "--n-valid", "100", "--solver", "exact", "--threads", "1", "--quiet",
          "--hold-out", ",".join(map(str, HOLD_OUT)))  # fmt: skip
RECIPES = {
    "sgdml": ("full", ("--symmetry", "sgdml", "--sigma", "40")),
    "mbgdml": ("binding", ("--symmetry", "product", "--sigma", "10")),
}
MACE_COMPLEXES, MACE_MOLECULES = 400, 100
MACE_CPU_S = 1200
MACE_OPTIONS = (
    "--train_file=train.xyz", "--valid_fraction=0.08", "--E0s=average", "--model=MACE",
    "--num_interactions=2", "--num_channels=32", "--max_L=0", "--correlation=3", "--r_max=5.0",
    "--batch_size=5", "--valid_batch_size=20", "--ema", "--ema_decay=0.99", "--amsgrad",
    "--lr=0.01", "--forces_weight=100", "--energy_weight=1", "--energy_key=REF_energy",
    "--forces_key=REF_forces", "--default_dtype=float32", "--device=cpu", "--seed=0",
    "--eval_interval=1", "--error_table=TotalMAE", "--scheduler=ExponentialLR",
    "--lr_scheduler_gamma=0.95",
)  # fmt: skip
MACE_EPOCHS = 60
LOG, ACCOUNT = "log.txt", "cpu_s.txt"
EPOCH = re.compile(r"_epoch-(\d+)")


def make_models(name: str, system: str, output: Path, python: Path) -> None:
    """Train what this rival needs, where it is not there yet."""
    if system != DIMER:
        return
    if name in RECIPES and not (output / name / f"{RECIPES[name][0]}.npz").is_file():
        component, options = RECIPES[name]
        arguments = ("train", str(merged(output)), "--output", str(output / name))
        deltaserver(*arguments, "--component", component, *options, *NATIVE)
    if name.startswith("mace"):
        train_mace(output / "mace", merged(output), python)


def merged(output: Path) -> Path:
    """Return all frames of the benzene dimer as one dataset."""
    target = output / "merged"
    if not (target / "dataset.yaml").is_file():
        parts = [str(ROOT / "data" / d) for d in DATA if (ROOT / "data" / d).exists()]
        deltaserver(
            "dataset", "merge", *parts, "--output", str(target), "--reference", "GFN2-xTB",
            "--name", "benzene_dimer_all", "--max-binding", MOST_BINDING,
        )  # fmt: skip
    return target


def deltaserver(*arguments: str) -> None:
    run([sys.executable, "-m", "deltaserver", *arguments], ROOT)


def run(command: list[str], where: Path, cpu_s: int | None = None) -> int:
    """Run a program with its output in a log; a limit of processor time ends it quietly.

    Raises:
        DataError: it failed, with the last line that it wrote.
    """

    def limit() -> None:
        if cpu_s is not None:
            resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 60))

    log = where / LOG if cpu_s is not None else None
    with log.open("a") if log else contextlib.nullcontext(subprocess.PIPE) as file:
        done = subprocess.run(
            command, cwd=where, stdout=file, stderr=subprocess.STDOUT, text=True, check=False,
            preexec_fn=limit,
        )  # fmt: skip
    if done.returncode and cpu_s is None:
        lines = (done.stdout or "").strip().splitlines() or ["no output"]
        raise DataError(f"{' '.join(command[:4])} failed: {lines[-1]}")
    return done.returncode


def train_mace(directory: Path, dataset: Path, python: Path) -> None:
    """Train for ``MACE_CPU_S`` of processor time in all, then write the last checkpoint's model.

    Stopped by Ctrl-C, it goes on from its last checkpoint.

    Raises:
        DataError: no model came of it.
    """
    model, account = directory / f"{DIMER}.model", directory / ACCOUNT
    if model.is_file():
        return
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "train.xyz").is_file():
        write_training_frames(directory / "train.xyz", dataset)
    command = [str(python.with_name("mace_run_train")), f"--name={DIMER}", *MACE_OPTIONS]
    left = MACE_CPU_S - (int(account.read_text()) if account.is_file() else 0)
    if left > 0:
        began = cpu_of_children()
        try:
            more = ["--restart_latest"] if last_epoch(directory) else []
            run([*command, f"--max_num_epochs={MACE_EPOCHS}", *more], directory, left)
        finally:
            account.write_text(f"{MACE_CPU_S - left + cpu_of_children() - began:.0f}\n")
    if not model.is_file():
        last = f"--max_num_epochs={last_epoch(directory) + 1}"
        run([*command, last, "--restart_latest"], directory, MACE_CPU_S)
    if not model.is_file():
        raise DataError(f"{directory}: MACE wrote no model; see {LOG} there")


def cpu_of_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


def last_epoch(directory: Path) -> int:
    found = [EPOCH.search(path.name) for path in (directory / "checkpoints").glob("*.pt")]
    return max((int(match[1]) for match in found if match), default=0)


def write_training_frames(file: Path, dataset: Path, seed: int = 0) -> None:
    """Write complexes and single molecules, labels as MACE wants them, none that is held out."""
    import ase.io
    from ase import Atoms

    from deltaserver.datasets.files import read_dataset

    every = read_dataset(dataset)
    every = every.select(np.flatnonzero(~np.isin(every.trajectory, HOLD_OUT)))
    rng = np.random.default_rng(seed)
    pick = rng.permutation(len(every))[:MACE_COMPLEXES]

    def labelled(numbers: Any, x: Any, energy: float, forces: Any) -> Any:
        atoms = Atoms(numbers, x)
        atoms.info["REF_energy"], atoms.arrays["REF_forces"] = float(energy), forces
        return atoms

    found = [
        labelled(every.numbers, every.positions[k], every.energy[k], every.forces[k]) for k in pick
    ]
    some = list(every.fragments[0].atoms)
    for k in pick[:MACE_MOLECULES]:
        x, forces = every.positions[k][some], every.fragment_forces[k][some]
        found.append(labelled(every.numbers[some], x, every.fragment_energies[k, 0], forces))
    ase.io.write(file, [found[k] for k in rng.permutation(len(found))])
