"""Fit what three molecules have beyond their pairs, without a kernel: dispersion and induction.

    python models/trimers.py [DATASET...] [--induction DIMER -o DIRECTORY]

DATASET is of `deltaserver dataset cut --order 3`, of three molecules of a kind; the last fifth of
each trajectory is held out. The dispersion acts between all atoms but hydrogens. Without DATASET,
data/benzene_trimers.npz holds trimers of benzene cut out of clusters (positions_ang [288, 3, 12,
3]) with the energy and forces that GFN2-xTB has beyond those of the three dimers and molecules;
trajectories 4 and 8 are held out. C is linear, one least-squares problem of energies and forces for
every R.

With --induction charge flows in the molecules as well (docs/molecules.md). DIMER is the model
directory of two: its prior has the charges, its fragment the permutations by which pairs of atoms
are alike. C and flows, none of them negative, are fitted together for every R and every s, and
those of the least error of the held-out energies go to DIRECTORY/bindings.yaml:

    deltaserver assemble DIMER DIRECTORY --structure box.xyz --periodic -o MODELS
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

from deltaserver.compute.thread_pool import ONE_THREAD
from deltaserver.datasets.files import read_dataset
from deltaserver.model.composite import CompositeModel
from deltaserver.model.manifest import format_atoms
from deltaserver.model.many.charges import charges_of
from deltaserver.model.many.electrostatics.induction import Induction, Response
from deltaserver.model.many.molecules import Assembled, Total
from deltaserver.model.many.neighbours import find_neighbours
from deltaserver.model.many.switch import Switch
from deltaserver.model.many.triple_block import format_triples
from deltaserver.model.many.triples import TriplePrior
from deltaserver.model.prior import AtomClass
from deltaserver.textio.strict_yaml import dump_yaml
from deltaserver.units import KCAL_PER_MOL_EV

DATA = Path(__file__).parents[1] / "data" / "benzene_trimers.npz"
ENERGY_WEIGHT = 5.0  # 1/Å: an energy counts as much as so many force components
HELD_OUT = (4, 8)
RADII = (2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0)  # R, Å
SMEARED = (0.5, 1.0, 1.5)  # s, Å
TRIPLES_END, INDUCTION_ENDS = (8.0, 10.0), (10.0, 12.0)  # Å between centres
BENZENE = np.array([6, 1] * 6)


Labels = tuple[np.ndarray, np.ndarray]  # energies, eV, and forces, eV/Å


def dispersion(radius: float, n: int, heavy: np.ndarray, c: float = 1.0) -> TriplePrior:
    """Return the potential of three molecules of n atoms."""
    classes = tuple(AtomClass(f"C{k}", tuple((n * k + heavy).tolist())) for k in range(3))
    return TriplePrior((n, n, n), classes, {("C0", "C1", "C2"): c}, radius, TRIPLES_END)


def of_one(radius: float, x: np.ndarray, heavy: np.ndarray) -> Labels:
    """Return energies and forces, on the heavy atoms alone, of C = 1."""
    prior = dispersion(radius, x.shape[2], heavy)
    first, second, third = x[:, :, heavy].transpose(1, 0, 2, 3)
    found = prior.evaluate((first, second, third))
    forces = np.zeros(x.shape)
    forces[:, :, heavy] = found.forces.reshape(len(x), 3, len(heavy), 3)
    return found.energy, forces


def read(paths: list[str]) -> tuple[np.ndarray, ...]:
    """Return positions, energies, forces, which trimers are fitted to, and a molecule's numbers."""
    if not paths:
        data = np.load(DATA, allow_pickle=False)
        x, forces = (data[key].astype(float) for key in ("positions_ang", "forces_ev_per_ang"))
        return x, data["energy_ev"], forces, ~np.isin(data["trajectory"], HELD_OUT), BENZENE
    parts, kinds = [], []
    for path in paths:
        f = read_dataset(path)
        kinds.append(f.numbers.reshape(3, -1) if len(f.numbers) % 3 == 0 else f.numbers[None])
        if f.order != 3 or len(kinds[-1]) != 3 or (kinds[-1] != kinds[0][0]).any():
            raise SystemExit(f"{path}: not cut with --order 3, or not of three molecules of a kind")
        last = np.array([f.step[f.trajectory == k].max() for k in f.trajectory])
        shape = (len(f), 3, -1, 3)
        parts.append((f.positions.reshape(shape), f.binding_energy,
                      f.binding_forces.reshape(shape), f.step < 0.8 * last))  # fmt: skip
    return *(np.concatenate(some) for some in zip(*parts, strict=True)), kinds[0][0]


def rows(labels: Labels, some: np.ndarray) -> np.ndarray:
    """Return energies, so weighted, and forces of some trimers."""
    energy, forces = labels
    return np.concatenate([ENERGY_WEIGHT * energy[some], forces[some].ravel()])


