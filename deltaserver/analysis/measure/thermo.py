"""Drift of the conserved quantity, and the temperature against what its ensemble expects."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.errors import DataError
from deltaserver.statistics.correlation import Mean, inefficiency, mean_of

CANONICAL = ("nvt", "npt")


@dataclass(frozen=True)
class Drift:
    """Slope of the conserved quantity by least squares, with its standard error.

    ``error_ev_per_ps`` counts correlated residuals as what they are worth. ``scatter_ev`` is the
    residuals' standard deviation.
    """

    ev_per_ps: float
    error_ev_per_ps: float
    scatter_ev: float
    n_atoms: int

    @property
    def mev_per_atom_ps(self) -> float:
        """The slope per atom."""
        return 1e3 * self.ev_per_ps / self.n_atoms


@dataclass(frozen=True)
class Temperature:
    """Mean and standard deviation of the kinetic temperature, K, and what is expected.

    In the canonical ensemble σ_T = T √(2/n) of n momenta (beads included). Other ensembles have
    no expectation here: ``expected_std_k`` is None.
    """

    mean: Mean
    std_k: float
    target_k: float | None
    expected_std_k: float | None


def drift_of(time_ps: Floats, conserved_ev: Floats, n_atoms: int) -> Drift:
    """Fit the conserved quantity's drift.

    Raises:
        DataError: fewer than three points.
    """
    if len(time_ps) < 3:
        raise DataError(f"{len(time_ps)} rows are too few for a drift; expected three or more")
    about = time_ps - time_ps.mean()
    spread = float((about**2).sum())
    if spread <= 0.0:
        raise DataError("all rows have one time; expected a time column that goes on")
    slope = float(about @ (conserved_ev - conserved_ev.mean()) / spread)
    residuals = conserved_ev - conserved_ev.mean() - slope * about
    variance = float((residuals**2).sum() / (len(residuals) - 2))
    error = np.sqrt(inefficiency(residuals) * variance / spread)
    return Drift(slope, float(error), float(np.sqrt(variance)), n_atoms)


def temperature_of(
    temperature_k: Floats, n_momenta: int, target_k: float | None, ensemble: str
) -> Temperature:
    """Compare the kinetic temperature with the ensemble's."""
    expected = None
    if target_k is not None and ensemble in CANONICAL:
        expected = float(target_k * np.sqrt(2.0 / n_momenta))
    std = float(temperature_k.std(ddof=1)) if len(temperature_k) > 1 else 0.0
    return Temperature(mean_of(temperature_k), std, target_k, expected)
