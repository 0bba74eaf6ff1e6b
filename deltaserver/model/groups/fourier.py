"""Sums over a group of permutations as correlations, done in its Fourier space.

The kernel sum needs q_s·x for every permutation s, training point x and query q, and on the way
back Σ_s w_s P_sᵀx. With S permutations of D descriptor entries that is 2SD operations a training
point each way. But the permutations are a group, q ↦ P_s q is a representation of it, and an
orthogonal change of basis Q splits that into irreducible blocks that repeat:

    Qᵀ P_s Q = ⊕_ρ 1 ⊗ ρ(s)        q_s·x = Σ_ρ Σ_ab ρ_ab(s) Z_ab,   Z_ab = Σ_i X_ρai Y_ρbi

with X = Qᵀx and Y = Qᵀq sorted by irreducible representation ρ, its row a (or b) and its copy i
[Serre, Linear Representations of Finite Groups, Springer 1977, DOI 10.1007/978-1-4684-9458-7].
That is 2 Σ_ρ d_ρ² n_ρ operations for Z and 2S² for the values at all s, instead of 2SD: for the
480 permutations of C60@buckycatcher, D = 10,878, fifty times fewer. Nothing is approximated.

Central elements that are their own inverse act as ±1 in every ρ. Summing over them first, by
signs, divides the 2S² by their number (8 of C60@buckycatcher's 480).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.model.groups.representations import (
    Group,
    irreducible_representations,
    permutation_group,
)

MAX_ORDER = 1500  # the eigenvectors of a larger regular representation take too long to find


@dataclass(frozen=True)
class OrbitKind:
    """Orbits of descriptor entries that the group moves alike.

    Attributes:
        entries: the orbits, one a column, in matching order, shape (n_points, n_orbits).
        basis: T, the part of Q that belongs to one such orbit, shape (n_points, n_points).
    """

    entries: Ints
    basis: Floats


@dataclass(frozen=True)
class IrreducibleComponent:
    """One irreducible representation in the descriptor.

    Attributes:
        rows: where the Fourier vector holds its coefficients, shape (d, n_copies): row a, copy i.
        first: its place among the d² matrix elements of all components.
    """

    rows: slice
    dim: int
    copies: int
    first: int

    @property
    def end(self) -> int:
        """One past its last matrix element."""
        return self.first + self.dim**2

    @property
    def elements(self) -> slice:
        """Where its d² matrix elements stand among all."""
        return slice(self.first, self.end)


@dataclass(frozen=True)
class Sector:
    """The components in which the central involutions act by one set of signs.

    Attributes:
        elements: the matrix elements, among all components', that belong here.
        values: ρ_ab(t) at a representative t of each coset of the centre, (n_cosets, n_elements).
    """

    elements: slice
    values: Floats


@dataclass(frozen=True)
class GroupFourier:
    """The change of basis and what is needed to go from coefficients to group elements.

    Build with :meth:`of`.
    """

    order: int
    kinds: tuple[OrbitKind, ...]
    gather: Ints  # [D] which coefficient of the kinds, one after the other, the vector holds where
    components: tuple[IrreducibleComponent, ...]
    sectors: tuple[Sector, ...]
    signs: Floats  # [n_centre, n_sectors]
    n_pairs: int  # as many of the first cosets have their inverses among the last

    @classmethod
    def of(cls, pair_perms: Ints) -> GroupFourier | None:
        """Build from permutations (S, D) of the descriptor; None where they are no group."""
        if len(pair_perms) > MAX_ORDER:
            return None
        group = permutation_group(pair_perms)
        if group is None:
            return None
        try:
            representations = irreducible_representations(group)
        except ArithmeticError:
            return None
        return _build(group, representations, pair_perms)

    @property
    def n_elements(self) -> int:
        """Number of matrix elements: Σ_ρ d_ρ² over the components that occur."""
        return self.components[-1].end

    @cached_property
    def _sorted(self) -> Ints:
        """Where the orbits' entries are in a descriptor: orbit by orbit, kind by kind, (D,)."""
        return np.concatenate([kind.entries.T.ravel() for kind in self.kinds])

    def forward(self, values: Floats) -> Floats:
        """Return Qᵀv for rows v, shape (B, D)."""
        return self.mix(values).take(self.gather, axis=1)

    def mix(self, values: Floats) -> Floats:
        """Return Qᵀv before :attr:`gather` has sorted it."""
        sorted_ = values.take(self._sorted, axis=1)
        return self._transform(sorted_, [kind.basis for kind in self.kinds])

    def backward(self, coefficients: Floats) -> Floats:
        """Return Q c for rows c, shape (B, D): the inverse and the adjoint of :meth:`forward`."""
        return self.unmix(coefficients.take(self.gather_back, axis=1))

    def unmix(self, mixed: Floats) -> Floats:
        """Return Q c of what :meth:`mix` returns: its inverse and its adjoint."""
        points = self._transform(mixed, [kind.basis.T for kind in self.kinds])
        return points.take(self._sorted_back, axis=1)

    @cached_property
    def gather_back(self) -> Ints:
        """The inverse of :attr:`gather`."""
        return np.argsort(self.gather)

    @cached_property
    def _sorted_back(self) -> Ints:
        return np.argsort(self._sorted)

    def _transform(self, values: Floats, matrices: list[Floats]) -> Floats:
        """Multiply every orbit's part of rows (B, D) with its kind's matrix, from the right."""
        result = np.empty_like(values)
        start = 0
        for kind, matrix in zip(self.kinds, matrices, strict=True):
            here = slice(start, start + kind.entries.size)
            start = here.stop
            points = values[:, here].reshape(-1, len(kind.entries)) @ matrix
            result[:, here] = points.reshape(len(values), -1)
        return result

    @property
    def flat(self) -> tuple[Ints, Ints, Floats, Floats]:
        """The bases as loops over whole orbits take them.

        Which entry is where orbit by orbit, (D,); of every kind its start there, its points and
        orbits, and where its basis begins; all bases, and their transposes, row by row.
        """
        rows, entry, place = [], 0, 0
        for kind in self.kinds:
            n_points, n_orbits = kind.entries.shape
            rows.append((entry, n_points, n_orbits, place))
            entry, place = entry + kind.entries.size, place + n_points**2
        straight = [kind.basis.ravel() for kind in self.kinds]
        transposed = [kind.basis.T.ravel() for kind in self.kinds]
        table = np.array(rows, dtype=np.int64)
        return self._sorted, table, np.concatenate(straight), np.concatenate(transposed)

    def sparse_basis(self, places: Ints, n_places: int) -> tuple[Ints, Ints, Floats]:
        """Qᵀ row by row: where each row's entries start, which they are, and their factors.

        Row k comes at ``places[k]`` of ``n_places``, in rising order; the other rows are empty.
        """
        entries, factors = [], []
        for kind in self.kinds:
            n_points, n_orbits = kind.entries.shape
            entries += list(kind.entries.T.repeat(n_points, axis=0))
            factors += list(np.tile(kind.basis.T, (n_orbits, 1)))
        lengths = np.zeros(n_places, dtype=np.int64)
        lengths[places] = [len(entries[row]) for row in self.gather]
        return (
            np.concatenate([[0], np.cumsum(lengths)]),
            np.concatenate([entries[row] for row in self.gather]),
            np.concatenate([factors[row] for row in self.gather]),
        )

    def at_elements(self, z: Floats) -> Floats:
        """Turn matrix elements (n_elements, K) into values at all group elements (S, K)."""
        values = np.stack([sector.values @ z[sector.elements] for sector in self.sectors])
        return _mix(self.signs, values)

    def from_elements(self, w: Floats) -> Floats:
        """The adjoint of :meth:`at_elements`: from (S, K) to (n_elements, K)."""
        mixed = _mix(self.signs.T, w.reshape(len(self.signs), -1, w.shape[1]))
        mixed = mixed.reshape(len(self.sectors), -1, w.shape[1])
        return np.concatenate(
            [sector.values.T @ part for sector, part in zip(self.sectors, mixed, strict=True)]
        )


