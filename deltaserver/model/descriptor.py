"""Inverse pair distances, and what their Jacobian does to forces and the virial.

The sGDML descriptor of a geometry is D_k = 1/|r_i − r_j| for every pair k = (i, j), i > j, in
row order: (1,0), (2,0), (2,1), (3,0), … [Chmiela et al., Sci. Adv. 3, e1603015 (2017),
DOI 10.1126/sciadv.1603015; Chmiela et al., Comput. Phys. Commun. 240, 38 (2019),
DOI 10.1016/j.cpc.2019.02.007].

Its Jacobian is never built: ∂D_k/∂r_j = d_k/|d_k|³ with d_k = r_i − r_j, so that a vector g in
descriptor space (g = −∂E/∂D) pulls back to F_j = Σ_i c_ij (r_i − r_j), c = g D³: one product of a
symmetric N × N matrix with the positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from deltaserver.errors import GeometryError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Geometry:
    """Pair displacements of a batch of geometries, and the descriptor they give.

    Attributes:
        displacements: d_k = r_i − r_j, minimum image where periodic, shape (3, B, D).
        descriptor: D_k = 1/|d_k|, shape (B, D), in 1/length.
    """

    displacements: Floats
    descriptor: Floats


class PairDescriptor:
    """The pairs of ``n_atoms`` atoms: from positions to descriptors, and back to forces."""

    def __init__(self, n_atoms: int) -> None:
        self.n_atoms = n_atoms
        self.i, self.j = np.tril_indices(n_atoms, k=-1)
        self.dim = len(self.i)

    @cached_property
    def _pair_of(self) -> Ints:
        """Return the pair index of atoms (i, j); the diagonal points one past the last pair."""
        table = np.full((self.n_atoms, self.n_atoms), self.dim)
        table[self.i, self.j] = table[self.j, self.i] = np.arange(self.dim)
        return table

    def geometry(self, positions: Floats, cell: Floats | None = None) -> Geometry:
        """Return displacements and descriptor of ``positions`` (B, N, 3).

        Args:
            positions: any length unit.
            cell: lattice vectors in columns, same unit; pairs then take their nearest image by
                rounding fractional coordinates, as sGDML does.

        Raises:
            GeometryError: two atoms coincide.
        """
        xyz = np.ascontiguousarray(positions.transpose(2, 0, 1))  # [3, B, N]
        d = xyz.take(self.i, axis=2) - xyz.take(self.j, axis=2)  # [3, B, D]
        if cell is not None:
            images = np.rint(np.tensordot(np.linalg.inv(cell), d, axes=1))
            d -= np.tensordot(cell, images, axes=1)
        squared = np.einsum("abk,abk->bk", d, d)
        if not squared.min(initial=np.inf) > 0.0:
            where = int(np.argmin(squared.min(axis=0)))
            raise GeometryError(
                f"atoms {self.j[where]} and {self.i[where]} are at the same place; "
                "expected a positive distance between any two atoms"
            )
        return Geometry(d, 1.0 / np.sqrt(squared))

    def forces(self, g: Floats, geometry: Geometry) -> Floats:
        """Pull g = −∂E/∂D (B, D) back to atomic forces Jᵀg, shape (B, N, 3)."""
        c = g * geometry.descriptor**3
        pulls = np.zeros((3, len(c), self.dim + 1))
        np.multiply(c, geometry.displacements, out=pulls[..., :-1])
        # Of a pair (i, j) atom j takes +c d and atom i takes −c d.
        gathered = pulls.take(self._pair_of, axis=2)  # [3, B, N, N]
        signs = np.tri(self.n_atoms) - np.tri(self.n_atoms).T  # +1 below the diagonal
        result: Floats = np.einsum("abij,ij->bja", gathered, signs)
        return result

    def virial(self, g: Floats, geometry: Geometry) -> Floats:
        """Return −∂E/∂ε for a homogeneous strain ε, shape (B, 3, 3), in energy units.

        With the pair forces above this is −Σ_k c_k d_k ⊗ d_k: symmetric, independent of the
        origin, and right with minimum images too.
        """
        d = geometry.displacements
        result: Floats = -np.einsum("bk,abk,cbk->bac", g * geometry.descriptor**3, d, d)
        return result

    def permutations(self, perms: Ints) -> Ints:
        """Turn atom permutations (S, N) into the pair permutations they induce (S, D).

        ``descriptor(positions[p]) == descriptor(positions)[permutations(p)]``.
        """
        return self._pair_of[perms[:, self.i], perms[:, self.j]]
