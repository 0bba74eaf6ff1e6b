from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deltaserver.errors import ManifestError
from deltaserver.model.manifest import parse_atoms
from deltaserver.model.many.triple_block import parse_triples
from tests.model.many.builders import THREE

MOLECULES = [(0, 1, 2), (3, 4, 5), (6, 7, 8)]
PRIOR = parse_triples(THREE, MOLECULES, parse_atoms)


def places(n, seed=0):
    x = np.random.default_rng(seed).normal(0.0, 0.7, (n, 3, 3, 3))
    x += 3.5 * np.array([[0, 0, 0], [1, 0, 0], [0.4, 0.9, 0]])[:, None]
    return x[:, 0], x[:, 1], x[:, 2]


def test_an_equilateral_triangle_of_three_atoms():
    """3 cos³60° + 1 = 11/8, over (r³ + R³)³."""
    r = 4.0
    corners = r * np.array([[0, 0, 0], [1, 0, 0], [0.5, np.sqrt(0.75), 0]])
    far = np.array([[0, 0, 1e4]])  # the hydrogens, where they say nothing
    x = tuple(
        np.concatenate([corner[None], corner + far, corner - far])[None] for corner in corners
    )
    expected = 900.0 * 11.0 / 8.0 / (r**3 + 1.5**3) ** 3
    assert PRIOR.evaluate(x).energy[0] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("compiled", [True, False])
def test_forces_and_virial_are_slopes(compiled):
    prior = replace(PRIOR, compiled=compiled)
    x = np.concatenate(places(1), axis=1)
    result = prior.evaluate(places(1))

    def energy(y):
        return prior.evaluate((y[:, :3], y[:, 3:6], y[:, 6:])).energy[0]

    rng, h = np.random.default_rng(2), 1e-3
    way, strain = rng.normal(size=x.shape), rng.normal(size=(3, 3))
    for direction, expected in (
        (way, -(result.forces * way).sum()),
        (x @ strain.T, -(result.virial[0] * strain).sum()),
    ):
        e = {k: energy(x + k * h * direction) for k in (-2, -1, 1, 2)}
        slope = (8.0 * (e[1] - e[-1]) - (e[2] - e[-2])) / (12.0 * h)
        assert slope == pytest.approx(expected, rel=1e-6, abs=1e-8)


def test_loops_and_numpy_are_the_same():
    one, other = PRIOR.evaluate(places(4)), replace(PRIOR, compiled=False).evaluate(places(4))
    for name in ("energy", "forces", "virial"):
        assert np.allclose(getattr(one, name), getattr(other, name), rtol=1e-12, atol=1e-12), name


def test_it_is_fair_to_alike_molecules():
    assert PRIOR.is_fair((0, 0, 0))
    data = THREE | {"triples": THREE["triples"][:2]}
    unfair = parse_triples(data, MOLECULES, parse_atoms)
    assert not unfair.is_fair((0, 0, 0))
    assert unfair.is_fair((0, 1, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"radius": -1.0}, "prior.radius is negative"),
        ({"cutoff": [5.0, 4.0]}, "prior.cutoff: expected two rising lengths"),
        ({"classes": [{"name": "a", "atoms": "9"}]}, "'a' names atom 9: no such atom"),
        ({"classes": [{"name": "a", "atoms": "2,3"}]}, "atoms of several molecules"),
        ({"classes": [{"name": "a", "atoms": 0}, {"name": "a", "atoms": 1}]}, "stand there twice"),
        ({"classes": [{"name": "a", "atoms": True}]}, "atoms is no text"),
        ({"triples": [{"between": ["O1", "O3", "O2"], "coefficient": 1}]}, "not a class of the f"),
        ({"triples": [THREE["triples"][0]] * 2}, r"prior.triples\[1\]: O1, O2, O3 stand there"),
    ],
)
def test_a_block_that_is_wrong_is_refused(change, message):
    with pytest.raises(ManifestError, match=message):
        parse_triples(THREE | change, MOLECULES, parse_atoms)
