"""What a molecule's bonded graph says of its distances and sites, and which of them are alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Floats, Ints

BONDS_APART = 3  # of the two atoms of a distance, at most
NARROW_ANG = 1e-3  # a distance that varies less says nothing
RING_SIZES = (3, 8)
FARTHER_CLASSES = 300  # of bonds beyond those at an atom and its neighbours, at most


def classes(keys: Ints) -> tuple[Ints, int]:
    """Return the class of every key (n,), equal keys being of one, and their number."""
    found, inverse = np.unique(keys, return_inverse=True)
    return inverse.astype(np.int64), len(found)


@dataclass(frozen=True)
class Products:
    """Products of distances, by classes of equivalent ones.

    Attributes:
        factors: the distances of each, shape (n, degree).
        of: class of each, rising with the level, shape (n,).
        levels: how many classes there are up to each level.
    """

    factors: Ints
    of: Ints
    levels: tuple[int, ...]

    @classmethod
    def none(cls) -> Products:
        """Return no products of two."""
        return cls(np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.int64), (0,))

    @classmethod
    def by_level(cls, levels: Sequence[Ints], moved: Ints) -> Products:
        """Sort the products of every level into classes; ``moved`` (S, P) are the symmetries."""
        n, of, ends, known = moved.shape[1], [], [], 0
        for some in levels:
            images = np.sort(moved[:, some], axis=2)  # [S, n, degree]
            keys = images[..., 0]
            for k in range(1, images.shape[2]):
                keys = keys * n + images[..., k]
            label, count = classes(keys.min(axis=0))
            of.append(known + label)
            known += count
            ends.append(known)
        return cls(np.concatenate(levels), np.concatenate(of), tuple(ends))


@dataclass(frozen=True)
class Distances:
    """The distances of a molecule, and products of them, by classes of equivalent ones.

    Attributes:
        pairs: atoms of every distance, shape (P, 2).
        of_pair: class of each, shape (P,).
        couplings: of two distances that share an atom, then of two whose atoms are a bond apart.
        triples: of three distances, some of them alike, of which any two share an atom: those over
            one and two bonds, then all; then, if asked for, all others within a ring.
    """

    pairs: Ints
    of_pair: Ints
    couplings: Products
    triples: Products

    @classmethod
    def of(cls, graph: Any, perms: Ints, *, in_rings: bool = False) -> Distances:
        """Find them in a bonded graph (networkx).

        Args:
            graph: of the molecule.
            perms: its symmetries (S, N), which tell what is equivalent.
            in_rings: take all products of three distances of a ring and the atoms that link it.
        """
        apart = bonds_apart(graph)
        pairs, moved = moved_distances(apart, perms)
        near = _bonds_between(apart, pairs)
        triples = _triples(near == 0)
        tight = (apart[pairs[triples, 0], pairs[triples, 1]] < BONDS_APART).all(axis=1)
        levels = [triples[tight], triples[~tight]]
        if in_rings:
            levels.append(_others(_within_rings(graph, pairs), triples))
        return cls(
            pairs,
            classes(moved.min(axis=0))[0],
            Products.by_level([_couplings(near == 0), _couplings(near == 1)], moved),
            Products.by_level(levels, moved),
        )


def mean_and_width(r: Floats, of_pair: Ints) -> tuple[Floats, Floats]:
    """Return r̄ and s of every distance (P,), the same for all of a class.

    Args:
        r: distances of frames, Å, shape (M, P).
        of_pair: class of each, shape (P,).
    """
    count = np.bincount(of_pair)
    mean = (np.bincount(of_pair, r.mean(axis=0)) / count)[of_pair]
    spread = np.sqrt(np.bincount(of_pair, ((r - mean) ** 2).mean(axis=0)) / count)[of_pair]
    return mean, np.maximum(spread, NARROW_ANG)


def moved_distances(apart: Ints, perms: Ints) -> tuple[Ints, Ints]:
    """Return the pairs of atoms one to three bonds apart, and where symmetries take each.

    Args:
        apart: bonds between every two atoms, shape (N, N).
        perms: the symmetries, shape (S, N).

    Returns:
        Atoms (P, 2), and the number of the pair that each becomes, shape (S, P).
    """
    pairs = np.argwhere(np.tril((apart >= 1) & (apart <= BONDS_APART)))
    place = np.full(apart.shape, -1)
    place[pairs[:, 0], pairs[:, 1]] = place[pairs[:, 1], pairs[:, 0]] = np.arange(len(pairs))
    return pairs, place[perms[:, pairs[:, 0]], perms[:, pairs[:, 1]]]


def bonds_apart(graph: Any) -> Ints:
    """Return the number of bonds between every two atoms, −1 where no way leads, shape (N, N)."""
    import networkx

    n = graph.number_of_nodes()
    apart = np.full((n, n), -1)
    for i, lengths in networkx.all_pairs_shortest_path_length(graph):
        for j, length in lengths.items():
            apart[i, j] = length
    return apart


def _bonds_between(apart: Ints, pairs: Ints) -> Ints:
    """Return how many bonds the nearest atoms of every two distances are apart, shape (P, P)."""
    ends = [apart[pairs[:, a]][:, pairs[:, b]] for a in (0, 1) for b in (0, 1)]
    nearest: Ints = np.min(ends, axis=0)
    return nearest


def couplings_of(apart: Ints, pairs: Ints, moved: Ints) -> Products:
    """Return products of two distances that share an atom or are a bond apart.

    Args:
        apart: bonds between every two atoms, shape (N, N).
        pairs: atoms of the distances, shape (P, 2).
        moved: where symmetries take each, shape (S, P).
    """
    return Products.by_level([_couplings(_bonds_between(apart, pairs) <= 1)], moved)


def _couplings(wanted: NDArray[np.bool_]) -> Ints:
    """Return the distances p > q of which a symmetric table says so, shape (n, 2)."""
    found: Ints = np.argwhere(np.tril(wanted, k=-1))
    return found


def _triples(touch: NDArray[np.bool_]) -> Ints:
    """Return p ≥ q ≥ r, not all alike, of which any two touch, shape (n, 3)."""
    found = []
    for p in range(len(touch)):
        beside = np.flatnonzero(touch[p, : p + 1])  # p among them
        q, r = np.nonzero(np.tril(touch[beside][:, beside]))
        three = np.stack([np.full(len(q), p), beside[q], beside[r]], axis=1)
        found.append(three[three[:, 2] < p])
    triples: Ints = np.concatenate(found).astype(np.int64)
    return triples


def _within_rings(graph: Any, pairs: Ints) -> Ints:
    """Return p ≥ q ≥ r, not all alike, of the distances of a ring and of atoms between rings.

    A ring bends as a whole, so that its distances act on each other from side to side. Atoms at an
    end, hydrogens, are left out: they would double the number.
    """
    found = []
    for ring in rings(graph):
        links = {a for i in ring for a in graph.neighbors(i) if graph.degree(a) > 1}
        own = np.flatnonzero(np.isin(pairs, [*{*ring, *links}]).all(axis=1))
        p, q, r = np.meshgrid(own, own, own, indexing="ij")
        wanted = (p >= q) & (q >= r) & (r < p)
        found.append(np.column_stack([p[wanted], q[wanted], r[wanted]]))
    return np.concatenate(found) if found else np.zeros((0, 3), dtype=np.int64)


def _others(products: Ints, known: Ints) -> Ints:
    """Return every one of ``products`` (n, 3) once that is not among ``known`` (m, 3)."""
    n = 1 + max(int(products.max(initial=0)), int(known.max(initial=0)))
    keys, old = ((some[:, 0] * n + some[:, 1]) * n + some[:, 2] for some in (products, known))
    _, first = np.unique(keys, return_index=True)
    new: Ints = products[first[~np.isin(keys[first], old)]]
    return new


@dataclass(frozen=True)
class MoleculeSites:
    """The sites of one molecule.

    Attributes:
        atoms: of every site.
        kind: class of each, shape (n,).
    """

    atoms: tuple[tuple[int, ...], ...]
    kind: Ints

    @classmethod
    def of(cls, graph: Any, perms: Ints) -> MoleculeSites:
        """Make sites of atoms, bonds and rings of a bonded graph (networkx)."""
        atoms: list[tuple[int, ...]] = [(int(i),) for i in graph.nodes]
        atoms += [tuple(sorted(map(int, bond))) for bond in graph.edges]
        atoms += rings(graph)
        images = [min(tuple(sorted(int(p[i]) for i in site)) for p in perms) for site in atoms]
        names = sorted(set(images), key=lambda image: (len(image), image))
        kind = np.array([names.index(image) for image in images])
        return cls(tuple(atoms), kind)

    @property
    def n_kinds(self) -> int:
        """Return the number of classes."""
        return int(self.kind.max()) + 1


def rings(graph: Any) -> list[tuple[int, ...]]:
    """Return the rings that no bond cuts through, of 3 to 8 atoms, each as rising atoms."""
    import networkx

    found = networkx.chordless_cycles(graph, length_bound=RING_SIZES[1])
    return sorted(tuple(sorted(map(int, ring))) for ring in found if len(ring) >= RING_SIZES[0])


@dataclass(frozen=True)
class MoleculeTerms:
    """Stretches (a, i, j) and products (a, b) of one molecule, by classes of equivalent ones.

    Attributes:
        stretches: distances over one and two bonds that end at a, those between two atoms
            bound to a, and bonds farther from a, shape (L, 3).
        of_stretch: class of each.
        products: the same atom twice, atoms one and two bonds apart, shape (M, 2).
        of_product: class of each.
    """

    stretches: Ints
    of_stretch: Ints
    products: Ints
    of_product: Ints

    @classmethod
    def of(cls, apart: Ints, perms: Ints) -> MoleculeTerms:
        """Find them by the bonds between every two atoms (N, N) and the symmetries (S, N)."""
        n = len(apart)
        near = np.argwhere((apart == 1) | (apart == 2))  # (a, j), both ways
        ends = np.column_stack([near[:, 0], near])
        bound = apart == 1
        a, i, j = np.nonzero(bound[:, :, None] & bound[:, None, :] & np.tri(n, k=-1, dtype=bool))
        beside = np.column_stack([a, i, j])
        stretches = np.concatenate([ends, beside, _farther_bonds(apart, perms)])
        same = np.repeat(np.arange(n)[:, None], 2, axis=1)
        products = np.concatenate([same, near[near[:, 0] > near[:, 1]]])
        return cls(
            stretches, _by_last_two(stretches, perms), products, _by_last_two(products, perms)
        )


def _farther_bonds(apart: Ints, perms: Ints) -> Ints:
    """Return atoms a and bonds i–j one, two, … bonds from them, while their classes are few.

    Contacts mix the orbitals of a conjugated molecule, and bonds far from them change: bonds of all
    distances (49 classes) took 4 % off the forces on C60 that the nearest had left, one and two
    bonds away (240 classes) 3 % off its catcher's. Three and four (660) were no better there: shape
    (L, 3).
    """
    bonds = np.argwhere(np.triu(apart == 1))
    away = apart[:, bonds].min(axis=2)  # [N, bonds]
    found = np.zeros((0, 3), dtype=np.int64)
    for shell in range(1, int(away.max(initial=0)) + 1):
        a, which = np.nonzero((away > 0) & (away <= shell))
        terms = np.column_stack([a, bonds[which]])
        if int(_by_last_two(terms, perms).max()) >= FARTHER_CLASSES:
            break
        found = terms
    return found


def _by_last_two(terms: Ints, perms: Ints) -> Ints:
    """Return the class of each, (n,): its last two atoms may be exchanged."""
    n = perms.shape[1]
    moved = perms[:, terms]  # [S, n, atoms]
    moved[..., -2:].sort(axis=-1)
    keys = np.ravel_multi_index(tuple(np.moveaxis(moved, -1, 0)), (n,) * terms.shape[1])
    return classes(keys.min(axis=0))[0]


@dataclass(frozen=True)
class FragmentTopology:
    """One fragment of a complex.

    Attributes:
        species: which of the different fragments it is; alike ones share their classes.
        atoms: its atoms in the complex, in the order of the molecule's.
        sites: of its molecule.
        terms: of its molecule, beyond pairs.
        distances: atoms of its molecule that are one to three bonds apart, shape (P, 2).
        of_distance: class of each, shape (P,).
        couplings: of two such distances that share an atom or are a bond apart; none if not given.
    """

    species: int
    atoms: tuple[int, ...]
    sites: MoleculeSites
    terms: MoleculeTerms
    distances: Ints
    of_distance: Ints
    couplings: Products = field(default_factory=Products.none)


Molecule = tuple[MoleculeSites, MoleculeTerms, Ints, Ints, Products]


def described(sites: MoleculeSites, apart: Ints, perms: Ints) -> Molecule:
    """Return what a :class:`FragmentTopology` holds of its molecule, from its sites on.

    Args:
        sites: of the molecule.
        apart: bonds between every two atoms, shape (N, N).
        perms: the symmetries, shape (S, N).
    """
    pairs, moved = moved_distances(apart, perms)
    of_distance = classes(moved.min(axis=0))[0]
    couplings = couplings_of(apart, pairs, moved)
    return sites, MoleculeTerms.of(apart, perms), pairs, of_distance, couplings
