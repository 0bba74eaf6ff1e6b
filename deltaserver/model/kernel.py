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

x and a stand in one array, so that both products of a pass are one call. Blocks of the descriptor
that feel only some of the permutations are multiplied only that often
(:mod:`deltaserver.model.orbits`). A single query leaves nothing for a matrix product to reuse:
the sum is then bound by memory, and a compiled loop that reads the training arrays once
(:mod:`deltaserver.model.loops`) takes over where numba is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltaserver.model import jit, orbits

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SQRT5 = np.sqrt(5.0)
CHUNK_ELEMENTS = 1 << 22  # permuted queries held at once: 32 MiB of float64


@dataclass(frozen=True)
class BlockSum:
    """The part of the training arrays that one block of the descriptor sees."""

    columns: slice  # in block order
    gather: Ints  # [n_distinct, n_columns] block-ordered entries that make a permuted query
    member: Ints | None  # [n_perms] -> row of gather; None where that is the identity
    order: Ints  # [n_perms] permutations sorted by member
    starts: Ints  # [n_distinct] where each member begins in that order
    x_squared: Floats  # [n_train]
    x_dot_a: Floats  # [n_train]

    def expand(self, values: Floats) -> Floats:
        """From one row a distinct permutation to one row a permutation (second axis)."""
        return values if self.member is None else values.take(self.member, axis=1)

    def collect(self, values: Floats) -> Floats:
        """Sum the rows of permutations that act alike here: the adjoint of :meth:`expand`."""
        if self.member is None:
            return values
        result: Floats = np.add.reduceat(values.take(self.order, axis=1), self.starts, axis=1)
        return result


