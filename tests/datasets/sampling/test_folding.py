"""A molecule that touches itself: pulled together by a spring, its bonds whole."""

from __future__ import annotations

import numpy as np
import pytest

from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
from deltaserver.datasets.sampling.folding import (
    NEAR,
    WITHIN_ANG,
    FoldPlan,
    draw_pair,
    far_along_bonds,
    folded,
)
from deltaserver.errors import DataError, InputError

pytest.importorskip("ase")

SPRINGS = "tests.datasets.sampling.test_folding:Springs"
# A chain of six carbons, bent to a hook, and a hydrogen at either end, and an argon beside it.
NUMBERS = np.array([1, 6, 6, 6, 6, 6, 6, 1, 18])
HOOK = np.array(
    [[-1.0, 0.2, 0], [0, 0, 0], [1.4, 0.5, 0], [2.4, 1.5, 0], [2.4, 2.9, 0], [1.4, 3.9, 0],
     [0, 4.3, 0], [-0.9, 3.9, 0], [9.0, 0, 0]]
)  # fmt: skip
BONDS = np.array([[0, 1], [1, 2], [2, 3], [3, 4], [4, 5], [5, 6], [6, 7]])


def Springs():  # noqa: N802  # an ASE calculator by its import path
    """Bonds, and nothing else."""
    from ase.calculators.calculator import Calculator, all_changes

    class OfBonds(Calculator):
        implemented_properties = ["energy", "forces"]

        def calculate(self, atoms=None, properties=(), system_changes=all_changes):
            super().calculate(atoms, properties, system_changes)
            forces, energy = np.zeros((len(NUMBERS), 3)), 0.0
            for i, j in BONDS:
                d = self.atoms.positions[i] - self.atoms.positions[j]
                more = np.linalg.norm(d) - np.linalg.norm(HOOK[i] - HOOK[j])
                energy += 15.0 * more**2
                pull = -30.0 * more * d / np.linalg.norm(d)
                forces[i] += pull
                forces[j] -= pull
            self.results = {"energy": energy, "forces": forces}

    return OfBonds()


def hooks(x: np.ndarray = HOOK) -> LabelledFrames:
    fragments = (FragmentSpec("chain", tuple(range(8))), FragmentSpec("argon", (8,)))
    none = np.zeros((3, 9, 3))
    return LabelledFrames(
        "hooks", "springs", NUMBERS, fragments, np.stack([x] * 3), np.zeros(3), none,
        np.zeros((3, 2)), none, np.arange(3), np.zeros(3, dtype=int),
    )  # fmt: skip


def test_what_is_more_than_three_bonds_apart():
    apart = far_along_bonds(hooks(), 0)
    along = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
    np.testing.assert_array_equal(apart[:8, :8], along > 3)
    assert not apart[8].any()
    assert not apart[:, 8].any()


def test_every_two_elements_are_drawn_equally_often():
    apart, rng = far_along_bonds(hooks(), 0), np.random.default_rng(0)
    pairs = [draw_pair(NUMBERS, HOOK, apart, rng) for _ in range(600)]
    kinds = [tuple(sorted(NUMBERS[[i, j]].tolist())) for i, j in pairs]
    for kind in ((1, 1), (1, 6), (6, 6)):
        assert 150 < kinds.count(kind) < 250  # 200 ± 4 standard deviations
    for i, j in pairs:
        assert apart[i, j]
        assert np.linalg.norm(HOOK[i] - HOOK[j]) < WITHIN_ANG
    assert draw_pair(NUMBERS, 3.0 * HOOK, apart, rng) is None


def test_atoms_meet_and_bonds_hold():
    frames, counted = hooks(), []
    plan = FoldPlan(6, SPRINGS, (50.0, 300.0), seed=4)
    found = folded(frames, np.array([0, 2]), plan, counted.append)
    assert counted == [1, 2, 3, 4, 5, 6]
    apart = np.triu(far_along_bonds(frames, 0))
    radii = np.array([1.2, 0, 0, 0, 0, 0, 1.7])[[0, 6, 6, 6, 6, 6, 6, 0, 0]]
    sums = radii[:, None] + radii
    for x in found:
        d = np.linalg.norm(x[:, None] - x, axis=-1)
        assert (d[apart] / sums[apart]).min() < NEAR[1] + 0.1
        lengths = np.linalg.norm(x[BONDS[:, 0]] - x[BONDS[:, 1]], axis=-1)
        rest = np.linalg.norm(HOOK[BONDS[:, 0]] - HOOK[BONDS[:, 1]], axis=-1)
        assert np.abs(lengths / rest - 1.0).max() < 0.4
    # Every geometry is of its number alone: more of them begin with the same.
    fewer = folded(frames, np.array([0, 2]), FoldPlan(2, SPRINGS, (50.0, 300.0), seed=4))
    np.testing.assert_array_equal(fewer, found[:2])


def test_what_cannot_fold_is_refused():
    plan = FoldPlan(2, SPRINGS, (300.0,))
    with pytest.raises(InputError, match="no frames are left to begin from"):
        folded(hooks(), np.zeros(0, dtype=int), plan)
    line = np.arange(9.0)[:, None] * [1.3, 0.0, 0.0]
    line[8] = [0, 9, 0]
    with pytest.raises(DataError, match=r"attempts \(no two atoms that could touch"):
        folded(hooks(line), np.arange(3), plan)
    argon = LabelledFrames(
        "argon", "none", np.array([18, 18]), (FragmentSpec("all", (0, 1)),),
        np.array([[[0, 0, 0], [1.5, 0, 0]]]), np.zeros(1), np.zeros((1, 2, 3)), np.zeros((1, 1)),
        np.zeros((1, 2, 3)), np.zeros(1, dtype=int), np.zeros(1, dtype=int),
    )  # fmt: skip
    with pytest.raises(InputError, match="no molecule has atoms that are more than 3 bonds apart"):
        folded(argon, np.arange(1), plan)
    with pytest.raises(DataError, match=r"none came of 20 attempts \(ValueError: no luck\)"):
        folded(hooks(), np.arange(3), FoldPlan(1, SPRINGS.replace("Springs", "Broken"), (300.0,)))


def Broken():  # noqa: N802  # an ASE calculator by its import path
    """Raise whenever it is asked."""
    raise ValueError("no luck")
