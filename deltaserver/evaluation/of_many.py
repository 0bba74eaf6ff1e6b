"""Directories of many molecules on dimers: two of their molecules are a complex of two.

That is what a pair has in the directory without the cutoff, which belongs to a cell: fragments,
prior and binding, in the order of the atoms that the binding has.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
from deltaserver.errors import DataError
from deltaserver.model import force_field
from deltaserver.model.composite import CompositeModel
from deltaserver.model.many.manifest import is_of_many
from deltaserver.model.many.model import ManyModel
from deltaserver.model.many.pairs import PairBinding
from deltaserver.model.parts import Fragment


def load_complex(directory: Path, frames: LabelledFrames) -> CompositeModel:
    """Load a model directory as the complex that frames are of.

    Raises:
        InputError: it cannot be loaded.
        DataError: frames are of what three molecules have beyond their pairs, or no two molecules
            of the directory are theirs.
    """
    if frames.order == 3:
        raise DataError(
            f"{frames.name}: of order 3, whose binding is no complex's; expected frames of dimers, "
            "which dataset cut makes without --order 3"
        )
    if not is_of_many(directory):
        return CompositeModel.load(directory)
    many = force_field.load(directory)
    assert isinstance(many, ManyModel)
    pair = pair_of(many, frames, directory)
    if pair.fade is not None:
        raise DataError(
            f"{directory}: its binding ends over fade, which no complex has; evaluate the "
            "directory that it was assembled from"
        )
    ends = np.split(np.arange(sum(pair.sizes)), [pair.sizes[0]])
    fragments = tuple(
        Fragment(spec.name, atoms, many.species[kind].model)
        for spec, atoms, kind in zip(frames.fragments, ends, pair.species, strict=True)
    )
    return CompositeModel(
        fragments, pair.model, prior=pair.prior, name=many.name, reference=many.reference
    )


def pair_of(many: ManyModel, frames: LabelledFrames, directory: Path) -> PairBinding:
    """Return the binding of two molecules with the elements of the dataset's fragments.

    Raises:
        DataError: no two of ``directory`` are theirs, atom by atom.
    """
    own = [list(fragment.atoms) for fragment in frames.fragments]
    there = [atom for atoms in own for atom in atoms]
    one_after_the_other = len(own) == 2 and there == list(range(len(there)))
    fitting = [
        pair
        for pair in (many.pairs if one_after_the_other else ())
        if all(
            np.array_equal(many.species[kind].numbers, frames.numbers[atoms])
            for kind, atoms in zip(pair.species, own, strict=True)
        )
    ]
    if fitting:
        return max(fitting, key=lambda pair: sum(
            is_named(fragment, many.species[kind].name)
            for fragment, kind in zip(frames.fragments, pair.species, strict=True)
        ))  # fmt: skip
    raise DataError(
        f"{directory}: of many molecules, no two of which are the complex of {frames.name}, atom "
        "by atom; give dimers of them, as deltaserver dataset cut makes them"
    )


def is_named(fragment: FragmentSpec, species: str) -> bool:
    """Tell species of the same elements apart by name: fragments are numbered where alike."""
    return species in (fragment.name, re.sub(r"_?\d+\Z", "", fragment.name))
