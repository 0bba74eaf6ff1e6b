"""One block of the force-field kernel matrix, from the structure of the pair-distance Jacobian.

The sGDML force constraint matrix is, for training points m and m′ [Chmiela et al., Nat. Commun.
9, 3887 (2018), DOI 10.1038/s41467-018-06169-2], with Δ_s = x − P_s x′, r_s = √5 |Δ_s|,

    K(m, m′) = Σ_s  a_s Jᵀ P_s J′  −  b_s (Jᵀ Δ_s) (J′ᵀ P_sᵀ Δ_s)ᵀ
    a_s = 5/(3σ⁴) (σ² + σ r_s) exp(−r_s/σ)        b_s = 25/(3σ⁴) exp(−r_s/σ)

which is what sgdml assembles, with its sign flipped so that K is positive definite. Energies as
labels too add one row and column to a point, of −E, times the weight that they are given:

    K_FE = −Σ_s c_s Jᵀ Δ_s      K_EF = Σ_s c_s (J′ᵀ P_sᵀ Δ_s)ᵀ      K_EE = Σ_s k_s
    c_s = 5/(3σ³) (σ + r_s) exp(−r_s/σ)      k_s = (1 + r_s/σ + r_s²/(3σ²)) exp(−r_s/σ)

J, the
Jacobian of the descriptor, has D = N(N−1)/2 rows, but each has only six entries. With
u_ij = (r_i − r_j)/|r_i − r_j|³ and permutation p of the atoms, the 3 × 3 blocks of Jᵀ P_s J′ are

    (i, p(j))  for j ≠ i:   −u_ij ⊗ u′_p(i)p(j)            (i, p(i)):   Σ_j u_ij ⊗ u′_p(i)p(j)

so a permutation costs O((3N)²), not O(D (3N)²). Here it is in NumPy, the reference for the
compiled :mod:`deltaserver.training.matrix.blocks_numba`. All in the units of the training points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError

SQRT5 = float(np.sqrt(5.0))


@dataclass(frozen=True)
class PairFields:
    """What the kernel needs of M geometries.

    Attributes:
        x: inverse distances 1/|r_i − r_j|, zero diagonal, shape (M, N, N).
        u: pulls (r_i − r_j)/|r_i − r_j|³, antisymmetric in i and j, shape (M, 3, N, N).
        energy: weight of the row of −E that follows a point's forces; 0 is no such row.
    """

    x: Floats
    u: Floats
    energy: float = 0.0

    def __len__(self) -> int:
        """Return the number of geometries."""
        return len(self.x)

    @property
    def n_atoms(self) -> int:
        """Return the number of atoms N."""
        return int(self.x.shape[-1])

    @property
    def n_rows(self) -> int:
        """Return the number of rows of K a geometry: its 3N forces, and its energy."""
        return 3 * self.n_atoms + (self.energy > 0.0)

    @classmethod
    def of(
        cls, positions: Floats, weights: Floats | None = None, energy: float = 0.0
    ) -> PairFields:
        """Compute the fields of ``positions`` (M, N, 3).

        Args:
            positions: of the training points.
            weights: of the descriptor's entries, by atoms (N, N): both fields scale with them.
            energy: weight of the row of −E that follows a point's forces; 0 is no such row.

        Raises:
            DataError: two atoms of a frame coincide.
        """
        d = positions[:, :, None, :] - positions[:, None, :, :]  # [M, N, N, 3]
        squared = np.einsum("mija,mija->mij", d, d)
        diagonal = np.arange(positions.shape[1])
        squared[:, diagonal, diagonal] = np.inf
        if squared.size and not squared.min() > 0.0:
            m, i, j = np.argwhere(~(squared > 0.0))[0]
            raise DataError(
                f"training frame {m}: atoms {i} and {j} are at the same place; remove the frame"
            )
        x = 1.0 / np.sqrt(squared)
        u = np.ascontiguousarray(np.einsum("mij,mija->maij", x**3, d))
        if weights is not None:
            x *= weights
            u *= weights
        return cls(x, u, energy)


@dataclass(frozen=True)
class PermutationGroup:
    """Permutations p and their inverses, laid out for the block kernels.

    Attributes:
        forward: p_s(i), shape (S, N).
        inverse: p_s⁻¹(c), shape (S, N).
        by_source: for every atom c the permutations ordered by p_s⁻¹(c), shape (N, S): those
            that bring the same atom to c share their products.
    """

    forward: Ints
    inverse: Ints
    by_source: Ints

    @classmethod
    def of(cls, perms: Ints) -> PermutationGroup:
        """Prepare atom permutations (S, N)."""
        forward = np.ascontiguousarray(perms, dtype=np.int64)
        inverse = np.argsort(forward, axis=1)
        by_source = np.ascontiguousarray(np.argsort(inverse, axis=0, kind="stable").T)
        return cls(forward, inverse, by_source)

    def __len__(self) -> int:
        """Return the number of permutations S."""
        return len(self.forward)


def weights(distance: Floats, sigma: float) -> tuple[Floats, Floats]:
    """Return a_s and b_s for |Δ_s| = ``distance`` (S,)."""
    r = SQRT5 * distance
    base = np.exp(-r / sigma) * (5.0 / (3.0 * sigma**4))
    return base * (sigma**2 + sigma * r), 5.0 * base


def with_energies(
    block: Floats, pulled: Floats, pulled2: Floats, distance: Floats, sigma: float, weight: float
) -> Floats:
    """Return K(m, n)ᵀ with the row and column of −E times ``weight``, shape (3N + 1, 3N + 1).

    Args:
        block: that of the forces, shape (3N, 3N).
        pulled: JᵀΔ_s, shape (S, 3N).
        pulled2: J′ᵀP_sᵀΔ_s, shape (S, 3N).
        distance: |Δ_s|, shape (S,).
        sigma: length scale.
        weight: of energies.
    """
    r = SQRT5 * distance / sigma
    base = weight * np.exp(-r)
    c = base * (1.0 + r) * (5.0 / (3.0 * sigma**2))
    result = np.empty((len(block) + 1, len(block) + 1))
    result[:-1, :-1] = block
    result[-1, :-1] = -c @ pulled
    result[:-1, -1] = c @ pulled2
    result[-1, -1] = weight * (base @ (1.0 + r * (1.0 + r / 3.0)))
    return result


def block(fields: PairFields, m: int, n: int, group: PermutationGroup, sigma: float) -> Floats:
    """Return K(m, n)ᵀ, the transposed block of training points m and n.

    Shape (3N, 3N); with energies (3N + 1, 3N + 1), the forces' rows first.
    """
    x, u, x2, u2 = fields.x[m], fields.u[m], fields.x[n], fields.u[n]
    atoms = np.arange(fields.n_atoms)
    result = np.zeros((fields.n_atoms, 3, fields.n_atoms, 3))  # [c, beta, i, alpha]
    kept: list[tuple[Floats, Floats, Floats]] = []  # JᵀΔ, J′ᵀPᵀΔ, |Δ| of every permutation
    for p, back in zip(group.forward, group.inverse, strict=True):
        delta = x - x2[np.ix_(p, p)]  # [i, j]
        distance = np.sqrt(0.5 * np.einsum("ij,ij->", delta, delta))
        a, b = weights(distance, sigma)
        pulled = -np.einsum("aij,ij->ia", u, delta)  # JᵀΔ
        pulled2 = -np.einsum("acd,cd->ca", u2, delta[np.ix_(back, back)])  # J′ᵀPᵀΔ
        moved = a * u2[:, p][:, :, p]  # [beta, i, j]
        result[p] -= np.einsum("aij,bij->jbia", u, moved)
        result[p, :, atoms, :] += np.einsum("aij,bij->iba", u, moved)
        result -= b * pulled2[:, :, None, None] * pulled
        kept.append((pulled.ravel(), pulled2.ravel(), distance))
    forces = result.reshape(3 * fields.n_atoms, 3 * fields.n_atoms)
    if not fields.energy:
        return forces
    pulls, pulls2, distances = (np.array(some) for some in zip(*kept, strict=True))
    return with_energies(forces, pulls, pulls2, distances, sigma, fields.energy)
