"""Fit the prior, a pair potential between the fragments, to binding energies and forces.

Walls and attractions are linear in their coefficients, which must not be negative: one
least-squares problem [Lawson and Hanson, Solving Least Squares Problems, SIAM, 1995, chapter 23].
Charges are bilinear: those of one fragment are linear once the other's are fixed, so that they
take turns, each fragment keeping the charge that the dataset states. Of two neutral ones the data
know the products alone: both are made as large. Å, eV, e.

Where labels say that energies do not vanish far apart, because the reference method leaves a part
of an electron with the wrong fragment, a constant E_∞ ≤ 0 and a charge that has passed over can be
fitted too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.coverage import shortest_distances
from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
from deltaserver.errors import DataError
from deltaserver.model.fragment_blocks import owner_of
from deltaserver.model.many.electrostatics.charge_sets import share
from deltaserver.model.prior import AtomClass, Attraction, PairPrior, PairTerms, Wall
from deltaserver.molecules.elements import SYMBOLS
from deltaserver.training.components import Component, fragment_symmetry

Asymptote = Literal["zero", "fitted"]

DECAYS = (3.0, 3.6, 4.2)  # 1/Å
DISPERSION = ((6, 2.5), (8, 3.0))  # n and R, Å
INDUCTION = (4, 2.0)  # with an ion
ENERGY_WEIGHT = 5.0  # 1/Å: an energy counts as much as so many force components
FAR_WEIGHT = 30.0  # of far frames: nothing else than the prior will act there
TURNS = 12  # of charges
FRAMES = 200  # that are enough for some tens of coefficients
RIDGE = 1e-4  # of a column's norm: what the data leave open stays small
CHARGE_WEIGHT = 1e3  # of the sum of charges, relative to the columns
FAR_ANG, NOT_NOTHING_EV = 8.0, 0.05
PASSED_OVER = (-0.4, -0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3, 0.4)  # e, from the first fragment


@dataclass(frozen=True)
class _Kind:
    """One function of the distance, with the coefficient 1."""

    wall: float | None = None
    power: int = 0
    radius: float = 0.0

    def term(self, coefficient: float) -> PairTerms:
        if self.wall is not None:
            return PairTerms(walls=(Wall(self.wall, coefficient),))
        return PairTerms(attractions=(Attraction(self.power, self.radius, coefficient),))


@dataclass(frozen=True)
class Classes:
    """Classes of equivalent atoms, and which of them are alike in identical fragments.

    Attributes:
        classes: every atom is in one.
        kind: of each class; those of one kind share their coefficients.
    """

    classes: tuple[AtomClass, ...]
    kind: tuple[str, ...]

    @classmethod
    def by_element(cls, frames: LabelledFrames, available: Sequence[Component]) -> Classes:
        """Make one class of every element of every fragment."""
        return cls._of(frames, available, lambda numbers, _: numbers)

    @classmethod
    def by_orbit(cls, frames: LabelledFrames, available: Sequence[Component], cap: int) -> Classes:
        """Make one class of every orbit of each fragment's bonded graph."""

        def orbits(numbers: Ints, first: FragmentSpec) -> Ints:
            if len(numbers) == 1:
                return numbers
            label: Ints = fragment_symmetry(frames, first, cap).perms.min(axis=0)
            return label

        return cls._of(frames, available, orbits)

    @classmethod
    def _of(
        cls,
        frames: LabelledFrames,
        available: Sequence[Component],
        labels: Callable[[Ints, FragmentSpec], Ints],
    ) -> Classes:
        classes, kind = [], []
        for component in available:
            for member, atoms in zip(component.members, component.atoms, strict=False):
                some = np.array(atoms)
                first = frames.fragments[component.members[0]]
                label = labels(frames.numbers[np.array(first.atoms)], first)
                for k, value in enumerate(np.unique(label)):
                    own = tuple(int(i) for i in some[label == value])
                    symbol = f"{SYMBOLS[frames.numbers[own[0]]]}{k + 1}"
                    classes.append(AtomClass(f"{frames.fragments[member].name}-{symbol}", own))
                    kind.append(f"{component.name}-{symbol}")
        return cls(tuple(classes), tuple(kind))


