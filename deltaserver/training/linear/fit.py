"""Which linear expansion a component gets: distances within molecules, sites between fragments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
from deltaserver.model.fragment_blocks import owner_of
from deltaserver.model.linear.expansion import Expansion
from deltaserver.model.linear.radials import Radials
from deltaserver.training.components import (
    BINDING,
    FULL,
    Component,
    LabelledSet,
    fragment_graph,
    fragment_symmetry,
)
from deltaserver.training.linear.embedding_terms import EmbeddingTerms
from deltaserver.training.linear.limit_terms import LimitTerms
from deltaserver.training.linear.product_terms import DECAYS, ProductTerms
from deltaserver.training.linear.site_fit import (
    SiteFit,
    less_the_higher,
    sites_of,
    weight_on_the_wall,
)
from deltaserver.training.linear.topology import (
    FragmentTopology,
    Molecule,
    MoleculeSites,
    bonds_apart,
    described,
)
from deltaserver.training.linear.units import STRAIN_EV, strain, unit_topologies
from deltaserver.training.linear.valence_fit import MAX_COLUMNS, ROWS_A_COLUMN, ValenceFit
from deltaserver.training.matrix.assembly import Progress
from deltaserver.training.symmetry_modes import product_of_fragments

Ints = NDArray[np.int64]

# Of sites beside products of distances: one more, for the wall.
RADIALS = Radials((*DECAYS, DECAYS[0] + DECAYS[-1]), ((6, 2.5), (8, 3.0)))
N_MEAN = 50  # frames that lengths are averaged over


class LinearFit(Protocol):
    """A least-squares problem whose solution is an expansion."""

    @property
    def train(self) -> Ints:
        """Return the entries that are fitted to."""

    def solve(self, progress: Progress) -> Expansion:
        """Solve it."""

    def parse(self, arrays: Mapping[str, Any], source: str) -> Expansion:
        """Return a solution that was kept as arrays."""


def linear_fit(
    frames: LabelledFrames, available: Sequence[Component], component: Component,
    data: LabelledSet, train: Ints, valid: Ints, cap: int, *, limit: bool = False,
    units: bool = False,
) -> SiteFit | ValenceFit | None:  # fmt: skip
    """Return the problem of a component; None where it has none (a lone atom, nothing but such).

    A fragment's is of its own distances, the full model's of those within every fragment.

    Args:
        frames: of the dataset.
        available: components of the dataset.
        component: whose expansion it is.
        data: its labels, less the prior's of the binding.
        train: entries of ``data`` to fit to.
        valid: entries that decide.
        cap: permutations of a fragment at most.
        limit: the binding does not vanish at infinity: bonds feel it there too.
        units: a molecule's stiff units act on each other.
    """
    if component.name == BINDING:
        fragments = _fragments(frames, available, cap)
        sites = sites_of(fragments, len(frames.numbers))
        some = data.positions[train[:: max(1, len(train) // N_MEAN)]]
        terms = EmbeddingTerms.of(frames.numbers, fragments, some)
        far = LimitTerms.of(fragments, some) if limit else None
        weight = weight_on_the_wall(frames.binding_energy[data.frame])
        return SiteFit(data, train, valid, sites, terms, limit=far, weight=weight)
    if component.name == FULL:
        graph = _whole_graph(frames)
        perms = product_of_fragments(frames, tuple(available), cap).perms
    elif not component.is_lone_atom:
        first = frames.fragments[component.members[0]]
        graph, perms = fragment_graph(frames, first), fragment_symmetry(frames, first, cap).perms
    else:
        return None
    if not graph.number_of_edges():
        return None
    alone = component.name != FULL
    between = _between_units(data, train, valid, graph, perms) if units and alone else None
    counts = None if between is None else less_the_higher(strain(data.energy), STRAIN_EV)
    return ValenceFit(data, train, valid, graph, perms, alone, between, counts)


def _between_units(
    data: LabelledSet, train: Ints, valid: Ints, graph: Any, perms: Ints
) -> SiteFit | None:
    """Return the terms between stiff units of a molecule; None for one, or for too few frames."""
    units = unit_topologies(graph, perms)
    if len(units) < 2:
        return None
    sites = sites_of(units, len(data.numbers))
    some = data.positions[train[:: max(1, len(train) // N_MEAN)]]
    rows = 3 * len(data.numbers) * len(train)
    most = min(MAX_COLUMNS // 2, rows // ROWS_A_COLUMN[0])
    for terms in (EmbeddingTerms.of(data.numbers, units, some), None):
        fit = SiteFit(data, train, valid, sites, terms, n_contacts=0)
        if fit.n_columns <= most:
            return fit
    return None


def product_fit(
    frames: LabelledFrames, available: Sequence[Component], data: LabelledSet, train: Ints,
    valid: Ints, perms: Ints, cap: int,
) -> SiteFit:  # fmt: skip
    """Return the problem of a binding by sites and products of distances, no kernel on top.

    Args:
        frames: of the dataset.
        available: components of the dataset.
        data: binding labels, less the prior's.
        train: entries of ``data`` to fit to.
        valid: entries that decide.
        perms: symmetries of the complex, shape (S, N).
        cap: permutations of a fragment at most.

    Raises:
        InputError: the complex is too large for products of all distances.
    """
    fragments = _fragments(frames, available, cap)
    some = data.positions[train[:: max(1, len(train) // N_MEAN)]]
    owner = owner_of([one.atoms for one in frames.fragments])
    terms = ProductTerms.of(owner, perms, some, data.name)
    sites = sites_of(fragments, len(frames.numbers))
    # Every orientation of small molecules is among the frames: nothing need be asked of others.
    return SiteFit(data, train, valid, sites, products=terms, radials=RADIALS, n_contacts=0)


def _whole_graph(frames: LabelledFrames) -> Any:
    """Return the bonded graphs (networkx) of all fragments as one, with the complex's atoms."""
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(range(len(frames.numbers)))
    for fragment in frames.fragments:
        if len(fragment.atoms) > 1:
            bonds = fragment_graph(frames, fragment).edges
            graph.add_edges_from((fragment.atoms[i], fragment.atoms[j]) for i, j in bonds)
    return graph


def _fragments(
    frames: LabelledFrames, available: Sequence[Component], cap: int
) -> list[FragmentTopology]:
    """Return every fragment, in their order; alike ones are looked at once."""
    found: dict[int, FragmentTopology] = {}
    for species, component in enumerate(c for c in available if c.is_fragment):
        molecule = _molecule(frames, frames.fragments[component.members[0]], cap)
        for member, atoms in zip(component.members, component.atoms, strict=True):
            found[member] = FragmentTopology(species, atoms, *molecule)
    return [found[k] for k in sorted(found)]


def _molecule(frames: LabelledFrames, fragment: FragmentSpec, cap: int) -> Molecule:
    if len(fragment.atoms) == 1:
        apart = perms = np.zeros((1, 1), dtype=np.int64)
        sites = MoleculeSites(((0,),), perms[0])
    else:
        graph = fragment_graph(frames, fragment)
        perms = fragment_symmetry(frames, fragment, cap).perms
        apart, sites = bonds_apart(graph), MoleculeSites.of(graph, perms)
    return described(sites, apart, perms)