@dataclass(frozen=True)
class Dimer:
    """What the directory of two molecules tells of one.

    Attributes:
        name: of the species.
        charges: of its atoms, e.
        alike: pairs of atoms, those together that a permutation takes to each other.
    """

    name: str
    charges: np.ndarray
    alike: list[list[tuple[int, int]]]

    @classmethod
    def read(cls, directory: Path) -> Dimer:
        model = CompositeModel.load(directory)
        fragment = model.fragments[0]
        n = len(fragment.atoms)
        if model.prior is None or not hasattr(fragment.model, "parameters"):
            raise SystemExit(f"{directory}: no prior between two molecules, which has the charges")
        perms = fragment.model.parameters.perms
        left, alike = set(combinations(range(n), 2)), []
        while left:
            a, b = min(left)
            orbit = {tuple(sorted((int(p[a]), int(p[b])))) for p in perms}
            alike.append(sorted(orbit))
            left -= orbit
        return cls(fragment.name.rstrip("0123456789"), charges_of(model.prior)[:n], alike)

    def induction(
        self, radius: float, flows: list[tuple[list[tuple[int, int]], float]]
    ) -> Induction:
        return Induction((Response.of(self.charges, flows),), radius, Switch(*INDUCTION_ENDS))

    def flowing(self, radius: float, x: np.ndarray) -> Iterator[Labels]:
        """Yield energies and forces of a flow of 1 e/V between the atoms of each kind of pair."""
        for pairs in self.alike:
            one = self.induction(radius, [(pairs, 1.0)])
            energy, forces = np.zeros(len(x)), np.zeros(x.shape)
            for k, three in enumerate(x):
                centres = three.mean(axis=1)
                frame = Assembled((three,), centres, find_neighbours(centres, np.inf), None)
                total = Total.zero(frame)
                one.add(frame, ONE_THREAD, total)
                energy[k], forces[k] = total.energy, total.forces[0]
            yield energy, forces


def tell(labels: Labels, found: Labels, test: np.ndarray) -> tuple[float, str]:
    """Return the RMSE of held-out energies, kcal/mol, and what to print."""
    rest = (found[0] - labels[0])[test] / KCAL_PER_MOL_EV
    pull = (found[1] - labels[1])[test].sum(axis=2) / KCAL_PER_MOL_EV  # on whole molecules
    rmse, on_molecule = np.sqrt((rest**2).mean()), np.sqrt((pull**2).mean())
    return float(rmse), (
        f"energy RMSE {rmse:.4f}, mean {rest.mean():+.4f} kcal/mol, force on a molecule RMSE "
        f"{on_molecule:.4f} kcal/mol/Å"
    )


def combined(columns: list[Labels], labels: Labels, train: np.ndarray) -> tuple[np.ndarray, Labels]:
    """Return coefficients from 0 on that fit best, and the labels that they give."""
    table = np.stack([rows(one, train) for one in columns], axis=1)
    norms = np.linalg.norm(table, axis=0)
    norms[norms == 0.0] = 1.0
    c = nnls(table / norms, rows(labels, train))[0] / norms
    return c, tuple(
        sum(k * one[part] for k, one in zip(c, columns, strict=True)) for part in (0, 1)
    )


def with_induction(
    dimer: Dimer, x: np.ndarray, labels: Labels, train: np.ndarray, heavy: np.ndarray
) -> dict[str, Any]:
    """Fit dispersion and flows together, print how good each is, and return the best's entries."""
    best: tuple[float, dict[str, Any]] = (np.inf, {})
    for radius in SMEARED:
        flowing = list(dimer.flowing(radius, x))
        for r in RADII:
            c, found = combined([*flowing, of_one(r, x, heavy)], labels, train)
            rmse, text = tell(labels, found, ~train)
            flows = [one for one in zip(dimer.alike, map(float, c), strict=False) if one[1] > 0.0]
            print(f"s {radius:.1f} Å  R {r:.1f} Å  C {c[-1]:7.1f} eV Å⁹  flows "
                  f"{', '.join(f'{k:.4f}' for _, k in flows)} e/V  {text}", flush=True)  # fmt: skip
            if rmse < best[0]:
                entry = {
                    "between": [dimer.name] * 3,
                    "prior": format_triples(
                        dispersion(r, x.shape[2], heavy, float(c[-1])), format_atoms
                    ),
                }
                own = {
                    "name": dimer.name,
                    "charges": dimer.charges.tolist(),
                    "flows": [
                        {"between": [list(pair) for pair in pairs], "response": k}
                        for pairs, k in flows
                    ],
                }
                induction = {"radius": radius, "cutoff": list(INDUCTION_ENDS), "species": [own]}
                best = rmse, {"bindings": [entry], "induction": induction}
    return best[1]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", nargs="*")
    parser.add_argument("--induction", type=Path, metavar="DIMER")
    parser.add_argument("-o", "--output", type=Path, default=Path("run/trimers"))
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    x, energy, forces, train, numbers = read(asked.dataset)
    heavy, labels = np.flatnonzero(numbers > 1), (energy, forces)
    size = float(np.sqrt((energy[~train] ** 2).mean())) / KCAL_PER_MOL_EV
    print(f"held-out labels: {(~train).sum()} trimers, energy RMS {size:.4f} kcal/mol")
    for radius in RADII:
        one = of_one(radius, x, heavy)
        column = rows(one, train)
        c = float(column @ rows(labels, train) / (column @ column))
        text = tell(labels, (c * one[0], c * one[1]), ~train)[1]
        print(f"R {radius:.1f} Å  C {c:7.1f} eV Å⁹  {text}")
    if asked.induction is not None:
        found = with_induction(Dimer.read(asked.induction), x, labels, train, heavy)
        asked.output.mkdir(parents=True, exist_ok=True)
        (asked.output / "bindings.yaml").write_text(dump_yaml(found), encoding="utf-8")


if __name__ == "__main__":
    main()
