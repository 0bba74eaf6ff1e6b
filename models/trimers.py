"""Fit what three molecules have beyond their pairs: R and C of models/benzenes.

    python models/trimers.py [DATASET...]

DATASET is of `deltaserver dataset cut --order 3`, of three molecules of a kind; the last fifth of
each trajectory is held out. The dispersion acts between all atoms but hydrogens. Without DATASET,
data/benzene_trimers.npz holds trimers of benzene cut out of clusters (positions_ang [288, 3, 12,
3]) with the energy and forces that GFN2-xTB has beyond those of the three dimers and molecules;
trajectories 4 and 8 are held out. C is linear, one least-squares problem of energies and forces for
every R.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from deltaserver.datasets.files import read_dataset
from deltaserver.model.many.triples import TriplePrior
from deltaserver.model.prior import AtomClass
from deltaserver.units import KCAL_PER_MOL_EV

DATA = Path(__file__).parents[1] / "data" / "benzene_trimers.npz"
ENERGY_WEIGHT = 5.0  # 1/Å: an energy counts as much as so many force components
HELD_OUT = (4, 8)
BENZENE = np.array([6, 1] * 6)


def of_one(radius: float, x: np.ndarray, heavy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return energies and forces, on the heavy atoms alone, of C = 1."""
    n = x.shape[2]
    classes = tuple(AtomClass(f"C{k}", tuple(n * k + heavy)) for k in range(3))
    prior = TriplePrior((n, n, n), classes, {("C0", "C1", "C2"): 1.0}, radius, (8.0, 10.0))
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


def main() -> None:
    x, energy, forces, train, numbers = read(sys.argv[1:])
    heavy = np.flatnonzero(numbers > 1)
    size = float(np.sqrt((energy[~train] ** 2).mean())) / KCAL_PER_MOL_EV
    print(f"held-out labels: {(~train).sum()} trimers, energy RMS {size:.4f} kcal/mol")
    for radius in (2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5):
        e, f = of_one(radius, x, heavy)
        column = np.concatenate([ENERGY_WEIGHT * e[train], f[train].ravel()])
        label = np.concatenate([ENERGY_WEIGHT * energy[train], forces[train].ravel()])
        c = float(column @ label / (column @ column))
        rest = (c * e - energy)[~train] / KCAL_PER_MOL_EV
        pull = (c * f - forces)[~train].sum(axis=2) / KCAL_PER_MOL_EV  # on whole molecules
        rmse, on_molecule = np.sqrt((rest**2).mean()), np.sqrt((pull**2).mean())
        print(
            f"R {radius:.1f} Å  C {c:7.1f} eV Å⁹  energy RMSE {rmse:.4f}, mean {rest.mean():+.4f} "
            f"kcal/mol, force on a molecule RMSE {on_molecule:.4f} kcal/mol/Å"
        )


if __name__ == "__main__":
    main()