def _mix(signs: Floats, values: Floats) -> Floats:
    """Contract the first axis of (n, n_cosets, K) with signs; flatten the first two axes."""
    if signs.size == 1:
        only: Floats = values[0]
        return only
    mixed: Floats = signs @ values.reshape(len(values), -1)
    return mixed.reshape(-1, values.shape[2])


def _build(group: Group, representations: tuple[Floats, ...], pair_perms: Ints) -> GroupFourier:
    centre = group.central_involutions
    cosets, n_pairs = _cosets(group)
    orbits = _orbit_entries(pair_perms)
    # Sorted by the signs of the centre, so that each sector's matrix elements are one slice.
    labelled = [(tuple(np.sign(rho[centre, 0, 0]).astype(int)), rho) for rho in representations]
    labelled.sort(key=lambda pair: pair[0])
    columns: list[list[Floats]] = [[] for _ in orbits]  # of each kind's basis
    starts = np.zeros(len(orbits), dtype=np.int64)  # of the next column
    offsets = np.cumsum([0] + [entries.size for _, entries in orbits])
    components, gather, sector_of = [], [], []
    n_rows = n_elements = 0
    for signs, rho in labelled:
        d = rho.shape[1]
        copies = []  # [d, n_orbits]: where each copy's coefficients are before they are sorted
        for k, (stabiliser, entries) in enumerate(orbits):
            n_points, n_orbits = entries.shape
            movers = np.unique(_first_of_cosets(group, stabiliser))
            for u in _invariants(rho, stabiliser):
                columns[k].append(np.sqrt(d / n_points) * (rho[movers] @ u))
                here = starts[k] + np.arange(d)[:, None] + n_points * np.arange(n_orbits)
                copies.append(offsets[k] + here)
                starts[k] += d
        if not copies:
            continue
        rows = np.concatenate(copies, axis=1)
        components.append(
            IrreducibleComponent(slice(n_rows, n_rows + rows.size), d, rows.shape[1], n_elements)
        )
        gather.append(rows.ravel())
        sector_of.append((signs, rho[cosets].reshape(len(cosets), d * d)))
        n_rows += rows.size
        n_elements += d * d
    bases = [np.concatenate(parts, axis=1) for parts in columns]
    kinds = [OrbitKind(entries, basis) for (_, entries), basis in zip(orbits, bases, strict=True)]
    return GroupFourier(
        order=group.order,
        kinds=tuple(kinds),
        gather=np.concatenate(gather),
        components=tuple(components),
        sectors=_sectors([values for _, values in sector_of], [signs for signs, _ in sector_of]),
        signs=np.array(sorted({signs for signs, _ in sector_of}), dtype=float).T,
        n_pairs=n_pairs,
    )


