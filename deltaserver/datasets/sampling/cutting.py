"""Dimers and trimers out of a cluster, a crystal or a liquid, images in a cell included.

Molecules are what bonds hold together in the first frame. Of a frame every two, or three, molecules
are candidates whose atoms come within a distance of each other, each two of them. Those that are
taken differ most: inverse distances between atoms of different molecules, in falling order for
every two elements, are the same however molecules and equal atoms are numbered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import InputError
from deltaserver.model.many.neighbours import Neighbours, find_neighbours
from deltaserver.model.many.triples import find_triples
from deltaserver.molecules.bonds import bond_reach, bonded_pairs, pieces_of
from deltaserver.molecules.elements import SYMBOLS
from deltaserver.molecules.whole import along_tree, bond_tree

AT_ONCE = 1 << 12  # groups whose distances are in memory together


@dataclass(frozen=True)
class Kind:
    """All molecules of one kind.

    Attributes:
        name: what the kind is called.
        numbers: atomic numbers of one molecule, shape (m,).
        atoms: of every molecule, shape (n, m).
        tree: see :func:`deltaserver.molecules.whole.bond_tree`.
        species: what a model calls it; empty where none does.
    """

    name: str
    numbers: Ints
    atoms: Ints
    tree: tuple[Ints, Ints]
    species: str = ""

    def whole(self, positions: Floats, cell: Floats | None) -> Floats:
        """Return the molecules of positions (N, 3), Å, put together, shape (n, m, 3)."""
        x: Floats = positions[self.atoms]
        return x if cell is None else along_tree(x, cell, *self.tree)


def find_kinds(
    numbers: Ints,
    positions: Floats,
    cell: Floats | None,
    names: Mapping[tuple[int, ...], str],
    alone: Sequence[int] = (),
    species: Mapping[int, str] | None = None,
) -> tuple[Kind, ...]:
    """Return the kinds of molecules in one structure, in the order of their first atoms.

    Args:
        numbers: atomic numbers, shape (N,).
        positions: Å, shape (N, 3).
        cell: lattice vectors in columns, Å, or None.
        names: of kinds by the atomic numbers of a molecule; others are called by their formula.
        alone: elements whose atoms are ions, however near a neighbour is.
        species: names by atoms, which come before those by atomic numbers.
    """
    kinds = np.unique(numbers)
    near = find_neighbours(positions, float(bond_reach(kinds[:, None], kinds).max()), cell)
    short = (near.distance < bond_reach(numbers[near.i], numbers[near.j])) & (near.i != near.j)
    short &= ~np.isin(numbers[near.i], alone) & ~np.isin(numbers[near.j], alone)
    bonded = bonded_pairs(numbers, near.i, near.j, short)
    i, j = near.i[bonded], near.j[bonded]
    label = pieces_of(len(numbers), i, j)
    order = np.argsort(label, kind="stable")
    starts = np.flatnonzero(np.diff(label[order], prepend=-1))
    place = np.empty(len(numbers), dtype=np.int64)
    found: dict[tuple[str, tuple[int, ...], tuple[tuple[int, int], ...]], list[Ints]] = {}
    bonds: dict[int, set[tuple[int, int]]] = {}
    molecules = np.split(order, starts[1:])
    for atoms in molecules:
        place[atoms] = np.arange(len(atoms))
    for a, b in zip(i.tolist(), j.tolist(), strict=True):
        ends = sorted((int(place[a]), int(place[b])))
        bonds.setdefault(int(label[a]), set()).add((ends[0], ends[1]))
    for atoms in molecules:
        own = tuple(sorted(bonds.get(int(label[atoms[0]]), ())))
        elements = tuple(numbers[atoms].tolist())
        known = (species or {}).get(int(atoms[0])) or names.get(elements, "")
        found.setdefault((known, elements, own), []).append(atoms)
    named = _names([known or formula(elements) for known, elements, _ in found])
    return tuple(
        Kind(
            name,
            np.array(elements),
            np.array(some),
            bond_tree(len(elements), *np.array(own, dtype=np.int64).reshape(-1, 2).T),
            known,
        )
        for name, ((known, elements, own), some) in zip(named, found.items(), strict=True)
    )


def _names(plain: Sequence[str]) -> list[str]:
    """Return the names of kinds; those that would be alike are numbered."""
    return [
        name if plain.count(name) == 1 else f"{name}-{plain[: k + 1].count(name)}"
        for k, name in enumerate(plain)
    ]


def formula(numbers: Sequence[int]) -> str:
    """Return a molecule's formula, carbon first, then hydrogen, then the others by symbol."""
    symbols = [SYMBOLS[number] for number in numbers]
    order = sorted(set(symbols), key=lambda s: (s != "C", s != "H", s))
    return "".join(s + (str(symbols.count(s)) if symbols.count(s) > 1 else "") for s in order)


