"""Which atoms are which molecule, and one frame of them: whole, with centres and neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.model.manifest import IsolatedAtom
from deltaserver.model.many.neighbours import Neighbours, find_neighbours
from deltaserver.model.sgdml import Evaluation, SGDMLModel
from deltaserver.molecules.bonds import FragmentBonds, find_bonds, training_distances
from deltaserver.molecules.whole import along_tree, bond_tree

if TYPE_CHECKING:
    from deltaserver.model.many.triples import Triples


@dataclass(frozen=True)
class Species:
    """All molecules that one fragment model is of.

    Attributes:
        name: of the species.
        model: of one molecule.
        atoms: of every molecule, in the order that the model expects, shape (n, m).
    """

    name: str
    model: SGDMLModel | IsolatedAtom
    atoms: Ints

    @property
    def trained(self) -> SGDMLModel | None:
        """The model, but for lone atoms, of which nothing is trained."""
        return None if isinstance(self.model, IsolatedAtom) else self.model

    @property
    def numbers(self) -> Ints:
        """Atomic numbers of one molecule, shape (m,)."""
        return self.model.numbers

    @cached_property
    def bonds(self) -> FragmentBonds | None:
        """The bonds of one molecule in training, atoms numbered in it; None of lone atoms."""
        if self.trained is None:
            return None
        distances = training_distances(self.trained.parameters.x, self.trained.native.length_ang)
        n_atoms = len(self.numbers)
        return find_bonds(self.name, self.numbers, np.arange(n_atoms), distances)

    @cached_property
    def tree(self) -> tuple[Ints, Ints]:
        """Atoms in an order in which each is bonded to an earlier one, and to which."""
        bonds, n_atoms = self.bonds, len(self.numbers)
        if bonds is None or not len(bonds):
            return np.arange(1, n_atoms), np.zeros(max(0, n_atoms - 1), dtype=np.int64)
        return bond_tree(n_atoms, bonds.i, bonds.j)

    @cached_property
    def longest_step(self) -> float:
        """How far an atom of the tree is from the one before it in training, at most, Å."""
        if self.trained is None:
            return 0.0
        x, length = self.trained.parameters.x, self.trained.native.length_ang
        later, earlier = np.maximum(*self.tree), np.minimum(*self.tree)
        steps = training_distances(x[:, later * (later - 1) // 2 + earlier], length)
        return float(steps.max(initial=0.0))

    def whole(self, positions: Floats, cell: Floats | None) -> Floats:
        """Return the molecules of positions (N, 3), Å, put together, shape (n, m, 3)."""
        x: Floats = positions[self.atoms]
        return x if cell is None else along_tree(x, cell, *self.tree)

    def evaluate(self, x: Floats) -> Evaluation:
        """Evaluate every molecule by itself: energies (n,), forces (n, m, 3), virials."""
        if isinstance(self.model, IsolatedAtom):
            n = len(x)
            return Evaluation(
                np.full(n, self.model.energy_ev), np.zeros(x.shape), np.zeros((n, 3, 3))
            )
        return self.model.evaluate(x)


@dataclass(frozen=True)
class Assembled:
    """One frame: molecules are numbered species by species, so that i < j is s(i) ≤ s(j).

    Attributes:
        x: of every species' molecules, whole, Å, shape (n, m, 3).
        centres: the mean of each molecule's atoms, Å, shape (n_molecules, 3).
        neighbours: pairs of molecules.
        cell: lattice vectors in columns, Å, or None.
        touching: of bindings by their numbers, once they were asked for: the pairs that a model
            says anything of, and their atoms.
        near: the same of bindings of three: the triples.
    """

    x: tuple[Floats, ...]
    centres: Floats
    neighbours: Neighbours
    cell: Floats | None
    touching: dict[int, tuple[Neighbours, Floats]] = field(default_factory=dict)
    near: dict[int, Triples] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        species: Sequence[Species],
        positions: Floats,
        cell: Floats | None,
        reaches: Sequence[tuple[float, float]],
    ) -> Assembled:
        """Put molecules together and find those near each other.

        Args:
            species: all of them.
            positions: Å, shape (N, 3).
            cell: lattice vectors in columns, Å, or None.
            reaches: a binding's end, in centres' and in atoms' distances: see :func:`_cutoff`.
        """
        x = tuple(one.whole(positions, cell) for one in species)
        centres = np.concatenate([some.mean(axis=1) for some in x])
        cutoff = _cutoff(x, reaches)
        return cls(x, centres, find_neighbours(centres, cutoff, cell), cell)

    @cached_property
    def first(self) -> Ints:
        """The number of each species' first molecule, and of one past the last."""
        return np.cumsum([0, *(len(some) for some in self.x)])


