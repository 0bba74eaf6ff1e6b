"""The standard free energy of binding of two molecules, from how often they are bound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deltaserver.analysis.measure.reweighting import Weighted
from deltaserver.arrays import Floats
from deltaserver.errors import DataError
from deltaserver.units import ANG3_PER_MOLAR, KB_EV_PER_K


@dataclass(frozen=True)
class Shells:
    """Bound is R < ``bound_ang``; free is the shell ``outer_ang``, where nothing interacts."""

    bound_ang: float
    outer_ang: tuple[float, float]

    def __post_init__(self) -> None:
        low, high = self.outer_ang
        if not 0.0 < self.bound_ang <= low < high:
            raise DataError(
                f"bound below {self.bound_ang:g} Å, free from {low:g} to {high:g} Å; expected the "
                "free ones beyond the bound ones"
            )

    @property
    def outer_volume_ang3(self) -> float:
        """Volume of the outer shell."""
        low, high = self.outer_ang
        return float(4.0 / 3.0 * np.pi * (high**3 - low**3))


@dataclass(frozen=True)
class BindingFreeEnergy:
    """ΔG° and the constant K it comes from, with one standard error each.

    ``ratio`` is P(bound)/P(outer shell), which no standard state is in.
    """

    shells: Shells
    temperature_k: float
    free_energy_ev: float
    error_ev: float
    constant_per_molar: float
    ratio: float
    ratio_error: float


def binding_free_energy(found: Weighted, column: int, shells: Shells) -> BindingFreeEnergy:
    """Return the standard free energy of binding, at 1 mol/l, of the distance in ``column``.

        ΔG° = −kT ln(C° K),   K = 4π ∫_bound R² e^(−β[w(R) − w(∞)]) dR = V_out P_bound / P_out

    w is the potential of mean force and w(∞) its value in the outer shell, of volume V_out: there
    P(R) dR = P_out 4πR² dR / V_out. C° is 1 mol/l, one molecule in 1660.5 Å³. Orientations are
    averaged over in both states; molecules are told apart, so that no symmetry number stands in it.
    [Gilson, Given, Bush and McCammon, Biophys. J. 72, 1047 (1997), DOI
    10.1016/S0006-3495(97)78756-3; from a potential of mean force: Doudou, Burton and Henchman,
    J. Chem. Theory Comput. 5, 909 (2009), DOI 10.1021/ct8002354]

    Raises:
        DataError: nothing was sampled in one of the two.
    """
    distance = found.samples[:, column]
    low, high = shells.outer_ang
    bound, bound_rows = found.probability((distance < shells.bound_ang).astype(np.float64))
    outside = (distance >= low) & (distance < high)
    outer, outer_rows = found.probability(outside.astype(np.float64))
    if not (bound > 0.0 and outer > 0.0):
        where = f"below {shells.bound_ang:g}" if not bound > 0.0 else f"from {low:g} to {high:g}"
        raise DataError(f"no frame {where} Å: ΔG° needs bound and free ones; see --bound, --outer")
    kt = KB_EV_PER_K * found.temperature_k
    per_molar = shells.outer_volume_ang3 / ANG3_PER_MOLAR

    def energy(ratio: Floats) -> Floats:
        return np.asarray(-kt * np.log(per_molar * ratio))

    usable = (bound_rows > 0.0) & (outer_rows > 0.0)
    ratios = bound_rows[usable] / outer_rows[usable]
    few = len(ratios) < len(bound_rows) / 2
    return BindingFreeEnergy(
        shells,
        found.temperature_k,
        float(energy(np.array(bound / outer))),
        float("nan") if few else float(energy(ratios).std(ddof=1)),
        per_molar * bound / outer,
        bound / outer,
        float("nan") if few else float(ratios.std(ddof=1)),
    )
