"""Fit the expansion again, to what a kernel model that was trained on its rest leaves.

A kernel that has learned forces alone says little of energies far from each other: the well and
infinity come out some tenths of a kcal/mol apart. The expansion is fitted to energies too, and can
take that back with forces too small to be seen: one step of backfitting [Hastie and Tibshirani,
Stat. Sci. 1, 297 (1986), DOI 10.1214/ss/1177013604]. Of C60 in its catcher, frames held out: the
energy was off by −0.18 kcal/mol in the well and +0.47 halfway out.

What the expansion says where no frame is, the validation frames cannot tell: of ridges that they
hardly tell apart the largest is taken. Of nitrate in its host those were within 2 % of each other,
and the best of them had a hole of −1.6 eV in one of twelve ways out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from deltaserver.model.linear.expansion import Expansion
from deltaserver.model.sgdml import Evaluation
from deltaserver.training.components import less
from deltaserver.training.linear.site_fit import SiteFit
from deltaserver.training.matrix.assembly import Progress, quiet
from deltaserver.units import KCAL_PER_MOL_EV

Floats = NDArray[np.float64]


def refit_sites(
    fit: SiteFit, kernel: Callable[[Floats], Evaluation], progress: Progress = quiet
) -> Expansion:
    """Return the expansion that fits best beside a kernel model.

    Args:
        fit: the problem that the first expansion has solved.
        kernel: evaluates the model that was trained on what that one left, with its constant, at
            positions (B, N, 3) in Å; kcal/mol.
        progress: called as work proceeds.
    """
    progress("evaluating the kernel", 0.0)
    some = np.concatenate([fit.train, fit.valid])
    known = kernel(fit.data.positions[some])
    energy, forces = np.zeros_like(fit.data.energy), np.zeros_like(fit.data.forces)
    energy[some], forces[some] = known.energy, known.forces
    left = less(fit.data, energy * KCAL_PER_MOL_EV, forces * KCAL_PER_MOL_EV)
    return replace(fit, data=left).solve(progress, plainest=True)
