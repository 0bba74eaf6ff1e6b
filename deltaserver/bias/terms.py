"""Bias potentials over one variable s, in eV and Å: a spring, a wall, hills that grow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.errors import InputError
from deltaserver.units import KB_EV_PER_K


@dataclass(frozen=True)
class Spring:
    """½ k (s − s₀)², a window of umbrella sampling.

    [Torrie and Valleau, J. Comput. Phys. 23, 187 (1977), DOI 10.1016/0021-9991(77)90121-8]
    On the way there s₀ moves from ``start_ang`` to ``centre_ang``, evenly in ``pull_steps`` steps.
    """

    centre_ang: float
    spring_ev_per_ang2: float
    start_ang: float
    pull_steps: int = 0

    def __post_init__(self) -> None:
        if not (self.centre_ang > 0.0 and self.spring_ev_per_ang2 > 0.0 and self.pull_steps >= 0):
            raise InputError(
                f"a window at {self.centre_ang:g} Å with a spring of {self.spring_ev_per_ang2:g} "
                "eV/Å²; expected both above 0"
            )

    def centre_at(self, step: int) -> float:
        """Return s₀ when so many steps are done, Å."""
        if step >= self.pull_steps:
            return self.centre_ang
        return self.start_ang + (self.centre_ang - self.start_ang) * step / self.pull_steps

    def energy(self, s: Floats, centre_ang: float | None = None) -> Floats:
        """Return the energy, eV, at s of any shape; of the window at its end, if no other."""
        centre = self.centre_ang if centre_ang is None else centre_ang
        return np.asarray(0.5 * self.spring_ev_per_ang2 * (s - centre) ** 2)

    def slope(self, s: float, centre_ang: float) -> float:
        """Return ∂E/∂s, eV/Å."""
        return self.spring_ev_per_ang2 * (s - centre_ang)


@dataclass(frozen=True)
class UpperWall:
    """½ k (s − s_w)² beyond s_w, nothing below: a container that keeps a guest from leaving."""

    wall_ang: float
    wall_spring_ev_per_ang2: float = 1.0

    def __post_init__(self) -> None:
        if not (self.wall_ang > 0.0 and self.wall_spring_ev_per_ang2 > 0.0):
            raise InputError("a wall needs a place and a spring above 0")

    def energy(self, s: Floats) -> Floats:
        """Return the energy, eV, at s of any shape."""
        beyond = np.maximum(0.0, np.asarray(s) - self.wall_ang)
        return np.asarray(0.5 * self.wall_spring_ev_per_ang2 * beyond**2)

    def slope(self, s: float) -> float:
        """Return ∂E/∂s, eV/Å."""
        return self.wall_spring_ev_per_ang2 * max(0.0, s - self.wall_ang)


@dataclass(frozen=True)
class WellTempered:
    """How hills grow in well-tempered metadynamics.

    [Barducci, Bussi and Parrinello, Phys. Rev. Lett. 100, 020603 (2008), DOI
    10.1103/PhysRevLett.100.020603]
    Every ``hill_every`` steps a Gaussian of standard deviation ``hill_width_ang`` is left where the
    run is, of height h e^(−V(s)/kΔT) with ΔT = (γ − 1) T: as hills pile up they get lower.

    Attributes:
        hill_height_ev: h, of the first one.
        hill_width_ang: σ.
        hill_every: steps.
        bias_factor: γ.
        temperature_k: T.
    """

    hill_height_ev: float
    hill_width_ang: float
    hill_every: int
    bias_factor: float
    temperature_k: float

    def __post_init__(self) -> None:
        sizes = (self.hill_height_ev, self.hill_width_ang, self.hill_every, self.temperature_k)
        if not (min(sizes) > 0.0 and self.bias_factor > 1.0):
            raise InputError("hills need a height, a width and steps above 0, and a factor above 1")

    @property
    def kt_ev(self) -> float:
        """Boltzmann's constant times T."""
        return KB_EV_PER_K * self.temperature_k

    def height(self, bias_ev: float) -> float:
        """Return the height, eV, of a hill that is left where the hills are so high, eV."""
        return self.hill_height_ev * float(
            np.exp(-bias_ev / ((self.bias_factor - 1.0) * self.kt_ev))
        )


@dataclass(frozen=True)
class Hill:
    """One hill: when ``step`` steps were done, at ``centre_ang``, ``height_ev`` high."""

    step: int
    centre_ang: float
    height_ev: float


class Hills:
    """V(s) = Σ hᵢ exp(−(s − sᵢ)²/2σ²) of hills that become more, eV."""

    def __init__(self, width_ang: float, hills: Sequence[Hill] = ()) -> None:
        self.width_ang = width_ang
        self._rows: Floats = np.zeros((max(64, 2 * len(hills)), 2))  # centre, height
        self._steps: list[int] = []
        for hill in hills:
            self.add(hill)

    def __len__(self) -> int:
        return len(self._steps)

    @property
    def steps(self) -> list[int]:
        """When each hill was left."""
        return self._steps

    @property
    def centres_ang(self) -> Floats:
        """Where, [n]."""
        return self._rows[: len(self), 0]

    @property
    def heights_ev(self) -> Floats:
        """How high, [n]."""
        return self._rows[: len(self), 1]

    def add(self, hill: Hill) -> None:
        """Leave one more."""
        if len(self) == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        self._rows[len(self)] = hill.centre_ang, hill.height_ev
        self._steps.append(hill.step)

    def energy_and_slope(self, s: float) -> tuple[float, float]:
        """Return V, eV, and ∂V/∂s, eV/Å, at one place."""
        away = s - self.centres_ang  # [n]
        each = self.heights_ev * np.exp(-0.5 * (away / self.width_ang) ** 2)
        return float(each.sum()), float(-(each * away).sum() / self.width_ang**2)

    def energy(self, s: Floats, until: int | None = None) -> Floats:
        """Return V, eV, at places s (m,), of the first ``until`` hills or of all."""
        n = len(self) if until is None else until
        away = s[:, None] - self.centres_ang[None, :n]  # [m, n]
        return np.asarray(np.exp(-0.5 * (away / self.width_ang) ** 2) @ self.heights_ev[:n])
