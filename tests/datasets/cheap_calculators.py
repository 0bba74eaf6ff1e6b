"""Calculators for tests, given to deltaserver by import path."""

import os
import time

import numpy as np
from ase.calculators.calculator import CalculationFailed, Calculator
from ase.calculators.emt import EMT


class SlowEMT(EMT):
    """Slow enough to be killed in the middle."""

    def calculate(self, *args, **kwargs):
        time.sleep(float(os.environ.get("SLOW", "0")))
        super().calculate(*args, **kwargs)


class PickyEMT(EMT):
    """Does not converge for every third structure or so."""

    def calculate(self, atoms=None, *args, **kwargs):
        if round(abs(atoms.positions).sum() * 1e6) % 3 == 0:
            try:
                raise ArithmeticError("SCF: 250 cycles")
            except ArithmeticError:
                raise CalculationFailed("no convergence") from None
        super().calculate(atoms, *args, **kwargs)


class ShyEMT(EMT):
    """Does not converge where copper and gold are closer than SHY, in Å."""

    def calculate(self, atoms=None, *args, **kwargs):
        between = (
            atoms.positions[atoms.numbers == 79][:, None] - atoms.positions[atoms.numbers == 29]
        )
        if np.linalg.norm(between, axis=-1).min() < float(os.environ["SHY"]):
            raise CalculationFailed("no convergence")
        super().calculate(atoms, *args, **kwargs)


class NotFinite(EMT):
    """Gives NaN as some force fields do for a bad structure."""

    def calculate(self, *args, **kwargs):
        super().calculate(*args, **kwargs)
        self.results["energy"] = float("nan")


class NoForces(Calculator):
    """Atoms that know nothing of each other: what moves them is a constraint."""

    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        self.results = {"energy": 0.0, "forces": np.zeros((len(atoms), 3))}


class Torn(Calculator):
    """Pulls the last atom away, ever farther."""

    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        forces = np.zeros((len(atoms), 3))
        forces[-1, 0] = 1.0
        self.results = {"energy": -float(atoms.positions[-1, 0]), "forces": forces}


class Cubed(Calculator):
    """E = S³, S = Σ s |x|²: what three groups have beyond their pairs is 6 S₁ S₂ S₃, exactly."""

    implemented_properties = ["energy", "forces"]
    scale = 0.002

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        total = self.scale * (atoms.positions**2).sum()
        forces = -6.0 * total**2 * self.scale * atoms.positions
        self.results = {"energy": float(total**3), "forces": forces}


class OfCharge(Calculator):
    """E = 10 Q + n: what a molecule is said to have, its charge and its unpaired electrons."""

    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        energy = 10.0 * atoms.get_initial_charges().sum()
        energy += atoms.get_initial_magnetic_moments().sum()
        self.results = {"energy": float(energy), "forces": np.zeros((len(atoms), 3))}
