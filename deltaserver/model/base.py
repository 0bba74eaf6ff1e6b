"""What every force field has, whether of one complex or of many molecules."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from numpy.typing import ArrayLike

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import ComponentError
from deltaserver.model.descriptor import as_batch, as_cell
from deltaserver.model.engines.storage import Stored
from deltaserver.model.sgdml import SGDMLModel
from deltaserver.model.trust.guards import Guards


class SummedModel(ABC):
    """A force field that is a sum of models.

    Attributes:
        name: of the model.
        numbers: atomic numbers, shape (N,).
        stored: by model file, in which precision its training points are stored.
        thread_times_ms: a step's time by the number of threads, where that was measured.
    """

    name: str
    numbers: Ints
    stored: Mapping[str, Stored] = MappingProxyType({})
    thread_times_ms: Mapping[int, float] = MappingProxyType({})

    @property
    @abstractmethod
    def components(self) -> tuple[str, ...]:
        """Every value that ``component`` may take with this model."""

    @property
    @abstractmethod
    def models(self) -> tuple[SGDMLModel, ...]:
        """Every part that is a model."""

    @abstractmethod
    def guards(self) -> Guards:
        """Return what looks at structures and results: :mod:`deltaserver.model.trust.guards`."""

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.numbers)

    @property
    def compiled(self) -> bool:
        """Whether no part is left to matrix products, which BLAS has threads of its own for."""
        return all(model.engine.compiled for model in self.models)

    def device_facts(self) -> dict[str, object]:
        """Tell where the torch backend computes and what its precision costs; else nothing."""
        engines = [model.engine for model in self.models if model.engine.device]
        if not engines:
            return {}
        devices = sorted({str(engine.device) for engine in engines})
        loss = max(engine.precision_loss() for engine in engines)
        return {"device": ", ".join(devices), "relative_force_error": loss}

    def check_component(self, component: str) -> None:
        """Raise ComponentError unless this model has ``component``."""
        if component not in self.components:
            raise ComponentError(
                f"component {component!r} is not in {self.name}; "
                f"it has {', '.join(self.components)}"
            )

    def check_structure(self, positions: ArrayLike, cell: ArrayLike | None = None) -> None:
        """Raise StructureError unless the atoms are the model's, in its order, bonds intact.

        The daemon does so with the first structures of a run; ``evaluate`` takes anything.

        Args:
            positions: Å, shape (N, 3).
            cell: lattice vectors in columns, Å, of a periodic model.
        """
        x = as_batch(positions, self.n_atoms, self.name)[0]
        self.guards().check(x, None if cell is None else as_cell(cell, self.name), "total")


def add_up(parts: Sequence[Floats]) -> Floats:
    """Return the sum of arrays of one shape, in their order."""
    total = parts[0].copy()
    for part in parts[1:]:
        total += part
    return total
