"""Sixteen rows at a time against NumPy's sums."""

import numpy as np
import pytest

from tests.tolerances import rounding

vectors = pytest.importorskip("deltaserver.model.loops.vectors")


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("n_columns", range(1, 15))
def test_products(dtype, n_columns):
    rng = np.random.default_rng(n_columns)
    x = rng.normal(size=(11, 16)).astype(dtype)
    y, out = rng.normal(size=(n_columns, 11)), np.full((n_columns, 16), np.nan)
    vectors.products(
        n_columns, x.ravel(), 0, 16, 8, y.ravel(), 0, 11, 11, out.reshape(-1), 0, 16, 8
    )
    exact = np.einsum("kr,bk->br", x.astype(np.float64), y)
    bound = rounding(13) * np.einsum("kr,bk->br", np.abs(x).astype(np.float64), np.abs(y))
    assert (np.abs(out - exact) <= bound).all()


def test_halves_lie_where_they_are_wanted():
    rng = np.random.default_rng(0)
    x, y, out = rng.normal(size=(2, 5, 8)), rng.normal(size=(3, 5)), np.zeros((2, 3, 8))
    vectors.products(3, x.ravel(), 0, 8, 40, y.ravel(), 0, 5, 5, out.reshape(-1), 0, 8, 24)
    exact = np.einsum("hkr,bk->hbr", x, y)
    bound = rounding(7) * np.einsum("hkr,bk->hbr", np.abs(x), np.abs(y))
    assert (np.abs(out - exact) <= bound).all()


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize(("dim", "copies"), [(1, 8), (2, 16), (3, 8), (5, 24), (8, 8)])
def test_pulls(dtype, dim, copies):
    rng = np.random.default_rng(dim)
    x = rng.normal(size=(dim, copies, 16)).astype(dtype)
    w, g = rng.normal(size=(dim, dim, 16)), rng.normal(size=(dim, copies))
    found = g.copy()
    vectors.pulls(x.ravel(), 0, dim, copies, w.ravel(), 0, found.reshape(-1), 0)
    exact = g - np.einsum("abr,air->bi", w, x.astype(np.float64))
    terms = np.abs(g) + np.einsum("abr,air->bi", np.abs(w), np.abs(x).astype(np.float64))
    assert (np.abs(found - exact) <= rounding(16 * dim + 3) * terms).all()
