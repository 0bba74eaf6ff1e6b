"""Fit what is known of three molecules to their labels: dispersion, and induction beside it.

C of classes of atoms are linear for every R, and so are responses κ for every s: one least-squares
problem of energies and forces, none of them negative [Lawson and Hanson, Solving Least Squares
Problems, SIAM, 1995, chapter 23]. Which atoms take part in the dispersion, R and s are chosen by
what is left of validation frames. Å, eV.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.errors import DataError
from deltaserver.model.many.triples import TripleLabels, TriplePrior
from deltaserver.model.prior import AtomClass, Prior
from deltaserver.training.components import Component
from deltaserver.training.prior_fit import ENERGY_WEIGHT, RIDGE, Classes
from deltaserver.training.three.flowing import Flowing
from deltaserver.training.three.reach import fade_of

HYDROGEN = 1
Names = tuple[str, str, str]


@dataclass(frozen=True)
class Menu:
    """What is tried.

    Attributes:
        radii: R, Å.
        smeared: s, Å.
        classes: of atoms: all by element, all but hydrogens by element, these as one class.
        ends: of the dispersion, Å between centres; None: where the points end.
    """

    radii: tuple[float, ...] = (3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5, 7.0)
    smeared: tuple[float, ...] = (0.5, 1.0, 1.5)
    classes: tuple[str, ...] = ("all", "heavy", "one")
    ends: tuple[float, float] | None = None


@dataclass(frozen=True)
class Tried:
    """One combination, with the coefficients that fit best.

    Attributes:
        known: the potential.
        error: the sum of squares, so weighted, that it leaves of the frames it is judged by.
    """

    known: TripleLabels
    error: float


def fit_three(
    frames: LabelledFrames,
    available: Sequence[Component],
    points: Ints,
    valid: Ints,
    flowing: Flowing | None = None,
) -> TripleLabels:
    """Return what fits binding energies and forces of ``points`` best; see :func:`tried`."""
    found = tried(frames, available, (points, valid), flowing)
    return min(found, key=lambda one: one.error).known


def tried(
    frames: LabelledFrames,
    available: Sequence[Component],
    used: tuple[Ints, Ints],
    flowing: Flowing | None = None,
    menu: Menu = Menu(),
) -> Iterator[Tried]:
    """Yield what fits best of every combination of the menu.

    Args:
        frames: labelled, of order 3.
        available: all components, which tell what fragments are alike.
        used: frames that coefficients are fitted to, and those by which R, s and the atoms are to
            be chosen; the former where there are none of the latter.
        flowing: what may flow; None: there is no induction.
        menu: what is tried.

    Raises:
        DataError: there are no points.
    """
    points, judged = used
    if not len(points):
        raise DataError(f"{frames.name}: no frames to fit a prior to")
    rows = _Rows.of(frames, points, judged if len(judged) else points)
    cutoff = menu.ends or fade_of(frames, points)
    flows: list[tuple[float, list[Floats]]] = [(0.0, [])]
    if flowing is not None:
        flows = [(s, [*map(rows.column, flowing.columns(s))]) for s in menu.smeared]
    for grouped in _choices(frames, available, menu.classes):
        for radius in menu.radii:
            dispersion = _Dispersion.of(frames, grouped, radius, cutoff)
            own = [*map(rows.column, dispersion.columns())]
            for s, flown in flows:
                c, error = rows.fit([*own, *flown])
                kappas, induction = c[len(own) :], None
                if flowing is not None and kappas.any():
                    induction = flowing.of(s, kappas.tolist())
                yield Tried(TripleLabels(dispersion.prior(c[: len(own)]), induction), error)


@dataclass(frozen=True)
class _Rows:
    """Frames as rows of the least-squares problem: 1 + 3N of each.

    Attributes:
        frames: all that are used.
        fitted: which of them coefficients are fitted to.
        judged: which of them choose.
    """

    frames: LabelledFrames
    fitted: Ints
    judged: Ints

    @classmethod
    def of(cls, frames: LabelledFrames, points: Ints, judged: Ints) -> _Rows:
        some = np.union1d(points, judged)
        return cls(
            frames.select(some), np.searchsorted(some, points), np.searchsorted(some, judged)
        )

    @cached_property
    def labels(self) -> Floats:
        """The labels: energies, so weighted, and forces, shape (M, 1 + 3N)."""
        return _weighted(self.frames.binding_energy, self.frames.binding_forces)

    def column(self, known: Prior) -> Floats:
        """Return the same of a potential."""
        found = known.evaluate(self.frames.positions)
        return _weighted(found.energy, found.forces)

    def fit(self, columns: Sequence[Floats]) -> tuple[Floats, float]:
        """Return the coefficients that fit best, and the sum of squares left where one judges."""
        table = np.stack(columns, axis=-1)
        c = _solved(table[self.fitted], self.labels[self.fitted])
        left = self.labels[self.judged] - table[self.judged] @ c
        return c, float((left**2).sum())


def _weighted(energy: Floats, forces: Floats) -> Floats:
    return np.concatenate([ENERGY_WEIGHT * energy[:, None], forces.reshape(len(energy), -1)], 1)


def _solved(table: Floats, labels: Floats) -> Floats:
    """Return the coefficients from 0 on of columns (M, R, K) that fit rows (M, R) best."""
    from scipy.optimize import nnls

    columns = table.reshape(-1, table.shape[-1])
    norms = np.linalg.norm(columns, axis=0)
    norms[norms == 0.0] = 1.0
    q, r = np.linalg.qr(np.vstack([columns / norms, RIDGE * np.eye(len(norms))]))
    y = np.concatenate([labels.ravel(), np.zeros(len(norms))])
    found: Floats = nnls(r, q.T @ y, maxiter=100 * len(norms))[0] / norms
    return found


def _choices(
    frames: LabelledFrames, available: Sequence[Component], wanted: Sequence[str]
) -> list[Classes]:
    """Return the classes that are wanted, those that are others' once.

    Hydrogens are left out only where all three molecules have other atoms.
    """
    every = Classes.by_element(frames, available)
    is_heavy = [frames.numbers[one.atoms[0]] != HYDROGEN for one in every.classes]
    home = [_home(frames, one) for one in every.classes]
    heavy = every
    if len({k for k, kept in zip(home, is_heavy, strict=True) if kept}) == 3:
        heavy = _some(every, is_heavy)
    found: dict[str, Classes] = {"all": every, "heavy": heavy, "one": _as_one(frames, heavy)}
    kept: list[Classes] = []
    for name in wanted:
        atoms = [one.atoms for one in found[name].classes]
        if atoms not in [[one.atoms for one in known.classes] for known in kept]:
            kept.append(found[name])
    return kept


def _some(every: Classes, kept: Sequence[bool]) -> Classes:
    pairs = zip(every.classes, every.kind, kept, strict=True)
    some = [(one, kind) for one, kind, is_kept in pairs if is_kept]
    return Classes(tuple(one for one, _ in some), tuple(kind for _, kind in some))


def _as_one(frames: LabelledFrames, grouped: Classes) -> Classes:
    """Return all classes of a molecule as one of it."""
    classes, kind = [], []
    for k, fragment in enumerate(frames.fragments):
        own = [n for n, one in enumerate(grouped.classes) if _home(frames, one) == k]
        atoms = sorted(atom for n in own for atom in grouped.classes[n].atoms)
        classes.append(AtomClass(fragment.name, tuple(atoms)))
        kind.append(" ".join(sorted(grouped.kind[n] for n in own)))
    return Classes(tuple(classes), tuple(kind))


def _home(frames: LabelledFrames, one: AtomClass) -> int:
    return next(k for k, part in enumerate(frames.fragments) if one.atoms[0] in part.atoms)


@dataclass(frozen=True)
class _Dispersion:
    """The dispersion of one R, by classes.

    Attributes:
        empty: without any C.
        alike: names of classes that share their C.
    """

    empty: TriplePrior
    alike: tuple[tuple[Names, ...], ...]

    @classmethod
    def of(
        cls, frames: LabelledFrames, grouped: Classes, radius: float, cutoff: tuple[float, float]
    ) -> _Dispersion:
        by_home: list[list[int]] = [[], [], []]
        for k, one in enumerate(grouped.classes):
            by_home[_home(frames, one)].append(k)
        alike: dict[tuple[str, ...], list[Names]] = {}
        for places in product(*by_home):
            first, second, third = (grouped.classes[k].name for k in places)
            key = tuple(sorted(grouped.kind[k] for k in places))
            alike.setdefault(key, []).append((first, second, third))
        first_, second_, third_ = (len(one.atoms) for one in frames.fragments)
        empty = TriplePrior((first_, second_, third_), grouped.classes, {}, radius, cutoff)
        return cls(empty, tuple(tuple(names) for names in alike.values()))

    def columns(self) -> list[TripleLabels]:
        """Return the potential of each C of 1 eV Å⁹ by itself."""
        return [TripleLabels(self.prior(unit)) for unit in np.eye(len(self.alike))]

    def prior(self, coefficients: Floats) -> TriplePrior:
        """Return the potential of every C; terms that do not help are left out."""
        known = {
            names: float(c)
            for c, alike in zip(coefficients, self.alike, strict=True)
            for names in alike
            if c > 0.0
        }
        one = self.empty
        return TriplePrior(one.sizes, one.classes, known, one.radius, one.cutoff)
