"""Which atom of a structure is which of the model's: molecules matched by bonds and chirality.

Bonded graphs, atoms coloured by element, tell molecules whatever the order of their atoms. Of the
many ways to lay one onto the other (symmetric molecules, alike atoms on one neighbour) that one is
taken whose handedness at every centre and whose distances are most like a reference structure's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, permutations
from typing import Any

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import MissingExtraError, StructureError
from deltaserver.molecules.bonds import bonds_between
from deltaserver.molecules.elements import SYMBOLS
from deltaserver.molecules.handedness import FLAT_ANG3, corners_of, triple_products

MAX_ISOMORPHISMS = 2000  # of one molecule onto another; C60 has 120
MANY = 150
MAX_PASSES = 5


@dataclass(frozen=True)
class Reference:
    """The model's molecules: numbers (N,), positions (N, 3) in Å, and each fragment's atoms."""

    numbers: Ints
    positions: Floats
    fragments: tuple[tuple[str, Ints], ...]


def match_order(reference: Reference, numbers: Ints, positions: Floats) -> Ints:
    """Return ``order`` such that ``positions[order]`` has its atoms in the model's order.

    Args:
        reference: the model's own structure.
        numbers: atomic numbers of the structure, (N,).
        positions: Å, (N, 3).

    Raises:
        StructureError: the structure has other molecules than the model.
        MissingExtraError: networkx is not installed.
    """
    if len(numbers) != len(reference.numbers):
        raise StructureError(f"it has {len(numbers)} atoms; the model has {len(reference.numbers)}")
    free = _molecules(_graph(numbers, positions, _lone_elements(reference)))
    order = np.full(len(numbers), -1, dtype=np.int64)
    for name, atoms in sorted(reference.fragments, key=lambda entry: -len(entry[1])):
        wanted = _graph(reference.numbers[atoms], reference.positions[atoms])
        found = _best(wanted, free, reference.positions[atoms], positions)
        if found is None:
            formula = _formula(reference.numbers[atoms])
            raise StructureError(f"no molecule with the bonds of {name} ({formula}) is in it")
        free = [molecule for molecule in free if not set(molecule) & set(found.tolist())]
        order[atoms] = found
    return order


def _lone_elements(reference: Reference) -> Ints:
    """Return the elements that the model has as lone atoms only: ions, bonded to nothing.

    Na⁺ is nearer to benzene's carbons than covalent radii allow without a bond.
    """
    lone = [reference.numbers[atoms[0]] for _, atoms in reference.fragments if len(atoms) == 1]
    rest = [reference.numbers[atoms] for _, atoms in reference.fragments if len(atoms) > 1]
    none = np.zeros(0, dtype=np.int64)
    return np.setdiff1d(np.array(lone, dtype=np.int64), np.concatenate([none, *rest]))


def _graph(numbers: Ints, positions: Floats, unbonded: Ints | tuple[()] = ()) -> Any:
    try:
        import networkx
    except ImportError:
        raise MissingExtraError("networkx", "train") from None
    graph = networkx.Graph()
    graph.add_nodes_from((k, {"element": int(z)}) for k, z in enumerate(numbers))
    i, j = bonds_between(numbers, positions)
    kept = ~(np.isin(numbers[i], unbonded) | np.isin(numbers[j], unbonded))
    i, j = i[kept], j[kept]
    graph.add_edges_from(zip(i.tolist(), j.tolist(), strict=True))
    return graph


def _molecules(graph: Any) -> list[Any]:
    import networkx

    pieces = sorted(networkx.connected_components(graph), key=min)
    return [graph.subgraph(piece) for piece in pieces]


def _best(wanted: Any, free: list[Any], reference: Floats, positions: Floats) -> Ints | None:
    """Return the atoms of the first molecule that is ``wanted``, in its order; None if none is.

    A fragment may be several molecules (a cluster): then the first of each kind are taken.
    """
    if len(_molecules(wanted)) > 1:
        return _pieces(wanted, free, reference, positions)
    for molecule in free:
        ways = list(islice(_isomorphisms(wanted, molecule), MAX_ISOMORPHISMS))
        if len(ways) > MANY:
            # Those that differ only at the ends of bonds become one when these are settled.
            inner = [k for k in wanted if wanted.degree(k) != 1]
            ways = list({tuple(way[inner]): way for way in ways}.values())
        if ways:
            unlike = Unlikeness(wanted, reference, positions)
            return min((_settled(way, wanted, unlike) for way in ways), key=unlike)
    return None


def _pieces(wanted: Any, free: list[Any], reference: Floats, positions: Floats) -> Ints | None:
    result = np.full(len(reference), -1, dtype=np.int64)
    left = list(free)
    for piece in _molecules(wanted):
        nodes = sorted(piece)
        place = {atom: k for k, atom in enumerate(nodes)}
        import networkx

        found = _best(networkx.relabel_nodes(piece, place), left, reference[nodes], positions)
        if found is None:
            return None
        left = [molecule for molecule in left if not set(molecule) & set(found.tolist())]
        result[nodes] = found
    return result


def _isomorphisms(wanted: Any, molecule: Any) -> Iterator[Ints]:
    """Yield every way to lay a connected graph onto another one, elements on equal elements.

    Atom by atom, each a neighbour of one that is laid already: molecules have few ways to go on.
    Ends of bonds come last: which of alike ones goes where never decides whether the rest fits.
    """
    if len(wanted) != len(molecule) or wanted.size() != molecule.size():
        return
    order = _from_the_rarest(wanted)
    before = [[n for n in wanted[atom] if n in order[:k]] for k, atom in enumerate(order)]
    kinds = {atom: _kind(molecule, atom) for atom in molecule}
    wanted_kinds = [_kind(wanted, atom) for atom in order]
    image: dict[int, int] = {}

    def candidates() -> Iterator[int]:
        k = len(image)
        laid = [image[n] for n in before[k]]
        taken = set(image.values())
        for atom in sorted(molecule[laid[0]] if laid else molecule):
            fits = kinds[atom] == wanted_kinds[k] and atom not in taken
            if fits and all(atom in molecule[other] for other in laid):
                yield atom

    choices = [candidates()]
    while choices:
        if (atom := next(choices[-1], None)) is None:
            choices.pop()
            if image:
                del image[order[len(image) - 1]]
            continue
        image[order[len(image)]] = atom
        if len(image) < len(order):
            choices.append(candidates())
            continue
        yield np.array([image[k] for k in range(len(order))], dtype=np.int64)
        del image[order[-1]]


def _kind(graph: Any, atom: int) -> tuple[int, ...]:
    """Return an atom's element and its neighbours': what any way to lay it keeps."""
    elements = graph.nodes(data="element")
    return (elements[atom], *sorted(elements[n] for n in graph[atom]))


def _from_the_rarest(graph: Any) -> list[int]:
    """Return the atoms, each bonded to an earlier one, from one of the rarest kind; ends last."""
    kinds = {atom: _kind(graph, atom) for atom in graph}
    counts = Counter(kinds.values())
    order = [min(graph, key=lambda atom: (len(graph[atom]) == 1, counts[kinds[atom]], atom))]
    for atom in order:  # which grows on the way
        order += [n for n in sorted(graph[atom]) if n not in order]
    inner = [atom for atom in order if atom == order[0] or len(graph[atom]) != 1]
    return inner + [atom for atom in order if atom not in inner]


def _settled(way: Ints, wanted: Any, unlike: Unlikeness) -> Ints:
    """Settle the ends of bonds until nothing changes: those of one centre see the others'."""
    for _ in range(MAX_PASSES):
        before, way = way, _settle(way, wanted, unlike)
        if np.array_equal(before, way):
            break
    return way


