"""A molecular crystal at 0 K: cell and lattice energy of a model, of GFN2-xTB, and as measured.

    python models/crystal.py [--model models/benzenes]        some minutes

Positions and cell are relaxed with the model. The lattice energy is that of the crystal less that
of relaxed molecules, per molecule; no vibrations. GFN2-xTB is asked by the expansion that the model
is made of, on molecules cut out of the relaxed crystal: every dimer of centres' distance below 16
Å, every trimer with three distances below 12 Å. How far its own cell is from the model's is one
step of Newton's method: the pressures of its dimers and trimers, less the model's, over the
model's elastic constants (molecules stay rigid in that difference, and do not turn).

Measured are a cell, and the lattice energy that sublimation enthalpies come to at 0 K without
vibrations. Benzene: Bacon, Curry, Wilson, Proc. R. Soc. A 279, 98 (1964), DOI
10.1098/rspa.1964.0092; Yang et al., Science 345, 640 (2014), DOI 10.1126/science.1254419. Carbon
dioxide: Simon, Peters, Acta Crystallogr. B 36, 2750 (1980), DOI 10.1107/S0567740880009879; Reilly,
Tkatchenko, J. Chem. Phys. 139, 024705 (2013), DOI 10.1063/1.4812819.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import ase
import numpy as np
import yaml
from ase.filters import FrechetCellFilter
from ase.io import read
from ase.optimize import BFGS
from ase.units import GPa

from deltaserver.ase import DeltaCalculator
from deltaserver.datasets import calculators
from deltaserver.model import force_field
from deltaserver.model.many.model import ManyModel
from deltaserver.model.many.molecules import Species
from deltaserver.model.many.neighbours import find_neighbours
from deltaserver.model.many.switch import Switch, tail_ev_ang3
from deltaserver.model.many.triples import find_triples
from deltaserver.units import KJ_PER_MOL_EV

TRIPLES = 12.0  # Å between centres, the largest of three
FMAX = 2e-4  # eV/Å; of the cell as well
STRAIN = 0.004
Label = Callable[[np.ndarray], tuple[float, np.ndarray]]


@dataclass(frozen=True)
class Crystal:
    """What is measured, and how far its groups are told apart.

    Attributes:
        cell: measured, Å.
        kelvin: temperature of the measured cell.
        energy: measured lattice energy, kJ/mol.
        shells: Å between centres; pairs end with the last.
    """

    cell: tuple[float, float, float]
    kelvin: int
    energy: str
    shells: tuple[float, ...]


CRYSTALS = {  # by the species of the model
    "benzene": Crystal(
        (7.39, 9.42, 6.81), 138, "−55.3 ± 2.2", (0.0, 5.2, 6.2, 8.0, 10.0, 12.0, 16.0)
    ),
    "carbon_dioxide": Crystal(
        (5.624, 5.624, 5.624), 150, "−28.4", (0.0, 5.0, 6.2, 8.0, 10.0, 12.0, 16.0)
    ),
}


@dataclass(frozen=True)
class Group:
    """Molecules whose like stand in the crystal several times.

    Attributes:
        x: Å, shape (members, atoms, 3).
        longest: distance of centres, Å.
        count: how many of them, or parts of such, one molecule has.
    """

    x: np.ndarray
    longest: float
    count: float


def relax(atoms: ase.Atoms, cell: bool = True) -> None:
    """Relax positions, and the cell with them."""
    moved = FrechetCellFilter(atoms, mask=[1, 1, 1, 0, 0, 0]) if cell else atoms
    if not BFGS(moved, logfile=None).run(fmax=FMAX, steps=1000):
        raise SystemExit("the crystal does not relax in 1000 steps")


def species_of(model: Path) -> Species:
    """Return what a model's molecules are, which has only those of a kind."""
    found = force_field.load(model, threads=1)
    if not isinstance(found, ManyModel) or len(found.species) != 1:
        raise SystemExit(f"{model}: expected a model of many molecules of one kind")
    return found.species[0]


