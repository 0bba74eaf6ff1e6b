"""The parts of a Δ model: fragments, binding, full; and whether they fit together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import ManifestError
from deltaserver.model.fragment_blocks import owner_of
from deltaserver.model.manifest import IsolatedAtom
from deltaserver.model.prior import Prior
from deltaserver.model.sgdml import Evaluation, SGDMLModel
from deltaserver.molecules.elements import SYMBOLS

SAME_PRIOR = 1e-6  # relative, and in eV: text keeps all digits, sums of pairs round in the last


@dataclass(frozen=True)
class Part:
    """A model, and of which atoms of the complex it is, in the order that it expects them."""

    name: str
    atoms: Ints
    model: SGDMLModel | IsolatedAtom

    @property
    def trained(self) -> SGDMLModel | None:
        """The model, but for a lone atom, of which nothing is trained."""
        return None if isinstance(self.model, IsolatedAtom) else self.model

    @property
    def periodic(self) -> bool:
        """Whether it takes nearest images."""
        return self.trained is not None and self.trained.lattice is not None


@dataclass(frozen=True)
class Fragment(Part):
    """A part that is evaluated on its own atoms alone."""

    @property
    def numbers(self) -> Ints:
        """Atomic numbers that the fragment's model expects, in its order."""
        return self.model.numbers

    def evaluate(self, positions: Floats, cell: Floats | None) -> Evaluation:
        """Evaluate the fragment alone inside (B, N, 3); forces come on all N atoms, Å and eV."""
        n_batch = len(positions)
        forces = np.zeros(positions.shape)
        if isinstance(self.model, IsolatedAtom):
            energy = np.full(n_batch, self.model.energy_ev)
            return Evaluation(energy, forces, np.zeros((n_batch, 3, 3)))
        part = self.model.evaluate(positions[:, self._place], cell)
        forces[:, self._place] = part.forces
        return Evaluation(part.energy, forces, part.virial)

    @cached_property
    def _place(self) -> Ints | slice:
        """Return the atoms as an index: a slice, which is quicker, where they are consecutive."""
        first, n_atoms = int(self.atoms[0]), len(self.atoms)
        if np.array_equal(self.atoms, np.arange(first, first + n_atoms)):
            return slice(first, first + n_atoms)
        return self.atoms


def facts_of(n_atoms: int, model: SGDMLModel | None) -> tuple[str, str, str, str]:
    """Return atoms, training points, permutations and σ as text; "" where there are none."""
    if model is None:
        return str(n_atoms), "", "", ""
    return str(n_atoms), str(model.n_train), str(model.n_perms), f"{model.parameters.sigma:g}"


def check_fit(
    fragments: tuple[Fragment, ...],
    binding: SGDMLModel | None,
    full: SGDMLModel | None,
    source: str,
) -> Ints:
    """Return the atomic numbers of the complex, or raise ManifestError where parts disagree."""
    n_atoms = sum(len(fragment.atoms) for fragment in fragments)
    numbers = np.zeros(n_atoms, dtype=np.int64)
    owned = np.concatenate([np.zeros(0, np.int64), *(f.atoms for f in fragments)])
    if not fragments or not np.array_equal(np.sort(owned), np.arange(n_atoms)):
        raise ManifestError(
            f"{source}: the fragments do not hold each atom from 0 to {n_atoms - 1} exactly once"
        )
    for fragment in fragments:
        if len(fragment.numbers) != len(fragment.atoms):
            raise ManifestError(
                f"{source}: fragment {fragment.name!r} lists {len(fragment.atoms)} atoms, "
                f"its model has {len(fragment.numbers)}"
            )
        numbers[fragment.atoms] = fragment.numbers
    for name, model in (("binding", binding), ("full", full)):
        if model is None:
            continue
        if len(model.numbers) != n_atoms:
            raise ManifestError(
                f"{source}: the fragments have {n_atoms} atoms together, "
                f"the {name} model has {len(model.numbers)}"
            )
        for fragment in fragments:
            _check_elements(fragment, model, name, source)
        _check_blocks(fragments, model, name, source)
    if full is not None and (blocks := full.parameters.blocks) is not None and blocks.reach:
        raise ManifestError(
            f"{source}: the full model is a binding model, which ends where its training points do"
        )
    return numbers


def check_on_a_prior(binding: SGDMLModel | None, prior: Prior | None, source: str) -> None:
    """Raise ManifestError if a binding model was trained beside another prior than stands here.

    Files of today hold what the prior says of some of their training frames. Of older ones it is
    known that they stand on a prior if they end where their training points do and have no
    expansion below, which is for directories without a prior. A binding alone is wrong by the whole
    of the wall.
    """
    if binding is None:
        return
    found = binding.parameters
    known = found.prior_energy_ev
    ends = found.linear is None and found.blocks is not None and found.blocks.reach is not None
    if prior is None and (ends if known is None else known.any()):
        raise ManifestError(
            f"{source}: the binding model was trained on what a prior leaves, and no prior stands "
            "here; take model.yaml from the directory that it was trained into"
        )
    if prior is None or known is None or found.positions is None:
        return
    energy = prior.evaluate(found.positions[: len(known)] * binding.native.length_ang).energy
    if not np.allclose(energy, known, rtol=SAME_PRIOR, atol=SAME_PRIOR):
        raise ManifestError(
            f"{source}: {Path(found.source).name} was trained beside another prior than stands "
            "here; take model.yaml from the directory that it was trained into"
        )


def check_order(binding: SGDMLModel | None, order: int, source: str) -> None:
    """Raise ManifestError if a model of a binding is of so many molecules and not of ``order``.

    What three have beyond their pairs is no binding of a complex of three, nor the other way.
    Native files do not say what they are of.
    """
    if binding is None or binding.parameters.order in (None, order):
        return
    if order == 3:
        raise ManifestError(
            f"{source}: {Path(binding.parameters.source).name} was trained on all that binds a "
            "complex, its pairs too; train it on a dataset that was cut with --order 3"
        )
    raise ManifestError(
        f"{source}: {Path(binding.parameters.source).name} is what three molecules have beyond "
        "their pairs; it stands in a binding between three species"
    )


def _check_blocks(
    fragments: tuple[Fragment, ...], model: SGDMLModel, name: str, source: str
) -> None:
    """Raise unless a weighted descriptor's fragments are those of the complex."""
    blocks = model.parameters.blocks
    if blocks is None:
        return
    owner = owner_of([fragment.atoms for fragment in fragments])
    known = blocks.fragment
    if ((known[:, None] == known) != (owner[:, None] == owner)).any():
        raise ManifestError(
            f"{source}: the {name} model is weighted by other fragments than those listed here"
        )


def _check_elements(fragment: Fragment, model: SGDMLModel, name: str, source: str) -> None:
    theirs = model.numbers[fragment.atoms]
    wrong = np.flatnonzero(theirs != fragment.numbers)
    if len(wrong):
        k = int(wrong[0])
        raise ManifestError(
            f"{source}: atom {fragment.atoms[k]} is {SYMBOLS[fragment.numbers[k]]} in fragment "
            f"{fragment.name!r} and {SYMBOLS[theirs[k]]} in the {name} model; "
            "expected one element order"
        )
