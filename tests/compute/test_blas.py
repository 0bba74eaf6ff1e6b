from __future__ import annotations

import numpy as np
import pytest

from deltaserver.compute import blas


def test_blas_is_limited_and_restored():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    np.ones((2, 2)) @ np.ones((2, 2))

    def counts():
        info = threadpoolctl.threadpool_info()
        return [pool["num_threads"] for pool in info if pool["user_api"] == "blas"]

    before = counts()
    with blas.one_blas_thread():
        assert set(counts()) <= {1}
    assert counts() == before


def test_without_threadpoolctl_nothing_happens(monkeypatch):
    monkeypatch.setattr(blas, "threadpoolctl", None)
    with blas.blas_threads(3):
        pass
