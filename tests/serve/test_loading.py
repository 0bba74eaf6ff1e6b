import os

import pytest

from deltaserver.serve.loading import default_threads


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (64, 2)])
def test_two_threads_where_two_cores_may_be_used(monkeypatch, cores, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert default_threads() == threads


@pytest.mark.parametrize(("told", "threads"), [("1", 1), ("4", 4), ("3,2", 3), ("", 2), ("x", 2)])
def test_omp_num_threads_is_obeyed(monkeypatch, told, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert default_threads() == threads
