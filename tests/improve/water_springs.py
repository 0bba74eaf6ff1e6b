"""A calculator for tests, by import path: the potential of ``tests.training.labelled``."""

import os
import time
from dataclasses import replace

import numpy as np
from ase.calculators.calculator import Calculator

from deltaserver.datasets.frames import LabelledFrames
from deltaserver.model.many.electrostatics.induction import Induction, OfThree, Response
from deltaserver.model.many.switch import Switch
from deltaserver.model.many.triples import TripleLabels, TriplePrior
from tests.training.labelled import WATER, attraction, dispersion, springs, water_trimer

PLACES = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
ORDERS = {(8, 1, 1): [0, 1, 2], (1, 8, 1): [1, 0, 2]}


class WaterSprings(Calculator):
    """One water, or two of them as water_dimer has them; slow where SLOW says so."""

    implemented_properties = ["energy", "forces"]

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        time.sleep(float(os.environ.get("SLOW", "0")))
        x, z = self.atoms.positions[None], self.atoms.numbers
        energy, forces = 0.0, np.zeros_like(x)
        for first in range(0, len(z), 3):
            some = slice(first, first + 3)
            own, force = springs(x[:, some], WATER[ORDERS[tuple(z[some].tolist())]])
            energy += float(own[0]) - 10.0
            forces[:, some] += force
        if len(z) == 6:
            own, force = attraction(x, [0, 1, 2], [3, 4, 5])
            energy += float(own[0])
            forces += force
        self.results = {"energy": energy, "forces": forces[0]}


def three_bodies() -> TripleLabels:
    """What three waters have beyond their pairs: dispersion of an untried R and flows."""
    one = dispersion(6000.0, 300.0)
    prior = TriplePrior(one.sizes, one.classes, one.coefficients, 3.2, one.cutoff)
    response = Response.of([-0.4, 0.2, 0.2], [([(0, 1), (0, 2)], 0.1)])
    flowing = OfThree(Induction((response,), 1.2, Switch(10.0, 12.0)), (0, 0, 0), (3, 3, 3))
    return TripleLabels(prior, flowing)


def water_trimers(n_frames: int) -> LabelledFrames:
    """Three waters in triangles, labelled so."""
    found = water_trimer(n_frames)
    old, new = dispersion().of_whole(found.positions), three_bodies().evaluate(found.positions)
    return replace(
        found,
        energy=found.energy - old.energy + new.energy,
        forces=found.forces - old.forces + new.forces,
    )


class WaterTrimers(WaterSprings):
    """One water, two or three of them: with what three have beyond their pairs."""

    def calculate(self, atoms=None, *args, **kwargs):
        super().calculate(atoms, *args, **kwargs)
        x = self.atoms.positions[None]
        if x.shape[1] != 9:
            return
        energy, forces = self.results["energy"], self.results["forces"]
        pairs = [attraction(x, PLACES[a], PLACES[b]) for a, b in ((0, 1), (1, 2), (0, 2))]
        three = three_bodies().evaluate(x)
        for one in (*pairs, (three.energy, three.forces)):
            energy, forces = energy + float(one[0][0]), forces + one[1][0]
        self.results = {"energy": energy, "forces": forces}