def cut(
    between: Sequence[Kind],
    positions: Floats,
    cell: Floats | None,
    within: float,
    most: int,
    rng: np.random.Generator,
) -> Floats:
    """Return groups of molecules of one frame, Å, shape (K, atoms of all of them, 3).

    Args:
        between: the kinds of two or three molecules; equal ones follow each other.
        positions: Å, shape (N, 3).
        cell: lattice vectors in columns, Å, or None.
        within: Å; each two molecules have a pair of atoms that is no farther apart.
        most: no more than so many, drawn at random.
        rng: draws.
    """
    kinds = tuple(dict.fromkeys(kind.name for kind in between))
    chosen = [next(k for k in between if k.name == name) for name in kinds]
    x = [kind.whole(positions, cell) for kind in chosen]
    first = np.cumsum([0, *(len(some) for some in x)])
    centres = np.concatenate([some.mean(axis=1) for some in x])
    species = tuple(kinds.index(kind.name) for kind in between)
    radius = max(float(np.linalg.norm(m - m.mean(1, keepdims=True), axis=2).max()) for m in x)
    near = find_neighbours(centres, within + 2.0 * radius, cell)
    if len(between) == 2:
        members: tuple[Ints, ...]
        shifts: tuple[Floats, ...]
        members, shifts = _pairs(near, first, (species[0], species[1]))
    else:
        triples = find_triples(near, within + 2.0 * radius)
        triples = triples.of(first, (species[0], species[1], species[2]))
        members, shifts = triples.members, triples.shifts
    drawn = rng.permutation(len(members[0]))
    groups = [np.zeros((0, sum(len(kind.numbers) for kind in between), 3))]
    n_found = 0
    for start in range(0, len(drawn), AT_ONCE):
        some = drawn[start : start + AT_ONCE]
        parts = [
            x[kind][member[some] - first[kind]] + shift[some, None]
            for kind, member, shift in zip(species, members, shifts, strict=True)
        ]
        short = np.ones(len(some), dtype=np.bool_)
        for one, other in combinations(parts, 2):
            short &= shortest(one, other) <= within
        groups.append(np.concatenate(parts, axis=1)[short])
        n_found += int(short.sum())
        if n_found >= most:
            break
    found: Floats = np.concatenate(groups)[:most]
    found -= found.mean(axis=1, keepdims=True)
    return found


def _pairs(
    near: Neighbours, first: Ints, species: tuple[int, int]
) -> tuple[tuple[Ints, Ints], tuple[Floats, Floats]]:
    """Return the members and shifts of pairs of two kinds."""
    kept = np.ones(len(near.i), dtype=np.bool_)
    for member, kind in zip((near.i, near.j), species, strict=True):
        kept &= (member >= first[kind]) & (member < first[kind + 1])
    some = near.some(kept)
    return (some.i, some.j), (np.zeros_like(some.shift), some.shift)


def shortest(one: Floats, other: Floats) -> Floats:
    """Return the shortest distances between atoms of molecules (K, m, 3) and (K, n, 3), Å."""
    squares = np.full(len(one), np.inf)
    for k in range(one.shape[1]):
        between = other - one[:, k, None]
        np.minimum(squares, np.einsum("kax,kax->ka", between, between).min(axis=1), out=squares)
    result: Floats = np.sqrt(squares)
    return result


def features(between: Sequence[Kind], x: Floats) -> Floats:
    """Return what groups (K, N, 3) are compared by, 1/Å, shape (K, pairs of atoms)."""
    owner = np.repeat(np.arange(len(between)), [len(kind.numbers) for kind in between])
    numbers = np.concatenate([kind.numbers for kind in between])
    i, j = np.triu_indices(len(numbers), k=1)
    apart = owner[i] != owner[j]
    i, j = i[apart], j[apart]
    pair = np.sort(np.stack([numbers[i], numbers[j]]), axis=0).T
    _, element = np.unique(pair, axis=0, return_inverse=True)
    found = np.empty((len(x), len(i)))
    for start in range(0, len(x), AT_ONCE):
        some = x[start : start + AT_ONCE]
        inverse = 1.0 / np.linalg.norm(some[:, i] - some[:, j], axis=2)
        columns = [-np.sort(-inverse[:, element.ravel() == k], axis=1)
                   for k in range(int(element.max()) + 1)]  # fmt: skip
        found[start : start + AT_ONCE] = np.concatenate(columns, axis=1)
    return found


def choose_kinds(kinds: Sequence[Kind], names: Sequence[str], order: int) -> tuple[Kind, ...]:
    """Return the kinds of the molecules of a group, equal ones together.

    Raises:
        InputError: no names although there are several kinds, or a name that is none.
    """
    there = {kind.name: kind for kind in kinds}
    listed = ", ".join(f"{kind.name} ({len(kind.atoms)})" for kind in kinds)
    if not names:
        if len(kinds) > 1:
            raise InputError(f"there are {listed}: say which are to be cut, --between A,B")
        names = [kinds[0].name] * order
    for name in names:
        if name not in there:
            raise InputError(f"--between {','.join(names)}: no {name!r} here; there are {listed}")
    order_of = list(dict.fromkeys(names))
    return tuple(there[name] for name in sorted(names, key=order_of.index))
