"""Geometries side by side in vectors give what NumPy makes of them one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deltaserver.compute import jit
from deltaserver.model.fragment_blocks import FragmentBlocks, Reach
from deltaserver.model.linear.radials import Radials
from tests.model.linear.builders import FRAGMENT, products
from tests.model.linear.test_linear import positions
from tests.model.many.test_triples import PRIOR, places
from tests.tolerances import assert_same_sum

pytestmark = pytest.mark.skipif(not jit.AVAILABLE, reason="numba is not installed")
SIZES = [1, 7, 8, 9, 16, 19]  # fewer than eight, all, and some that are left


def assert_same(found, expected, n_terms):
    for one, other in zip(found, expected, strict=True):
        assert_same_sum(one, other, n_terms)


def test_an_exponential_is_right_to_two_units_in_the_last_place():
    radials = Radials((1.0,), ())
    r = np.concatenate([np.linspace(1e-3, 700.0, 4001), [0.5, 1e-300]])
    x = np.zeros((len(r), 2, 3))
    x[:, 1, 0] = r
    pair = np.array([0]), np.array([1]), np.ones((1, 1))
    energy = radials.summed(x, pair, None, True)[0]
    np.testing.assert_allclose(energy, np.exp(-r), rtol=4 * np.finfo(np.float64).eps)


@pytest.mark.parametrize("n", SIZES)
def test_pair_potentials(n):
    """Decays in any order, multiples of the first and others; every power; coefficients of zero."""
    radials = Radials((0.5, 1.5, 1.0, 0.7), ((6, 2.5), (8, 3.0), (1, 0.0), (4, 1.0), (3, 2.0)))
    rng, x = np.random.default_rng(n), positions(n) + 100.0
    first, second = np.triu_indices(x.shape[1], k=1)
    coefficients = rng.normal(size=(len(first), len(radials)))
    coefficients[::3, 4:6] = 0.0
    sites = np.arange(x.shape[1]), np.arange(x.shape[1] + 1)
    pairs = first, second, coefficients
    expected = radials.summed(x, pairs, None, False)
    assert_same(radials.summed_of_sites(x, sites, pairs), expected, 400)


@pytest.mark.parametrize("n", SIZES)
def test_products_of_distances(n):
    e, x = products(), positions(n)
    assert e._form.for_loops is not None
    assert_same(e.evaluate(x), e._chunk(x, None), 4000)


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("far", [(1.5, 2.5), (30.0, 40.0), (0.1, 0.2)])
def test_the_end_of_a_model(n, far):
    """Within it, before it and beyond: E, forces and virial of s(ρ) (E + c)."""
    blocks = FragmentBlocks(FRAGMENT, np.ones((2, 2)), Reach((0.2, 1.2), far))
    e, x, offset = products(), positions(n), 0.7
    found = tuple(array.copy() for array in e.evaluate(x))
    energy, forces, virial = e.evaluate(x)
    blocks.fade_in_loops(x, offset, found)
    descriptor = e.pairs.descriptor
    geometry = descriptor.geometry(x)
    nothing = np.zeros_like(geometry.descriptor)
    energy, g, s = blocks.fade(energy + offset, nothing, geometry.descriptor)
    pulled, strained = descriptor.pull_back(g, geometry)
    s = s[:, None, None]
    assert_same(found, (energy, s * forces + pulled, s * virial + strained), 400)


def test_of_molecules_an_endless_way_apart_nothing_is_left():
    blocks = FragmentBlocks(np.array([0, 1]), np.ones((2, 2)), Reach((0.2, 1.2), (5.0, 6.0)))
    parts = np.array([3.0]), np.ones((1, 2, 3)), np.ones((1, 3, 3))
    blocks.fade_in_loops(np.array([[[0.0, 0.0, 0.0], [1e30, 0.0, 0.0]]]), 1.0, parts)
    assert not any(array.any() for array in parts)


@pytest.mark.parametrize("n", SIZES)
def test_three_molecules(n):
    found, expected = PRIOR.evaluate(places(n)), replace(PRIOR, compiled=False).evaluate(places(n))
    names = "energy", "forces", "virial"
    assert_same(*([getattr(one, name) for name in names] for one in (found, expected)), 400)
