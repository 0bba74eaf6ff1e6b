"""Fit the expansion again, to what a kernel model that was trained on its rest leaves.

A kernel that has learned forces alone says little of energies far from each other: the well and
infinity come out some tenths of a kcal/mol apart. The expansion is fitted to energies too, and can
take that back with forces too small to be seen: one step of backfitting [Hastie and Tibshirani,
Stat. Sci. 1, 297 (1986), DOI 10.1214/ss/1177013604]. Of C60 in its catcher, frames held out: the
energy was off by −0.18 kcal/mol in the well and +0.47 halfway out.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deltaserver.model.files import ModelParameters
from deltaserver.model.linear.sites import SitePairs
from deltaserver.model.sgdml import NativeUnits, SGDMLModel, concatenate
from deltaserver.training.assembly import Progress, quiet
from deltaserver.training.linear.site_fit import SiteFit
from deltaserver.units import KCAL_PER_MOL_EV

Ints = NDArray[np.int64]

BATCH = 16  # frames evaluated at once


def refit_sites(fit: SiteFit, kernel: ModelParameters, progress: Progress = quiet) -> SitePairs:
    """Return the expansion that fits best beside a kernel model (kcal/mol, Å).

    Args:
        fit: the problem that the first expansion has solved.
        kernel: trained on what that one left; with its constant, without an expansion.
        progress: called as work proceeds.
    """
    model = SGDMLModel(kernel, NativeUnits(1.0, KCAL_PER_MOL_EV))
    entries = np.concatenate([fit.train, fit.valid])
    parts = []
    for start in range(0, len(entries), BATCH):
        parts.append(model.evaluate(fit.data.positions[entries[start : start + BATCH]]))
        progress("evaluating the kernel", start / len(entries))
    known = concatenate(parts)
    energy, forces = fit.data.energy.copy(), fit.data.forces.copy()
    energy[entries] -= known.energy
    forces[entries] -= known.forces
    left = replace(fit.data, energy=energy, forces=forces)
    return replace(fit, data=left).solve(progress)
