"""Charge flow in three molecules as columns of a least-squares problem: one of each κ.

The charges are those that a prior of two molecules has. Pairs of atoms that a permutation of their
molecule takes to each other share one κ, and so do alike molecules. Å, e, V and eV.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.errors import DataError
from deltaserver.model.manifest import IsolatedAtom, read_manifest
from deltaserver.model.many.charges import charges_by_species, charges_of
from deltaserver.model.many.electrostatics.induction import Induction, OfThree, Response
from deltaserver.model.many.manifest import is_of_many, read_many
from deltaserver.model.many.molecules import Species
from deltaserver.model.many.switch import Switch
from deltaserver.model.sgdml import SGDMLModel
from deltaserver.training.components import Component, fragment_symmetry
from deltaserver.training.three.checks import kinds

Pairs = tuple[tuple[int, int], ...]

ENDS = (10.0, 12.0)  # of the distance of centres, Å: farther than trimers are cut
SAME_E = 1e-6  # charges of equivalent atoms
MOST = 500  # columns: of a molecule without symmetry as many as it has pairs of atoms


@dataclass(frozen=True)
class Flowing:
    """What may flow in which molecules.

    Attributes:
        species: of the three molecules, by the numbers of :func:`kinds`.
        sizes: atoms of each.
        charges: of one molecule of every species, e.
        alike: (species, pairs of atoms) of every κ.
        ends: over which induction ends, Å between centres.
    """

    species: tuple[int, int, int]
    sizes: tuple[int, int, int]
    charges: tuple[Floats, ...]
    alike: tuple[tuple[int, Pairs], ...]
    ends: tuple[float, float] = ENDS

    @classmethod
    def read(
        cls, directory: Path, frames: LabelledFrames, available: Sequence[Component], cap: int
    ) -> Flowing:
        """Take charges of a model directory of two molecules, or of many.

        Raises:
            DataError: a molecule is not there, there are no charges, or too much could flow.
        """
        known = _charges(directory)
        own = [component for component in available if component.is_fragment]
        charges, alike = list[Floats](), list[tuple[int, Pairs]]()
        for kind, component in enumerate(own):
            first = frames.fragments[component.members[0]]
            numbers = frames.numbers[np.array(first.atoms)]
            found = [q for there, q in known if np.array_equal(there, numbers)]
            if not found:
                raise DataError(
                    f"--induction {directory}: none of its molecules has the elements of "
                    f"{first.name} of {frames.name}, in that order; give the models of two of them"
                )
            charges.append(found[0])
            if len(numbers) > 1:
                perms = fragment_symmetry(frames, first, cap).perms
                if np.ptp(found[0][perms], axis=0).max() > SAME_E:
                    raise DataError(
                        f"--induction {directory}: charges of {first.name} differ between atoms "
                        f"that are equivalent in {frames.name}: its atoms stand in another order "
                        "there; train both on datasets that agree"
                    )
                alike += [(kind, pairs) for pairs in alike_pairs(perms)]
        if not any(q.any() for q in charges):
            raise DataError(
                f"--induction {directory}: its prior has no charges, and nothing flows without; "
                "train the binding of two with --prior pairs"
            )
        if len(alike) > MOST:
            raise DataError(
                f"--induction {directory}: {len(alike)} kinds of pairs of atoms between which "
                f"charge may flow, more than {MOST}; induction is for small molecules"
            )
        first_, second, third = kinds(available)
        one, two, three = (len(fragment.atoms) for fragment in frames.fragments)
        return cls((first_, second, third), (one, two, three), tuple(charges), tuple(alike))

    def of(self, radius: float, kappas: Sequence[float]) -> OfThree:
        """Return the induction of charges smeared over ``radius``, Å, with every κ, e/V."""
        responses = tuple(
            Response.of(
                q.tolist(),
                [
                    (pairs, kappa)
                    for (home, pairs), kappa in zip(self.alike, kappas, strict=True)
                    if home == kind
                ],
            )
            for kind, q in enumerate(self.charges)
        )
        induction = Induction(responses, radius, Switch(*self.ends))
        return OfThree(induction, self.species, self.sizes)

    def columns(self, radius: float) -> list[OfThree]:
        """Return the induction of each κ of 1 e/V by itself."""
        return [self.of(radius, unit) for unit in np.eye(len(self.alike)).tolist()]


def alike_pairs(perms: Ints) -> list[Pairs]:
    """Return pairs of atoms, those together that permutations (S, m) take to each other."""
    left, found = set(combinations(range(perms.shape[1]), 2)), []
    while left:
        a, b = min(left)
        ends = np.sort(perms[:, [a, b]], axis=1).tolist()
        orbit = {(int(c), int(d)) for c, d in ends}
        found.append(tuple(sorted(orbit)))
        left -= orbit
    return found


def _charges(directory: Path) -> list[tuple[Ints, Floats]]:
    """Return atomic numbers and charges of every molecule that a directory has.

    Raises:
        DataError: it has no prior.
    """
    if is_of_many(directory):
        many = read_many(directory)
        species = [
            Species(one.name, _model(one.model), np.zeros((0, one.n_atoms), dtype=np.int64))
            for one in many.species
        ]
        found = charges_by_species(many.bindings, species, str(many.path))
        return [(one.numbers, q) for one, q in zip(species, found, strict=True)]
    manifest = read_manifest(directory)
    if manifest.prior is None:
        raise DataError(
            f"--induction {directory}: its binding has no prior, which has the charges; train the "
            "binding of two with --prior pairs"
        )
    charges = charges_of(manifest.prior)
    return [(_model(one.model).numbers, charges[np.array(one.atoms)]) for one in manifest.fragments]


def _model(model: Path | IsolatedAtom) -> SGDMLModel | IsolatedAtom:
    return model if isinstance(model, IsolatedAtom) else SGDMLModel.load(model)
