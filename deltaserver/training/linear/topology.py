"""What a molecule's bonded graph says of its distances and sites, and which of them are alike."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

BONDS_APART = 3  # of the two atoms of a distance, at most
RING_SIZES = (3, 8)


def classes(keys: Ints) -> tuple[Ints, int]:
    """Return the class of every key (n,), equal keys being of one, and their number."""
    found, inverse = np.unique(keys, return_inverse=True)
    return inverse.astype(np.int64), len(found)


@dataclass(frozen=True)
class Distances:
    """The distances of a molecule, and couplings of two of them, by classes of equivalent ones.

    Attributes:
        pairs: atoms of every distance, shape (P, 2).
        of_pair: class of each, shape (P,).
        couplings: two distances each, those of the nearest first, shape (C, 2).
        of_coupling: class of each, rising with the level, shape (C,).
        levels: how many classes of couplings there are up to each level: of distances that share
            an atom; whose atoms are at most a bond apart; and of any two bonds.
    """

    pairs: Ints
    of_pair: Ints
    couplings: Ints
    of_coupling: Ints
    levels: tuple[int, ...]

    @classmethod
    def of(cls, graph: Any, perms: Ints) -> Distances:
        """Find them in a bonded graph (networkx); ``perms`` (S, N) tell what is equivalent."""
        apart = bonds_apart(graph)
        pairs = np.argwhere(np.tril((apart >= 1) & (apart <= BONDS_APART)))
        place = np.full(apart.shape, -1)
        place[pairs[:, 0], pairs[:, 1]] = place[pairs[:, 1], pairs[:, 0]] = np.arange(len(pairs))
        moved = place[perms[:, pairs[:, 0]], perms[:, pairs[:, 1]]]  # [S, P]
        of_pair, _ = classes(moved.min(axis=0))
        couplings, of_coupling, levels = [], [], []
        known = 0
        for some in _levels(apart, pairs):
            low = np.minimum(moved[:, some[:, 0]], moved[:, some[:, 1]])
            high = np.maximum(moved[:, some[:, 0]], moved[:, some[:, 1]])
            label, n = classes((low * len(pairs) + high).min(axis=0))
            couplings.append(some)
            of_coupling.append(known + label)
            known += n
            levels.append(known)
        return cls(
            pairs, of_pair, np.concatenate(couplings), np.concatenate(of_coupling), tuple(levels)
        )


def bonds_apart(graph: Any) -> Ints:
    """Return the number of bonds between every two atoms, −1 where no way leads, shape (N, N)."""
    import networkx

    n = graph.number_of_nodes()
    apart = np.full((n, n), -1)
    for i, lengths in networkx.all_pairs_shortest_path_length(graph):
        for j, length in lengths.items():
            apart[i, j] = length
    return apart


def _levels(apart: Ints, pairs: Ints) -> list[Ints]:
    """Return the couplings (p, q < p) of every level, that are of none before."""
    p, q = np.tril_indices(len(pairs), k=-1)
    nearest = np.full(len(p), apart.max() + 1)
    for a in (0, 1):
        for b in (0, 1):
            nearest = np.minimum(nearest, apart[pairs[p, a], pairs[q, b]])
    bond = apart[pairs[:, 0], pairs[:, 1]] == 1
    both = bond[p] & bond[q]
    masks = [nearest == 0, nearest == 1, both & (nearest > 1)]
    return [np.stack([p[mask], q[mask]], axis=1) for mask in masks]


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


def pairs_of(n: int) -> list[tuple[int, int]]:
    """Return every two of n, one with itself included."""
    return [*((k, k) for k in range(n)), *combinations(range(n), 2)]
