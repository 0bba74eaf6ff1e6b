"""The guards of many molecules: every molecule by itself, and every pair that touches.

A structure's novelty is that of its newest molecule, pair or triple: one that is too new makes all
of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.errors import StructureError
from deltaserver.model.composite import CompositeModel
from deltaserver.model.manifest import BINDING, TRIPLES, format_atoms
from deltaserver.model.parts import Fragment
from deltaserver.model.sgdml import Evaluation, SGDMLModel
from deltaserver.model.trust.novelty import TrainingDistance
from deltaserver.model.trust.structure import CLOSEST, ExpectedStructure, spans_a_cell
from deltaserver.model.trust.wrapping import WrappingCheck

if TYPE_CHECKING:
    from deltaserver.model.many.model import ManyModel

BATCH = 256  # molecules or pairs that a thread looks at at once


class ManyGuards:
    """See :class:`deltaserver.model.trust.guards.Guards`."""

    def __init__(self, model: ManyModel) -> None:
        self._model = model
        self._distances: dict[int, TrainingDistance | None] = {}  # by model, which parts may share

    @cached_property
    def _expected(self) -> dict[str, ExpectedStructure]:
        """What one molecule of each species looks like, but for lone atoms."""
        return {
            one.name: ExpectedStructure.of(
                CompositeModel((Fragment(one.name, np.arange(len(one.numbers)), one.model),), None)
            )
            for one in self._model.species
            if one.trained
        }

    @cached_property
    def _of_two(self) -> dict[int, ExpectedStructure]:
        """What two molecules look like, by the number of their binding."""
        found = {}
        for k, pair in enumerate(self._model.pairs):
            if pair.model is None:
                continue
            first, second = (self._model.species[s] for s in pair.species)
            n = pair.sizes[0]
            fragments = (
                Fragment("first", np.arange(n), first.model),
                Fragment("second", n + np.arange(pair.sizes[1]), second.model),
            )
            template = CompositeModel(fragments, pair.model, prior=pair.prior)
            found[k] = ExpectedStructure.of(template)
        return found

    @property
    def bond_counts(self) -> Mapping[str, int]:
        """How many bonds of a molecule of each species are checked; 0 if training shows none."""
        bonds = [one.bonds for one in self._model.species]
        return {some.name: len(some) for some in bonds if some is not None}

    def check(self, positions: Floats, cell: Floats | None, component: str) -> None:
        """Refuse molecules with other bonds than the model's, and those that overlap.

        Raises:
            StructureError: naming the first molecule that differs, and the cause where it shows.
        """
        self._each_molecule(positions, cell, ExpectedStructure.check, component)
        if component in ("total", "binding"):
            self._check_pairs(positions, cell)

    def check_order(self, positions: Floats, cell: Floats | None, component: str) -> None:
        """Refuse molecules whose atoms stand in another order than the model's."""
        self._each_molecule(positions, cell, ExpectedStructure.check_order, component)

    def _each_molecule(
        self,
        positions: Floats,
        cell: Floats | None,
        check: Callable[[ExpectedStructure, Floats, Floats | None, str], None],
        component: str,
    ) -> None:
        box = self._model.box(cell)
        for one in self._model.species:
            if one.trained is None or component not in ("total", "binding", "fragments", one.name):
                continue
            # Of what is not periodic the cell tells a molecule that was cut from one that is torn.
            seen = None if self._model.periodic else cell
            for atoms, x in zip(one.atoms, one.whole(positions, box), strict=True):
                try:
                    check(self._expected[one.name], x, seen, "fragments")
                except StructureError as error:
                    raise StructureError(
                        f"the {one.name} of atoms {format_atoms(tuple(atoms.tolist()))}, "
                        f"numbered from its first: {error}"
                    ) from None

    def _check_pairs(self, positions: Floats, cell: Floats | None) -> None:
        model = self._model
        frame = model.frame(positions, model.box(cell))
        for k, expected in self._of_two.items():
            pairs, x = model.touching(frame, k)
            n = model.pairs[k].sizes[0]
            closest = expected.closest[:n, n:]  # how close their atoms may come, Å
            for i, j, both in zip(pairs.i, pairs.j, x, strict=True):
                self._check_numbering(expected, both, (i, j))
                d = np.linalg.norm(both[:n, None] - both[n:], axis=-1)
                wrong = np.argwhere((d < CLOSEST * closest) & (d > 0.0))
                if len(wrong):
                    a, b = wrong[0]
                    one, other = model.molecules[i][a], model.molecules[j][b]
                    raise StructureError(
                        f"atoms {one} and {other} of two molecules are {d[a, b]:.2f} Å apart; no "
                        f"such pair is closer than {closest[a, b]:.2f} Å in training: the "
                        "molecules overlap, or the order of the atoms is not the model's"
                    )

    def _check_numbering(
        self, expected: ExpectedStructure, both: Floats, members: tuple[int, int]
    ) -> None:
        """Refuse two molecules of which one is numbered as its mirror image (StructureError)."""
        if expected.handedness is None:
            return
        try:
            expected.handedness.check(both)
        except StructureError as error:
            one, other = (self._model.molecules[k][0] for k in members)
            raise StructureError(
                f"the molecules from atoms {one} and {other} on: {error}"
            ) from None

    def check_wrapping(self, positions: Floats, cell: Floats, component: str) -> None:
        """Refuse molecules that the cell has cut, unless the model is periodic."""
        if self._model.periodic or not spans_a_cell(cell):
            return
        inverse = np.linalg.inv(cell).T
        for one in self._model.species:
            if one.trained is None:
                continue
            x = positions[one.atoms]
            for k in np.flatnonzero(np.ptp(x @ inverse, axis=1).max(axis=1) > 0.5):
                WrappingCheck(self._expected[one.name])(x[k], cell, "fragments")

    def check_cell(self, positions: Floats, cell: Floats) -> None:
        """Leave it to the evaluation, which takes images of a molecule with itself."""

    def prepare(self) -> None:
        """Calibrate the novelty of all models."""
        for model in self._model.models:
            self._distance(model)

    def _distance(self, model: SGDMLModel) -> TrainingDistance | None:
        if id(model) not in self._distances:
            self._distances[id(model)] = TrainingDistance.of(model.parameters)
        return self._distances[id(model)]

    def novelty(
        self, positions: Floats, contributions: Mapping[str, Evaluation], cell: Floats | None
    ) -> dict[str, Floats]:
        """Return the novelty of the newest molecule of each species, pair and triple."""
        model = self._model
        box = model.box(cell)
        found: dict[str, list[float]] = {}
        for x in positions:
            frame = model.frame(x, box)
            newest: dict[str, float] = {}
            for one, own in zip(model.species, frame.x, strict=True):
                if one.trained and one.name in contributions:
                    self._enter(newest, one.name, one.trained, own)
            for k, pair in enumerate(model.pairs):
                if pair.model and BINDING in contributions:
                    self._enter(newest, BINDING, pair.model, model.touching(frame, k)[1])
            for k, triple in enumerate(model.triples):
                if triple.model and TRIPLES in contributions:
                    for _, three in triple.joined(frame, model.near(frame, k)):
                        self._enter(newest, TRIPLES, triple.model, three)
            for name, value in newest.items():
                found.setdefault(name, []).append(value)
        return {name: np.array(values) for name, values in found.items()}

    def _enter(self, newest: dict[str, float], name: str, model: SGDMLModel, x: Floats) -> None:
        distance = self._distance(model)
        if distance is None:
            return
        native = x / model.native.length_ang
        batches = [native[k : k + BATCH] for k in range(0, len(x), BATCH)]
        values = [float(some.max()) for some in self._model.pool.map(distance, batches)]
        newest[name] = max([newest.get(name, 0.0), *values])

    def measure(
        self, positions: Floats, contributions: Mapping[str, Evaluation], cell: Floats | None
    ) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """Return the novelty, and no uncertainty: calibrations are of whole complexes."""
        return self.novelty(positions, contributions, cell), {}
