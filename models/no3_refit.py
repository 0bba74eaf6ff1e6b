"""Fit the linear expansion of the shipped NO3⁻ binding anew, beside its kernel.

    python models/no3_refit.py run/merged/no3_refit models/no3_corona_surrogate

The kernel's 600 points are of the well and of places all around (models/train.sh). A kernel of
frames of all kinds is worse everywhere, but the expansion beside it gains from them: frames of the
model's own dynamics, of hot and cold hosts, of hosts that move alone. Molecules that were put
together anew count less than those that dynamics brought together, and frames that an earlier
model's dynamics led to, where it was wrong by 0.5 to 1.5 eV, count twice. Some ten minutes.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from deltaserver import CompositeModel
from deltaserver.datasets.files import read_dataset
from deltaserver.model.files.archive import read_arrays, write_arrays
from deltaserver.model.sgdml import SGDMLModel, concatenate
from deltaserver.training.components import components, labelled_set, without_prior
from deltaserver.training.linear.fit import linear_fit
from deltaserver.training.linear.refit import refit_sites
from deltaserver.training.symmetry import DEFAULT_CAP
from deltaserver.units import KCAL_PER_MOL_EV

HELD_OUT = (4, 5, 9, 13, 17)
N_VALID = 300
NAME = "no3_corona_surrogate"
WEIGHTS = {  # of datasets; all others are of dynamics, and count 1
    **dict.fromkeys(("around", "apart", "placed", "contacts", "cold", "alone"), 0.3),
    "still": 0.5,
    "met": 2.0,
}
BATCH = 50


def weights(merged: Path, trajectory: np.ndarray) -> np.ndarray:
    """Return how much every frame counts by the dataset that it is of, shape (M,)."""
    found = np.ones(len(trajectory))
    provenance = yaml.safe_load((merged / "dataset.yaml").read_text())["provenance"]
    for source in provenance["merged"]:
        weight = WEIGHTS.get(source["dataset"].removeprefix(f"{NAME}_"), 1.0)
        found[np.isin(trajectory, list(source["trajectories"].values()))] = weight
    return found


def main(merged: Path, directory: Path) -> None:
    """Write ``binding.npz`` of ``directory`` with another expansion."""
    model, frames = CompositeModel.load(directory), read_dataset(merged)
    available = components(frames)
    binding = next(one for one in available if one.name == "binding")
    data = labelled_set(frames, binding)
    trajectory = frames.trajectory[data.frame]
    counts = weights(merged, trajectory)
    data = without_prior(data, model.prior)
    free = np.flatnonzero(~np.isin(trajectory, HELD_OUT))
    valid = np.sort(np.random.default_rng(1).choice(free, N_VALID, replace=False))
    train = np.setdiff1d(free, valid)
    fit = linear_fit(frames, available, binding, data, train, valid, DEFAULT_CAP, limit=True)
    fit = replace(fit, weight=counts * fit.weight)
    alone = SGDMLModel(replace(model.binding.parameters, linear=None), model.binding.native)

    def kernel(x: np.ndarray):
        found = concatenate([alone.evaluate(x[k : k + BATCH]) for k in range(0, len(x), BATCH)])
        energy, forces = found.energy / KCAL_PER_MOL_EV, found.forces / KCAL_PER_MOL_EV
        return replace(found, energy=energy, forces=forces)

    said = set()

    def tell(what: str, fraction: float) -> None:
        if (step := (what, int(10 * fraction))) not in said:
            said.add(step)
            print(f"{what}: {fraction:.0%}", flush=True)

    expansion = refit_sites(fit, kernel, tell)
    path = directory / "binding.npz"
    write_arrays(path, {**read_arrays(path), **expansion.arrays()})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
