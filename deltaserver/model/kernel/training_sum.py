"""The sGDML kernel sum: descriptors in, energy and its descriptor gradient out.

sGDML predicts with the Hessian of a Matérn kernel, ν = 5/2, summed over the M training points
x_m and the S permutations of the molecule [Chmiela et al., Nat. Commun. 9, 3887 (2018),
DOI 10.1038/s41467-018-06169-2]. With Δ = q − P_s x_m, r = √5 |Δ|, and a_m = J_mᵀα_m:

    w₂ = 5/(3σ³) (σ + r) exp(−r/σ),   w₁ = 25/(3σ⁴) exp(−r/σ) Δ·P_s a_m
    E  = Σ w₂ Δ·P_s a_m               g = −∂E/∂q = Σ (w₁ Δ − w₂ P_s a_m)

Permuting the S queries instead of the S·M training points leaves the training arrays as they
are, small, and turns every sum into a matrix product:  |Δ|² = |q_s|² + |x|² − 2 q_s·x.  That form
cancels where q is close to x, so descriptors are centred on the training mean first: what is
subtracted is then of the size of the fluctuations, not of the descriptor. What is left of the
error in |Δ|² enters E in second order, since w₂ is flat at r = 0.

Four ways to the same sum, :func:`training_sum` takes the cheapest:

- no coefficients, where a linear expansion is all of a model: :class:`NoSum`;
- permutations that are a group, as symmetries are: :class:`FourierSum`, which correlates in the
  group's Fourier space (:mod:`deltaserver.model.groups.fourier`);
- any set of permutations, or none but the identity: :class:`DirectSum`, plain matrix products;
- one query leaves a matrix product little to reuse: compiled loops read the training arrays
  once (:mod:`deltaserver.model.loops`), where numba is installed and the group is not large.

x and a stand in one array of 2M rows, so that both products of a pass are one call.
"""

from __future__ import annotations

from deltaserver.arrays import Floats, Ints
from deltaserver.compute.thread_pool import ONE_THREAD, ThreadPool
from deltaserver.model.groups.fourier import GroupFourier
from deltaserver.model.kernel.base import Task, TrainingSum, Weights
from deltaserver.model.kernel.direct import DirectSum
from deltaserver.model.kernel.group import FourierSum
from deltaserver.model.kernel.nothing import NoSum

__all__ = ["DirectSum", "FourierSum", "NoSum", "Task", "TrainingSum", "Weights", "training_sum"]


def training_sum(
    sigma: float,
    x: Floats,
    a: Floats,
    pair_perms: Ints,
    alphas_energy: Floats | None,
    pool: ThreadPool = ONE_THREAD,
) -> TrainingSum:
    """Lay out the training arrays and precompute what does not depend on the query.

    Args:
        sigma: kernel length scale.
        x: training descriptors, shape (M, D).
        a: Jᵀα of each training point, shape (M, D).
        pair_perms: permutations of the descriptor entries, shape (S, D).
        alphas_energy: coefficients of energy constraints, shape (M,), or None.
        pool: the threads that compiled loops are shared out among.
    """
    weights = Weights(sigma, alphas_energy)
    if not a.any() and (alphas_energy is None or not alphas_energy.any()):
        return NoSum(weights, pool)
    if len(pair_perms) > 1 and pair_perms.shape[1]:
        fourier = GroupFourier.of(pair_perms)
        if fourier:
            return FourierSum(weights, x, a, pair_perms, fourier, pool)
    return DirectSum(weights, x, a, pair_perms, pool)
