"""The kernel block of :mod:`deltaserver.training.matrix.blocks`, compiled.

Imported only where numba is installed; a test holds the two equal. The functions release the
interpreter lock, so blocks are computed in threads.

For every atom c of m′ the permutations are visited ordered by the atom b that they bring to c:
those that share b share the product with u_b, which leaves one gather and one multiplication per
permutation and atom. What is left of the S-fold sum, the dyads of JᵀΔ_s, is one matrix product.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled
from deltaserver.training.matrix.blocks import PairFields, PermutationGroup, weights, with_energies

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def block(fields: PairFields, m: int, n: int, group: PermutationGroup, sigma: float) -> Floats:
    """Return K(m, n)ᵀ as :func:`deltaserver.training.matrix.blocks.block` does."""
    x, u, x2, u2 = fields.x[m], fields.u[m], fields.x[n], fields.u[n]
    size = (len(group), 3 * fields.n_atoms)
    pulled, pulled2, distance = np.empty(size), np.empty(size), np.empty(len(group))
    _pull((x, u), (x2, u2), group.forward, group.inverse, pulled, pulled2, distance)
    a, b = weights(distance, sigma)
    result: Floats = (pulled2 * -b[:, None]).T @ pulled
    _add_jacobian_products(u, u2, a, group.forward, group.inverse, group.by_source, result)
    if not fields.energy:
        return result
    return with_energies(result, pulled, pulled2, distance, sigma, fields.energy)


@compiled
def _pull(
    one: tuple[Floats, Floats],
    other: tuple[Floats, Floats],
    forward: Ints,
    inverse: Ints,
    pulled: Floats,
    pulled2: Floats,
    distance: Floats,
) -> None:
    """Fill JᵀΔ_s and J′ᵀP_sᵀΔ_s, both (S, 3N), and |Δ_s| (S,), of x and u of two points."""
    x, u = one
    x2, u2 = other
    n_atoms = x.shape[0]
    delta = np.empty(n_atoms)
    for s in range(forward.shape[0]):
        p, back = forward[s], inverse[s]
        squared = 0.0
        for i in range(n_atoms):
            c = p[i]
            for j in range(n_atoms):
                delta[j] = x[i, j] - x2[c, p[j]]
            v0, v1, v2 = 0.0, 0.0, 0.0
            for j in range(n_atoms):
                squared += delta[j] * delta[j]
                v0 -= u[0, i, j] * delta[j]
                v1 -= u[1, i, j] * delta[j]
                v2 -= u[2, i, j] * delta[j]
            w0, w1, w2 = 0.0, 0.0, 0.0
            for d in range(n_atoms):
                moved = delta[back[d]]
                w0 -= u2[0, c, d] * moved
                w1 -= u2[1, c, d] * moved
                w2 -= u2[2, c, d] * moved
            pulled[s, 3 * i], pulled[s, 3 * i + 1], pulled[s, 3 * i + 2] = v0, v1, v2
            pulled2[s, 3 * c], pulled2[s, 3 * c + 1], pulled2[s, 3 * c + 2] = w0, w1, w2
        distance[s] = np.sqrt(0.5 * squared)


@compiled
def _add_jacobian_products(
    u: Floats, u2: Floats, a: Floats, forward: Ints, inverse: Ints, by_source: Ints, out: Floats
) -> None:
    """Add (Σ_s a_s Jᵀ P_s J′)ᵀ to ``out`` (3N, 3N)."""
    n_atoms, n_perms = u.shape[1], forward.shape[0]
    shared = np.empty((3, n_atoms))  # Σ_s a_s u′_c,p(i) over the permutations with p(b) = c
    for c in range(n_atoms):
        k = 0
        while k < n_perms:
            b = inverse[by_source[c, k], c]
            shared[:] = 0.0
            while k < n_perms and inverse[by_source[c, k], c] == b:
                s = by_source[c, k]
                p, weight = forward[s], a[s]
                for i in range(n_atoms):
                    shared[0, i] += weight * u2[0, c, p[i]]
                    shared[1, i] += weight * u2[1, c, p[i]]
                    shared[2, i] += weight * u2[2, c, p[i]]
                k += 1
            for beta in range(3):
                row = out[3 * c + beta]
                s0, s1, s2 = 0.0, 0.0, 0.0
                for i in range(n_atoms):
                    g = shared[beta, i]
                    t0, t1, t2 = g * u[0, b, i], g * u[1, b, i], g * u[2, b, i]
                    row[3 * i] -= t0
                    row[3 * i + 1] -= t1
                    row[3 * i + 2] -= t2
                    s0 += t0
                    s1 += t1
                    s2 += t2
                row[3 * b] += s0
                row[3 * b + 1] += s1
                row[3 * b + 2] += s2
