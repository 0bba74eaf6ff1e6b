"""Charge that flows in molecules: its formula atom by atom, and what it must be in simple cases."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from deltaserver.model import force_field
from deltaserver.model.fragment_blocks import smooth_step
from deltaserver.model.many.electrostatics.block import format_induction
from deltaserver.model.many.electrostatics.induction import OfThree
from deltaserver.units import COULOMB_EV_ANG
from tests.model.many.builders import INDUCTION, OF_BOTH, directory, manifest

CHARGES = np.array([-0.4, 0.2, 0.2])
KAPPA = {(0, 1): 0.05, (0, 2): 0.05, (1, 2): 0.02}


def water(path, count):
    """Water whose molecules only polarise each other."""
    data = manifest(count, 0, bindings=[], periodic=False, induction=INDUCTION)
    del data["cutoff"]
    return force_field.load(directory(path, data))


def thrown(count, seed=3, spread=3.0):
    """Molecules at random places, shape (count, 3, 3)."""
    rng = np.random.default_rng(seed)
    one = np.array([[0.0, 0.0, 0.1], [0.76, 0.0, -0.5], [-0.76, 0.0, -0.5]])
    turns = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(count)]
    return np.array([one @ turn.T + spread * rng.normal(size=3) for turn in turns])


def q_of(v):
    return sum(kappa * (v[a] - v[b]) ** 2 for (a, b), kappa in KAPPA.items())


def by_hand(x):
    """E of the formula, molecule by molecule and atom by atom."""
    total = 0.0
    for i, here in enumerate(x):
        acting = []
        for j, there in enumerate(x):
            if i == j:
                continue
            apart = np.linalg.norm(here.mean(axis=0) - there.mean(axis=0))
            ends = 1.0 - smooth_step(np.array([apart]), *INDUCTION["cutoff"])[0][0]
            r = np.linalg.norm(here[:, None] - there, axis=2)
            v = ends * COULOMB_EV_ANG * (CHARGES / np.sqrt(r**2 + 0.8**2)).sum(axis=1)
            acting.append(v)
        total -= 0.5 * (q_of(sum(acting)) - sum(map(q_of, acting)))
    return total


def test_it_is_the_formula(tmp_path):
    x = thrown(6, spread=1.5)
    found = water(tmp_path, 6).evaluate(x.reshape(-1, 3), "binding")
    assert set(found.contributions) == {"triples"}
    assert abs(found.energy) > 1e-3
    assert found.energy == pytest.approx(by_hand(x), rel=1e-10)
    assert found.molecules["triples"].sum() == pytest.approx(found.energy, rel=1e-12)


def test_two_molecules_have_none_and_more_have_the_sum_of_threes(tmp_path):
    """What two have belongs to their binding; a square of sums has pairs of pairs alone."""
    x = thrown(5, spread=1.5)
    pair, three, five = (water(tmp_path / str(n), n) for n in (2, 3, 5))
    alone = pair.evaluate(x[:2].reshape(-1, 3), "binding")
    assert alone.energy == pytest.approx(0.0, abs=1e-15)
    np.testing.assert_allclose(alone.forces, 0.0, atol=1e-14)
    some = [x[list(k)].reshape(-1, 3) for k in combinations(range(5), 3)]
    total = sum(three.evaluate(one, "binding").energy for one in some)
    assert five.evaluate(x.reshape(-1, 3), "binding").energy == pytest.approx(total, rel=1e-10)


def test_neighbours_on_opposite_sides_cancel(tmp_path):
    """The field in the middle of two ions is none: what both pairs have is taken back."""
    induction = OF_BOTH | {"cutoff": [9.0, 10.0]}
    data = manifest(1, 2, bindings=[], periodic=False, induction=induction)
    del data["cutoff"]
    model = force_field.load(directory(tmp_path, data))
    line = np.array([[0.0, 0.0, 0.0], [1e-3, 0.0, 0.9], [-1e-3, 0.0, -0.9]])
    v = COULOMB_EV_ANG * 0.3 / np.sqrt((line[:, 2] - 3.0) ** 2 + 0.8**2)
    ions = np.array([[0.0, 0.0, 3.0], [0.0, 0.0, -3.0]])
    found = model.evaluate(np.concatenate([line, ions]), "binding").energy
    both = v + v[[0, 2, 1]]
    assert both[1] == both[2]
    assert found == pytest.approx(-0.5 * (q_of(both) - 2.0 * q_of(v)), rel=1e-4)
    assert found > 0.0


@pytest.mark.parametrize(("count", "neon"), [(3, 0), (2, 1), (1, 2)])
def test_three_by_themselves_have_what_a_model_of_three_has(tmp_path, count, neon):
    """Many at once, of which each is what is served of three; also where it ends."""
    data = manifest(count, neon, bindings=[], periodic=False, induction=OF_BOTH)
    if not neon:
        data["induction"] = INDUCTION
    del data["cutoff"]
    model = force_field.load(directory(tmp_path, data))
    x = np.array([thrown(3, seed, 1.5).reshape(9, 3) for seed in range(20)])
    some = np.concatenate([np.arange(3 * count), 3 * count + 3 * np.arange(neon)])
    x = x[:, some]
    species = (0,) * count + (1,) * neon
    sizes = (3,) * count + (1,) * neon
    known = OfThree(model.induction, species, sizes).evaluate(x)
    found = model.evaluate(x, "binding")
    assert np.abs(found.energy).max() > 1e-4
    np.testing.assert_allclose(known.energy, found.energy, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(known.forces, found.forces, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(known.virial, found.virial, rtol=1e-9, atol=1e-12)


def test_three_of_one_species_are_so_whatever_other_species_there_are(tmp_path):
    """Whose molecules have other numbers of atoms."""
    data = manifest(1, 3, bindings=[], periodic=False, induction=OF_BOTH)
    del data["cutoff"]
    induction = force_field.load(directory(tmp_path, data)).induction
    x = np.random.default_rng(4).normal(0.0, 0.3, (2, 3, 3)) + 3.0 * np.eye(3)
    alone = replace(induction, responses=induction.responses[1:])
    found, known = (
        OfThree(one, (kind,) * 3, (1, 1, 1)).evaluate(x)
        for one, kind in ((induction, 1), (alone, 0))
    )
    np.testing.assert_array_equal(found.energy, known.energy)
    np.testing.assert_array_equal(found.forces, known.forces)


def test_its_block_is_read_as_it_was_written(tmp_path):
    data = manifest(1, 1, bindings=[], periodic=False, induction=OF_BOTH)
    del data["cutoff"]
    induction = force_field.load(directory(tmp_path, data)).induction
    assert format_induction(induction, ["water", "neon"]) == OF_BOTH
