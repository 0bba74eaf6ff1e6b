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
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SQRT5 = np.sqrt(5.0)
CHUNK_ELEMENTS = 1 << 21  # permuted queries held at once: 16 MiB of float64


@dataclass(frozen=True)
class TrainingSum:
    """The training arrays of one model, laid out for the kernel sum.

    Build with :meth:`prepare`. All quantities in the model's own units.
    """

    sigma: float
    centre: Floats  # [n_desc]
    x: Floats  # [n_train, n_desc], centred
    a: Floats  # [n_train, n_desc]
    x_squared: Floats  # [n_train]
    x_dot_a: Floats  # [n_train]
    alphas_energy: Floats | None  # [n_train]
    forward: Ints  # [n_perms, n_desc]
    backward: Ints  # [n_perms, n_desc]

    @classmethod
    def prepare(
        cls, sigma: float, x: Floats, a: Floats, pair_perms: Ints, alphas_energy: Floats | None
    ) -> TrainingSum:
        """Centre the training descriptors and precompute what does not depend on the query."""
        centre = x.mean(axis=0)
        centred = np.ascontiguousarray(x - centre)
        return cls(
            sigma=sigma,
            centre=centre,
            x=centred,
            a=np.ascontiguousarray(a),
            x_squared=np.einsum("md,md->m", centred, centred),
            x_dot_a=np.einsum("md,md->m", centred, a),
            alphas_energy=alphas_energy,
            forward=pair_perms,
            backward=np.argsort(pair_perms, axis=1),
        )

    def __call__(self, q: Floats) -> tuple[Floats, Floats]:
        """Return E (B,) and g = −∂E/∂q (B, D) for query descriptors q (B, D)."""
        energy, g = np.zeros(len(q)), np.zeros_like(q)
        n_perms, n_desc = self.forward.shape
        step = max(1, CHUNK_ELEMENTS // max(1, n_desc * len(q)))
        for start in range(0, n_perms, step):
            some = slice(start, start + step)
            queries = q[:, self.backward[some]] - self.centre  # [B, S, D]
            e_s, g_s = self._contract(queries.reshape(-1, n_desc))
            energy += e_s.reshape(queries.shape[:2]).sum(axis=1)
            for s, back in enumerate(self.forward[some]):
                g += g_s.reshape(queries.shape)[:, s, back]
        return energy, g

    def _contract(self, q: Floats) -> tuple[Floats, Floats]:
        """Sum over the training points for centred queries q (R, D): E (R,) and g (R, D)."""
        sigma = self.sigma
        squared = np.einsum("rd,rd->r", q, q)[:, None] + self.x_squared - 2.0 * (q @ self.x.T)
        r = SQRT5 * np.sqrt(np.maximum(squared, 0.0))  # [R, n_train]
        delta_a = q @ self.a.T - self.x_dot_a  # Δ·a
        decay = np.exp(-r / sigma) * (5.0 / (3.0 * sigma**3))
        w1 = delta_a * decay * (5.0 / sigma)
        w2 = decay * (r + sigma)
        energy = np.einsum("rm,rm->r", delta_a, w2)
        if self.alphas_energy is not None:
            w1 += w2 * self.alphas_energy
            k_ee = (1.0 + r / sigma * (1.0 + r / (3.0 * sigma))) * np.exp(-r / sigma)
            energy += k_ee @ self.alphas_energy
        return energy, w1.sum(axis=1)[:, None] * q - w1 @ self.x - w2 @ self.a