def fit_prior(
    frames: LabelledFrames, points: Ints, classes: Classes, asymptote: Asymptote = "zero",
    most: int = FRAMES,
) -> PairPrior:  # fmt: skip
    """Return the potential that fits binding energies and forces of ``points`` best.

    Args:
        frames: labelled, of all points.
        points: which of them are fitted to.
        classes: of equivalent atoms.
        asymptote: ``"zero"``: fragments far apart have their own charges and no energy;
            ``"fitted"``: what the labels say, between two fragments.
        most: points that are looked at, of those near each other and of those far.

    Raises:
        DataError: there are no points, or other than two fragments whose asymptote is fitted.
    """
    if not len(points):
        raise DataError(f"{frames.name}: no frames to fit a prior to")
    gaps = shortest_distances(frames.select(points))
    near, far = points[gaps <= FAR_ANG], points[gaps > FAR_ANG]
    near, far = (_thinned(some, most) for some in (near, far))
    weight = np.repeat([1.0, FAR_WEIGHT], [len(near), len(far)])
    points = np.concatenate([near, far])
    if asymptote == "zero":
        return _Fit(frames, points, weight, classes).solve()
    if len(frames.fragments) != 2:
        raise DataError(
            f"{frames.name}: an asymptote is fitted between two fragments; "
            f"here are {len(frames.fragments)}"
        )
    fits = [_Fit(frames, points, weight, classes, (q, -q)) for q in PASSED_OVER]
    return min((fit.solve() for fit in fits), key=fits[0].error)


def energy_far_apart(frames: LabelledFrames, points: Ints) -> float:
    """Return the mean binding energy (eV) of frames whose fragments are far apart.

    It is 0 where there are none, and where charges of two fragments or more still act.
    """
    if sum(fragment.charge != 0 for fragment in frames.fragments) > 1:
        return 0.0
    some = frames.select(points)
    far = shortest_distances(some) > FAR_ANG
    return float(some.binding_energy[far].mean()) if far.any() else 0.0


def say_what_is_far_apart(frames: LabelledFrames, points: Ints, say: Callable[[str], None]) -> None:
    """Tell if labels do not vanish where the prior does."""
    energy = energy_far_apart(frames, points)
    if abs(energy) > NOT_NOTHING_EV:
        say(
            f"binding: fragments over {FAR_ANG:g} Å apart still have a binding energy of "
            f"{energy:.2f} eV in the labels, none in the model; --prior pairs-limit follows them"
        )


def choose_prior(
    frames: LabelledFrames,
    available: Sequence[Component],
    train: Ints,
    valid: Ints,
    cap: int,
    asymptote: Asymptote = "zero",
    most: int = FRAMES,
) -> PairPrior:
    """Return the better of two priors on validation frames: by elements, or by orbits."""
    by_element = Classes.by_element(frames, available)
    by_orbit = Classes.by_orbit(frames, available, cap)
    chosen = [by_element]
    if len(by_orbit.classes) > len(by_element.classes):
        chosen.append(by_orbit)
    fitted = [fit_prior(frames, train, classes, asymptote, most) for classes in chosen]
    if len(fitted) == 1 or not len(valid):
        return fitted[0]

    def error(prior: PairPrior) -> float:
        predicted = prior.evaluate(frames.positions[valid]).forces
        return float(np.abs(predicted - frames.binding_forces[valid]).mean())

    return min(fitted, key=error)


