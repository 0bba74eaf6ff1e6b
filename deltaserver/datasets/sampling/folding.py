"""Geometries in which a molecule touches itself: no dynamics at a temperature of interest does.

What atoms of one molecule do to each other that no chain of three bonds joins is learned from
frames, and few frames have them near each other. A model that has not seen it has no wall there:
two hydrogens of rings that fold together, at 1.7 Å, were bound by 110 kcal/mol, and a molecule that
came so near once was lost. So two such atoms are pulled together by a spring, in dynamics of a
cheap method, and the frame is taken where they are near. Every two elements come equally often.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from deltaserver.arrays import Bools, Floats, Ints
from deltaserver.datasets.calculators import (
    calculator_factory,
    fitting_threads,
    molecule,
    nominal_charges,
    nominal_spins,
    reason_of,
)
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.datasets.geometries import unreacted
from deltaserver.errors import DataError, InputError
from deltaserver.molecules.bonds import bonds_between

BONDS_APART = 3  # what is joined by as few is a bond, an angle or a torsion
WITHIN_ANG = 4.5  # of each other at the start
NEAR = (0.5, 0.85)  # of the van der Waals radii's sum: what is pulled to
FORCE_EV_ANG, SPRING_EV_ANG2 = 3.0, 30.0  # of the spring, at most
STEPS, STAGES = 20, 25  # of 0.5 fs; the spring is set anew at every stage
ARRIVED_ANG = 0.12  # from what is pulled to
ATTEMPTS = 20  # from other frames, of one geometry
RADIUS_ANG = 2.0  # van der Waals, of elements of which ASE knows none


@dataclass(frozen=True)
class FoldPlan:
    """So many geometries, by dynamics of a method at temperatures (K) in turn, and a seed."""

    count: int
    calculator: str
    temperatures: tuple[float, ...]
    seed: int = 0


def folded(
    frames: LabelledFrames,
    some: Ints,
    plan: FoldPlan,
    on_geometry: Callable[[int], None] = lambda done: None,
) -> Floats:
    """Return geometries (count, N, 3), Å, each with two atoms of one molecule pressed together.

    Args:
        frames: that they begin from.
        some: which of them.
        plan: how many, and by what.
        on_geometry: called after each with how many there are.

    Raises:
        InputError: there are no frames, or no molecule that could fold.
        DataError: the calculator fails, or the molecules react, time and again.
    """
    if not len(some):
        raise InputError(f"{frames.name}: no frames are left to begin from")
    apart = far_along_bonds(frames, int(some[0]))
    if not apart.any():
        raise InputError(
            f"{frames.name}: no molecule has atoms that are more than {BONDS_APART} bonds apart"
        )
    result = np.empty((plan.count, len(frames.numbers), 3))
    for k in range(plan.count):
        result[k] = _one(frames, some, apart, plan, k)
        on_geometry(k + 1)
    return result


def far_along_bonds(frames: LabelledFrames, frame: int) -> Bools:
    """Return which atoms of one molecule are more than three bonds apart in a frame, (N, N)."""
    n, found = len(frames.numbers), np.zeros((len(frames.numbers),) * 2, dtype=bool)
    for fragment in frames.fragments:
        atoms = np.array(fragment.atoms)
        i, j = bonds_between(frames.numbers, frames.positions[frame], atoms)
        bonded = np.eye(n, dtype=np.int64)
        bonded[i, j] = bonded[j, i] = 1
        near = np.linalg.matrix_power(bonded, BONDS_APART) > 0
        found[np.ix_(atoms, atoms)] = ~near[np.ix_(atoms, atoms)]
    return found


def _one(frames: LabelledFrames, some: Ints, apart: Bools, plan: FoldPlan, k: int) -> Floats:
    rng = np.random.default_rng([plan.seed, k])
    reason = "its molecules react"
    for _ in range(ATTEMPTS):
        start = frames.positions[rng.choice(some)]
        pair = draw_pair(frames.numbers, start, apart, rng)
        if pair is None:
            reason = f"no two atoms that could touch are within {WITHIN_ANG:g} Å"
            continue
        temperature = plan.temperatures[k % len(plan.temperatures)]
        try:
            x = _pressed(frames, start, pair, plan.calculator, temperature, rng)
        except Exception as error:  # calculators raise what they like
            reason = reason_of(error)
            continue
        finite = np.isfinite(x).all()
        if finite and unreacted(frames.numbers, x[None], frames.fragments, start)[0]:
            return x
    raise DataError(
        f"geometry {k}: none came of {ATTEMPTS} attempts ({reason}); another --calculator may help"
    )


def draw_pair(
    numbers: Ints, x: Floats, apart: Bools, rng: np.random.Generator
) -> tuple[int, int] | None:
    """Return two atoms that may be pulled together; None where no two are near enough.

    Two elements are drawn first, then a pair of them: hydrogens meet, and are few.
    """
    distance = np.linalg.norm(x[:, None] - x, axis=-1)
    i, j = np.nonzero(np.triu(apart & (distance < WITHIN_ANG)))
    if not len(i):
        return None
    elements = np.sort(np.column_stack([numbers[i], numbers[j]]), axis=1)
    kinds, of = np.unique(elements, axis=0, return_inverse=True)
    k = rng.choice(np.flatnonzero(of.ravel() == rng.integers(len(kinds))))
    return int(i[k]), int(j[k])


def _pressed(
    frames: LabelledFrames,
    start: Floats,
    pair: tuple[int, int],
    calculator: str,
    temperature: float,
    rng: np.random.Generator,
) -> Floats:
    """Return where dynamics from ``start`` (N, 3) has two atoms pulled together."""
    from ase import units
    from ase.constraints import Hookean
    from ase.md.langevin import Langevin

    n = len(frames.numbers)
    charges, spins = (f(n, frames.fragments) for f in (nominal_charges, nominal_spins))
    atoms = molecule(frames.numbers, start, charges, spins)
    atoms.calc = calculator_factory(calculator)(atoms.copy())
    spread = np.sqrt(atoms.get_masses() * units.kB * temperature)[:, None]
    atoms.set_momenta(rng.standard_normal((n, 3)) * spread)
    aim = rng.uniform(*NEAR) * sum(_radius(int(frames.numbers[k])) for k in pair)
    with warnings.catch_warnings(), fitting_threads(n):
        warnings.simplefilter("ignore", FutureWarning)
        dynamics = Langevin(
            atoms, 0.5 * units.fs, temperature_K=temperature, friction=0.01 / units.fs,
            fixcm=False, rng=rng,
        )  # fmt: skip
        for _ in range(STAGES):
            left = float(atoms.get_distance(*pair)) - aim
            if left < ARRIVED_ANG:
                break
            atoms.set_constraint(Hookean(*pair, min(SPRING_EV_ANG2, FORCE_EV_ANG / left), aim))
            dynamics.run(STEPS)
    x: Floats = atoms.positions
    return x


def _radius(number: int) -> float:
    from ase.data import vdw_radii

    radius = float(vdw_radii[number])
    return radius if np.isfinite(radius) else RADIUS_ANG
