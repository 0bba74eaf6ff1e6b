"""Permutations of identical atoms under which an energy does not change.

Exchanging identical nuclei changes no energy, so every automorphism of the bonded graph, atoms
coloured by element, is a symmetry of a molecule: exact, improper ones included, whatever the
temperature. Bonds are read off the training frames (a pair is bonded where it is closer than a
multiple of the covalent radii [Cordero et al., Dalton Trans. 2008, 2832, DOI 10.1039/b801115j]
in most of them), automorphisms are enumerated with networkx.

A permutation p acts as sGDML's does: ``positions[p]`` is the same molecule again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, permutations, product
from math import factorial
from typing import Any

import numpy as np

from deltaserver.arrays import Bools, Floats, Ints
from deltaserver.errors import DataError, MissingExtraError
from deltaserver.molecules.bonds import bonds_between
from deltaserver.molecules.elements import SYMBOLS

MAX_BOND_FRAMES = 200  # frames looked at: enough for a majority
DEFAULT_CAP = 1000


@dataclass(frozen=True)
class Symmetry:
    """A permutation group of a model's atoms.

    Attributes:
        perms: the group, identity first, shape (S, N).
        full_order: how many permutations there are without a cap.
        note: one line that says what was left out and why; empty where nothing was.
    """

    perms: Ints
    full_order: int
    note: str = ""

    @classmethod
    def trivial(cls, n_atoms: int, note: str = "") -> Symmetry:
        """Return the identity alone."""
        return cls(np.arange(n_atoms)[None, :], 1, note)


def bonds(numbers: Ints, positions: Floats) -> Bools:
    """Return which pairs are bonded in the majority of frames ``positions`` (M, N, 3), (N, N)."""
    some = positions[:: -(-len(positions) // MAX_BOND_FRAMES)]
    count = np.zeros((len(numbers), len(numbers)), dtype=np.int64)
    for frame in some:
        count[bonds_between(numbers, frame)] += 1
    bonded: Bools = 2 * count > len(some)
    return bonded | bonded.T


def bonded_graph(numbers: Ints, bonded: Bools) -> Any:
    """Return the networkx graph of one molecule, atoms coloured by element.

    Raises:
        MissingExtraError: networkx is not installed.
    """
    try:
        import networkx
    except ImportError:
        raise MissingExtraError("networkx", "train") from None
    graph = networkx.from_numpy_array(bonded.astype(np.int64))
    for atom, colour in enumerate(_refined_colours(numbers, bonded)):
        graph.nodes[atom]["colour"] = colour
    return graph


def check_connected(graph: Any, numbers: Ints, what: str) -> None:
    """Refuse a molecule that falls into pieces that no bond connects (DataError).

    Its graph would have automorphisms that the chemistry may not: a bond was missed, or the
    fragment is none.
    """
    import networkx

    pieces: list[set[int]] = [set(piece) for piece in networkx.connected_components(graph)]
    if len(pieces) > 1:
        smallest = min(pieces, key=len)
        names = ", ".join(f"{SYMBOLS[numbers[i]]}{i}" for i in sorted(smallest)[:6])
        raise DataError(
            f"fragment {what}: no bond connects {names} to the rest in most frames; "
            "check the fragment definition, or give --symmetry none or a file"
        )


def _refined_colours(numbers: Ints, bonded: Bools) -> list[str]:
    """Refine element colours by neighbours' until stable: equal for equivalent atoms.

    The names depend on the graph alone, so that two molecules' colours can be compared.
    """
    colours = [str(z) for z in numbers]
    for _ in range(len(numbers)):
        around = [
            (colours[i], tuple(sorted(colours[j] for j in np.flatnonzero(bonded[i]))))
            for i in range(len(numbers))
        ]
        names = {key: str(rank) for rank, key in enumerate(sorted(set(around)))}
        refined = [names[key] for key in around]
        if len(set(refined)) == len(set(colours)):
            break
        colours = refined
    return [f"{z}.{colour}" for z, colour in zip(numbers, colours, strict=True)]


def isomorphisms(graph: Any, other: Any) -> Iterator[Ints]:
    """Yield every map p of coloured graphs, atom i of ``graph`` to atom p[i] of ``other``."""
    from networkx.algorithms.isomorphism import GraphMatcher, categorical_node_match

    matcher = GraphMatcher(graph, other, node_match=categorical_node_match("colour", None))
    for mapping in matcher.isomorphisms_iter():
        yield np.array([mapping[i] for i in range(len(graph))], dtype=np.int64)


def automorphisms(graph: Any, cap: int = DEFAULT_CAP) -> Symmetry:
    """Return the automorphism group, or the largest stabiliser of single atoms within ``cap``.

    Where the group is larger than ``cap``, atoms are held fixed one after the other (each time
    one of those with most equivalents) until what is left, a subgroup, fits.
    """
    held: list[int] = []
    while True:
        found = list(islice(isomorphisms(graph, graph), cap + 1))
        if len(found) <= cap:
            break
        graph = graph.copy()
        images = np.array(found)  # of these, the atom that moves most
        moving = int(np.argmax([len(set(column)) for column in images.T]))
        held.append(moving)
        graph.nodes[moving]["colour"] = f"held {len(held)}"
    perms = _sorted(np.array(found))
    if not held:
        return Symmetry(perms, len(perms))
    note = (
        f"more than {cap} automorphisms; kept the {len(perms)} that leave "
        f"{'atom' if len(held) == 1 else 'atoms'} {', '.join(map(str, held))} in place"
    )
    return Symmetry(perms, cap + 1, note)


def _sorted(perms: Ints) -> Ints:
    """Order permutations so that the identity, first in lexical order, comes first."""
    ordered: Ints = np.unique(perms, axis=0)
    return ordered


def check_group(perms: Ints, what: str) -> None:
    """Check that ``perms`` (S, N) is a permutation group: closed, so inverses are in it too.

    Raises:
        DataError: a row is no permutation, stands twice, or a product is missing.
    """
    n_atoms = perms.shape[1]
    if not (np.sort(perms, axis=1) == np.arange(n_atoms)).all():
        row = int(np.argmin((np.sort(perms, axis=1) == np.arange(n_atoms)).all(axis=1)))
        raise DataError(f"{what}: row {row} is not a permutation of 0 to {n_atoms - 1}")
    known = {row.tobytes() for row in np.ascontiguousarray(perms)}
    if len(known) < len(perms):
        raise DataError(f"{what}: a permutation stands twice; expected each once")
    for s, p in enumerate(perms):
        products = np.ascontiguousarray(perms[:, p])
        for t, row in enumerate(products):
            if row.tobytes() not in known:
                raise DataError(
                    f"{what}: not a group: permutation {t} after {s} is not in it; "
                    "add the missing products, or remove a generator"
                )


def check_elements(perms: Ints, numbers: Ints, what: str) -> None:
    """Check that permutations exchange atoms of one element only, or raise DataError."""
    wrong = np.argwhere(numbers[perms] != numbers)
    if len(wrong):
        s, i = wrong[0]
        raise DataError(
            f"{what}: permutation {s} puts {SYMBOLS[numbers[perms[s, i]]]} "
            f"in the place of {SYMBOLS[numbers[i]]} (atom {i})"
        )


def product_group(
    n_atoms: int,
    atoms: Sequence[Ints],
    groups: Sequence[Ints],
    exchanges: Sequence[Sequence[tuple[int, Ints]]] = (),
    cap: int = DEFAULT_CAP,
) -> Symmetry:
    """Combine the fragments' groups into one of the complex.

    Args:
        n_atoms: N of the complex.
        atoms: of every fragment, its atoms in the complex.
        groups: of every fragment, its permutations (S_j, N_j).
        exchanges: sets of identical fragments, each as (fragment, map of the set's first
            fragment's atoms onto its own).
        cap: the most permutations wanted. Where the product has more, exchange is given up
            first, then whole fragments' groups, so that the largest product that fits is kept.

    Returns:
        The group and what was left out.
    """
    orders = [len(group) for group in groups]
    swaps = int(np.prod([factorial(len(same)) for same in exchanges], dtype=object))
    full_order = int(np.prod(orders, dtype=object)) * swaps
    everything = tuple(range(len(groups)))
    kept, with_exchange = everything, swaps > 1
    if full_order > cap:
        kept, with_exchange = _largest_that_fits(orders, cap), False
    perms = _direct_product(n_atoms, atoms, [groups[j] if j in kept else None for j in everything])
    if with_exchange:
        moves = _exchange_group(n_atoms, atoms, exchanges)
        perms = np.concatenate([perms[:, move] for move in moves])
    note = ""
    if full_order > cap:
        left_out = [f"fragment {j}'s {orders[j]}" for j in everything if j not in kept]
        left_out += ["the exchange of identical fragments"] if swaps > 1 else []
        note = (
            f"{full_order} permutations are more than the cap of {cap}; kept {len(perms)}, "
            f"without {' and '.join(left_out)}"
        )
    return Symmetry(_sorted(perms), full_order, note)


def _largest_that_fits(orders: Sequence[int], cap: int) -> tuple[int, ...]:
    """Return the fragments whose product of orders is the largest that ``cap`` allows."""
    choices = [
        chosen
        for size in range(len(orders) + 1)
        for chosen in combinations(range(len(orders)), size)
        if np.prod([orders[j] for j in chosen], dtype=object) <= cap
    ]
    return max(choices, key=lambda chosen: np.prod([orders[j] for j in chosen], dtype=object))


def _direct_product(n_atoms: int, atoms: Sequence[Ints], groups: Sequence[Ints | None]) -> Ints:
    rows = []
    factors = [[None] if group is None else list(group) for group in groups]
    for combination in product(*factors):
        p = np.arange(n_atoms)
        for where, inner in zip(atoms, combination, strict=True):
            if inner is not None:
                p[where] = where[inner]
        rows.append(p)
    return np.array(rows)


def _exchange_group(
    n_atoms: int, atoms: Sequence[Ints], exchanges: Sequence[Sequence[tuple[int, Ints]]]
) -> list[Ints]:
    """Return the permutations that only move identical fragments into each other's place."""
    moves = [np.arange(n_atoms)]
    for same in exchanges:
        places = [atoms[j][match] for j, match in same]  # corresponding atoms, fragment by fragment
        further = []
        for order in permutations(range(len(places))):
            p = np.arange(n_atoms)
            for here, there in enumerate(order):
                p[places[here]] = places[there]
            further.append(p)
        moves = [q[p] for q in moves for p in further]
    return moves
