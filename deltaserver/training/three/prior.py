"""Fit the dispersion of three molecules: C of classes of atoms, and R, to their labels.

C are linear for every R: one least-squares problem of energies and forces, none of them negative
[Lawson and Hanson, Solving Least Squares Problems, SIAM, 1995, chapter 23]. Which atoms take part,
all or those that are no hydrogens, and R are chosen by what is left of validation frames. Å, eV.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.errors import DataError
from deltaserver.model.many.triples import TriplePrior
from deltaserver.model.prior import AtomClass
from deltaserver.training.components import Component
from deltaserver.training.prior_fit import ENERGY_WEIGHT, RIDGE, Classes
from deltaserver.training.three.reach import fade_of

RADII = (3.0, 3.5, 4.0, 4.5, 5.0, 5.5)  # R, Å
HYDROGEN = 1
Names = tuple[str, str, str]


def fit_triples(
    frames: LabelledFrames, available: Sequence[Component], points: Ints, valid: Ints
) -> TriplePrior:
    """Return the potential that fits binding energies and forces of ``points`` best.

    Args:
        frames: labelled, of order 3.
        available: all components, which tell what fragments are alike.
        points: frames that C is fitted to.
        valid: frames that R and the atoms are chosen by; ``points`` where there are none.

    Raises:
        DataError: there are no points.
    """
    if not len(points):
        raise DataError(f"{frames.name}: no frames to fit a prior to")
    judged = valid if len(valid) else points
    cutoff = fade_of(frames, points)
    best: tuple[float, TriplePrior] | None = None
    for grouped in _choices(frames, available):
        for radius in RADII:
            fit = _Fit(frames, grouped, radius, cutoff)
            prior = fit.solve(points)
            left = fit.rows(judged) - fit.column(prior, judged)
            error = float(left @ left)
            if best is None or error < best[0]:
                best = error, prior
    assert best is not None
    return best[1]


def _choices(frames: LabelledFrames, available: Sequence[Component]) -> list[Classes]:
    """Return the classes of all atoms, and those of all but hydrogens where others are there."""
    every = Classes.by_element(frames, available)
    heavy = [frames.numbers[one.atoms[0]] != HYDROGEN for one in every.classes]
    home = [_home(frames, one) for one in every.classes]
    found = [every]
    if (
        not all(heavy)
        and len({k for k, is_heavy in zip(home, heavy, strict=True) if is_heavy}) == 3
    ):
        pairs = zip(every.classes, every.kind, heavy, strict=True)
        kept = [(one, kind) for one, kind, is_heavy in pairs if is_heavy]
        found.append(Classes(tuple(one for one, _ in kept), tuple(kind for _, kind in kept)))
    return found


def _home(frames: LabelledFrames, one: AtomClass) -> int:
    return next(k for k, part in enumerate(frames.fragments) if one.atoms[0] in part.atoms)


class _Fit:
    """Columns of the least-squares problem for one R, and its solution."""

    def __init__(
        self, frames: LabelledFrames, grouped: Classes, radius: float, cutoff: tuple[float, float]
    ) -> None:
        self._frames, self._classes = frames, grouped.classes
        self._radius, self._cutoff = radius, cutoff
        by_home: list[list[int]] = [[], [], []]
        for k, one in enumerate(grouped.classes):
            by_home[_home(frames, one)].append(k)
        self._alike: dict[tuple[str, ...], list[Names]] = {}  # that share their C
        for places in product(*by_home):
            first, second, third = (grouped.classes[k].name for k in places)
            key = tuple(sorted(grouped.kind[k] for k in places))
            self._alike.setdefault(key, []).append((first, second, third))

    def solve(self, points: Ints) -> TriplePrior:
        """Return the potential whose C fit ``points``; terms that do not help are left out."""
        from scipy.optimize import nnls

        units = [self._prior(dict.fromkeys(names, 1.0)) for names in self._alike.values()]
        columns = np.stack([self.column(unit, points) for unit in units], axis=1)
        norms = np.linalg.norm(columns, axis=0)
        norms[norms == 0.0] = 1.0
        q, r = np.linalg.qr(np.vstack([columns / norms, RIDGE * np.eye(len(norms))]))
        y = np.concatenate([self.rows(points), np.zeros(len(norms))])
        found = nnls(r, q.T @ y, maxiter=100 * len(norms))[0] / norms
        return self._prior(
            {
                names: float(c)
                for c, alike in zip(found, self._alike.values(), strict=True)
                for names in alike
                if c > 0.0
            }
        )

    def rows(self, points: Ints) -> Floats:
        """Return the labels as rows: energies, so weighted, and forces."""
        energy, forces = self._frames.binding_energy[points], self._frames.binding_forces[points]
        return np.concatenate([ENERGY_WEIGHT * energy, forces.ravel()])

    def column(self, prior: TriplePrior, points: Ints) -> Floats:
        """Return the same of a potential."""
        found = prior.of_whole(self._frames.positions[points])
        return np.concatenate([ENERGY_WEIGHT * found.energy, found.forces.ravel()])

    def _prior(self, coefficients: dict[Names, float]) -> TriplePrior:
        first, second, third = (len(one.atoms) for one in self._frames.fragments)
        sizes = (first, second, third)
        return TriplePrior(sizes, self._classes, coefficients, self._radius, self._cutoff)
