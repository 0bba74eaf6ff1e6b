"""½ yᵀP y + yᵀM x of many y and x at once, where a symmetry makes P and M sparse.

y are K functions of every distance between fragments, x the distances within. What commutes with
every permutation of a group is, in the basis of its irreducible representations ρ, a matrix A_ρ of
their copies, the same for each of the d rows [Schur's lemma; Serre, Linear Representations of
Finite Groups, Springer 1977, DOI 10.1007/978-1-4684-9458-7]:

    QᵀP Q = ⊕_ρ 1_d ⊗ A_ρ

so that of 288 permutations of two benzenes and four functions 576² numbers come down to 16 matrices
of 4 to 64 rows. Nothing is approximated; where the permutations are no group, or representations
are not real, the matrices are multiplied as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.compute import jit
from deltaserver.model import loops
from deltaserver.model.groups.fourier import GroupFourier

Valued = tuple[Floats, Floats, Floats]
ForLoops = tuple[tuple[Any, Any], tuple[Ints, Ints, Floats]]
TOLERANCE = 1e-10  # of a matrix's largest number, which the sparse form may miss


class QuadraticForm(Protocol):
    """The form, and its slopes."""

    def __call__(self, y: Floats, x: Floats) -> Valued:
        """Return E (B,), ∂E/∂y (B, K, I) and ∂E/∂x (B, W) of y (B, K, I) and x (B, W)."""

    @property
    def for_loops(self) -> ForLoops | None:
        """Both changes of basis and the matrices as loops take them; None where they cannot."""


def quadratic_form(p: Floats, m: Floats, perms: tuple[Ints, Ints]) -> QuadraticForm:
    """Return the cheapest way to a form.

    Args:
        p: P, shape (K, I, K, I), symmetric.
        m: M, shape (K, I, W).
        perms: permutations of the I and of the W, shapes (S, I) and (S, W), that leave it alone.
    """
    found = _SymmetricForm.of(p, m, perms) if len(perms[0]) > 1 and m.size else None
    return _DenseForm(p, m) if found is None else found


class _DenseForm:
    def __init__(self, p: Floats, m: Floats) -> None:
        n = p.shape[0] * p.shape[1]
        self._p = np.ascontiguousarray(p.reshape(n, n))
        self._m = np.ascontiguousarray(m.reshape(n, -1))

    def __call__(self, y: Floats, x: Floats) -> Valued:
        flat = y.reshape(len(y), -1)
        slope, along = flat @ self._p, x @ self._m.T
        energy = _dot(flat, 0.5 * slope + along)
        return energy, (slope + along).reshape(y.shape), flat @ self._m

    @property
    def for_loops(self) -> None:
        """None: products of whole matrices are left to BLAS."""


@dataclass(frozen=True)
class _Block:
    """One irreducible representation.

    Attributes:
        rows: of y in the new basis: d rows of n copies.
        dim: d.
        a: A_ρ by function and copy, shape (K·n, K·n).
        others: rows of x of the same representation, and what couples them, (K·n, copies).
    """

    rows: slice
    dim: int
    a: Floats
    others: tuple[tuple[slice, Floats], ...]


class _SymmetricForm:
    """The form by representations; in loops where they can be compiled."""

    compiled: bool = jit.AVAILABLE

    def __init__(
        self, blocks: tuple[_Block, ...], between: GroupFourier, within: GroupFourier
    ) -> None:
        self._blocks, self._between, self._within = blocks, between, within

    @classmethod
    def of(cls, p: Floats, m: Floats, perms: tuple[Ints, Ints]) -> _SymmetricForm | None:
        """Return the sparse form; None where there is none."""
        between, within = (GroupFourier.of(some) for some in perms)
        if between is None or within is None:
            return None
        k, n = p.shape[:2]
        turned = between.forward(p.reshape(-1, n)).reshape(k, n, k, n)
        turned = between.forward(turned.transpose(2, 3, 0, 1).reshape(-1, n)).reshape(k, n, k, n)
        mixed = within.forward(m.reshape(k * n, -1)).reshape(k, n, -1)
        mixed = between.forward(mixed.transpose(0, 2, 1).reshape(-1, n)).reshape(k, -1, n)
        mixed = mixed.transpose(0, 2, 1)  # [K, I, W]
        blocks = []
        for part in between.components:
            first = slice(part.rows.start, part.rows.start + part.copies)
            size = k * part.copies
            others = []
            for other in within.components:
                some = slice(other.rows.start, other.rows.start + other.copies)
                block = mixed[:, first, some].reshape(size, -1)
                if other.dim == part.dim and np.abs(block).max() > TOLERANCE * np.abs(m).max():
                    others.append((other.rows, np.ascontiguousarray(block)))
            a = np.ascontiguousarray(turned[:, first, :, first].reshape(size, size))
            blocks.append(_Block(part.rows, part.dim, a, tuple(others)))
        found = cls(tuple(blocks), between, within)
        return found if found.is_same(p, m) else None

    def is_same(self, p: Floats, m: Floats) -> bool:
        """Hold it against the matrices, on some vectors."""
        rng = np.random.default_rng(0)
        y, x = rng.normal(size=(4, *p.shape[:2])), rng.normal(size=(4, m.shape[2]))
        pairs = zip(self(y, x), _DenseForm(p, m)(y, x), strict=True)
        return all(
            np.abs(one - other).max() <= TOLERANCE * max(float(np.abs(other).max()), 1e-300)
            for one, other in pairs
        )

    def __call__(self, y: Floats, x: Floats) -> Valued:
        if not self.compiled:
            return self._in_numpy(y, x)
        energy, slope, pull = np.empty(len(y)), np.empty_like(y), np.empty_like(x)
        bases, blocks = self._layout
        loops.load("quadratic").quadratic_form(
            y.reshape(len(y), -1), x, bases, blocks, (energy, slope.reshape(len(y), -1), pull)
        )
        return energy, slope, pull

    @property
    def for_loops(self) -> ForLoops | None:
        """See :class:`QuadraticForm`."""
        return self._layout if self.compiled else None

    @cached_property
    def _layout(self) -> ForLoops:
        """Return both changes of basis and the matrices as loops take them."""
        rows, couplings = [], []
        matrices: list[Floats] = []
        place, k = 0, self._blocks[0].a.shape[0] // self._copies(0)
        for b, one in enumerate(self._blocks):
            size = len(one.a)
            rows.append((k * one.rows.start, one.dim, size, place))
            matrices.append(one.a.ravel())
            place += size * size
            for where, coupling in one.others:
                couplings.append((b, where.start, coupling.shape[1], place, place + coupling.size))
                matrices += [coupling.ravel(), coupling.T.ravel()]
                place += 2 * coupling.size
        gather = np.concatenate(
            [
                (
                    len(self._between.gather) * np.arange(k)[:, None]
                    + self._between.gather[one.rows].reshape(one.dim, 1, -1)
                ).ravel()
                for one in self._blocks
            ]
        )
        bases = (
            (*self._between.flat, gather.astype(np.int64)),
            (*self._within.flat, self._within.gather.astype(np.int64)),
        )
        table = np.array(couplings, dtype=np.int64).reshape(-1, 5)
        return bases, (np.array(rows, dtype=np.int64), table, np.concatenate(matrices))

    def _copies(self, block: int) -> int:
        one = self._blocks[block]
        return int(one.rows.stop - one.rows.start) // one.dim

    def _in_numpy(self, y: Floats, x: Floats) -> Valued:
        n_batch, k, n = y.shape
        turned = self._between.forward(y.reshape(-1, n)).reshape(y.shape)
        mixed = self._within.forward(x)
        slope, pull = np.empty_like(turned), np.zeros_like(mixed)
        energy = np.zeros(n_batch)
        for one in self._blocks:
            d = one.dim
            part = turned[:, :, one.rows].reshape(n_batch, k, d, -1).transpose(0, 2, 1, 3)
            rows = part.reshape(n_batch * d, -1)  # [B·d, K·copies]
            steep = rows @ one.a
            more = 0.5 * steep
            for where, coupling in one.others:
                along = mixed[:, where].reshape(n_batch * d, -1) @ coupling.T
                steep += along
                more += along
                pull[:, where] += (rows @ coupling).reshape(n_batch, -1)
            energy += _dot(rows, more).reshape(n_batch, d).sum(axis=1)
            back = steep.reshape(n_batch, d, k, -1).transpose(0, 2, 1, 3)
            slope[:, :, one.rows] = back.reshape(n_batch, k, -1)
        slope = self._between.backward(slope.reshape(-1, n)).reshape(y.shape)
        return energy, slope, self._within.backward(pull)


def _dot(one: Floats, other: Floats) -> Floats:
    """Return the products of rows (B, n) with rows, shape (B,)."""
    result: Floats = np.matmul(one[:, None], other[:, :, None])[:, 0, 0]
    return result
