"""How a pair's prior ends: over an interval of the distance of centres, twice differentiable.

    S(R) = 1 − 10 t³ + 15 t⁴ − 6 t⁵,   t = (R − start)/(stop − start) held in 0 to 1

What it cuts off of attractions, if the liquid beyond is as dense as everywhere [Allen and
Tildesley, Computer Simulation of Liquids, 2nd ed., 2017, Sect. 2.8], is

    E_tail = (1/V) Σ_pairs of molecules Σ_ab ∫ (1 − S(r)) v_ab(r) 4π r² dr,
    v_ab = −C_ab/(rⁿ + Rⁿ), n > 3

with atoms taken to be at their molecules' centres. Charges are left out: those of neutral molecules
without a dipole fall off as R⁻⁵ and have no mean. Å and eV.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.model.fragment_blocks import smooth_step
from deltaserver.model.prior import PairPrior

NODES = 48  # of Gauss–Legendre quadrature: exact to rounding for such smooth functions


@dataclass(frozen=True)
class Switch:
    """S(R), which falls from 1 at ``start`` to 0 at ``stop``, Å."""

    start: float
    stop: float

    def __call__(self, distance: Floats) -> tuple[Floats, Floats]:
        """Return S and dS/dR."""
        rise, slope = smooth_step(distance, self.start, self.stop)
        return 1.0 - rise, -slope

    def cut_off(self, power: int, radius: float) -> float:
        """Return ∫ (1 − S(r)) 4π r²/(rⁿ + Rⁿ) dr for n > 3, Å^(3−n)."""
        node, weight = np.polynomial.legendre.leggauss(NODES)
        r = 0.5 * (self.stop - self.start) * (node + 1.0) + self.start
        inside = (1.0 - self(r)[0]) * r**2 / (r**power + radius**power)
        near = 0.5 * (self.stop - self.start) * float(weight @ inside)
        u = 0.5 * (node + 1.0) / self.stop  # 1/r beyond
        far = 0.5 / self.stop * float(weight @ (u ** (power - 4) / (1.0 + (radius * u) ** power)))
        return 4.0 * np.pi * (near + far)


def tail_ev_ang3(prior: PairPrior, switch: Switch) -> float:
    """Return V E_tail of one pair of molecules, eV Å³."""
    size = {one.name: len(one.atoms) for one in prior.classes}
    total = 0.0
    for (a, b), terms in prior.terms.items():
        for power, radius, coefficient in terms.attractions:
            if power > 3:
                total -= size[a] * size[b] * coefficient * switch.cut_off(power, radius)
    return total
