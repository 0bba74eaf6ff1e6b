"""The permutations of three molecules: products of their own and, in any case, their exchange.

A pair's model may do without the exchange of alike molecules where all permutations are too many;
of three among many, each is the first somewhere. So it is the molecules' own groups that become
smaller: stabilisers of single atoms, alike ones by the same atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial, prod

import numpy as np

from deltaserver.arrays import Ints
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.training import symmetry
from deltaserver.training.components import Component, fragment_graph
from deltaserver.training.symmetry import Symmetry


def product_with_exchange(
    frames: LabelledFrames, components: Sequence[Component], cap: int
) -> Symmetry:
    """Return the largest such group that is found within ``cap`` permutations.

    Raises:
        DataError: a fragment is not connected.
    """
    own = [component for component in components if component.is_fragment]
    groups = [_group(frames, component, cap) for component in own]
    full = _order(own, groups)
    while _order(own, groups) > cap and any(len(group) > 1 for group in groups):
        k = int(np.argmax([len(group) for group in groups]))
        groups[k] = _group(frames, own[k], len(groups[k]) - 1)
    atoms, each, exchanges = list[Ints](), list[Ints](), []
    for component, group in zip(own, groups, strict=True):
        same = range(len(atoms), len(atoms) + len(component.atoms))
        # Pooled fragments' atoms are in corresponding order, so exchange maps like to like.
        atoms += [np.array(some) for some in component.atoms]
        each += [group] * len(component.atoms)
        exchanges.append([(j, np.arange(len(component.atoms[0]))) for j in same])
    found = symmetry.product_group(len(frames.numbers), atoms, each, exchanges, cap)
    kept = len(found.perms)
    note = ""
    if full > cap:
        orders = ", ".join(f"{len(g)} of {c.name}" for g, c in zip(groups, own, strict=True))
        note = (
            f"{full} permutations are more than the cap of {cap}; kept {kept}: {orders}, exchange"
        )
    return Symmetry(found.perms, full, note)


def _order(components: Sequence[Component], groups: Sequence[Ints]) -> int:
    return prod(
        len(group) ** len(one.atoms) * factorial(len(one.atoms))
        for one, group in zip(components, groups, strict=True)
    )


def _group(frames: LabelledFrames, component: Component, cap: int) -> Ints:
    """Return a molecule's own permutations, at most ``cap``, but always the identity."""
    n_atoms = len(component.atoms[0])
    if n_atoms == 1 or cap <= 1:
        return Symmetry.trivial(n_atoms).perms
    first = frames.fragments[component.members[0]]
    graph = fragment_graph(frames, first)
    symmetry.check_connected(graph, frames.numbers[np.array(first.atoms)], first.name)
    return symmetry.automorphisms(graph, cap).perms