class _Fit:
    """Columns of the least-squares problem, and its solution.

    Args:
        frames: labelled.
        points: which of them count.
        weight: how much each of these counts.
        grouped: classes of equivalent atoms.
        passed: charge that has passed to every fragment, and there is E_∞; None: neither.
    """

    def __init__(
        self,
        frames: LabelledFrames,
        points: Ints,
        weight: Floats,
        grouped: Classes,
        passed: tuple[float, ...] | None = None,
    ) -> None:
        self.frames, self.classes, self.kind = frames, grouped.classes, grouped.kind
        classes = self.classes
        self.has_limit = passed is not None
        stated = [fragment.charge for fragment in frames.fragments]
        self.charge = np.add(stated, 0.0 if passed is None else passed)
        self.positions = frames.positions[points]
        self.weight = weight
        self.y = self._rows(frames.binding_energy[points], frames.binding_forces[points])
        self.fragment = owner_of([one.atoms for one in frames.fragments])
        self.home = [int(self.fragment[one.atoms[0]]) for one in classes]
        self.pairs: dict[tuple[str, ...], list[tuple[int, int]]] = {}  # alike ones together
        for a, b in combinations(range(len(classes)), 2):
            if self.home[a] != self.home[b]:
                key = tuple(sorted((self.kind[a], self.kind[b])))
                self.pairs.setdefault(key, []).append((a, b))
        self.kinds = [_Kind(wall=decay) for decay in DECAYS]
        self.kinds += [_Kind(power=n, radius=radius) for n, radius in DISPERSION]

    def solve(self) -> PairPrior:
        columns, what = self._columns()
        charges = self._start_charges()
        coefficients = _solve(columns, self.y - self._coulomb(charges))[0]
        if self._charged():
            for _ in range(TURNS):
                charges, coefficients = self._turn(charges, columns)
            charges = self._balanced(charges)
            coefficients = _solve(columns, self.y - self._coulomb(charges))[0]
        terms: dict[tuple[str, str], PairTerms] = {}
        limit = -float(coefficients[-1]) if self.has_limit else 0.0
        for (alike, kind), coefficient in zip(what, coefficients[: len(what)], strict=True):
            for names in map(self._names, alike if coefficient > 0.0 else ()):
                known, more = terms.get(names, PairTerms()), kind.term(float(coefficient))
                terms[names] = PairTerms(
                    known.walls + more.walls, known.attractions + more.attractions
                )
        return PairPrior(self.fragment, self._with(charges), terms, limit)

    def error(self, prior: PairPrior) -> float:
        """Return the sum of squares that a prior leaves of the points."""
        return float(((self.y - self._column(prior)) ** 2).sum())

    def _names(self, pair: tuple[int, int]) -> tuple[str, str]:
        return self.classes[pair[0]].name, self.classes[pair[1]].name

    def _columns(self) -> tuple[Floats, list[tuple[list[tuple[int, int]], _Kind]]]:
        columns, what = [], []
        for alike in self.pairs.values():
            for kind in (*self.kinds, *self._induction(alike[0])):
                terms = {names: kind.term(1.0) for names in map(self._names, alike)}
                columns.append(self._column(PairPrior(self.fragment, self.classes, terms)))
                what.append((alike, kind))
        if self.has_limit:
            columns.append(self._column(PairPrior(self.fragment, self.classes, {}, -1.0)))
        return np.stack(columns, axis=1), what

    def _induction(self, pair: tuple[int, int]) -> list[_Kind]:
        """Return −1/r⁴ where one of the two is of an ion."""
        charged = any(self.charge[self.home[k]] for k in pair)
        return [_Kind(power=INDUCTION[0], radius=INDUCTION[1])] if charged else []

    def _column(self, prior: PairPrior) -> Floats:
        found = prior.evaluate(self.positions)
        return self._rows(found.energy, found.forces)

    def _rows(self, energy: Floats, forces: Floats) -> Floats:
        weighted = self.weight[:, None, None] * forces
        return np.concatenate([ENERGY_WEIGHT * self.weight * energy, weighted.ravel()])

    def _coulomb(self, charges: Floats) -> Floats:
        if not charges.any():
            return np.zeros_like(self.y)
        return self._column(PairPrior(self.fragment, self._with(charges), {}))

    def _with(self, charges: Floats) -> tuple[AtomClass, ...]:
        return tuple(
            AtomClass(one.name, one.atoms, float(q))
            for one, q in zip(self.classes, charges, strict=True)
        )

    def _charged(self) -> bool:
        """Return whether any fragment could have charges on its atoms."""
        counts = np.bincount(self.home)
        return bool((counts > 1).any() or self.charge.any())

    def _start_charges(self) -> Floats:
        """Spread each fragment's charge evenly, but H, or else the first class, more positive.

        From no charges at all none would be found: those of one fragment act on the other's alone.
        """
        charges = np.zeros(len(self.classes))
        for k, charge in enumerate(self.charge):
            own = [c for c, home in enumerate(self.home) if home == k]
            sizes = np.array([len(self.classes[c].atoms) for c in own], dtype=float)
            first = [self.frames.numbers[self.classes[c].atoms[0]] for c in own]
            hydrogen = np.array(first) == 1
            mixed = hydrogen.any() and not hydrogen.all()
            positive = hydrogen if mixed else np.arange(len(own)) == 0
            guess = np.where(positive, 0.1, -0.1)
            guess += (charge - sizes @ guess) / sizes.sum()
            charges[own] = guess
        return charges

    def _turn(self, charges: Floats, columns: Floats) -> tuple[Floats, Floats]:
        """Solve for one fragment's charges after the other's, with all other coefficients."""
        coefficients = np.zeros(columns.shape[1])
        for k, charge in enumerate(self.charge):
            own = [c for c, home in enumerate(self.home) if home == k]
            sizes = np.array([len(self.classes[c].atoms) for c in own], dtype=float)
            if len(own) == 1:
                charges[own] = charge / sizes
                continue
            others = charges.copy()
            others[own] = 0.0
            base = self._coulomb(others)  # among the others, of three fragments or more
            units = []
            for c in own:
                unit = others.copy()
                unit[c] = 1.0
                units.append(self._coulomb(unit) - base)
            total = _Total(np.stack(units, axis=1), sizes, float(charge))
            coefficients, charges[own] = _solve(columns, self.y - base, total)
        kinds = np.unique(self.kind, return_inverse=True)[1]
        alike: Floats = (np.bincount(kinds, charges) / np.bincount(kinds))[kinds]
        return alike, coefficients

    def _balanced(self, charges: Floats) -> Floats:
        """Return charges whose products are the same, of two neutral fragments as large."""
        first = np.array(self.home) == 0
        alike = set(np.array(self.kind)[first]) & set(np.array(self.kind)[~first])
        if len(self.charge) != 2 or self.charge.any() or alike:
            return charges
        by_atom = charges * np.sqrt([len(one.atoms) for one in self.classes])
        factor = share(by_atom[first], by_atom[~first])
        return np.where(first, charges * factor, charges / factor)