def molecule_of(model: Path) -> ase.Atoms:
    """Return the first molecule of a model's structure, by itself."""
    numbers = species_of(model).numbers
    atoms = read(model / "structure.xyz")
    return ase.Atoms(numbers, atoms.positions[: len(numbers)])


def molecule_energy(model: Path, label: Label) -> tuple[float, float]:
    """Return the energies of a relaxed molecule: of the model, and by a label of it, eV."""
    with tempfile.TemporaryDirectory() as folder:
        one = molecule_of(model)
        one.calc = DeltaCalculator(cluster(model, 1, Path(folder)))
        BFGS(one, logfile=None).run(fmax=FMAX, steps=500)
        ours = float(one.get_potential_energy())
        one.calc = calculators.calculator_factory("GFN2-xTB")(one)
        BFGS(one, logfile=None).run(fmax=FMAX, steps=500)
        return ours, label(one.positions)[0]


def cluster(model: Path, count: int, folder: Path) -> Path:
    """Make a model of so many molecules in vacuum, without a cutoff of its prior."""
    into = folder / str(count)
    into.mkdir()
    data = yaml.safe_load((model / "model.yaml").read_text(encoding="utf-8"))
    data |= {"periodic": False}
    data.pop("cutoff", None)
    data["species"][0]["count"] = count
    (into / "model.yaml").write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    for file in model.glob("*.npz"):
        shutil.copy(file, into)
    return into


def alike(found: list[Group], x: np.ndarray, longest: float, count: float) -> None:
    """Enter a group, or count it with one that has the same distances between atoms."""
    for k, other in enumerate(found):
        same = abs(other.longest - longest) < 1e-3
        if same and np.allclose(fingerprint(other.x), fingerprint(x), rtol=0, atol=2e-3):
            found[k] = Group(other.x, other.longest, other.count + count)
            return
    found.append(Group(x, longest, count))


def fingerprint(x: np.ndarray) -> np.ndarray:
    """Return all distances between atoms in rising order."""
    flat = x.reshape(-1, 3)
    i, j = np.triu_indices(len(flat), k=1)
    return np.sort(np.linalg.norm(flat[i] - flat[j], axis=1))


def groups_of(
    atoms: ase.Atoms, model: force_field.ForceField, known: Crystal
) -> tuple[list[Group], list[Group]]:
    """Return the dimers and trimers of the crystal, each kind once."""
    cell = atoms.cell.array.T
    x = model.species[0].whole(atoms.positions, cell)
    centres = x.mean(axis=1)
    pairs: list[Group] = []
    near = find_neighbours(centres, known.shells[-1], cell)
    for i, j, shift, distance in zip(near.i, near.j, near.shift, near.distance, strict=True):
        alike(pairs, np.stack([x[i], x[j] + shift]), float(distance), 1.0 / len(x))
    triples: list[Group] = []
    found = find_triples(near, TRIPLES)
    members, shifts = np.transpose(found.members), np.transpose(found.shifts, (1, 0, 2))
    for own, shift, weight in zip(members, shifts, found.weight, strict=True):
        three = x[own] + shift[:, None]
        middle = three.mean(axis=1)
        longest = np.linalg.norm(middle - np.roll(middle, 1, axis=0), axis=1).max()
        alike(triples, three, float(longest), float(weight) / len(x))
    return pairs, triples


def pressed(x: np.ndarray, forces: np.ndarray) -> np.ndarray:
    """Return ∂E/∂ε of the three axes, eV, of forces on molecules that stay rigid."""
    centres, whole = x.mean(axis=1), forces.reshape(x.shape).sum(axis=1)
    return -((centres - centres[0]) * whole).sum(axis=0)


