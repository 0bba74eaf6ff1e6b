"""Products over Dask workers: the same digits, whatever becomes of the workers."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest

from deltaserver.errors import NoServerError
from deltaserver.training.iterative import distributed
from deltaserver.training.iterative.distributed import DistributedProduct, over_workers
from deltaserver.training.iterative.product import KernelProduct
from tests.training.iterative.test_product import SIGMA, points

N_POINTS = 35  # three blocks


@pytest.fixture(scope="module")
def arguments():
    x, perms = points("product", N_POINTS)
    return (x, perms, SIGMA, 1, "cpu", None, 0.3)


@pytest.fixture(scope="module")
def vector():
    return np.random.default_rng(0).normal(size=N_POINTS * 19)


class Workers:
    """Stands for a Dask client: workers are dictionaries of what they have laid out."""

    def __init__(self, count, fails=()):
        self.kept = [{} for _ in range(count)]
        self.fails, self.asked = set(fails), 0

    def scheduler_info(self, n_workers=5):
        return {"workers": dict.fromkeys(range(len(self.kept)))}

    def submit(self, function, *args, pure):
        self.asked += 1
        if self.asked in self.fails:
            return SimpleNamespace(status="error")
        distributed._kept = self.kept[self.asked % len(self.kept)]
        part = function(*args)
        return SimpleNamespace(status="finished", result=lambda: part)


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(DistributedProduct, "_wait", lambda self, futures: None)
    monkeypatch.setattr(distributed, "_kept", {})


def test_the_number_of_workers_changes_no_digit(arguments, vector):
    alone = KernelProduct(*arguments)
    expected = alone(vector)
    found = [DistributedProduct(Workers(count), alone, arguments)(vector) for count in (1, 2, 3, 8)]
    assert all(np.array_equal(one, found[0]) for one in found)
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_a_worker_that_is_new_is_told_what_to_multiply_with(arguments, vector):
    client = Workers(2)
    product = DistributedProduct(client, KernelProduct(*arguments), arguments)
    first = product(vector)
    assert client.asked == 4  # twice: neither worker knew the matrix
    client.kept[0] = {}  # died, and another came
    assert np.array_equal(product(vector), first)
    assert client.asked == 7
    assert product.made_here == 0


def test_what_no_worker_computes_is_computed_here(arguments, vector):
    alone = KernelProduct(*arguments)
    expected = DistributedProduct(Workers(2), alone, arguments)(vector)
    product = DistributedProduct(Workers(2, fails={1, 3}), alone, arguments)
    assert np.array_equal(product(vector), expected)
    assert product.made_here == 1
    gone = DistributedProduct(SimpleNamespace(), alone, arguments)  # knows nothing any more
    assert np.array_equal(gone(vector), expected)
    assert np.array_equal(gone(vector), expected)


def test_one_local_worker_is_this_process(arguments):
    alone = KernelProduct(*arguments)
    with over_workers(alone, arguments, "local", 1) as product:
        assert product is alone


def test_no_scheduler_is_one_line(arguments, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("deltaserver.datasets.labelling.CONNECT_TIMEOUT", "0.2s")
    with (
        pytest.raises(NoServerError, match=r"no Dask scheduler at tcp://127\.0\.0\.1:1"),
        over_workers(KernelProduct(*arguments), arguments, "tcp://127.0.0.1:1", 1),
    ):
        pass


def test_two_local_workers_and_one_that_is_killed(arguments, vector, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.undo()
    alone = KernelProduct(*arguments)
    expected = alone.rows(vector, slice(0, N_POINTS))
    with over_workers(alone, arguments, "local", 2) as product:
        assert np.array_equal(product(vector), expected)
        assert product.made_here == 0
        pids = product._client.run(os.getpid)
        os.kill(next(iter(pids.values())), signal.SIGKILL)
        assert np.array_equal(product(vector), expected)
