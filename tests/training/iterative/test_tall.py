from __future__ import annotations

import numpy as np
import pytest

from deltaserver.training.iterative import tall, tall_numpy
from deltaserver.training.iterative.tall import TallMatrix

RNG = np.random.default_rng(0)


def filled(shape, threads=1, *, single=True):
    matrix = TallMatrix(shape, threads, single=single)
    matrix.rows[:] = np.random.default_rng(1).normal(size=shape)
    return matrix


@pytest.mark.parametrize("single", [False, True])
@pytest.mark.parametrize("shape", [(1, 1), (7, 3), (600, 9), (1031, 130), (5003, 17)])
def test_products_of_what_is_stored_are_double_precision(shape, single):
    matrix = filled(shape, single=single)
    dense = matrix.rows.astype(np.float64)
    u, t = RNG.normal(size=shape[0]), RNG.normal(size=shape[1])
    size = np.finfo(np.float64).eps * max(shape)
    bound = size * np.linalg.norm(dense, axis=0) * np.linalg.norm(u)
    assert (np.abs(matrix.transposed_times(u) - dense.T @ u) <= bound).all()
    bound = size * np.linalg.norm(dense, axis=1) * np.linalg.norm(t)
    assert (np.abs(matrix.times(t) - dense @ t) <= bound).all()
    gram = np.tril(dense.T @ dense)
    np.testing.assert_allclose(np.tril(matrix.gram()), gram, rtol=0, atol=size * gram.max())


def test_single_precision_takes_half_the_memory():
    assert 2 * filled((50, 4)).rows.nbytes == filled((50, 4), single=False).rows.nbytes


def test_the_digits_do_not_depend_on_the_threads():
    u, t = RNG.normal(size=9001), RNG.normal(size=33)
    one, two = filled((9001, 33)), filled((9001, 33), 2)
    assert len(one._pieces) > 1
    assert np.array_equal(one.transposed_times(u), two.transposed_times(u))
    assert np.array_equal(one.times(t), two.times(t))


def test_loops_are_what_numpy_does(monkeypatch):
    matrix = filled((700, 40))
    u, t = RNG.normal(size=700), RNG.normal(size=40)
    fast = matrix.transposed_times(u), matrix.times(t)
    monkeypatch.setattr(tall, "_LOOPS", tall_numpy)
    monkeypatch.setattr(tall_numpy, "NUMBERS", 999)  # in several parts
    np.testing.assert_allclose(matrix.transposed_times(u), fast[0], rtol=0, atol=1e-12)
    np.testing.assert_allclose(matrix.times(t), fast[1], rtol=0, atol=1e-12)
