"""Is this the molecule that the model was trained on, atom by atom?

i-PI sends no elements: a structure whose atoms stand in another order looks like any other, and a
force field answers it with forces that mean nothing. What the model's training geometries have in
common (:mod:`deltaserver.molecules.bonds`) tells them apart: every bond of the model must be a bond
in the structure. Relabelling equivalent atoms changes no bond and passes, unless it mirrors a
molecule (:mod:`deltaserver.model.trust.handedness`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deltaserver.arrays import Bools, Floats, Ints
from deltaserver.errors import StructureError
from deltaserver.model.descriptor import nearest_images
from deltaserver.model.fragment_blocks import owner_of
from deltaserver.model.trust.diagnosis import Names, Suspect, diagnose_bonds, diagnose_scale
from deltaserver.model.trust.handedness import Handedness
from deltaserver.molecules.bonds import FragmentBonds, find_bonds, training_distances
from deltaserver.molecules.elements import SYMBOLS

if TYPE_CHECKING:
    from deltaserver.model.composite import CompositeModel
    from deltaserver.model.sgdml import SGDMLModel


# Two atoms that no bond connects may come this much closer than any two of their elements do in
# training, inside a fragment or between fragments, …
CLOSEST = 0.75
# … and the closest contact of two fragments may be this much longer than it ever is.
FARTHEST = 1.35
# How far the shortest distances of a molecule may be outside the range of its bonds in training.
INTACT = 0.1
WRAPPED_MARGIN = 1e-6  # of the cell: what i-PI wraps lies in it but for rounding
MIN_VOLUME_ANG3 = 1e-6
WITH_BINDING = ("total", "binding", "full")


@dataclass(frozen=True)
class ExpectedStructure:
    """What every training geometry of a model has in common.

    Attributes:
        names: of atoms, for messages.
        bonds: of every fragment that is a molecule.
        closest: how close each pair of atoms may come, Å, (N, N): the shortest distance in
            training of any pair of their elements that no bond connects; 0 for bonds and where
            training says nothing. One number for all such pairs, so that a relabelled or turned
            molecule passes.
        owner: the fragment of each atom, shape (N,).
        contacts: by fragment, the longest that its closest contact with the others ever is in
            training, Å; ∞ where training says nothing.
        images: by component, which pairs are judged by their nearest images, (N, N): those that
            every part which is evaluated sees so.
        handedness: how equal atoms of the molecules are numbered; None: training does not tell.
    """

    names: Names
    bonds: tuple[FragmentBonds, ...]
    closest: Floats
    owner: Ints
    contacts: Floats
    images: Mapping[str, Bools]
    handedness: Handedness | None

    @classmethod
    def of(cls, model: CompositeModel) -> ExpectedStructure:
        """Read off a model's training geometries what its structures have in common."""
        owner = owner_of([fragment.atoms for fragment in model.fragments])
        shortest = np.full((model.n_atoms, model.n_atoms), np.inf)
        contacts = np.full(len(model.fragments), np.inf)
        distances = _distances(model.binding or model.full)
        if distances is not None:
            _enter(shortest, distances.min(axis=0), np.arange(model.n_atoms))
        bonds = []
        for fragment in model.fragments:
            alone = _distances(fragment.trained)
            if alone is not None:
                bonds.append(find_bonds(fragment.name, fragment.numbers, fragment.atoms, alone))
                _enter(shortest, alone.min(axis=0), fragment.atoms)
        if distances is not None and model.prior is None:  # which is right at any separation
            contacts = _longest_contacts(distances, owner, len(model.fragments))
        closest = _closest_by_elements(shortest, model.numbers, owner, bonds)
        fragment_names = tuple(fragment.name for fragment in model.fragments)
        names = Names(tuple(SYMBOLS[z] for z in model.numbers), tuple(owner), fragment_names)
        handedness = Handedness.of(bonds, model.binding)
        images = _images(model, owner)
        return cls(names, tuple(bonds), closest, owner, contacts, images, handedness)

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Return the fragments that training shows in pieces: their bonds are not checked."""
        return tuple(bonds.name for bonds in self.bonds if not len(bonds))

    def check(
        self, positions: Floats, cell: Floats | None = None, component: str = "total"
    ) -> None:
        """Refuse a structure that is not the model's.

        Args:
            positions: Å, shape (N, 3).
            cell: lattice vectors in columns, Å. Periodic parts take nearest images in it; for
                others it only serves to recognise a molecule that was wrapped.
            component: what is to be served; fragments may lie anywhere if binding is not.

        Raises:
            StructureError: naming the first atom that differs, and the cause where it shows.
        """
        if not any(len(bonds) for bonds in self.bonds):
            return  # training shows no molecule that could be told from another
        distances = self.distances(positions, cell, component)
        suspect = Suspect(positions, distances, self.bonds, self.names)
        problem = diagnose_scale(suspect) or diagnose_bonds(suspect)
        if problem:
            problem = self._wrapped(positions, cell) or problem
        problem = problem or self._clash(distances)
        if component in WITH_BINDING:
            problem = problem or self._lost_contact(distances)
        if problem:
            raise StructureError(problem)
        # A molecule that its cell has cut has no handedness to be seen.
        if self.handedness and component in WITH_BINDING and not self.images_of(component).any():
            self.handedness.check(positions)

    def check_order(
        self, positions: Floats, cell: Floats | None = None, component: str = "total"
    ) -> None:
        """Refuse a structure whose atoms stand in another order than the model's.

        For what follows the first structure of a run: another bead or replica may have been read
        from another file, but a minimiser's trial step may stretch and squeeze whatever it likes,
        and takes itself back. So only what no step explains is refused: molecules like the
        model's, whole, of which other atoms are bonded; and lengths in another unit.
        """
        distances = self.distances(positions, cell, component)
        suspect = Suspect(positions, distances, self.bonds, self.names)
        if not suspect.broken.any():
            return
        problem = diagnose_scale(suspect, only_units=True)
        if not problem and self._is_intact(distances):
            problem = diagnose_bonds(suspect)
        if problem:
            raise StructureError(problem)

    def _is_intact(self, distances: Floats) -> bool:
        """Return whether the shortest distances are those of the model's bonds, whoever has them.

        Elements do not help: i-PI sends none.
        """
        low, high = (
            np.sort(np.concatenate([getattr(bonds, end) for bonds in self.bonds]))
            for end in ("shortest", "longest")
        )
        found = np.sort(distances[np.tril_indices(len(distances), k=-1)])[: len(low)]
        return bool(((found > low * (1.0 - INTACT)) & (found < high * (1.0 + INTACT))).all())

    def images_of(self, component: str) -> Bools:
        """Return which pairs every part of ``component`` sees as nearest images, (N, N)."""
        return self.images.get(component, self.images["fragments"])

    def distances(self, positions: Floats, cell: Floats | None, component: str) -> Floats:
        """Return all pair distances, Å, (N, N), as the parts of ``component`` see them."""
        images = self.images_of(component)
        distances = _all_distances(positions, None)
        if cell is None or not images.any():
            return distances
        return np.where(images, _all_distances(positions, cell), distances)

    def _wrapped(self, positions: Floats, cell: Floats | None) -> str:
        """Return what to do about molecules that would be whole as nearest images; else ""."""
        if cell is None or not spans_a_cell(cell):
            return ""
        suspect = Suspect(positions, _all_distances(positions, cell), self.bonds, self.names)
        if diagnose_scale(suspect) or suspect.broken.any():
            return ""
        if lies_in_cell(positions @ np.linalg.inv(cell).T):
            return (
                "the molecule is cut at the cell's boundary, and the model is not periodic: make "
                'the molecules whole in the start file, and set pbc="false" in the ffsocket of '
                "i-PI's input"
            )
        return (
            "the molecule is cut at the cell's boundary, and the model is not periodic: make the "
            "molecules whole in the start file"
        )

    def _clash(self, distances: Floats) -> str:
        # Atoms at one place are the evaluation's to refuse: no order of atoms explains them.
        close = np.argwhere(np.tril(distances < CLOSEST * self.closest, k=-1) & (distances > 0.0))
        for i, j in close:
            return (
                f"atom {self.names[j]} and atom {self.names[i]} are {distances[i, j]:.2f} Å "
                f"apart; no such pair is closer than {self.closest[i, j]:.2f} Å in training: "
                "the molecules overlap, or the order of the atoms is not the model's"
            )
        return ""

    def _lost_contact(self, distances: Floats) -> str:
        for place, longest in enumerate(self.contacts):
            mine = self.owner == place
            found = distances[np.ix_(mine, ~mine)].min(initial=np.inf)
            if np.isfinite(longest) and found > FARTHEST * longest:
                return (
                    f"{self.names.fragments[place]} is {found:.2f} Å from the other fragments at "
                    f"its closest, never more than {longest:.2f} Å in training: the complex is "
                    "pulled apart, and the binding model knows nothing there"
                )
        return ""


def spans_a_cell(cell: Floats) -> bool:
    """Return whether lattice vectors, Å, span anything; else the evaluation refuses them."""
    return bool(np.isfinite(cell).all()) and abs(np.linalg.det(cell)) >= MIN_VOLUME_ANG3


def lies_in_cell(fractional: Floats) -> bool:
    """Return whether all atoms lie in the cell, as those that i-PI wraps do."""
    return bool(fractional.min() >= -WRAPPED_MARGIN and fractional.max() <= 1.0 + WRAPPED_MARGIN)


def _images(model: CompositeModel, owner: Ints) -> dict[str, Bools]:
    """Return which pairs are seen as nearest images by every part, by component."""
    same = owner[:, None] == owner
    periodic = {part.name: part.periodic for part in model.parts}
    by_fragment = np.array([fragment.periodic for fragment in model.fragments])
    inside = by_fragment[owner][:, None] | ~same  # [N, N]
    found = {"fragments": inside & same}
    for name in ("binding", "full"):
        found[name] = np.full(same.shape, periodic.get(name, False))
    found["total"] = inside & (found["binding"] | (model.binding is None))
    return found


def _distances(model: SGDMLModel | None) -> Floats | None:
    """Return the distances in Å of all training geometries (M, D) of a model, if there is one."""
    return training_distances(model.parameters.x, model.native.length_ang) if model else None


def _enter(table: Floats, values: Floats, atoms: Ints) -> None:
    i, j = np.tril_indices(len(atoms), k=-1)
    table[atoms[i], atoms[j]] = table[atoms[j], atoms[i]] = values


def _closest_by_elements(
    shortest: Floats, numbers: Ints, owner: Ints, bonds: list[FragmentBonds]
) -> Floats:
    """Replace every entry of ``shortest`` by the least of its kind; see ``closest``."""
    for some in bonds:
        shortest[some.i, some.j] = shortest[some.j, some.i] = np.inf
    low, high = np.minimum.outer(numbers, numbers), np.maximum.outer(numbers, numbers)
    same = (owner[:, None] == owner) * (1 + owner[:, None])  # a fragment, or 0: between two
    _, kind = np.unique(np.stack([low, high, same]).reshape(3, -1), axis=1, return_inverse=True)
    least = np.full(kind.max() + 1, np.inf)
    np.minimum.at(least, kind.ravel(), shortest.ravel())
    closest = least[kind.ravel()].reshape(shortest.shape)
    closest[np.isinf(closest)] = 0.0
    np.fill_diagonal(closest, 0.0)
    for some in bonds:
        closest[some.i, some.j] = closest[some.j, some.i] = 0.0
    return closest


def _longest_contacts(distances: Floats, owner: Ints, n_fragments: int) -> Floats:
    """Return, of each fragment's closest contact with others, the largest in training, Å."""
    i, j = np.tril_indices(len(owner), k=-1)
    result = np.full(n_fragments, np.inf)
    for place in range(n_fragments):
        between = (owner[i] == place) != (owner[j] == place)
        if between.any():
            result[place] = distances[:, between].min(axis=1).max()
    return result


def _all_distances(positions: Floats, cell: Floats | None) -> Floats:
    """Return all pair distances, Å, (N, N), of nearest images if there is a cell."""
    d = nearest_images(positions[:, None] - positions, cell)
    distances: Floats = np.sqrt(np.einsum("ija,ija->ij", d, d))
    return distances
