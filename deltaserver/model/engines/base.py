"""What evaluates the sums of an sGDML model."""

from __future__ import annotations

from abc import ABC, abstractmethod

from deltaserver.arrays import Floats

Evaluated = tuple[Floats, Floats, Floats]


class Engine(ABC):
    """Evaluates one model, whose units everything is in.

    Attributes:
        device: where it computes, if that was chosen.
    """

    device: object | None = None

    @property
    def compiled(self) -> bool:
        """Whether its sums are compiled loops, and not matrix products that BLAS shares out."""
        return False

    def precision_loss(self) -> float:
        """Return the relative error of forces that its precision costs."""
        return 0.0

    @abstractmethod
    def evaluate(self, x: Floats, cell: Floats | None, scale: float) -> Evaluated:
        """Return energies (B,), forces (B, N, 3) and virials (B, 3, 3), all times ``scale``.

        Args:
            x: positions, shape (B, N, 3); they may be NaN or infinite.
            cell: lattice vectors in columns, of a periodic model.
            scale: of the energies, and with them of forces and virials.

        Raises:
            GeometryError: coordinates that are not finite, coinciding atoms.
        """
