"""What stands between the models and i-PI: wrong structures in, wrong forces out, are refused."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.errors import NoveltyError, StructureError
from deltaserver.model.composite import CompositeEvaluation
from deltaserver.model.force_field import ForceField
from deltaserver.model.trust.evaluation import DOUBLE, SINGLE, check_evaluation
from deltaserver.serve.answer import UNCERTAINTY, UNKNOWN, Request, Trust
from deltaserver.serve.settings import ENDING, GuardSettings
from deltaserver.serve.watchers.extrapolation import NOVELTY, ExtrapolationWatch, write_frame

# Structures of a connection whose order of atoms is compared with the model's: the first of every
# bead and replica that share it. What happens to a molecule later is the novelty's matter.
FIRST_STRUCTURES = 64
WAY_STRUCTURES = 1000  # that are kept, of those which led to one that is to be labelled


class ServingGuard:
    """The guards of one daemon: see :meth:`before` and :meth:`after` an evaluation."""

    def __init__(self, model: ForceField, settings: GuardSettings) -> None:
        self.model = model
        self.settings = settings
        self.n_structures = 0
        self._guards = model.guards()
        self._seen: WeakKeyDictionary[object, int] = WeakKeyDictionary()
        if settings.extrapolation != "ignore":
            self._guards.prepare()
        self._watches = (
            ExtrapolationWatch(settings.novelty_limit),
            ExtrapolationWatch(settings.uncertainty_limit or math.inf, UNCERTAINTY),
        )
        self._way: deque[Floats] | None = (
            deque(maxlen=WAY_STRUCTURES) if settings.extrapolation == "label" else None
        )
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
                self._guards.check_cell(positions, cell)
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
        is_first = seen < FIRST_STRUCTURES and not self.settings.continues
        if is_first and seen == 0:
            self._guards.check(positions, cell, component)
            return
        if is_first:
            self._guards.check_order(positions, cell, component)
        self._guards.check_wrapping(positions, cell, component)

    def after(
        self, positions: Floats, cells: Floats, result: CompositeEvaluation
    ) -> Sequence[Trust]:
        """Look at results before they are sent; return how far each can be trusted.

        Raises:
            GuardError: a result cannot be right.
            NoveltyError: a structure is too new, or its forces too uncertain, and the run is to
                stop at such.
        """
        first, self.n_structures = self.n_structures, self.n_structures + len(positions)
        check_evaluation(
            result,
            positions,
            periodic=self.model.periodic,
            tolerances=self._tolerances,
            first=first,
        )
        trusts = self._measure(positions, cells, result)
        for k, trust in enumerate(trusts):
            measured = (trust.novelty, trust.uncertainty_ev_per_ang)
            if self._way is not None:
                self._way.append(positions[k].copy())
            for watch, values in zip(self._watches, measured, strict=True):
                beyond = watch.look(values, first + k)
                if beyond and self.settings.extrapolation in ENDING:
                    self._stop(watch.quantity, beyond, positions[k], first + k)
        return trusts

    def _stop(
        self, quantity: str, beyond: tuple[str, float], positions: Floats, structure: int
    ) -> None:
        """Write the structure (N, 3) that ends a run, and end it."""
        settings, (name, value) = self.settings, beyond
        way = None if self._way is None else np.array(self._way)
        write_frame(settings.frame_file, self.model.numbers, positions, beyond, structure, quantity)
        if quantity == NOVELTY:
            raise NoveltyError(
                f"structure {structure}: the novelty of {name} is {value:.2f}, above "
                f"--novelty-limit {settings.novelty_limit:g}: it is too far from what the "
                f"model was trained on; nothing was sent. See {settings.frame_file}",
                way,
            )
        raise NoveltyError(
            f"structure {structure}: the uncertainty of {name} is {value:.3g} eV/Å, above "
            f"--uncertainty-limit {settings.uncertainty_limit:g}; nothing was sent. See "
            f"{settings.frame_file}",
            way,
        )

    def _measure(
        self, positions: Floats, cells: Floats, result: CompositeEvaluation
    ) -> list[Trust]:
        if self.settings.extrapolation == "ignore":
            return [UNKNOWN] * len(positions)
        alike = not self.model.periodic or bool((cells == cells[0]).all())
        size = len(positions) if alike else 1
        found = []
        for k in range(0, len(positions), size):
            x, parts = positions[k : k + size], result[k : k + size].contributions
            found += _each(len(x), *self._guards.measure(x, parts, cells[k]))
        return found


def _each(n: int, novelty: Mapping[str, Floats], uncertainty: Mapping[str, Floats]) -> list[Trust]:
    """Return what is known of each of n structures, rounded as logs want it."""
    return [
        Trust(
            {name: round(float(values[k]), 4) for name, values in novelty.items()},
            {name: round(float(values[k]), 6) for name, values in uncertainty.items()},
        )
        for k in range(n)
    ]
