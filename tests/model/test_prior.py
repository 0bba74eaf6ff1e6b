"""The pair potential between fragments: identities, and its block in model.yaml."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from deltaserver.errors import ManifestError
from deltaserver.model.manifest import format_atoms, parse_atoms
from deltaserver.model.prior import AtomClass, Attraction, PairPrior, PairTerms, Wall
from deltaserver.model.prior_block import format_prior, parse_prior
from deltaserver.units import COULOMB_EV_ANG

FRAGMENTS = ((0, 1, 2), (3, 4))
PRIOR = PairPrior(
    np.array([0, 0, 0, 1, 1]),
    (AtomClass("a-O", (0,), -0.6), AtomClass("a-H", (1, 2), 0.3), AtomClass("b-N", (3, 4), 0.5)),
    {
        ("a-O", "b-N"): PairTerms(
            (Wall(3.0, 500.0), Wall(4.2, 90.0)), (Attraction(6, 2.5, 30.0),)
        ),
        ("b-N", "a-H"): PairTerms(
            (Wall(3.0, 80.0),), (Attraction(8, 3.0, 9.0), Attraction(4, 2.0, 5.0))
        ),
    },
)  # fmt: skip


def positions(n: int = 3) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(n, 5, 3)) * 0.3
    x[:, 1] += [1, 0, 0]
    x[:, 2] += [0, 1, 0]
    x[:, 3] += [0, 0, 2.8]
    x[:, 4] += [1, 0, 3.4]
    return x


def test_the_energy_is_the_sum_written_out() -> None:
    x = positions(1)[0]

    def v(names: tuple[str, str], charges: float, r: float) -> float:
        terms = PRIOR.terms[names]
        total = sum(w.amplitude * np.exp(-w.decay * r) for w in terms.walls)
        total -= sum(t.coefficient / (r**t.power + t.radius**t.power) for t in terms.attractions)
        return total + COULOMB_EV_ANG * charges / r

    expected = sum(v(("a-O", "b-N"), -0.3, np.linalg.norm(x[0] - x[j])) for j in (3, 4))
    expected += sum(
        v(("b-N", "a-H"), 0.15, np.linalg.norm(x[i] - x[j])) for i in (1, 2) for j in (3, 4)
    )
    assert PRIOR.evaluate(x[None]).energy[0] == pytest.approx(expected, rel=1e-13)


def test_terms_of_one_decay_or_radius_add_up() -> None:
    names = ("a-O", "b-N")
    terms = PRIOR.terms[names]
    twice = PairTerms((*terms.walls, *terms.walls), (*terms.attractions, *terms.attractions))
    doubled = replace(PRIOR, terms={names: twice}, classes=uncharged())
    once = replace(PRIOR, terms={names: terms}, classes=uncharged())
    x = positions()
    assert doubled.evaluate(x).energy == pytest.approx(2.0 * once.evaluate(x).energy, rel=1e-13)


def uncharged() -> tuple[AtomClass, ...]:
    return tuple(replace(one, charge=0.0) for one in PRIOR.classes)


def test_forces_and_virial_are_slopes() -> None:
    x, h = positions(1)[0], 1e-5
    result = PRIOR.evaluate(x[None])
    for i in range(5):
        for a in range(3):
            step = np.zeros_like(x)
            step[i, a] = h
            low, high = PRIOR.evaluate(np.stack([x - step, x + step])).energy
            assert result.forces[0, i, a] == pytest.approx(-(high - low) / (2 * h), abs=1e-7)
    for a in range(3):
        for b in range(3):
            strain = np.zeros((3, 3))
            strain[a, b] = h
            low, high = PRIOR.evaluate(
                np.stack([x @ (np.eye(3) - strain).T, x @ (np.eye(3) + strain).T])
            ).energy
            assert result.virial[0, a, b] == pytest.approx(-(high - low) / (2 * h), abs=1e-7)


def test_nothing_acts_on_the_whole() -> None:
    x = positions()
    forces = PRIOR.evaluate(x).forces
    scale = np.abs(forces).max()
    assert np.abs(forces.sum(axis=1)).max() < 1e-14 * 30 * scale
    assert np.abs(np.cross(x, forces).sum(axis=1)).max() < 1e-14 * 100 * scale


def test_no_cell_and_a_large_one_are_the_same_and_images_count_in_a_small_one() -> None:
    x = positions()
    alone = PRIOR.evaluate(x)
    boxed = PRIOR.evaluate(x, np.eye(3) * 50.0)
    np.testing.assert_allclose(boxed.energy, alone.energy, rtol=1e-14)
    wrapped = x.copy()
    wrapped[:, 3:] -= [0, 0, 50.0]
    again = PRIOR.evaluate(wrapped, np.eye(3) * 50.0)
    np.testing.assert_allclose(again.energy, alone.energy, rtol=1e-11)
    np.testing.assert_allclose(again.forces, alone.forces, rtol=0, atol=1e-10)


def test_it_ends_as_its_charges_say() -> None:
    x = positions(1)
    x[:, 3:] += [0, 0, 500.0]
    found = PRIOR.evaluate(x).energy[0]  # neutral against charged: of higher order than 1/r
    assert abs(found) < 1e-3 * COULOMB_EV_ANG * 0.6 * 1.0 / 500.0 * 10


def test_an_energy_far_apart_is_added_and_kept() -> None:
    left = replace(PRIOR, limit=-0.7)
    x = positions(3)
    np.testing.assert_array_equal(left.evaluate(x).energy, PRIOR.evaluate(x).energy - 0.7)
    np.testing.assert_array_equal(left.evaluate(x).forces, PRIOR.evaluate(x).forces)
    assert parse_prior(format_prior(left, format_atoms), FRAGMENTS, parse_atoms).limit == -0.7
    assert "limit" not in block()


def block() -> dict[str, Any]:
    return format_prior(PRIOR, format_atoms)


def test_a_block_is_read_as_it_was_written() -> None:
    again = parse_prior(block(), FRAGMENTS, parse_atoms)
    assert (again.classes, dict(again.terms)) == (PRIOR.classes, dict(PRIOR.terms))
    x = positions()
    np.testing.assert_array_equal(again.evaluate(x).forces, PRIOR.evaluate(x).forces)


def _set(path: list[Any], value: Any) -> dict[str, Any]:
    data = copy.deepcopy(block())
    at: Any = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "expected a mapping"),
        ({"classes": []}, "lacks pairs"),
        (block() | {"more": 1}, "unknown key"),
        (block() | {"limit": "nan"}, "prior.limit is 'nan'; expected a finite number"),
        (_set(["classes"], {}), "expected a list"),
        (_set(["classes", 0, "atoms"], "0,9"), "no such atom"),
        (_set(["classes", 0, "atoms"], "0,3"), "several fragments"),
        (_set(["classes", 0, "atoms"], "1"), "atom 0 is in 0 classes"),
        (_set(["classes", 0, "atoms"], [0]), "no text"),
        (_set(["classes", 0, "name"], "a-H"), "two have the name"),
        (_set(["classes", 0, "name"], 3), "name is 3; expected text"),
        (_set(["classes", 0, "charge"], "nan"), "finite number"),
        (_set(["pairs", 0, "between"], ["a-O"]), "not two names"),
        (_set(["pairs", 0, "between"], ["a-O", "a-H"]), "same fragment"),
        (_set(["pairs", 1, "between"], ["b-N", "a-O"]), "stand there twice"),
        (_set(["pairs", 0, "walls"], [[0.0, 1.0]]), "not positive"),
        (_set(["pairs", 0, "walls"], [[1.0]]), "lists of 2 numbers"),
        (_set(["pairs", 0, "attractions"], [[1, 1.0, 1.0]]), "power outside"),
        (_set(["pairs", 0, "attractions"], [[6, -1.0, 1.0]]), "negative radius"),
    ],
)
def test_a_wrong_block_is_refused(data: Any, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        parse_prior(data, FRAGMENTS, parse_atoms)
