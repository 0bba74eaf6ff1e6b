"""What is trained of a complex: every kind of fragment, the binding model, the full model.

Identical fragments (same bonded graph, elements and charge) are pooled: one model, trained on
the frames of all of them, atoms brought into the first one's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
from deltaserver.errors import ComponentError, DataError
from deltaserver.model.prior import Prior
from deltaserver.training import symmetry

BINDING, FULL = "binding", "full"


@dataclass(frozen=True)
class Component:
    """One model to be trained.

    Attributes:
        name: the fragment's (the first one's, where several are pooled), "binding" or "full".
        members: the pooled fragments' places in the dataset; empty for binding and full.
        atoms: per member, its atoms in the complex, in the model's order.
    """

    name: str
    members: tuple[int, ...]
    atoms: tuple[tuple[int, ...], ...]

    @property
    def is_fragment(self) -> bool:
        """Return whether this is a fragment's model."""
        return bool(self.members)

    @property
    def is_lone_atom(self) -> bool:
        """Return whether there is nothing to train: a single atom has a constant energy."""
        return len(self.atoms[0]) == 1


@dataclass(frozen=True)
class LabelledSet:
    """Frames of one component with its labels: Å, eV, eV/Å.

    ``frame`` tells which frame of the dataset each entry comes from: pooled fragments share one.
    """

    name: str
    reference: str
    numbers: Ints  # [N]
    positions: Floats  # [K, N, 3]
    energy: Floats  # [K]
    forces: Floats  # [K, N, 3]
    frame: Ints  # [K]

    def __len__(self) -> int:
        """Return the number of entries K."""
        return len(self.positions)


def components(frames: LabelledFrames) -> tuple[Component, ...]:
    """Return what there is to train of a complex: fragments (pooled), binding, full."""
    everything = tuple(range(len(frames.numbers)))
    kinds: list[Component] = []
    for place, fragment in enumerate(frames.fragments):
        for index, known in enumerate(kinds):
            match = _match(frames, frames.fragments[known.members[0]], fragment)
            if match is not None:
                kinds[index] = Component(known.name, (*known.members, place), (*known.atoms, match))
                break
        else:
            kinds.append(Component(fragment.name, (place,), (fragment.atoms,)))
    if len(frames.fragments) > 1:
        kinds.append(Component(BINDING, (), (everything,)))
    return (*kinds, Component(FULL, (), (everything,)))


def choose(available: Sequence[Component], wanted: str) -> tuple[Component, ...]:
    """Return the components that ``wanted`` names: "all", or one of them.

    Raises:
        ComponentError: there is none of that name.
    """
    if wanted == "all":
        return tuple(available)
    chosen = tuple(component for component in available if component.name == wanted)
    if not chosen:
        names = ", ".join(component.name for component in available)
        raise ComponentError(f"no component {wanted!r} in the dataset; use all or one of {names}")
    return chosen


def labelled_set(frames: LabelledFrames, component: Component) -> LabelledSet:
    """Return the labels of one component over all frames, pooled fragments one after the other."""
    positions, energies, forces = [], [], []
    for index, atoms in enumerate(component.atoms):
        some = np.array(atoms)
        if component.is_fragment:
            energy, force = (
                frames.fragment_energies[:, component.members[index]],
                frames.fragment_forces,
            )
        elif component.name == BINDING:
            energy, force = frames.binding_energy, frames.binding_forces
        else:
            energy, force = frames.energy, frames.forces
        positions.append(frames.positions[:, some])
        energies.append(energy)
        forces.append(force[:, some])
    return LabelledSet(
        name=f"{frames.name}_{component.name}",
        reference=frames.reference,
        numbers=frames.numbers[np.array(component.atoms[0])],
        positions=np.concatenate(positions),
        energy=np.concatenate(energies),
        forces=np.concatenate(forces),
        frame=np.tile(np.arange(len(frames)), len(component.atoms)),
    )


def less(data: LabelledSet, energy: Floats, forces: Floats) -> LabelledSet:
    """Return labels less energies (eV) and forces (eV/Å) that are known: what is left to learn."""
    return replace(data, energy=data.energy - energy, forces=data.forces - forces)


def without_prior(data: LabelledSet, prior: Prior) -> LabelledSet:
    """Return binding labels less what a prior says of them."""
    known = prior.evaluate(data.positions)
    return less(data, known.energy, known.forces)


def lone_atom_energy(frames: LabelledFrames, component: Component) -> float:
    """Return the energy (eV) of a one-atom fragment.

    Raises:
        DataError: the labels differ from frame to frame, so they are no isolated atom's.
    """
    energies = frames.fragment_energies[:, component.members[0]]
    if np.ptp(energies) > 1e-4:
        raise DataError(
            f"fragment {component.name}: a lone atom, but its energies differ by "
            f"{np.ptp(energies):.2g} eV between frames; label the isolated atom"
        )
    return float(energies[0])


def fragment_symmetry(
    frames: LabelledFrames, fragment: FragmentSpec, cap: int
) -> symmetry.Symmetry:
    """Return the automorphisms of one fragment's bonded graph.

    Raises:
        DataError: no bonds connect the fragment.
    """
    graph = fragment_graph(frames, fragment)
    symmetry.check_connected(graph, frames.numbers[np.array(fragment.atoms)], fragment.name)
    return symmetry.automorphisms(graph, cap)


def fragment_graph(frames: LabelledFrames, fragment: FragmentSpec) -> Any:
    """Return the bonded graph (networkx) of one fragment."""
    atoms = np.array(fragment.atoms)
    bonded = symmetry.bonds(frames.numbers[atoms], frames.positions[:, atoms])
    return symmetry.bonded_graph(frames.numbers[atoms], bonded)


def _match(
    frames: LabelledFrames, first: FragmentSpec, other: FragmentSpec
) -> tuple[int, ...] | None:
    """Return ``other``'s atoms in the order of ``first``'s, or None where they differ."""
    z, z2 = frames.numbers[list(first.atoms)], frames.numbers[list(other.atoms)]
    if (first.charge, first.spin) != (other.charge, other.spin) or sorted(z) != sorted(z2):
        return None
    maps = symmetry.isomorphisms(fragment_graph(frames, first), fragment_graph(frames, other))
    found = next(maps, None)
    return None if found is None else tuple(other.atoms[i] for i in found)