@dataclass(frozen=True)
class TrainingSum:
    """The training arrays of one model, laid out for the kernel sum.

    Build with :meth:`prepare`. All quantities in the model's own units.
    """

    sigma: float
    n_train: int
    order: Ints  # [n_desc] the descriptor entries, block after block
    centre: Floats  # [n_desc], block-ordered like what follows
    xa: Floats  # [2 n_train, n_desc]: x, centred, then a
    blocks: tuple[BlockSum, ...]
    alphas_energy: Floats | None  # [n_train]
    fused_sum: Callable[..., float] | None  # the compiled loop for a single query

    @classmethod
    def prepare(
        cls,
        sigma: float,
        x: Floats,
        a: Floats,
        pair_perms: Ints,
        alphas_energy: Floats | None,
        *,
        compiled: bool = jit.AVAILABLE,
    ) -> TrainingSum:
        """Centre the training descriptors and precompute what does not depend on the query.

        Args:
            sigma: kernel length scale.
            x: training descriptors, shape (M, D).
            a: Jᵀα of each training point, shape (M, D).
            pair_perms: permutations of the descriptor entries, shape (S, D).
            alphas_energy: coefficients of energy constraints, shape (M,), or None.
            compiled: send a single query through the compiled loop.
        """
        found = orbits.blocks(pair_perms)
        order = np.concatenate([block.columns for block in found])
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        backward = np.empty_like(pair_perms)
        np.put_along_axis(backward, pair_perms, np.arange(len(order))[None], axis=1)
        centre = x.mean(axis=0)[order]
        # Indexing columns can leave them contiguous instead of the rows that a pass reads.
        xa = np.ascontiguousarray(np.concatenate([x[:, order] - centre, a[:, order]]))
        fused = compiled and alphas_energy is None and len(pair_perms) == 1
        ends = np.cumsum([len(block.columns) for block in found])
        sums = []
        for block, end in zip(found, ends, strict=True):
            columns = slice(int(end) - len(block.columns), int(end))
            gather = position[backward[block.representative][:, block.columns]]
            sums.append(_block_sum(block, columns, gather, xa))
        return cls(
            sigma=sigma,
            n_train=len(x),
            order=order,
            centre=centre,
            xa=xa,
            blocks=tuple(sums),
            alphas_energy=alphas_energy,
            fused_sum=jit.loops().fused_sum if fused else None,
        )

    def __call__(self, q: Floats) -> tuple[Floats, Floats]:
        """Return E (B,) and g = −∂E/∂q (B, D) for query descriptors q (B, D)."""
        if self.fused_sum and len(q) == 1:
            g = np.empty_like(q)
            energy = self.fused_sum(q[0] - self.centre, self.xa, self.sigma, g[0])
            return np.array([energy]), g
        widest = sum(block.gather.size for block in self.blocks)
        step = max(1, CHUNK_ELEMENTS // max(1, widest))
        parts = [self._contract(q[k : k + step]) for k in range(0, len(q), step)]
        if not parts:
            return np.zeros(0), np.zeros_like(q)
        energies, gradients = zip(*parts, strict=True)
        return np.concatenate(energies), np.concatenate(gradients)

    def _contract(self, q: Floats) -> tuple[Floats, Floats]:
        """Sum over training points and permutations by matrix products, block by block."""
        m = self.n_train
        ordered = q[:, self.order]
        squared: Floats | float = 0.0  # [B, n_perms, n_train] |Δ|²
        delta_a: Floats | float = 0.0  # [B, n_perms, n_train] Δ·a
        queries = []
        for block in self.blocks:
            permuted = ordered.take(block.gather, axis=1)  # [B, n_distinct, n_columns]
            permuted -= self.centre[block.columns]
            queries.append(permuted)
            products = _matmul(permuted, self.xa[:, block.columns].T)  # [.., .., 2 n_train]
            q_squared = np.einsum("bsd,bsd->bs", permuted, permuted)
            squared = squared + block.expand(
                q_squared[..., None] + block.x_squared - 2.0 * products[..., :m]
            )
            delta_a = delta_a + block.expand(products[..., m:] - block.x_dot_a)
        energy, w = self._weights(np.asarray(squared), np.asarray(delta_a))
        g = np.zeros_like(ordered)
        for block, permuted in zip(self.blocks, queries, strict=True):
            collected = block.collect(w)  # [B, n_distinct, 2 n_train]
            permuted *= collected[..., :m].sum(axis=-1, keepdims=True)
            permuted -= _matmul(collected, self.xa[:, block.columns])
            _scatter_add(g, block.gather, permuted)
        result = np.empty_like(g)
        result[:, self.order] = g
        return energy, result

    def _weights(self, squared: Floats, delta_a: Floats) -> tuple[Floats, Floats]:
        """Return E (B,) and w₁, w₂ side by side, shape (B, n_perms, 2 n_train)."""
        sigma = self.sigma
        r = SQRT5 * np.sqrt(np.maximum(squared, 0.0))
        decay = np.exp(-r / sigma) * (5.0 / (3.0 * sigma**3))
        w = np.empty((*r.shape[:2], 2 * self.n_train))
        w1, w2 = w[..., : self.n_train], w[..., self.n_train :]
        np.multiply(delta_a * (5.0 / sigma), decay, out=w1)
        np.multiply(decay, r + sigma, out=w2)
        energy = np.einsum("bsm,bsm->b", delta_a, w2)
        if self.alphas_energy is not None:
            w1 += w2 * self.alphas_energy
            k_ee = (1.0 + r / sigma * (1.0 + r / (3.0 * sigma))) * np.exp(-r / sigma)
            energy += np.einsum("bsm,m->b", k_ee, self.alphas_energy)
        return energy, w


def _block_sum(block: orbits.Block, columns: slice, gather: Ints, xa: Floats) -> BlockSum:
    n_train = len(xa) // 2
    x, a = xa[:n_train, columns], xa[n_train:, columns]
    order = np.argsort(block.member, kind="stable")
    identity = np.array_equal(block.member, np.arange(len(gather)))
    return BlockSum(
        columns=columns,
        gather=gather,
        member=None if identity else block.member,
        order=order,
        starts=np.searchsorted(block.member[order], np.arange(len(gather))),
        x_squared=np.einsum("md,md->m", x, x),
        x_dot_a=np.einsum("md,md->m", x, a),
    )


def _matmul(rows: Floats, matrix: Floats) -> Floats:
    """Multiply (B, R, K) by (K, L) as one product of B·R rows; numpy would make B of them."""
    product: Floats = rows.reshape(-1, rows.shape[2]) @ matrix
    return product.reshape(*rows.shape[:2], -1)


def _scatter_add(g: Floats, gather: Ints, values: Floats) -> None:
    """Add ``values[b, s, k]`` to ``g[b, gather[s, k]]``."""
    if gather.shape[0] == 1:
        g[:, gather[0]] += values[:, 0]
        return
    flat = gather.ravel()
    for row, value in zip(g, values, strict=True):
        row += np.bincount(flat, value.ravel(), minlength=len(row))
