"""Finite groups of permutations and their irreducible representations, found numerically.

A model's permutations are the symmetries of its molecule and therefore a group. What the kernel
sum needs of them (:mod:`deltaserver.model.groups.fourier`) are the real irreducible representations
ρ(s), orthogonal d × d matrices with ρ(s)ρ(t) = ρ(st).

They are read off the regular representation, in which s acts on functions of the group as
(L_s f)(t) = f(s⁻¹t) and which holds every irreducible one. A random symmetric matrix that commutes
with all L_s has, with probability one, eigenspaces that are irreducible [Dixon, Math. Comp. 24,
707 (1970), DOI 10.1090/S0025-5718-1970-0280611-6, for the idea of a random commuting matrix].
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deltaserver.arrays import Floats, Ints

GAP = 1e-7  # eigenvalues closer than this, relative to the largest, are one
TOLERANCE = 1e-10  # of the identities that representations obey


@dataclass(frozen=True)
class Group:
    """A finite group by its multiplication table.

    Attributes:
        table: ``table[s, t]`` is the element st, first t then s, shape (S, S).
        identity: the element that changes nothing.
    """

    table: Ints
    identity: int

    @property
    def order(self) -> int:
        """Number of elements."""
        return len(self.table)

    @cached_property
    def inverse(self) -> Ints:
        """The inverse of every element, shape (S,)."""
        result: Ints = np.argmax(self.table == self.identity, axis=1)
        return result

    @cached_property
    def central_involutions(self) -> Ints:
        """The elements that commute with all and are their own inverses: a subgroup."""
        central = (self.table == self.table.T).all(axis=1)
        squares = np.diagonal(self.table)
        found = np.flatnonzero(central & (squares == self.identity))
        return np.concatenate([[self.identity], found[found != self.identity]])


def permutation_group(perms: Ints) -> Group | None:
    """Return the group that the permutations (S, K) make up, or None where they are none.

    ``perms[table[s, t]] == perms[s][perms[t]]``.
    """
    points = _base(perms)
    if points is None:
        return None  # two of them are equal
    images = perms[:, points]  # [S, n_points]: these tell the permutations apart
    weights = np.random.default_rng(0).integers(1, 1 << 62, len(points), dtype=np.int64)
    names = (images * weights).sum(axis=1)  # wraps around: a hash
    order = np.argsort(names)
    table = np.empty((len(perms), len(perms)), dtype=np.int64)
    for s, perm in enumerate(perms):
        name = (perm[images] * weights).sum(axis=1)
        found = order[np.minimum(np.searchsorted(names[order], name), len(perms) - 1)]
        if not np.array_equal(names[found], name):
            return None
        table[s] = found
    identity = np.flatnonzero((perms == np.arange(perms.shape[1])).all(axis=1))
    if len(identity) != 1 or not _multiplies(perms, table, int(identity[0])):
        return None
    return Group(table, int(identity[0]))


def _base(perms: Ints) -> Ints | None:
    """Choose points whose images tell all permutations apart."""
    member = np.zeros(len(perms), dtype=np.int64)
    points: list[int] = []
    moved = np.argsort(-(perms != np.arange(perms.shape[1])).sum(axis=0), kind="stable")
    for point in moved:
        _, refined = np.unique(member * perms.shape[1] + perms[:, point], return_inverse=True)
        if refined.max() > member.max():
            points.append(int(point))
            member = refined.ravel()
        if member.max() == len(perms) - 1:
            return np.array(points or [0])
    return None if len(perms) > 1 else np.array([0])


def _multiplies(perms: Ints, table: Ints, identity: int) -> bool:
    """Check the table on all points, for elements that generate the rest."""
    reached = np.zeros(len(perms), dtype=bool)
    reached[identity] = True
    generators: list[int] = []
    while not reached.all():
        generators.append(int(np.argmin(reached)))
        new = np.flatnonzero(reached)
        while len(new):
            products = table[np.array(generators)[:, None], new].ravel()
            new = np.unique(products[~reached[products]])
            reached[new] = True
    return all(np.array_equal(perms[g][perms], perms[table[g]]) for g in generators)


def irreducible_representations(group: Group) -> tuple[Floats, ...]:
    """Return one of each kind of real irreducible representation, shapes (S, d, d).

    Raises:
        ArithmeticError: the eigenspaces could not be told apart.
    """
    rng = np.random.default_rng(0)
    n = group.order
    class_function = rng.normal(size=n)
    class_function += class_function[group.inverse]
    # A[t, t'] = c(t⁻¹t') commutes with every L_s and is symmetric since c(r) = c(r⁻¹).
    commuting = class_function[group.table[group.inverse]]
    values, vectors = np.linalg.eigh(commuting)
    cuts = np.flatnonzero(np.diff(values) > GAP * np.abs(values).max()) + 1
    # tr(Uᵀ M U) with M = Σ_s w_s L_s is the same in equivalent eigenspaces and in no others.
    weights = rng.normal(size=n)
    traces = np.einsum(
        "tk,tk->k", vectors, weights[group.table[:, group.inverse]] @ vectors, optimize=True
    )
    kinds: dict[tuple[int, int], Floats] = {}
    for columns in np.split(np.arange(n), cuts):
        label = (len(columns), round(float(traces[columns].sum()) / (1e-6 * np.sqrt(n))))
        if not any((label[0], label[1] + k) in kinds for k in (-1, 0, 1)):
            kinds[label] = vectors[:, columns]
    found = tuple(_matrices(group, basis) for _, basis in sorted(kinds.items(), key=_size))
    _check(group, found)
    return found


def _size(entry: tuple[tuple[int, int], Floats]) -> tuple[int, int]:
    return entry[0]


def _matrices(group: Group, basis: Floats) -> Floats:
    """ρ(s) = Uᵀ L_s U for an invariant subspace U of the regular representation."""
    shifted = basis[group.table[group.inverse]]  # [S, S, d]: U at s⁻¹t
    result: Floats = np.einsum("ta,stb->sab", basis, shifted, optimize=True)
    return result


def _check(group: Group, representations: tuple[Floats, ...]) -> None:
    """Hold the representations against ρ(s)ρ(t) = ρ(st) and against the order of the group."""
    rng = np.random.default_rng(1)
    s, t = rng.integers(0, group.order, (2, 64))
    total = 0.0
    for rho in representations:
        product = rho[s] @ rho[t]
        if np.abs(product - rho[group.table[s, t]]).max() > TOLERANCE:
            raise ArithmeticError("the representations found do not multiply like the group")
        d = rho.shape[1]
        character = np.einsum("saa->s", rho)
        commutant = float(character @ character) / group.order
        if round(commutant) not in (1, 2, 4):  # real, complex or quaternionic
            raise ArithmeticError("a representation found is reducible")
        total += d * d / commutant
    if abs(total - group.order) > 1e-6 * group.order:
        raise ArithmeticError("the representations found do not make up the regular one")