class Expansion:
    """Energies and forces that two and three molecules have beyond fewer."""

    def __init__(self, label: Label) -> None:
        self.label = label

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray]:
        """Return what molecules x (k, atoms, 3) have beyond all fewer of them, eV and eV/Å."""
        energy, forces = self.label(x.reshape(-1, 3))
        forces = forces.reshape(x.shape).copy()
        for some in subsets(len(x)):
            less, pull = self(x[some]) if len(some) > 1 else self.label(x[some[0]])
            energy -= less
            forces[some] -= pull.reshape(len(some), -1, 3)
        return energy, forces


def subsets(k: int) -> list[list[int]]:
    """Return all smaller sets of k molecules, none left out."""
    return [[m for m in range(k) if bits >> m & 1] for bits in range(1, 2**k - 1)]


def compared(
    groups: list[Group], label: Label, models: tuple[force_field.ForceField, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Ask GFN2-xTB and the models of two and of three molecules for every group.

    Returns rows of size, longest distance, count, both energies, eV; and ∂E/∂ε of a molecule, of
    both, eV, shape (2, 3).
    """
    beyond, rows, slopes = Expansion(label), [], np.zeros((2, 3))
    for group in groups:
        size = len(group.x)
        energy, forces = beyond(group.x)
        result = models[size - 2].evaluate(group.x.reshape(-1, 3), "binding")
        part = result if size == 2 else result.contributions["triples"]
        rows.append((size, group.longest, group.count, energy, float(part.energy)))
        slopes += group.count * np.array([pressed(group.x, f) for f in (forces, part.forces)])
    return np.array(rows), slopes


def constants(atoms: ase.Atoms) -> np.ndarray:
    """Return the elastic constants of the three axes, positions relaxed, eV of a cell."""
    columns = []
    for axis in range(3):
        slopes = []
        for sign in (1.0, -1.0):
            strained = atoms.copy()
            strained.calc = atoms.calc
            cell = atoms.cell.array.copy()
            cell[:, axis] *= 1.0 + sign * STRAIN
            strained.set_cell(cell, scale_atoms=True)
            relax(strained, cell=False)
            slopes.append(strained.get_stress()[:3] * strained.get_volume())
        columns.append((slopes[0] - slopes[1]) / (2.0 * STRAIN))
    matrix = np.array(columns)
    return 0.5 * (matrix + matrix.T)


def arguments() -> argparse.Namespace:
    """Return what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path("models/benzenes"))
    return parser.parse_args()


def gfn2(molecule: np.ndarray) -> Label:
    """Return GFN2-xTB of molecules of such atomic numbers, as datasets are labelled."""
    factory = calculators.calculator_factory("GFN2-xTB")

    def label(x: np.ndarray) -> tuple[float, np.ndarray]:
        numbers = np.tile(molecule, len(x) // len(molecule))
        return calculators.evaluate(factory, numbers, x, np.zeros(len(x), dtype=np.int64))

    return label


def main() -> None:
    path = arguments().model
    atoms = read(path / "structure.xyz")
    atoms.calc = DeltaCalculator(path)
    (species,) = atoms.calc.model.species
    known, label = CRYSTALS[species.name], gfn2(species.numbers)
    relax(atoms)
    alone = molecule_energy(path, label)
    tell_cell("relaxed with the model", atoms.cell.lengths())
    tell_cell(f"measured, {known.kelvin} K", known.cell)
    own = tell_lattice_energy(atoms, alone[0], known)
    slopes = tell_expansion(atoms, label, (alone[1], own), path)
    if np.ptp(atoms.cell.lengths()) < 1e-3:  # cubic: like groups stand along all axes
        slopes = np.repeat(slopes.mean(axis=1, keepdims=True), 3, axis=1)
    stiff = constants(atoms)
    print("elastic constants, GPa:", np.array2string(stiff / atoms.get_volume() / GPa, precision=1))
    step = -np.linalg.solve(stiff, len(species.atoms) * (slopes[0] - slopes[1]))
    tell_cell("GFN2-xTB, by one step of Newton", atoms.cell.lengths() * (1.0 + step))


def tell_lattice_energy(atoms: ase.Atoms, alone: float, known: Crystal) -> float:
    """Print the model's, of a relaxed crystal; return what a molecule is bent by, kJ/mol."""
    model = atoms.calc.model
    n = len(model.species[0].atoms)
    energy = float(atoms.get_potential_energy())
    print(f"lattice energy, model: {(energy / n - alone) / KJ_PER_MOL_EV:.2f} kJ/mol")
    print(f"  measured: {known.energy} kJ/mol")
    parts = {k: float(v.energy) / n / KJ_PER_MOL_EV for k, v in atoms.calc.contributions.items()}
    parts[model.own_names[0]] -= alone / KJ_PER_MOL_EV
    print("  of it", ", ".join(f"{name} {value:+.2f}" for name, value in parts.items()))
    held = atoms.copy()
    held.calc = DeltaCalculator(model)
    held.set_cell(known.cell, scale_atoms=True)
    relax(held, cell=False)
    above = (held.get_potential_energy() - energy) / n / KJ_PER_MOL_EV
    print(f"  in the measured cell {above:+.2f} kJ/mol", flush=True)
    return parts[model.own_names[0]]


def tell_expansion(
    atoms: ase.Atoms, label: Label, molecule: tuple[float, float], path: Path
) -> np.ndarray:
    """Print what pairs and triples give, by GFN2-xTB and by the model; return both's slopes.

    ``molecule`` is GFN2-xTB's energy of a relaxed one, eV, and what the model says that one is
    bent by in the crystal, kJ/mol.
    """
    model = atoms.calc.model
    n, known = len(model.species[0].atoms), CRYSTALS[model.species[0].name]
    pairs, triples = groups_of(atoms, model, known)
    with tempfile.TemporaryDirectory() as folder:
        two, three = (force_field.load(cluster(path, k, Path(folder)), threads=1) for k in (2, 3))
        table, slopes = compared([*pairs, *triples], label, (two, three))
    tell_shells(table, known.shells)
    one = label(model.species[0].whole(atoms.positions, atoms.cell.array.T)[0])[0]
    bent = (one - molecule[0]) / KJ_PER_MOL_EV, molecule[1]
    end = known.shells[-1]
    tail = tail_ev_ang3(model.pairs[0].prior, Switch(end - 1e-3, end))
    tail *= 0.5 * n / atoms.get_volume() / KJ_PER_MOL_EV
    e2, e3 = (
        table[table[:, 0] == size, 2] @ table[table[:, 0] == size, 3:] / KJ_PER_MOL_EV
        for size in (2, 3)
    )
    for k, name in enumerate(("GFN2-xTB", "model")):
        print(
            f"{name}: molecule {bent[k]:+.2f}, pairs {e2[k]:+.2f}, triples {e3[k]:+.2f}, beyond "
            f"{end:g} Å (model's) {tail:+.2f}: {bent[k] + e2[k] + e3[k] + tail:.2f} kJ/mol"
        )
    return slopes


def tell_cell(name: str, lengths: tuple[float, ...]) -> None:
    """Print a cell and its volume."""
    a, b, c = lengths
    print(f"{name}: a {a:.3f}, b {b:.3f}, c {c:.3f} Å, {a * b * c:.1f} Å³", flush=True)


def tell_shells(table: np.ndarray, shells: tuple[float, ...]) -> None:
    """Print what groups of every distance give a molecule, kJ/mol."""
    for size, name in ((2, "pairs"), (3, "triples")):
        for low, high in itertools.pairwise(shells):
            some = table[(table[:, 0] == size) & (table[:, 1] >= low) & (table[:, 1] < high)]
            if len(some):
                theirs, ours = some[:, 2] @ some[:, 3:] / KJ_PER_MOL_EV
                print(
                    f"  {name} of {low:g} to {high:g} Å: {size * some[:, 2].sum():.0f} a molecule, "
                    f"{len(some)} kinds, GFN2-xTB {theirs:+.3f}, model {ours:+.3f} kJ/mol"
                )


if __name__ == "__main__":
    main()
