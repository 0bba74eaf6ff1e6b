"""Many molecules of known answer: an ideal gas, a lattice, random walks."""

from itertools import product

import numpy as np
import pytest

from deltaserver.analysis.measure.liquid import (
    count_shells,
    displacement,
    distribution,
    largest_radius,
    unwrapped,
)
from deltaserver.errors import DataError

CELL = np.array([[20.0, 3.0, -2.0], [0.0, 18.0, 2.0], [0.0, 0.0, 19.0]])  # vectors in columns, Å


def test_an_ideal_gas_has_g_1_at_every_distance():
    """Of n places drawn at random g is (n − 1)/n: nobody is its own neighbour."""
    rng = np.random.default_rng(0)
    edges = np.linspace(0.0, largest_radius([CELL]), 9)
    first = np.array([0, 40, 60])
    frames = [count_shells(rng.random((60, 3)) @ CELL.T, CELL, first, edges) for _ in range(200)]
    for (s, t), expected in (((0, 0), 39 / 40), ((0, 1), 1.0), ((1, 1), 19 / 20)):
        rows = np.array([frame[s, t] for frame in frames])
        found = distribution("gas", rows, edges, 1.0)
        assert np.nanmedian(found.error) < 0.05
        sigma = rows.std(axis=0, ddof=1) / np.sqrt(len(rows))
        assert (np.abs(found.g - expected) < 5.0 * sigma).all()


def test_a_cubic_lattice_has_its_neighbours():
    """6, 12 and 8 neighbours at a, √2 a and √3 a, images included."""
    a, n = 3.0, 4
    places = a * np.array(list(product(range(n), repeat=3)), dtype=float)
    edges = np.arange(0.0, 5.6, 0.1)
    cell = n * a * np.eye(3)
    g = count_shells(places, cell, np.array([0, n**3]), edges)[0, 0]
    neighbours = distribution("lattice", np.array([g] * 4), edges, a**-3).neighbours
    for within, expected in ((2.9, 0), (3.2, 6), (4.4, 18), (5.4, 26)):
        assert neighbours[np.searchsorted(edges, within) - 1] == pytest.approx(expected, abs=1e-9)


def test_random_walks_diffuse_as_they_are_made():
    """Steps of variance 2DΔt an axis; D within four of its errors, which are worth having."""
    rng = np.random.default_rng(1)
    d, frame_ps, shape = 0.25, 0.1, (400, 120, 3)
    x = np.cumsum(np.sqrt(2.0 * d * frame_ps) * rng.normal(size=shape), axis=0)
    found = displacement("walk", x, frame_ps)
    assert found.error_ang2_per_ps < 0.1 * d
    assert abs(found.d_ang2_per_ps - d) < 4.0 * found.error_ang2_per_ps
    assert found.msd_ang2[0] == pytest.approx(6.0 * d * frame_ps, rel=0.02)
    wrapped = x - np.floor(x @ np.linalg.inv(CELL).T) @ CELL.T
    np.testing.assert_allclose(
        unwrapped(wrapped, [CELL] * len(x)) - wrapped[0], x - x[0], atol=1e-9
    )


def test_too_few_frames_are_refused():
    with pytest.raises(DataError, match="12 frames are too few"):
        displacement("walk", np.zeros((12, 4, 3)), 0.1)
