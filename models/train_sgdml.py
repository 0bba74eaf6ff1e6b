"""Train the shipped models with sgdml: ``python models/train_sgdml.py benzene_dimer c60``.

For each system this trains one model per fragment on isolated-fragment labels, the binding
model on the difference, and the full model that serves as the baseline. Every candidate
(one length scale sigma of one component) is written to ``models/.candidates/`` as soon as it
exists, so a killed run resumes where it stopped. The candidate with the lowest validation
force error wins.

Frames are split in time, never at random: of each trajectory the first 80 % train and
validate, a gap follows, and the last 16 % are held out for the test.

Needs the extra ``[train]`` (sgdml 1.0.3 needs numpy < 2.4).
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase.io import read
from sgdml.predict import GDMLPredict
from sgdml.train import GDMLTrain
from sgdml.utils.io import dataset_md5

EV_TO_KCAL = 1.602176634e-19 * 6.02214076e23 / 4184.0  # CODATA 2019, thermochemical calorie
TRAIN_FRACTION, TEST_FRACTION = 0.80, 0.16
PICKLED_KEYS = ("f_err", "e_err", "md5_test")  # Python objects: not shipped, not needed to predict
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Component:
    """One model to train: which atoms, which label columns, which symmetry."""

    name: str
    atoms: tuple[slice, ...]  # several slices: identical molecules pooled into one dataset
    labels: str  # "frag", "binding" or "full"
    use_sym: bool


@dataclass(frozen=True)
class System:
    data: str
    n_train: int
    n_valid: int
    sigmas: tuple[int, ...]
    components: tuple[Component, ...]


EVERYTHING = (slice(None),)
SYSTEMS = {
    "benzene_dimer": System(
        data="benzene_dimer_gfn2_150K.xyz.gz",
        n_train=200,
        n_valid=60,
        sigmas=(10, 20, 40, 80, 160),
        components=(
            Component("benzene", (slice(0, 12), slice(12, 24)), "frag", True),
            Component("binding", EVERYTHING, "binding", True),
            Component("full", EVERYTHING, "full", True),
        ),
    ),
    "c60": System(
        data="c60_buckycatcher_gfn2_400K.xyz.gz",
        n_train=40,
        n_valid=40,
        sigmas=(10, 20, 40, 80),
        components=(
            Component("c60", (slice(0, 60),), "frag", True),
            Component("buckycatcher", (slice(60, 148),), "frag", True),
            Component("binding", EVERYTHING, "binding", True),
            Component("full", EVERYTHING, "full", True),
        ),
    ),
}


def split_in_time(frames: list[Any]) -> tuple[list[Any], list[Any]]:
    """Return (train and validation frames, held-out frames), trajectory by trajectory."""
    train, test = [], []
    for trajectory in sorted({frame.info.get("traj", 0) for frame in frames}):
        part = [f for f in frames if f.info.get("traj", 0) == trajectory]
        train += part[: int(TRAIN_FRACTION * len(part))]
        test += part[len(part) - int(TEST_FRACTION * len(part)) :]
    return train, test


def dataset(name: str, component: Component, frames: list[Any]) -> dict[str, Any]:
    """Build a native sGDML dataset (kcal/mol, Ang) of one component."""
    positions, forces, energies = [], [], []
    for index, atoms in enumerate(component.atoms, start=1):
        fragment = index if len(component.atoms) > 1 else {"c60": 1}.get(component.name, 2)
        for frame in frames:
            f_full, f_frag = frame.arrays["forces_full"], frame.arrays["forces_frag"]
            e_frags = frame.info["energy_frag1"] + frame.info["energy_frag2"]
            force, energy = {
                "full": (f_full, frame.info["energy_full"]),
                "binding": (f_full - f_frag, frame.info["energy_full"] - e_frags),
                "frag": (f_frag, frame.info[f"energy_frag{fragment}"]),
            }[component.labels]
            positions.append(frame.positions[atoms])
            forces.append(force[atoms])
            energies.append(energy)
    data: dict[str, Any] = {
        "type": "d",
        "name": np.array(f"{name}_{component.name}"),
        "theory": np.array("GFN2-xTB"),
        "z": frames[0].numbers[component.atoms[0]].astype(np.uint8),
        "R": np.array(positions),
        "F": np.array(forces) * EV_TO_KCAL,
        "E": np.array(energies) * EV_TO_KCAL,
        "r_unit": np.array("Ang"),
        "e_unit": np.array("kcal/mol"),
    }
    data["md5"] = np.array(dataset_md5(data))
    return data


def force_mae(model: dict[str, Any], data: dict[str, Any], indices: Any = slice(None)) -> float:
    predictor = GDMLPredict(model, max_processes=1)
    positions, forces = data["R"][indices], data["F"][indices]
    predicted = predictor.predict(positions.reshape(len(positions), -1))[1]
    return float(np.abs(predicted - forces.reshape(len(forces), -1)).mean())


def train_component(name: str, system: System, component: Component, frames: list[Any]) -> Path:
    """Train every sigma that is not there yet; return the path of the best candidate."""
    candidates = HERE / ".candidates" / name
    candidates.mkdir(parents=True, exist_ok=True)
    data = dataset(name, component, frames)
    trainer = GDMLTrain(max_processes=1, max_memory=20)
    perms = None
    errors = {}
    for sigma in system.sigmas:
        path = candidates / f"{component.name}-m{system.n_train}-s{sigma}.npz"
        if not path.exists():
            np.random.seed(2025)  # sgdml samples training points from numpy's global state
            task = trainer.create_task(
                data, system.n_train, data, system.n_valid, sigma,
                perms=perms, use_sym=component.use_sym,
            )  # fmt: skip
            # Searched for once, the same for every sigma. sgdml returns None where the group
            # does not close within 100 permutations (the benzene dimer, 288), and then crashes.
            perms = task["perms"]
            if perms is None:
                perms = task["perms"] = np.arange(len(data["z"]))[None, :]
            model = trainer.train(task)
            mae = force_mae(model, data, task["idxs_valid"])
            np.savez_compressed(path.with_suffix(".tmp.npz"), **model, valid_force_mae=mae)
            path.with_suffix(".tmp.npz").rename(path)
        with np.load(path, allow_pickle=False) as saved:
            errors[path] = float(saved["valid_force_mae"])
            n_perms = len(saved["perms"])
        print(
            f"{name}/{component.name}: sigma {sigma:4d}, {n_perms} permutations, "
            f"validation force MAE {errors[path]:.4f} kcal/mol/Ang",
            flush=True,
        )
    return min(errors, key=lambda p: errors[p])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("systems", nargs="*", default=list(SYSTEMS), choices=list(SYSTEMS))
    for name in parser.parse_args().systems:
        system = SYSTEMS[name]
        frames = read(HERE.parent / "data" / system.data, index=":")
        train, test = split_in_time(frames)
        report = {}
        for component in system.components:
            best = train_component(name, system, component, train)
            (HERE / name).mkdir(exist_ok=True)
            with np.load(best, allow_pickle=False) as saved:
                model = {k: saved[k] for k in saved.files if k not in PICKLED_KEYS}
            np.savez_compressed(HERE / name / f"{component.name}.npz", **model)
            report[component.name] = {
                "sigma": int(model["sig"]),
                "n_train": int(model["R_desc"].shape[1]),
                "n_perms": len(model["perms"]),
                "test_force_mae_kcal": force_mae(model, dataset(name, component, test)),
            }
            print(f"{name}/{component.name}: {report[component.name]}", flush=True)
        (HERE / name / "training.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
