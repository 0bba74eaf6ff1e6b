"""Fit the linear expansion of the shipped C60@buckycatcher binding anew, beside its kernel.

    python models/c60_refit.py run/merged/c60_walls models/c60

The kernel knows the well, ways out and contacts that dynamics reaches (models/train.sh). The
outside of the catcher has more contacts than a kernel can have points: molecules that were put
together anew, near the wall that the model before had. The expansion is fitted to those as well,
with two functions more that end within an ångström of contact, so that the well hardly feels what
they learn. Frames of the well count more. The uncertainty is calibrated then, on frames that
nothing was fitted to. Some twenty minutes.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from no3_refit import progress

from deltaserver import CompositeModel
from deltaserver.datasets.files import read_dataset
from deltaserver.model.files.archive import read_arrays, write_arrays
from deltaserver.model.linear.radials import Radials
from deltaserver.model.sgdml import SGDMLModel, concatenate
from deltaserver.textio.journal import write_atomically
from deltaserver.training.components import components, labelled_set, less, without_prior
from deltaserver.training.linear.embedding_terms import DECAYS
from deltaserver.training.linear.fit import linear_fit
from deltaserver.training.linear.least_squares import LeastSquares, largest_alike
from deltaserver.training.linear.site_fit import ENERGY_WEIGHT, SiteFit
from deltaserver.training.symmetry import DEFAULT_CAP
from deltaserver.training.uncertainty.directory import Checked, with_uncertainty
from deltaserver.units import KCAL_PER_MOL_EV

HELD_OUT = (14, 20, 33, 37, 41)
N_VALID = 100
WEIGHTS = {  # of datasets; all others count 1
    **dict.fromkeys(("wide", "turned", "gfn2_400K.xyz.gz"), 2.0),
    **dict.fromkeys(("placed", "walls"), 0.5),
}
RADIALS = Radials((*DECAYS, 4.8, 7.2), ((6, 2.5), (8, 3.0)))
RIDGE = 1e-7
BATCH = 50


def weights(merged: Path, trajectory: np.ndarray) -> np.ndarray:
    """Return how much every frame counts by the dataset that it is of, shape (M,)."""
    found = np.ones(len(trajectory))
    for source in yaml.safe_load((merged / "dataset.yaml").read_text())["provenance"]["merged"]:
        name = source["dataset"].removeprefix("c60_buckycatcher_")
        some = np.isin(trajectory, list(source["trajectories"].values()))
        found[some] = WEIGHTS.get(name, 1.0)
    return found


def problem(merged: Path, model: CompositeModel) -> SiteFit:
    """Return the fit to what prior and kernel leave."""
    frames = read_dataset(merged)
    available = components(frames)
    binding = next(one for one in available if one.name == "binding")
    labels = without_prior(labelled_set(frames, binding), model.prior)
    free = np.flatnonzero(~np.isin(frames.trajectory[labels.frame], HELD_OUT))
    valid = np.sort(np.random.default_rng(1).choice(free, N_VALID, replace=False))
    train = np.setdiff1d(free, valid)
    kernel = SGDMLModel(replace(model.binding.parameters, linear=None), model.binding.native)
    x = labels.positions
    known = concatenate([kernel.evaluate(x[k : k + BATCH]) for k in range(0, len(x), BATCH)])
    left = less(labels, known.energy, known.forces)
    fit = linear_fit(frames, available, binding, left, train, valid, DEFAULT_CAP)
    counts = weights(merged, frames.trajectory[labels.frame]) * fit.weight
    return replace(fit, weight=counts, radials=RADIALS)


def solve(fit: SiteFit, tell=progress(20)):
    """Return the expansion that fits best."""
    rows_of = LeastSquares(fit.n_columns)
    for k, frame in enumerate(fit.train):
        energy, forces = fit.rows(fit.data.positions[frame])
        label = np.append(ENERGY_WEIGHT * fit.data.energy[frame], fit.data.forces[frame])
        counted = fit.weight[frame] * np.concatenate([ENERGY_WEIGHT * energy[None], forces])
        rows_of.add(counted, fit.weight[frame] * label / KCAL_PER_MOL_EV)
        tell("fitting sites", (k + 1) / len(fit.train))
    return fit.expansion(rows_of.solve(RIDGE, None, largest_alike(rows_of.norms, fit.family)))


def main(merged: Path, directory: Path) -> None:
    """Write ``binding.npz`` of ``directory`` with another expansion."""
    path = directory / "binding.npz"
    fit = problem(merged, CompositeModel.load(directory))
    write_arrays(path, {**read_arrays(path), **solve(fit).arrays()})
    model = CompositeModel.load(directory)
    labels = read_dataset(merged)
    binding = next(one for one in components(labels) if one.name == "binding")
    checked = Checked(
        without_prior(labelled_set(labels, binding), model.prior), fit.valid, model.prior
    )
    write_atomically(path, with_uncertainty(path, checked)[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