@dataclass(frozen=True)
class _Total:
    """Charges to be solved for: their columns, how many atoms have each, and their sum."""

    columns: Floats
    sizes: Floats
    charge: float


def _thinned(points: Ints, most: int) -> Ints:
    kept: Ints = points[np.linspace(0, len(points) - 1, min(len(points), most)).astype(int)]
    return kept


def _solve(columns: Floats, y: Floats, free: _Total | None = None) -> tuple[Floats, Floats]:
    """Solve |columns c + free q − y| → min for c ≥ 0 and charges q of a given sum.

    Columns at norm 1, a little of |c|² is added; a charge is the difference of two that are not
    negative.
    """
    from scipy.optimize import nnls

    n = columns.shape[1]
    matrix = columns if free is None else np.hstack([columns, free.columns, -free.columns])
    norms = np.linalg.norm(matrix, axis=0)
    norms[norms == 0.0] = 1.0
    rows, aims = [matrix / norms, RIDGE * np.eye(len(norms))], [y, np.zeros(len(norms))]
    if free is not None:
        weight = CHARGE_WEIGHT * max(1.0, float(np.linalg.norm(y)))
        signed = np.concatenate([np.zeros(n), free.sizes, -free.sizes])
        rows.append(weight * signed[None] / norms)
        aims.append(np.array([weight * free.charge]))
    # Of the tall problem only its triangle matters.
    q, r = np.linalg.qr(np.vstack(rows))
    found, _ = nnls(r, q.T @ np.concatenate(aims), maxiter=100 * len(norms))
    found /= norms
    if free is None:
        return found, np.zeros(0)
    charges = found[n : n + len(free.sizes)] - found[n + len(free.sizes) :]
    charges += (free.charge - free.sizes @ charges) / free.sizes.sum()
    return found[:n], charges
