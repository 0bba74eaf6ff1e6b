"""Energies as labels beside the forces: more rows of the same system, weighted.

A Gaussian process that knows forces knows energies up to a constant, by integration; where training
points are far apart that is poor. With −E, less its mean, in a row after every point's forces the
system learns both [sgdml's ``use_E_cstr``: Chmiela et al., Comput. Phys. Commun. 240, 38 (2019),
DOI 10.1016/j.cpc.2019.02.007; blocks: :mod:`deltaserver.training.matrix.blocks`]. Energies come
times a weight w in 1/Å, so that λ, which is what a label may be missed by, squared, is λ/w² for
them:

    (W K W + λ) ṽ = W y,   y = (F, −E)/std,   α_F = −ṽ_F,   α_E = −w ṽ_E

w = 1 is what sgdml does, w → 0 forces alone. The sign is sgdml's: its kernel is the negative of
ours.
"""

from __future__ import annotations

from deltaserver.arrays import Floats
from deltaserver.training.iterative.product import join, split


def labels(forces: Floats, energy: Floats, weight: float) -> Floats:
    """Return W y of forces (M, N, 3) and energies (M,): (3NM,), or ((3N + 1)M,) with a weight."""
    return join(forces, -weight * (energy - energy.mean())) if weight else forces.ravel()


def coefficients(v: Floats, shape: tuple[int, ...], weight: float) -> tuple[Floats, Floats | None]:
    """Return α_F (3NM,) and α_E (M,), or None, of a solution for points of ``shape`` (M, N, 3)."""
    if not weight:
        return -v, None
    forces, energies = split(v, shape)
    return -forces.ravel(), -weight * energies
