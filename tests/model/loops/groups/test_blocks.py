"""Sixteen rows in blocks of eight copies against NumPy's sums."""

import numpy as np
import pytest

from tests.tolerances import rounding

numba = pytest.importorskip("numba")
blocks = pytest.importorskip("deltaserver.model.loops.groups.blocks")


@numba.njit
def both_ways(x, x_start, copies, y, y_start, z, w, g):
    blocks.block_products(x, x_start, copies, y, y_start, z, 16)
    blocks.block_pulls(x, x_start, copies, w, 16, g, y_start)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("copies", [8, 24])
def test_products_and_their_adjoint(dtype, copies):
    rng = np.random.default_rng(copies)
    rows = rng.normal(size=(2, copies, 16)).astype(dtype)  # the second of two components
    x = blocks.in_blocks(rows).ravel()
    y, w, g = rng.normal(size=2 * copies), rng.normal(size=32), rng.normal(size=2 * copies)
    z, before = np.zeros(32), g.copy()
    both_ways(x, copies * 16, copies, y, copies, z, w, g)
    x, here = rows[1].astype(np.float64), slice(copies, None)
    bound = rounding(copies + 4) * (np.abs(x).T @ np.abs(y[here]))
    assert (np.abs(z[16:] - x.T @ y[here]) <= bound).all()
    bound = rounding(20) * (np.abs(before[here]) + np.abs(x) @ np.abs(w[16:]))
    assert (np.abs(g[here] - (before[here] - x @ w[16:])) <= bound).all()
    assert not z[:16].any()
    np.testing.assert_array_equal(g[:copies], before[:copies])
