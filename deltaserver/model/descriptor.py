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

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from deltaserver.arrays import Floats, Ints
from deltaserver.compute import jit
from deltaserver.errors import GeometryError
from deltaserver.model import loops


def compiled_cell(cell: Floats | None) -> Floats | None:
    """Return a cell as compiled loops take it: lattice vectors and their inverse, (2, 3, 3)."""
    return None if cell is None else np.stack([cell, np.linalg.inv(cell)])


def as_batch(positions: ArrayLike, n_atoms: int, what: str) -> Floats:
    """Return positions as a finite float64 array of shape (B, n_atoms, 3).

    Raises:
        GeometryError: the shape is another one or a coordinate is not finite.
    """
    batch = shaped(positions, n_atoms, what)
    if not np.isfinite(batch).all():
        frame, atom, _ = np.argwhere(~np.isfinite(batch))[0]
        raise GeometryError(f"{what}: position of atom {atom} in geometry {frame} is not finite")
    return batch


def shaped(positions: ArrayLike, n_atoms: int, what: str) -> Floats:
    """Return positions as :func:`as_batch` does, but for coordinates that are not finite."""
    batch = np.ascontiguousarray(positions, dtype=np.float64)
    if batch.ndim not in (2, 3) or batch.shape[-2:] != (n_atoms, 3):
        raise GeometryError(
            f"{what}: positions have shape {batch.shape}; "
            f"expected ({n_atoms}, 3) or (B, {n_atoms}, 3)"
        )
    return batch if batch.ndim == 3 else batch[None]


def as_cell(cell: ArrayLike, what: str) -> Floats:
    """Return a cell as a finite, regular float64 array of shape (3, 3).

    Raises:
        GeometryError: the shape is another one, or the cell has no volume.
    """
    box = np.asarray(cell, dtype=np.float64)
    if box.shape != (3, 3):
        raise GeometryError(f"{what}: the cell has shape {box.shape}; expected (3, 3)")
    if not np.isfinite(box).all() or np.linalg.matrix_rank(box) < 3:
        raise GeometryError(f"{what}: the cell has no volume; expected three independent vectors")
    return box


def nearest_images(d: Floats, cell: Floats | None) -> Floats:
    """Return displacements (…, 3) as those between nearest images, where there is a cell."""
    if cell is None:
        return d
    images: Floats = d - np.rint(d @ np.linalg.inv(cell).T) @ cell.T
    return images


def spread(n_atoms: int, lattices: Sequence[Floats]) -> Floats:
    """Return positions (N, 3), Å, of which no two coincide, nor do images in any lattice.

    In a cell: fractional coordinates of a Kronecker sequence, no two alike modulo 1 in any
    direction. They fill half the cell, so that no pair is nearer through a face of it.
    """
    if not lattices:
        return np.outer(10.0 * np.arange(n_atoms), [1.0, 0.0, 0.0])
    smallest = min(lattices, key=lambda lattice: abs(np.linalg.det(lattice)))
    # The root of x⁴ = x + 1: its powers fill three dimensions most evenly.
    steps = 1.2207440846057596 ** -np.arange(1.0, 4.0)
    fractional: Floats = 0.5 * (np.arange(n_atoms)[:, None] * steps % 1.0)
    positions: Floats = fractional @ smallest.T
    return positions


@dataclass(frozen=True)
class Geometry:
    """A batch of geometries and the descriptor they give.

    Attributes:
        positions: shape (B, N, 3), any length unit.
        cell: lattice vectors in columns, same unit, or None.
        descriptor: D_k = 1/|d_k|, d_k = r_i − r_j, shape (B, D), in 1/length.
    """

    positions: Floats
    cell: Floats | None
    descriptor: Floats


