"""A bias as it runs: energy, forces and virial of a structure, and what changes with the steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.bias.settings import Bias
from deltaserver.bias.terms import Hill, Hills


@dataclass(frozen=True)
class BiasEvaluation:
    """What a bias does to one structure.

    Attributes:
        value_ang: the variable.
        energy_ev: of all terms.
        forces: −∂E/∂r, eV/Å, (N, 3).
        virial: Σ rᵢ fᵢᵀ = −∂E/∂ε of a homogeneous strain ε, eV, (3, 3).
    """

    value_ang: float
    energy_ev: float
    forces: Floats
    virial: Floats


class RunningBias:
    """A bias when ``step`` steps are done; ``keep`` is told each hill before it counts."""

    def __init__(
        self,
        bias: Bias,
        step: int = 0,
        hills: Sequence[Hill] = (),
        keep: Callable[[Hill], None] = lambda _: None,
    ) -> None:
        self.bias = bias
        self.step = step
        self.hills = Hills(bias.growth.hill_width_ang if bias.growth else 1.0, hills)
        self._keep = keep

    def evaluate(self, positions_ang: Floats) -> BiasEvaluation:
        """Evaluate positions (N, 3), Å."""
        value, gradient = self.bias.coordinate.gradient(positions_ang)
        energy, slope = self._energy_and_slope(value)
        forces = -slope * gradient
        virial = np.einsum("ia,ib->ab", positions_ang, forces)
        return BiasEvaluation(value, energy, forces, virial)

    def advance(self, positions_ang: Floats) -> float:
        """Note that one more step is done, and has led here; return E before − E after, eV.

        That is what a hill, or a window that moves, does to a structure that stands still: its
        negative is work on the run. i-PI keeps the force that it has for the next half step: of a
        hill on its top that is none, of a window k Δs₀, which its pull is slow enough for.
        """
        value = self.bias.coordinate.value(positions_ang)
        before, _ = self._energy_and_slope(value)
        self.step += 1
        growth = self.bias.growth
        if growth and self.step % growth.hill_every == 0:
            hill = Hill(self.step, value, growth.height(self.hills.energy_and_slope(value)[0]))
            self._keep(hill)
            self.hills.add(hill)
        return before - self._energy_and_slope(value)[0]

    def _energy_and_slope(self, s: float) -> tuple[float, float]:
        """Return the energy, eV, and its slope, eV/Å, at s."""
        energy, slope = self.hills.energy_and_slope(s) if len(self.hills) else (0.0, 0.0)
        if spring := self.bias.spring:
            centre = spring.centre_at(self.step)
            energy += float(spring.energy(np.array(s), centre))
            slope += spring.slope(s, centre)
        if wall := self.bias.wall:
            energy += float(wall.energy(np.array(s)))
            slope += wall.slope(s)
        return energy, slope
