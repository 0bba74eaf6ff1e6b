"""Pairs by ranges: wherever they are cut, the same numbers as all at once, and as NumPy's."""

import numpy as np
import pytest

from deltaserver.model.descriptor import PairDescriptor, compiled_cell
from tests.builders import TRICLINIC, geometry, shaken

pytest.importorskip("numba")

from deltaserver.model.loops import pairs

N_ATOMS = 9
PAIRS = PairDescriptor(N_ATOMS, compiled=False)
CELLS = pytest.mark.parametrize("cell", [None, TRICLINIC])
CUTS = pytest.mark.parametrize("size", [1, 4, 5, 16, PAIRS.dim, 100])


def ranges(size):
    return [(k, min(k + size, PAIRS.dim)) for k in range(0, PAIRS.dim, size)]


@pytest.fixture
def axes():
    at = np.empty((3, N_ATOMS))
    positions = shaken(geometry(N_ATOMS), 1, seed=4)
    assert pairs.axes(positions[0], at) == 0.0
    np.testing.assert_array_equal(at.T, positions[0])
    return at


def test_a_pair_knows_its_row():
    rows = [pairs._row_of.py_func(k) for k in range(PAIRS.dim)]
    np.testing.assert_array_equal(rows, PAIRS.i)
    for row in (147, 5_000, 100_000):  # the square root is exact to less than a row
        first = row * (row - 1) // 2
        assert [pairs._row_of.py_func(first + k) for k in (-1, 0, 1)] == [row - 1, row, row]


@CELLS
@CUTS
def test_distances_by_ranges(axes, cell, size):
    expected = PAIRS.geometry(axes.T[None], cell).descriptor[0]
    for start, stop in ranges(size):
        found = np.full(stop - start + 3, -1.0)
        total, _ = pairs.distances_between(axes, compiled_cell(cell), start, stop, None, found)
        np.testing.assert_allclose(found[:-3], expected[start:stop], rtol=1e-13)
        np.testing.assert_array_equal(found[-3:], -1.0)
        assert total == pytest.approx(found[:-3].sum())


@CELLS
@CUTS
def test_forces_and_virial_by_ranges(axes, cell, size):
    here = PAIRS.geometry(axes.T[None], cell)
    g = np.random.default_rng(1).normal(size=(1, PAIRS.dim))
    expected_forces, expected_virial = PAIRS.pull_back(g, here)
    pull, stress = np.zeros((3, N_ATOMS)), np.zeros(6)
    for start, stop in ranges(size):
        pairs.pull_between(
            g[0, start:stop], None, here.descriptor[0, start:stop], axes, compiled_cell(cell),
            start, pull, stress,
        )  # fmt: skip
    forces, virial = np.empty((N_ATOMS, 3)), np.empty((3, 3))
    pairs.collect(pull, stress, forces, virial)
    np.testing.assert_allclose(forces, expected_forces[0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(virial, expected_virial[0], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("nowhere", [np.nan, np.inf])
def test_axes_tell_of_positions_that_are_not_finite(nowhere):
    positions = geometry(N_ATOMS).copy()
    positions[5, 1] = nowhere
    assert np.isnan(pairs.axes(positions, np.empty((3, N_ATOMS))))


@CELLS
@CUTS
def test_centred_distances_and_their_forces_by_ranges(axes, cell, size):
    here = PAIRS.geometry(axes.T[None], cell)
    rng = np.random.default_rng(2)
    centre, g, w1_sum = rng.uniform(0.1, 0.5, PAIRS.dim), rng.normal(size=PAIRS.dim), 0.7
    expected_q = here.descriptor[0] - centre
    expected_forces, expected_virial = PAIRS.pull_back((g + w1_sum * expected_q)[None], here)
    pull, stress = np.zeros((3, N_ATOMS)), np.zeros(6)
    for start, stop in ranges(size):
        q, box = np.empty(stop - start), compiled_cell(cell)
        total, squared = pairs.distances_between(axes, box, start, stop, centre[start:stop], q)
        np.testing.assert_allclose(q, expected_q[start:stop], rtol=1e-11, atol=1e-13)
        assert total == pytest.approx(here.descriptor[0, start:stop].sum())
        assert squared == pytest.approx(q @ q)
        pairs.pull_between(
            g[start:stop], w1_sum, centre[start:stop], axes, box, start, pull, stress
        )
    forces, virial = np.empty((N_ATOMS, 3)), np.empty((3, 3))
    pairs.collect(pull, stress, forces, virial)
    np.testing.assert_allclose(forces, expected_forces[0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(virial, expected_virial[0], rtol=1e-11, atol=1e-12)
