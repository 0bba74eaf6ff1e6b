from __future__ import annotations

import itertools

import numpy as np
import pytest

from deltaserver.compute import jit
from deltaserver.model.many.neighbours import find_neighbours
from deltaserver.model.many.triples import find_triples
from tests.model.many.builders import CELL


def points(n, seed=0, cell=CELL, spill=2.0):
    rng = np.random.default_rng(seed)
    return (rng.uniform(-spill, spill, (n, 3))) @ cell.T


def by_brute_force(x, cutoff, cell):
    """All (i, j, image) with i < j, or i = j and an image that lies forward, by trying 9³ cells."""
    found = set()
    n = range(-4, 5)
    cells = [np.array(c) for c in itertools.product(n, n, n)] if cell is not None else [np.zeros(3)]
    for i, j in itertools.combinations_with_replacement(range(len(x)), 2):
        for step in cells:
            if i == j and not tuple(step) > (0, 0, 0):
                continue
            shift = np.zeros(3) if cell is None else cell @ step
            if np.linalg.norm(x[j] + shift - x[i]) < cutoff:
                found.add((i, j, *np.round(shift, 6)))
    return found


@pytest.fixture(params=["loops", "numpy"], autouse=True)
def in_loops_and_without(request, monkeypatch):
    if request.param == "numpy":
        monkeypatch.setattr(jit, "AVAILABLE", False)
    elif not jit.AVAILABLE:
        pytest.skip("numba is not installed")


def test_loops_keep_the_order(monkeypatch):
    x = points(30, spill=1.2)
    found = find_neighbours(x, 5.0, CELL)
    monkeypatch.setattr(jit, "AVAILABLE", False)
    plain = find_neighbours(x, 5.0, CELL)
    assert len(plain.i)
    for one, other in zip(found, plain, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("cutoff", [3.0, 6.0, 11.0])  # a cell of 9 Å holds no sphere of the last
def test_every_pair_of_images_is_found_once(cutoff):
    x = points(5, spill=0.6)
    found = find_neighbours(x, cutoff, CELL)
    listed = [
        (i, j, *np.round(s, 6)) for i, j, s in zip(found.i, found.j, found.shift, strict=True)
    ]
    assert len(set(listed)) == len(listed)
    assert set(listed) == by_brute_force(x, cutoff, CELL)
    assert np.allclose(found.between, x[found.j] + found.shift - x[found.i])
    assert np.allclose(found.distance, np.linalg.norm(found.between, axis=1))


@pytest.mark.parametrize("cutoff", [4.0, np.inf])
def test_without_a_cell(cutoff):
    x = points(40)
    found = find_neighbours(x, cutoff)
    assert {(i, j) for i, j in zip(found.i, found.j, strict=True)} == {
        pair[:2] for pair in by_brute_force(x, cutoff, None)
    }


def test_one_molecule_or_none():
    assert len(find_neighbours(np.zeros((1, 3)), 5.0).i) == 0
    assert len(find_neighbours(np.zeros((1, 3)), 9.5, 9.0 * np.eye(3)).i) == 3  # own images


def test_triples_are_those_with_three_short_sides():
    x = points(12)
    cutoff = 5.0
    found = find_triples(find_neighbours(x, 7.0), cutoff)
    near = np.linalg.norm(x[:, None] - x, axis=-1) < cutoff
    expected = {
        t for t in itertools.combinations(range(12), 3)
        if all(near[a, b] for a, b in itertools.combinations(t, 2))
    }  # fmt: skip
    assert {tuple(int(k) for k in t) for t in zip(*found.members, strict=True)} == expected
    assert np.array_equal(found.weight, np.ones(len(expected)))


def test_a_molecule_and_its_images_count_as_often_as_there_are_triangles():
    """Of one point in a cubic cell of side 1 triangles below √2 + ε: per point 3 planes × 4."""
    found = find_triples(find_neighbours(np.zeros((1, 3)), 1.5, np.eye(3)), 1.42)
    sides = found.shifts[1], found.shifts[2]
    assert all((np.linalg.norm(side, axis=1) < 1.42).all() for side in sides)
    # (1, 1, √2) in 12 ways a corner set, counted a cell; and 8 of (√2, √2, √2).
    assert found.weight.sum() == pytest.approx(12 + 8)
