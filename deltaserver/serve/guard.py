"""What stands between the models and i-PI: wrong structures in, wrong forces out, are refused."""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakKeyDictionary

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.errors import NoveltyError, StructureError
from deltaserver.model.composite import CompositeEvaluation, CompositeModel
from deltaserver.model.trust.cell import check_cell
from deltaserver.model.trust.evaluation import DOUBLE, SINGLE, check_evaluation
from deltaserver.model.trust.novelty import NoveltyMeasure
from deltaserver.model.trust.structure import ExpectedStructure
from deltaserver.model.trust.wrapping import WrappingCheck
from deltaserver.serve.answer import Novelty, Request
from deltaserver.serve.settings import GuardSettings
from deltaserver.serve.watchers.extrapolation import ExtrapolationWatch, write_frame

# Structures of a connection whose order of atoms is compared with the model's: the first of every
# bead and replica that share it. What happens to a molecule later is the novelty's matter.
FIRST_STRUCTURES = 64


class ServingGuard:
    """The guards of one daemon: see :meth:`before` and :meth:`after` an evaluation."""

    def __init__(self, model: CompositeModel, settings: GuardSettings) -> None:
        self.model = model
        self.settings = settings
        self.n_structures = 0
        self._expected = ExpectedStructure.of(model)
        self._wrapping = WrappingCheck(self._expected)
        self._seen: WeakKeyDictionary[object, int] = WeakKeyDictionary()
        self._novelty = None if settings.extrapolation == "ignore" else NoveltyMeasure(model)
        self._watch = ExtrapolationWatch(settings.novelty_limit)
        self._tolerances = SINGLE if settings.single_precision else DOUBLE

    def introduced(self, connection: object) -> None:
        """Take what ``connection`` sends next for the first structures of a run."""
        self._seen[connection] = 0

    def before(self, connection: object, request: Request, component: str) -> None:
        """Look at the structures of one request before they are evaluated.

        Raises:
            StructureError: not the model's molecule, or a cell that is too small for it.
        """
        if not self.settings.structure_check:
            return
        seen = self._seen.get(connection, 0)
        self._seen[connection] = seen + len(request.positions)
        for k, (positions, cell) in enumerate(zip(request.positions, request.cells, strict=True)):
            if not np.isfinite(positions).all():
                return  # the evaluation says which atom
            try:
                if self.model.periodic:
                    check_cell(self.model, self._expected.bonds, positions, cell)
                self._look(positions, cell, component, seen)
            except StructureError as error:
                raise StructureError(
                    f"structure {seen + k} refused: {error} (--no-structure-check lets it through)"
                ) from None

    def _look(self, positions: Floats, cell: Floats, component: str, seen: int) -> None:
        """Compare with the model's molecule; ``seen`` structures of the connection came before.

        What is sent first, alone or in a batch, is what a user starts from. Later ones may be
        trial steps of a minimiser, stretched at will, but also the first of another replica.
        """
        if seen == 0:
            self._expected.check(positions, cell, component)
            return
        if seen < FIRST_STRUCTURES:
            self._expected.check_order(positions, cell, component)
        self._wrapping(positions, cell, component)

    def after(
        self, positions: Floats, cells: Floats, result: CompositeEvaluation
    ) -> Sequence[Novelty]:
        """Look at results before they are sent; return the novelty of each structure.

        Raises:
            GuardError: a result cannot be right.
            NoveltyError: a structure is too new and the run is to stop at such.
        """
        first, self.n_structures = self.n_structures, self.n_structures + len(positions)
        check_evaluation(
            result,
            positions,
            periodic=self.model.periodic,
            tolerances=self._tolerances,
            first=first,
        )
        novelties = self._measure(positions, cells, result)
        for k, novelty in enumerate(novelties):
            beyond = self._watch.look(novelty, first + k)
            if beyond and self.settings.extrapolation == "stop":
                write_frame(
                    self.settings.frame_file, self.model.numbers, positions[k], beyond, first + k
                )
                raise NoveltyError(
                    f"structure {first + k}: the novelty of {beyond[0]} is {beyond[1]:.2f}, above "
                    f"--novelty-limit {self.settings.novelty_limit:g}: it is too far from what the "
                    f"model was trained on; nothing was sent. See {self.settings.frame_file}"
                )
        return novelties

    def _measure(
        self, positions: Floats, cells: Floats, result: CompositeEvaluation
    ) -> list[Novelty]:
        if self._novelty is None:
            return [{}] * len(positions)
        names = result.contributions
        if not self.model.periodic or (cells == cells[0]).all():
            batches = [self._novelty(positions, names, cells[0])]
        else:
            pairs = zip(positions, cells, strict=True)
            batches = [self._novelty(x[None], names, cell) for x, cell in pairs]
        return [
            {name: round(float(values[k]), 4) for name, values in batch.items()}
            for batch in batches
            for k in range(len(positions) // len(batches))
        ]
