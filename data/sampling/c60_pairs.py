"""Sample C60@buckycatcher widely: the Δ fragments, bound by a pair potential, from turned guests.

A Δ model trained on one trajectory knows one arrangement of guest and host and no repulsive wall:
its own dynamics leave what it knows within picoseconds. This calculator keeps the fragments'
sGDML models and replaces the binding by A·exp(−3.6 r) − C·r⁻⁶ between the atoms of guest and
host, which has a wall everywhere. A and C of C···C and C···H are least squares on the binding
energies and forces of the 400 K frames. What it samples is labelled with GFN2-xTB afterwards.

    export PYTHONPATH=data/sampling
    python -m c60_pairs     # writes the turned starts into data/structures/
    deltaserver dataset build … --calculator c60_pairs:FragmentsAndPairs
"""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
from ase.calculators.calculator import Calculator, all_changes

from deltaserver import CompositeModel
from deltaserver.datasets.files import read_dataset

ROOT = Path(__file__).parents[2]
FRAMES = ROOT / "data" / "c60_buckycatcher_gfn2_400K.xyz.gz"
N_GUEST = 60
DECAY = 3.6  # 1/Å
ENERGY_WEIGHT = 5.0  # 1/Å: an energy counts as much as so many force components
FIT_FRAMES = slice(0, 400, 8)  # none of those that models are tested on
START_FRAMES = (130, 255, 380)
N_STARTS = 42  # the first 12 are the dataset turned's, the others wide's


def pair_terms(positions, hydrogen):
    """Energies (4,) and forces (4, N, 3) of exp(−3.6 r) and −r⁻⁶, for C···C and C···H."""
    difference = positions[:N_GUEST, None] - positions[None, N_GUEST:]
    r = np.linalg.norm(difference, axis=-1)
    energies, forces = [], []
    for kind in (~hydrogen, hydrogen):
        for value, slope in (
            (np.exp(-DECAY * r), -DECAY * np.exp(-DECAY * r)),
            (-(r**-6.0), 6.0 * r**-7.0),
        ):
            pull = (-(slope * kind) / r)[..., None] * difference
            energies.append((value * kind).sum())
            forces.append(np.concatenate([pull.sum(axis=1), -pull.sum(axis=0)]))
    return np.array(energies), np.array(forces)


@functools.cache
def fitted_coefficients():
    """A and C of C···C and C···H, in eV and eV Å⁶."""
    frames = read_dataset(FRAMES)
    hydrogen = frames.numbers[N_GUEST:] == 1
    rows, labels = [], []
    for m in range(len(frames))[FIT_FRAMES]:
        energies, forces = pair_terms(frames.positions[m], hydrogen)
        rows += [forces.reshape(4, -1).T, ENERGY_WEIGHT * energies[None]]
        binding = frames.forces[m] - frames.fragment_forces[m]
        labels += [binding.ravel(), [ENERGY_WEIGHT * frames.binding_energy[m]]]
    matrix, target = np.concatenate(rows), np.concatenate(labels)
    scale = np.linalg.norm(matrix, axis=0)
    found, *_ = np.linalg.lstsq(matrix / scale, target, rcond=None)
    return found / scale


@functools.cache
def fragments():
    """The model whose fragments are used, loaded once."""
    return CompositeModel.load(ROOT / "models" / "c60")


class FragmentsAndPairs(Calculator):
    """ASE calculator: sGDML fragments of models/c60 and the fitted pair potential."""

    implemented_properties = ["energy", "forces"]

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.model = fragments()
        self.coefficients = fitted_coefficients()

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        """Evaluate ``atoms``; ASE calls this."""
        super().calculate(atoms, properties, system_changes)
        fragments = self.model.evaluate(self.atoms.positions, "fragments")
        energies, forces = pair_terms(self.atoms.positions, self.atoms.numbers[N_GUEST:] == 1)
        self.results = {
            "energy": float(fragments.energy + self.coefficients @ energies),
            "forces": fragments.forces + np.einsum("k,kia->ia", self.coefficients, forces),
        }


def write_turned_starts():
    """Turn C60 about its centre, at random, in frames of the 400 K trajectory."""
    from ase import Atoms
    from scipy.spatial.transform import Rotation

    frames = read_dataset(FRAMES)
    turns = Rotation.random(N_STARTS, random_state=60).as_matrix()
    for k, turn in enumerate(turns):
        m = START_FRAMES[k % len(START_FRAMES)]
        x = frames.positions[m].copy()
        centre = x[:N_GUEST].mean(axis=0)
        x[:N_GUEST] = (x[:N_GUEST] - centre) @ turn.T + centre
        path = ROOT / "data" / "structures" / f"c60_catcher_turned_{k:02d}.xyz"
        source = f"frame {m} of {FRAMES.name}, C60 turned about its centre (data/sampling)"
        Atoms(numbers=frames.numbers, positions=x).write(path, format="extxyz", comment=source)


if __name__ == "__main__":
    write_turned_starts()