def _cosets(group: Group) -> tuple[Ints, int]:
    """Return an element of each coset of the centre, and how many come with their inverses.

    First those, then elements of cosets that hold their inverses, then the inverses of the first.
    """
    coset = group.table[group.central_involutions].min(axis=0)  # of every element, by its smallest
    smallest = np.unique(coset)
    of_inverse = coset[group.inverse[smallest]]
    first, own = smallest[of_inverse > smallest], smallest[of_inverse == smallest]
    return np.concatenate([first, own, group.inverse[first]]), len(first)


def _sectors(values: list[Floats], signs: list[tuple[int, ...]]) -> tuple[Sector, ...]:
    """Put together what the centre acts on by the same signs."""
    sectors, start = [], 0
    for label in sorted(set(signs)):
        block = np.concatenate(
            [v for v, s in zip(values, signs, strict=True) if s == label], axis=1
        )
        sectors.append(Sector(slice(start, start + block.shape[1]), block))
        start += block.shape[1]
    return tuple(sectors)


def _orbit_entries(pair_perms: Ints) -> list[tuple[Ints, Ints]]:
    """Return the kinds of orbits: the stabiliser's elements, and the entries (n_points, n_orbits).

    Orbits are of one kind if a point of each has the same stabiliser; row r of all of them is
    then reached from that point by the same elements of the group.
    """
    n_desc = pair_perms.shape[1]
    fixed = pair_perms == np.arange(n_desc)  # [S, D]
    names = [column.tobytes() for column in np.packbits(fixed, axis=0).T]
    done = np.zeros(n_desc, dtype=bool)
    found: dict[bytes, list[Ints]] = {}
    for entry in range(n_desc):
        if done[entry]:
            continue
        orbit = np.unique(pair_perms[:, entry])
        done[orbit] = True
        base = min(orbit, key=lambda point: names[point])
        image = pair_perms[:, base]
        _, first = np.unique(image, return_index=True)
        found.setdefault(names[base], []).append(image[np.sort(first)])
    kinds = []
    for name, orbits in sorted(found.items()):
        base = names.index(name)
        kinds.append((np.flatnonzero(fixed[:, base]), np.stack(orbits, axis=1)))
    return kinds


def _first_of_cosets(group: Group, stabiliser: Ints) -> Ints:
    """For every element, the first one that moves the stabiliser's point to the same place."""
    result: Ints = group.table[:, stabiliser].min(axis=1)
    return result


def _invariants(rho: Floats, stabiliser: Ints) -> list[Floats]:
    """Return vectors u, one for each copy of ρ in the functions on an orbit.

    v ↦ (g ↦ ⟨ρ(g)u, v⟩) embeds ρ in the functions on the orbit if the stabiliser leaves u alone.
    Two such copies are orthogonal if u' is orthogonal to all that commutes with ρ makes of u.
    """
    average = rho[stabiliser].mean(axis=0)
    values, vectors = np.linalg.eigh((average + average.T) / 2)
    space = vectors[:, values > 0.5]
    if not space.size:
        return []
    commuting = _commutant(rho)
    found: list[Floats] = []
    while space.shape[1]:
        u = space[:, 0]
        found.append(u)
        taken = np.stack([j @ u for j in commuting], axis=1)
        basis, _ = np.linalg.qr(taken)
        rest = space - basis @ (basis.T @ space)
        left, size, _ = np.linalg.svd(rest, full_matrices=False)
        space = left[:, size > 0.5]
    return found


def _commutant(rho: Floats) -> list[Floats]:
    """Return a basis of the matrices that commute with ρ: one, two or four of them."""
    d = rho.shape[1]
    character = np.einsum("saa->s", rho)
    size = round(float(character @ character) / len(rho))
    if size == 1:
        return [np.eye(d)]
    trials = np.random.default_rng(2).normal(size=(2 * size, d, d))
    averages = [np.einsum("sab,bc,sdc->ad", rho, m, rho, optimize=True) for m in trials]
    _, _, rows = np.linalg.svd(np.stack(averages).reshape(len(trials), -1), full_matrices=False)
    return [row.reshape(d, d) for row in rows[:size]]