def _cutoff(x: Sequence[Floats], reaches: Sequence[tuple[float, float]]) -> float:
    """Return how far centres may be apart of molecules that meet, Å.

    Either of their centres, or of their atoms: then two molecules' radii come on top.
    """
    radius = max(
        float(np.sqrt(((some - some.mean(axis=1, keepdims=True)) ** 2).sum(axis=2).max()))
        for some in x
    )
    return max((max(centres, atoms + 2.0 * radius) for centres, atoms in reaches), default=1.0)


@dataclass
class Total:
    """What one part of the energy adds up to, of one frame.

    Attributes:
        energy: eV.
        molecules: each molecule's share of it, eV, shape (n_molecules,).
        forces: by species, eV/Å, shape (n, m, 3).
        virial: −∂E/∂ε, eV, shape (3, 3).
    """

    molecules: Floats
    forces: list[Floats]
    virial: Floats
    energy: float = 0.0

    @classmethod
    def zero(cls, frame: Assembled) -> Total:
        """Return nothing yet."""
        return cls(
            np.zeros(len(frame.centres)), [np.zeros(x.shape) for x in frame.x], np.zeros((3, 3))
        )

    def add(
        self,
        frame: Assembled,
        species: Sequence[int],
        members: Sequence[Ints],
        parts: tuple[Floats, Sequence[Floats], Floats],
    ) -> None:
        """Add what groups of molecules give.

        Args:
            frame: where they stand.
            species: of each of a group's members.
            members: their numbers, shape (P,) each.
            parts: energies (P,), forces on each member (P, m, 3), virials (P, 3, 3).
        """
        energy, forces, virial = parts
        self.add_energies(members, energy, virial)
        for kind, member, force in zip(species, members, forces, strict=True):
            add_rows(self.forces[kind], member - frame.first[kind], force)

    def add_energies(self, members: Sequence[Ints], energy: Floats, virial: Floats) -> None:
        """Add energies (P,) and virials (P, 3, 3) of groups: each member has its share."""
        self.energy += float(energy.sum())
        self.virial += virial.sum(axis=0)
        for member in members:
            add_rows(self.molecules, member, energy / len(members))

    def on_atoms(self, species: Sequence[Species], n_atoms: int) -> Floats:
        """Return the forces on all atoms, shape (N, 3)."""
        found = np.empty((n_atoms, 3))
        for one, force in zip(species, self.forces, strict=True):
            found[one.atoms] = force
        return found


def threes(
    x: Floats, species: Sequence[int], sizes: Sequence[int], n_species: int
) -> tuple[Assembled, list[Ints]]:
    """Return many triples of molecules as one frame, in which no triple meets another.

    Args:
        x: atoms of three molecules, one after the other, shape (T, N, 3), Å.
        species: of the three.
        sizes: atoms of each.
        n_species: how many there are.

    Returns:
        The frame, and the numbers of the first, the second and the third molecules, (T,) each.
    """
    own = np.split(x, np.cumsum(sizes)[:2], axis=1)
    there, numbers, first = list[Floats](), [np.zeros(0, dtype=np.int64)] * 3, 0
    for kind in range(n_species):
        places = [k for k in range(3) if species[k] == kind]
        for k in places:
            numbers[k] = first + np.arange(len(x))
            first += len(x)
        there.append(np.concatenate([own[k] for k in places] or [np.zeros((0, 1, 3))]))
    centres = np.concatenate([some.mean(axis=1) for some in there])
    two = [(numbers[a], numbers[b]) for a, b in combinations(range(3), 2)]
    i = np.concatenate([np.minimum(*both) for both in two])
    j = np.concatenate([np.maximum(*both) for both in two])
    between = centres[j] - centres[i]
    near = Neighbours(i, j, np.zeros(between.shape), between, np.linalg.norm(between, axis=1))
    return Assembled(tuple(there), centres, near, None), numbers


def of_threes(
    total: Total, frame: Assembled, numbers: Sequence[Ints], species: Sequence[int], x: Floats
) -> Evaluation:
    """Return what each triple (T, N, 3) of :func:`threes` has of a sum over all."""
    energy = np.sum([total.molecules[rows] for rows in numbers], axis=0)
    on_each = [
        total.forces[kind][rows - frame.first[kind]]
        for kind, rows in zip(species, numbers, strict=True)
    ]
    forces = np.concatenate(on_each, axis=1)
    return Evaluation(energy, forces, np.einsum("tnx,tny->txy", forces, x))


def add_rows(to: Floats, index: Ints, rows: Floats) -> None:
    """Add rows (P, …) to those of ``to`` (n, …) that ``index`` (P,) says, in a fixed order."""
    if not len(index):
        return
    order = np.argsort(index, kind="stable")
    there, starts = np.unique(index[order], return_index=True)
    to[there] += np.add.reduceat(rows[order], starts, axis=0)