class PairDescriptor:
    """The pairs of ``n_atoms`` atoms: from positions to descriptors, and back to forces."""

    def __init__(self, n_atoms: int, *, compiled: bool = jit.AVAILABLE) -> None:
        self.n_atoms = n_atoms
        self._compiled = compiled
        self.i, self.j = np.tril_indices(n_atoms, k=-1)
        self.dim = len(self.i)

    @cached_property
    def _pair_of(self) -> Ints:
        """Return the pair index of atoms (i, j); the diagonal points one past the last pair."""
        table = np.full((self.n_atoms, self.n_atoms), self.dim)
        table[self.i, self.j] = table[self.j, self.i] = np.arange(self.dim)
        return table

    def geometry(self, positions: Floats, cell: Floats | None = None) -> Geometry:
        """Return the descriptor of ``positions`` (B, N, 3).

        Args:
            positions: any length unit.
            cell: lattice vectors in columns, same unit; pairs then take their nearest image by
                rounding fractional coordinates, as sGDML does.

        Raises:
            GeometryError: two atoms coincide.
        """
        x = np.ascontiguousarray(positions)
        descriptor = self._inverse_distances(x, cell)
        if not np.isfinite(descriptor.sum()):
            worst = np.argmax(descriptor.max(axis=0))
            raise GeometryError(
                f"atoms {self.j[worst]} and {self.i[worst]} are at the same place; "
                "expected a positive distance between any two atoms"
            )
        return Geometry(x, cell, descriptor)

    def pull_back(self, g: Floats, geometry: Geometry) -> tuple[Floats, Floats]:
        """Turn g = −∂E/∂D (B, D) into forces Jᵀg (B, N, 3) and the virial (B, 3, 3).

        The virial is −∂E/∂ε for a homogeneous strain ε. With the pair forces above it is
        −Σ_k c_k d_k ⊗ d_k: symmetric, independent of the origin, right with nearest images too.
        """
        if self._compiled:
            forces, virial = np.empty((len(g), self.n_atoms, 3)), np.empty((len(g), 3, 3))
            x, box = geometry.positions, compiled_cell(geometry.cell)
            loops.load("evaluate").pull_back(g, x, box, geometry.descriptor, forces, virial)
            return forces, virial
        return self._pull_back(g, geometry)

    def project(self, geometry: Geometry, v: Floats) -> Floats:
        """Return J v (B, D) of displacements v (B, N, 3): how they change the descriptor.

        (J v)_k = −D_k³ d_k · (v_i − v_j). Of geometries without a cell. Every product and sum is
        rounded by itself, so that it is the same on every machine; a power would not be.
        """
        result = np.zeros_like(geometry.descriptor)
        for axis in range(3):  # one after the other: temporary arrays are three times smaller
            change, x = v[:, :, axis], geometry.positions[:, :, axis]
            difference = change.take(self.j, axis=1)
            difference -= change.take(self.i, axis=1)
            along = x.take(self.i, axis=1)
            along -= x.take(self.j, axis=1)
            along *= difference
            result += along
        for _ in range(3):
            result *= geometry.descriptor
        return result

    def _inverse_distances(self, positions: Floats, cell: Floats | None) -> Floats:
        if self._compiled:
            descriptor = np.empty((len(positions), self.dim))
            loops.load("evaluate").pair_distances(positions, compiled_cell(cell), descriptor)
            return descriptor
        d = self._displacements(positions, cell)
        d *= d  # not einsum, which would add it up unrounded where a processor can
        with np.errstate(divide="ignore"):
            inverse: Floats = 1.0 / np.sqrt(d[0] + d[1] + d[2])
        return inverse

    def _displacements(self, positions: Floats, cell: Floats | None) -> Floats:
        """Return d_k, minimum image where periodic, shape (3, B, D)."""
        xyz = np.ascontiguousarray(positions.transpose(2, 0, 1))  # [3, B, N]
        d = xyz.take(self.i, axis=2) - xyz.take(self.j, axis=2)
        if cell is not None:
            images = np.rint(np.tensordot(np.linalg.inv(cell), d, axes=1))
            d -= np.tensordot(cell, images, axes=1)
        return d

    def _pull_back(self, g: Floats, geometry: Geometry) -> tuple[Floats, Floats]:
        d = self._displacements(geometry.positions, geometry.cell)
        pulls = np.zeros((3, len(g), self.dim + 1))
        np.multiply(g * geometry.descriptor**3, d, out=pulls[..., :-1])
        virial: Floats = -np.einsum("abk,cbk->bac", pulls[..., :-1], d)
        # Of a pair (i, j) atom j takes +c d and atom i takes −c d.
        gathered = pulls.take(self._pair_of, axis=2)  # [3, B, N, N]
        signs = np.tri(self.n_atoms) - np.tri(self.n_atoms).T  # +1 below the diagonal
        forces: Floats = np.einsum("abij,ij->bja", gathered, signs)
        return forces, virial

    def permutations(self, perms: Ints) -> Ints:
        """Turn atom permutations (S, N) into the pair permutations they induce (S, D).

        ``descriptor(positions[p]) == descriptor(positions)[permutations(p)]``.
        """
        return self._pair_of[perms[:, self.i], perms[:, self.j]]
