"""Fit what three molecules have beyond their pairs, without a kernel: dispersion and induction.

    python models/trimers.py [DATASET] [--induction DIMER] [-o DIRECTORY]

`deltaserver train DATASET --component binding --prior triples --n-train 0` does that for any
dataset of `deltaserver dataset cut --order 3`. Here every R and s that it tries is told, and what
else the shipped models were made with: one class of all atoms but hydrogens, ends of 8 to 10 Å,
held-out frames (of a DATASET those of the last fifth of each trajectory's steps; without one, of
data/benzene_trimers.npz, trajectories 4 and 8). That of the least error of held-out frames goes to
DIRECTORY/bindings.yaml:

    deltaserver assemble DIMER DIRECTORY --structure box.xyz --periodic -o MODELS
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from benzene_three import HELD_OUT
from benzene_three import read as read_benzene

from deltaserver.datasets.files import read_dataset
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.model.many.triples import TripleLabels
from deltaserver.training.components import components
from deltaserver.training.symmetry import DEFAULT_CAP
from deltaserver.training.three.entry import induction_of, what_model_yaml_has, write_entry
from deltaserver.training.three.flowing import Flowing
from deltaserver.training.three.prior import Menu, tried
from deltaserver.units import KCAL_PER_MOL_EV

MENU = Menu(
    radii=(2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0), classes=("one",), ends=(8.0, 10.0)
)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="?", type=Path)
    parser.add_argument("--induction", type=Path, metavar="DIMER")
    parser.add_argument("-o", "--output", type=Path, default=Path("run/trimers"))
    return parser.parse_args()


def read(path: Path | None) -> tuple[LabelledFrames, np.ndarray]:
    """Return trimers, and which of them are fitted to."""
    if path is None:
        frames = read_benzene()
        return frames, ~np.isin(frames.trajectory, HELD_OUT)
    frames = read_dataset(path)
    last = np.array([frames.step[frames.trajectory == k].max() for k in frames.trajectory])
    return frames, frames.step < 0.8 * last


def tell(known: TripleLabels, test: LabelledFrames) -> str:
    """Return a potential's parameters, and how far it is from the labels."""
    found = known.evaluate(test.positions)
    rest = (found.energy - test.binding_energy) / KCAL_PER_MOL_EV
    pull = (found.forces - test.binding_forces).reshape(len(test), 3, -1, 3).sum(axis=2)
    on_molecule = np.sqrt((pull**2).mean()) / KCAL_PER_MOL_EV
    (c,) = known.prior.coefficients.values() or (0.0,)
    words = [f"R {known.prior.radius:.1f} Å  C {c:7.1f} eV Å⁹"]
    if known.induction is not None:
        induction = known.induction.induction
        kappas = np.unique(-np.triu(induction.responses[0].matrix, k=1))[::-1]
        flows = ", ".join(f"{kappa:.4f}" for kappa in kappas if kappa > 0.0)
        words.insert(0, f"s {induction.radius:.1f} Å  flows {flows} e/V")
    return (
        f"{'  '.join(words)}  energy RMSE {np.sqrt((rest**2).mean()):.4f}, mean "
        f"{rest.mean():+.4f} kcal/mol, force on a molecule RMSE {on_molecule:.4f} kcal/mol/Å"
    )


def main() -> None:
    asked = arguments()
    frames, train = read(asked.dataset)
    available, test = components(frames), frames.select(np.flatnonzero(~train))
    flowing = None
    if asked.induction is not None:
        flowing = Flowing.read(asked.induction, frames, available, DEFAULT_CAP)
    size = float(np.sqrt((test.binding_energy**2).mean())) / KCAL_PER_MOL_EV
    print(f"held-out labels: {len(test)} trimers, energy RMS {size:.4f} kcal/mol")
    used = np.flatnonzero(train), np.flatnonzero(~train)
    found = []
    for one in tried(frames, available, used, flowing, MENU):
        print(tell(one.known, test), flush=True)
        found.append(one)
    best = min(found, key=lambda one: one.error).known
    told = {"n_train": 0, **what_model_yaml_has(best, None), **induction_of(best, available)}
    asked.output.mkdir(parents=True, exist_ok=True)
    print(write_entry(asked.output, frames, available, {"components": {"binding": told}}))


if __name__ == "__main__":
    main()