def _settle(way: Ints, wanted: Any, unlike: Unlikeness) -> Ints:
    """Exchange alike atoms at the end of one bond, hydrogens of CH3, where that is more alike."""
    for centre in wanted:
        ends = [k for k in wanted[centre] if wanted.degree(k) == 1]
        for element in {wanted.nodes[k]["element"] for k in ends}:
            alike = [k for k in ends if wanted.nodes[k]["element"] == element]
            if 1 < len(alike) <= 4:
                trials = []
                for turned in permutations(alike):
                    trial = way.copy()
                    trial[alike] = way[list(turned)]
                    trials.append(trial)
                way = min(trials, key=unlike)
    return way


class Unlikeness:
    """How unlike the reference a way to lay its graph onto a molecule is.

    Called with a way, it returns how many centres have the other handedness than the rest, how many
    another than the reference, and how far distances are, Å. What does not depend on the way is
    computed once: there are hundreds.
    """

    def __init__(self, wanted: Any, reference: Floats, positions: Floats) -> None:
        self._corners = corners_of({centre: wanted[centre] for centre in wanted})
        self._before = triple_products(reference, self._corners)
        self._distances = _distances(reference)
        self._positions = positions

    def __call__(self, way: Ints) -> tuple[int, int, float]:
        """Compare the molecule's atoms, taken in the order ``way``, with the reference."""
        x = self._positions[way]
        before, after = self._before, triple_products(x, self._corners)
        clear = np.minimum(np.abs(before), np.abs(after)) > FLAT_ANG3
        same = int((before * after > 0.0)[clear].sum())
        # The mirror image of a whole molecule has the same distances, and alone the same energy:
        # it is right where nothing else fits. Beside another molecule it is not.
        other = int(clear.sum()) - same
        far = float(np.abs(_distances(x) - self._distances).mean())
        return min(same, other), other, far


def _distances(x: Floats) -> Floats:
    result: Floats = np.linalg.norm(x[:, None] - x, axis=-1)
    return result


def _formula(numbers: Ints) -> str:
    kinds, counts = np.unique(numbers, return_counts=True)
    return "".join(f"{SYMBOLS[z]}{n if n > 1 else ''}" for z, n in zip(kinds, counts, strict=True))
