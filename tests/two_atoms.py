"""Two atoms that attract each other as a formula says: free energies are known exactly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from deltaserver.units import KB_EV_PER_K
from tests.builders import sgdml_model, write_model

DECAY, AMPLITUDE = 3.0, 380.0  # 1/Å, eV
POWER, RADIUS, COEFFICIENT = 6, 2.0, 60.0  # Å, eV Å⁶


def energy_ev(r: np.ndarray) -> np.ndarray:
    """Return A e^(−b r) − C/(r⁶ + R⁶)."""
    return AMPLITUDE * np.exp(-DECAY * r) - COEFFICIENT / (r**POWER + RADIUS**POWER)


def write_pair(directory: Path) -> Path:
    """Write a model directory of it: a prior, and a binding model that adds nothing."""
    directory.mkdir(parents=True, exist_ok=True)
    still = sgdml_model(np.array([2, 2]))
    still |= {"R_d_desc_alpha": 0.0 * still["R_d_desc_alpha"], "c": np.float64(0.0)}
    write_model(directory / "binding.npz", still)
    atoms = [
        {"name": name, "atoms": str(k), "species": ["He"], "energy": 0.0, "energy_unit": "eV"}
        for k, name in enumerate(("first", "second"))
    ]
    pair = {
        "between": ["a", "b"],
        "walls": [[DECAY, AMPLITUDE]],
        "attractions": [[POWER, RADIUS, COEFFICIENT]],
    }
    classes = [{"name": "a", "atoms": "0"}, {"name": "b", "atoms": "1"}]
    manifest = {
        "format": "deltaserver-model/1",
        "name": "pair",
        "fragments": atoms,
        "binding": {"model": "binding.npz"},
        "prior": {"classes": classes, "pairs": [pair]},
    }
    (directory / "model.yaml").write_text(yaml.safe_dump(manifest, sort_keys=False))
    (directory / "structure.xyz").write_text("2\n\nHe 0 0 0\nHe 0 0 3.1\n")
    return directory


def free_energy_ev(r: np.ndarray, kelvin: float) -> np.ndarray:
    """Return −kT ln P(R), with the Jacobian R² in P, the lowest of ``r`` being zero."""
    free = energy_ev(r) - 2.0 * KB_EV_PER_K * kelvin * np.log(r)
    return free - free.min()


def constant_ang3(bound_ang: float, outer: tuple[float, float], kelvin: float) -> float:
    """Return K = V_out P_bound/P_out by integration, Å³."""
    beta = 1.0 / (KB_EV_PER_K * kelvin)

    def integral(low, high):
        r = np.linspace(low, high, 4000)
        return np.trapezoid(4.0 * np.pi * r**2 * np.exp(-beta * energy_ev(r)), r)

    low, high = outer
    volume = 4.0 / 3.0 * np.pi * (high**3 - low**3)
    return float(volume * integral(1.5, bound_ang) / integral(low, high))


def sample(bias_ev, n: int, kelvin: float, seed: int, longest: float = 9.0) -> np.ndarray:
    """Return n independent distances of the biased pair, by inverting the distribution."""
    r = np.linspace(1.8, longest, 20000)
    exponent = -(energy_ev(r) + bias_ev(r)) / (KB_EV_PER_K * kelvin)
    density = r**2 * np.exp(exponent - exponent.max())
    from scipy.integrate import cumulative_trapezoid

    summed = cumulative_trapezoid(density, r, initial=0.0)
    return np.interp(np.random.default_rng(seed).uniform(0.0, summed[-1], n), summed, r)
