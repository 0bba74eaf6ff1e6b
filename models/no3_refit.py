"""Fit the linear expansion of the shipped NO3⁻ binding anew, beside its kernel.

    python models/no3_refit.py run/merged/no3_refit models/no3_corona_surrogate [far]

The kernel has some hundred points (models/train.sh, models/no3_kernel.py). The expansion beside it
gains from all frames that there are: of models' own dynamics, of hot and cold hosts, of hosts that
move alone. Molecules that were put together anew count less than those that dynamics brought
together, and frames that an earlier model's dynamics led to, where it was wrong by 0.5 to 1.5 eV,
count twice. Some ten minutes.

The kernel's own energy drifts far away: 0.06 eV from 8 to 20 Å. So sites have 1/r there too, and a
second fit, to what the first leaves of all frames more than 6 Å apart and some of the others,
brings a constant and functions that vary between 5 and 20 Å alone. `far` does that step alone. The
uncertainty is calibrated then, on frames that nothing was fitted to.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml

from deltaserver import CompositeModel
from deltaserver.datasets.coverage import shortest_distances
from deltaserver.datasets.files import read_dataset
from deltaserver.model.files.archive import read_arrays, write_arrays
from deltaserver.model.linear.expansion import Together
from deltaserver.model.linear.radials import Radials
from deltaserver.model.sgdml import Evaluation, SGDMLModel, concatenate
from deltaserver.textio.journal import write_atomically
from deltaserver.training.components import LabelledSet, components, labelled_set, without_prior
from deltaserver.training.linear.embedding_terms import DECAYS
from deltaserver.training.linear.fit import linear_fit
from deltaserver.training.linear.frame_weights import FrameWeights
from deltaserver.training.linear.refit import refit_sites
from deltaserver.training.linear.site_fit import ENERGY_WEIGHT, SiteFit, weight_on_the_wall
from deltaserver.training.symmetry import DEFAULT_CAP
from deltaserver.training.uncertainty.directory import Checked, with_uncertainty
from deltaserver.units import KCAL_PER_MOL_EV

HELD_OUT = (4, 5, 9, 13, 17)
N_VALID = 300
NAME = "no3_corona_surrogate"
WEIGHTS = {  # of datasets; all others are of dynamics, and count 1
    **{f"{NAME}_{one}": 0.3 for one in ("around", "apart", "placed", "contacts", "cold", "alone")},
    f"{NAME}_still": 0.5,
    f"{NAME}_met": 2.0,
}
BATCH = 50
RADIALS = Radials(DECAYS, ((1, 3.0), (6, 2.5), (8, 3.0)))
FAR_ANG, FAR_WEIGHT = 8.0, 1.0  # from this gap on frames count no less, of whatever dataset
DRIFT = (2, 12.0)  # n and R of −1/(rⁿ + Rⁿ): flat below 5 Å
DRIFT_ANG, DRIFT_WEIGHT, DRIFT_RIDGE = 6.0, 2.0, 1e-6
NEARER = 1200  # frames that keep the correction away from contact


def datasets(merged: Path) -> Iterator[tuple[str, list[int]]]:
    """Yield what follows :data:`NAME` in each merged dataset's name, and its trajectories."""
    provenance = yaml.safe_load((merged / "dataset.yaml").read_text())["provenance"]
    for source in provenance["merged"]:
        name = source["dataset"].removeprefix(NAME).removeprefix("_")
        yield name, list(source["trajectories"].values())


def progress(steps: int) -> Callable[[str, float], None]:
    """Return what prints each stage's progress so many times at most."""
    said = set()

    def tell(what: str, fraction: float) -> None:
        if (step := (what.split(";")[0], int(steps * fraction))) not in said:
            said.add(step)
            print(f"{what}: {fraction:.0%}", flush=True)

    return tell


def of_kernel(model: CompositeModel, x: np.ndarray) -> Evaluation:
    """Return what the kernel of the binding says, without its expansion; eV."""
    alone = SGDMLModel(replace(model.binding.parameters, linear=None), model.binding.native)
    return concatenate([alone.evaluate(x[k : k + BATCH]) for k in range(0, len(x), BATCH)])


