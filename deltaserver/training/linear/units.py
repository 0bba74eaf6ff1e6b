"""The stiff units of a molecule, between which bonds turn: fragments of it as of a complex.

What two rings that are bound through an oxygen do to each other is like what molecules do: it goes
by distances that no chain of three bonds spans. So it gets the same terms, pair potentials between
sites, stretches and products under densities (:mod:`deltaserver.training.linear.site_fit`). Of an
O6-corona[3]arene[3]tetrazine at 500 K these took a third off the error of an expansion in bonds,
angles and torsions. A molecule without bonds that turn is one unit, and has none of it.

Where they touch is learned from frames that are strained (``deltaserver dataset fold``). Their
forces are large, and what is left of them as well: 800 of 3500 frames took the error on the others
from 0.88 to 0.95 kcal/mol/Å, to 0.93 where they count less, as they do now. The kernel has no
points there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.training.linear.topology import (
    FragmentTopology,
    Molecule,
    MoleculeSites,
    bonds_apart,
    described,
    rings,
)

STRAIN_EV = 2.0  # above the median frame, from where on frames count less


def strain(energy: Floats) -> Floats:
    """Return how much more energy (M,) frames have than the median one, eV."""
    return energy - np.median(energy)


def units(graph: Any) -> list[tuple[int, ...]]:
    """Return the atoms of every unit of a bonded graph (networkx), in the order of their first.

    Bonds that are of no ring of up to eight atoms, and not to an atom at an end, are cut.
    """
    import networkx

    within = {frozenset(edge) for ring in rings(graph) for edge in graph.subgraph(ring).edges}
    turn = [
        (a, b)
        for a, b in graph.edges
        if frozenset((a, b)) not in within and min(graph.degree(a), graph.degree(b)) > 1
    ]
    cut = graph.copy()
    cut.remove_edges_from(turn)
    return sorted(tuple(sorted(map(int, atoms))) for atoms in networkx.connected_components(cut))


def unit_topologies(graph: Any, perms: Ints) -> list[FragmentTopology]:
    """Return every unit as a fragment; those that symmetries (S, N) swap share their classes."""
    of_atoms = {frozenset(unit): unit for unit in units(graph)}
    found: dict[tuple[int, ...], FragmentTopology] = {}
    species = 0
    for unit in of_atoms.values():
        if unit in found:
            continue
        images = perms[:, unit]  # [S, n]
        own = np.unique(images[[frozenset(i) == frozenset(unit) for i in images.tolist()]], axis=0)
        topology = _topology(graph, unit, np.searchsorted(unit, own))
        for image in images.tolist():
            place = of_atoms[frozenset(image)]
            if place not in found:
                atoms = unit if place == unit else tuple(image)
                found[place] = FragmentTopology(species, atoms, *topology)
        species += 1
    return [found[unit] for unit in of_atoms.values()]


def _topology(graph: Any, unit: Sequence[int], perms: Ints) -> Molecule:
    import networkx

    names = {atom: k for k, atom in enumerate(unit)}
    alone = networkx.Graph()
    alone.add_nodes_from(range(len(unit)))  # in their order
    alone.add_edges_from((names[a], names[b]) for a, b in graph.subgraph(unit).edges)
    return described(MoleculeSites.of(alone, perms), bonds_apart(alone), perms)
