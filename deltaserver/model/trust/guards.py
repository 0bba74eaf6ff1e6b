"""What a daemon asks of a model about structures and results, of one complex and of many molecules.

:class:`ComplexGuards` puts together the modules of this package for a complex;
:mod:`deltaserver.model.many.guards` does so for many molecules.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from deltaserver.arrays import Floats
from deltaserver.model.trust.cell import check_cell
from deltaserver.model.trust.novelty import NoveltyMeasure
from deltaserver.model.trust.structure import ExpectedStructure
from deltaserver.model.trust.uncertainty import UncertaintyMeasure
from deltaserver.model.trust.wrapping import WrappingCheck

if TYPE_CHECKING:
    from deltaserver.model.composite import CompositeModel
    from deltaserver.model.sgdml import Evaluation

Measured = dict[str, Floats]  # by part, shape (B,)


class Guards(Protocol):
    """The questions. Positions are (N, 3) or (B, N, 3), cells have vectors in columns; Å."""

    @property
    def bond_counts(self) -> Mapping[str, int]:
        """How many bonds of each fragment are checked; 0 where training shows no molecule."""

    def check(self, positions: Floats, cell: Floats | None, component: str) -> None:
        """Raise StructureError unless the first structure of a run is the model's."""

    def check_order(self, positions: Floats, cell: Floats | None, component: str) -> None:
        """Raise StructureError if atoms of a later one stand in another order."""

    def check_wrapping(self, positions: Floats, cell: Floats, component: str) -> None:
        """Raise StructureError if the cell has cut what is not periodic."""

    def check_cell(self, positions: Floats, cell: Floats) -> None:
        """Raise StructureError if a cell that matters is too small."""

    def prepare(self) -> None:
        """Compile and calibrate what the measures need, before the first step."""

    def measure(
        self, positions: Floats, contributions: Mapping[str, Evaluation], cell: Floats | None
    ) -> tuple[Measured, Measured]:
        """Return how new every structure is to each part; how wrong its forces may be, eV/Å."""


class ComplexGuards:
    """The guards of one complex."""

    def __init__(self, model: CompositeModel) -> None:
        self._model = model

    @cached_property
    def _expected(self) -> ExpectedStructure:
        return ExpectedStructure.of(self._model)

    @cached_property
    def _novelty(self) -> NoveltyMeasure:
        return NoveltyMeasure(self._model)

    @cached_property
    def _uncertainty(self) -> UncertaintyMeasure:
        return UncertaintyMeasure(self._model, self._novelty)

    @property
    def bond_counts(self) -> Mapping[str, int]:
        """See :class:`Guards`."""
        return {bonds.name: len(bonds) for bonds in self._expected.bonds}

    def check(self, positions: Floats, cell: Floats | None, component: str) -> None:
        """See :class:`Guards`."""
        self._expected.check(positions, cell, component)

    def check_order(self, positions: Floats, cell: Floats | None, component: str) -> None:
        """See :class:`Guards`."""
        self._expected.check_order(positions, cell, component)

    def check_wrapping(self, positions: Floats, cell: Floats, component: str) -> None:
        """See :class:`Guards`."""
        WrappingCheck(self._expected)(positions, cell, component)

    def check_cell(self, positions: Floats, cell: Floats) -> None:
        """See :class:`Guards`."""
        if self._model.periodic:
            check_cell(self._model, self._expected.bonds, positions, cell)

    def prepare(self) -> None:
        """See :class:`Guards`."""
        _ = self._uncertainty

    def measure(
        self, positions: Floats, contributions: Mapping[str, Evaluation], cell: Floats | None
    ) -> tuple[Measured, Measured]:
        """See :class:`Guards`."""
        features = self._novelty.features(positions, contributions, cell)
        doubt = self._uncertainty.of_features(features, contributions)
        return self._novelty.of_features(features), doubt
