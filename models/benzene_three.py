"""Train a kernel on what three benzenes have beyond their pairs, and test it.

    python models/benzene_three.py run/benzene_three [--n-train 120] [--prior none]

The 288 trimers of data/benzene_trimers.npz, trajectories 4 and 8 held out, as
models/trimers.py holds them out for the shipped potential, which is told beside. Some
minutes of a core. To serve it:

    deltaserver assemble models/benzenes run/benzene_three --structure box.xyz -o DIRECTORY
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import yaml

from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
from deltaserver.model.manifest import parse_atoms
from deltaserver.model.many.triple_block import parse_triples
from deltaserver.model.sgdml import SGDMLModel
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.model_directory import train_directory
from deltaserver.units import KCAL_PER_MOL_EV

ROOT = Path(__file__).parents[1]
DATA, SHIPPED = ROOT / "data" / "benzene_trimers.npz", ROOT / "models" / "benzenes" / "model.yaml"
HELD_OUT = (4, 8)
MOLECULES = [tuple(range(12 * k, 12 * k + 12)) for k in range(3)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=Path)
    parser.add_argument("--n-train", type=int, default=120)
    parser.add_argument("--prior", choices=("none", "triples"), default="triples")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def read() -> LabelledFrames:
    """Return the trimers; molecules by themselves and pairs are taken off already."""
    data = np.load(DATA, allow_pickle=False)
    x, f = (data[key].astype(float) for key in ("positions_ang", "forces_ev_per_ang"))
    n, nothing = len(x), np.zeros((len(x), 36, 3))
    return LabelledFrames(
        "benzene_trimers", "GFN2-xTB", np.tile([6, 1], 18),
        tuple(FragmentSpec(f"benzene{k + 1}", own) for k, own in enumerate(MOLECULES)),
        x.reshape(n, 36, 3), data["energy_ev"], f.reshape(n, 36, 3), np.zeros((n, 3)), nothing,
        data["trajectory"], np.arange(n), np.zeros(n), nothing,
    )  # fmt: skip


def tell(what: str, frames: LabelledFrames, energy: np.ndarray, forces: np.ndarray) -> None:
    """Print how far energies (eV) and forces (eV/Å) are from the labels."""
    left = (energy - frames.binding_energy) / KCAL_PER_MOL_EV
    force = (forces - frames.binding_forces) / KCAL_PER_MOL_EV
    pull = force.reshape(-1, 3, 12, 3).sum(axis=2)
    print(
        f"{what:16s} energy RMSE {np.sqrt((left**2).mean()):.4f} kcal/mol, force on a molecule "
        f"RMSE {np.sqrt((pull**2).mean()):.4f}, on an atom MAE {np.abs(force).mean():.4f} "
        "kcal/mol/Å"
    )


def main() -> None:
    asked, frames = arguments(), read()
    plan = TrainingPlan(
        component="binding", n_train=asked.n_train, n_valid=40, sigmas=(10.0, 20.0, 40.0),
        intra_weights=(0.3,), prior=asked.prior, held_out_trajectories=HELD_OUT,
        threads=asked.threads,
    )  # fmt: skip
    train_directory(frames, plan, asked.output, print)
    test = frames.select(np.flatnonzero(np.isin(frames.trajectory, HELD_OUT)))
    zero = np.zeros(len(test)), np.zeros(test.forces.shape)
    tell("the labels", test, *zero)
    (shipped,) = (
        one["prior"]
        for one in yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))["bindings"]
        if len(one["between"]) == 3
    )
    known = parse_triples(shipped, MOLECULES, parse_atoms).of_whole(test.positions)
    tell("models/benzenes", test, known.energy, known.forces)
    entry = yaml.safe_load((asked.output / "bindings.yaml").read_text("utf-8"))["bindings"][0]
    energy, forces = zero
    if "prior" in entry:
        prior = parse_triples(entry["prior"], MOLECULES, parse_atoms).of_whole(test.positions)
        energy, forces = prior.energy, prior.forces
        tell("--prior triples", test, energy, forces)
    learned = SGDMLModel.load(asked.output / "binding.npz").evaluate(test.positions)
    tell("with a kernel", test, energy + learned.energy, forces + learned.forces)


if __name__ == "__main__":
    main()