def problem(
    merged: Path, model: CompositeModel
) -> tuple[SiteFit, LabelledSet, np.ndarray, np.ndarray]:
    """Return the fit, and of binding labels as they are how far apart they are, Å, and count."""
    frames = read_dataset(merged)
    available = components(frames)
    binding = next(one for one in available if one.name == "binding")
    labels = labelled_set(frames, binding)
    trajectory = frames.trajectory[labels.frame]
    counts = FrameWeights.read(merged, WEIGHTS).of(trajectory)
    gap = shortest_distances(frames)[labels.frame]
    counts[gap > FAR_ANG] = np.maximum(counts[gap > FAR_ANG], FAR_WEIGHT)
    data = without_prior(labels, model.prior)
    free = np.flatnonzero(~np.isin(trajectory, HELD_OUT))
    valid = np.sort(np.random.default_rng(1).choice(free, N_VALID, replace=False))
    train = np.setdiff1d(free, valid)
    fit = linear_fit(frames, available, binding, data, train, valid, DEFAULT_CAP, limit=True)
    return replace(fit, weight=counts * fit.weight, radials=RADIALS), labels, gap, counts


def refit(fit: SiteFit, model: CompositeModel, path: Path) -> None:
    """Write another expansion beside the kernel."""

    def kernel(x: np.ndarray):
        found = of_kernel(model, x)
        energy, forces = found.energy / KCAL_PER_MOL_EV, found.forces / KCAL_PER_MOL_EV
        return replace(found, energy=energy, forces=forces)

    expansion = refit_sites(fit, kernel, progress(10))
    write_arrays(path, {**read_arrays(path), **expansion.arrays()})


def take_drift(
    fit: SiteFit, labels: LabelledSet, gap: np.ndarray, counts: np.ndarray,
    model: CompositeModel, path: Path,
) -> None:  # fmt: skip
    """Write the expansion with functions of all pairs of sites, and a constant, that act afar."""
    is_away = gap[fit.train] > DRIFT_ANG
    away, nearer = fit.train[is_away], fit.train[~is_away]
    some = np.random.default_rng(5).choice(nearer, NEARER, replace=False)
    picked = np.concatenate([away, some])
    weight = counts[picked] * weight_on_the_wall(labels.energy[picked])
    weight[gap[picked] > FAR_ANG] = DRIFT_WEIGHT
    weight[len(away) :] *= np.sqrt(len(nearer) / NEARER)
    alone = replace(
        fit, radials=Radials((), (DRIFT,)), embedding=None, products=None, limit=None
    )  # fmt: skip
    a, y = 0.0, 0.0
    for frame, counted in zip(picked, weight, strict=True):
        x = labels.positions[frame]
        known = model.evaluate(x, "binding")
        left = (labels.energy[frame] - known.energy) / KCAL_PER_MOL_EV
        pulls = (labels.forces[frame] - known.forces).ravel() / KCAL_PER_MOL_EV
        energy, forces = alone.rows(x)
        forces = np.column_stack([forces, np.zeros(len(forces))])  # of the constant
        rows = counted * np.vstack([ENERGY_WEIGHT * np.append(energy, 1.0), forces])
        a, y = a + rows.T @ rows, y + rows.T @ (counted * np.append(ENERGY_WEIGHT * left, pulls))
    ridge = np.full(len(y), DRIFT_RIDGE * np.trace(a[:-1, :-1]) / (len(y) - 1))
    ridge[-1] = 0.0
    *found, constant = np.linalg.solve(a + np.diag(ridge), y)
    sites, *others = model.binding.parameters.linear.parts
    more = alone.expansion(np.array(found)).coefficients
    radials, coefficients = sites.radials, sites.coefficients
    if radials.powers[-1] == DRIFT:
        coefficients = np.concatenate([coefficients[:-1], coefficients[-1:] + more])
    else:
        radials = Radials(radials.decays, (*radials.powers, DRIFT))
        coefficients = np.concatenate([coefficients, more])
    sites = replace(sites, radials=radials, coefficients=coefficients)
    arrays = read_arrays(path)  # in kcal/mol
    arrays["c"] = arrays["c"] + constant
    write_arrays(path, {**arrays, **Together((sites, *others)).arrays()})


def main(merged: Path, directory: Path, only: str = "") -> None:
    """Write ``binding.npz`` of ``directory`` with another expansion."""
    path = directory / "binding.npz"
    fit, labels, gap, counts = problem(merged, CompositeModel.load(directory))
    if only != "far":
        refit(fit, CompositeModel.load(directory), path)
    take_drift(fit, labels, gap, counts, CompositeModel.load(directory), path)
    checked = Checked(fit.data, fit.valid, CompositeModel.load(directory).prior)
    write_atomically(path, with_uncertainty(path, checked)[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
