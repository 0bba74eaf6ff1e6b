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
from no3_refit import of_kernel, progress

from deltaserver import CompositeModel
from deltaserver.datasets.files import read_dataset
from deltaserver.model.files.archive import read_arrays, write_arrays
from deltaserver.model.linear.radials import Radials
from deltaserver.textio.journal import write_atomically
from deltaserver.training.components import (
    LabelledSet,
    components,
    labelled_set,
    less,
    without_prior,
)
from deltaserver.training.linear.embedding_terms import DECAYS
from deltaserver.training.linear.fit import linear_fit
from deltaserver.training.linear.frame_weights import FrameWeights
from deltaserver.training.linear.site_fit import SiteFit
from deltaserver.training.symmetry import DEFAULT_CAP
from deltaserver.training.uncertainty.directory import Checked, with_uncertainty

HELD_OUT = (14, 20, 33, 37, 41)
N_VALID = 100
WEIGHTS = {  # of datasets; all others count 1
    **{f"c60_buckycatcher_{one}": 2.0 for one in ("wide", "turned", "gfn2_400K.xyz.gz")},
    **{f"c60_buckycatcher_{one}": 0.5 for one in ("placed", "walls")},
}
RADIALS = Radials((*DECAYS, 4.8, 7.2), ((6, 2.5), (8, 3.0)))
RIDGES = (1e-7,)


def problem(merged: Path, model: CompositeModel) -> tuple[SiteFit, LabelledSet]:
    """Return the fit to what prior and kernel leave, and the labels less the prior's."""
    frames = read_dataset(merged)
    available = components(frames)
    binding = next(one for one in available if one.name == "binding")
    labels = without_prior(labelled_set(frames, binding), model.prior)
    trajectory = frames.trajectory[labels.frame]
    free = np.flatnonzero(~np.isin(trajectory, HELD_OUT))
    valid = np.sort(np.random.default_rng(1).choice(free, N_VALID, replace=False))
    train = np.setdiff1d(free, valid)
    known = of_kernel(model, labels.positions)
    left = less(labels, known.energy, known.forces)
    fit = linear_fit(frames, available, binding, left, train, valid, DEFAULT_CAP)
    counts = FrameWeights.read(merged, WEIGHTS).of(trajectory) * fit.weight
    return replace(fit, weight=counts, radials=RADIALS, ridges=RIDGES, n_contacts=0), labels


def main(merged: Path, directory: Path) -> None:
    """Write ``binding.npz`` of ``directory`` with another expansion."""
    path, model = directory / "binding.npz", CompositeModel.load(directory)
    fit, labels = problem(merged, model)
    write_arrays(path, {**read_arrays(path), **fit.solve(progress(20)).arrays()})
    checked = Checked(labels, fit.valid, model.prior)
    write_atomically(path, with_uncertainty(path, checked)[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
