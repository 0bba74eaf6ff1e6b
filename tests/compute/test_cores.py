"""Cores that a process may use, on systems that tell and on those that do not."""

import os

import pytest

from deltaserver.compute.cores import usable_cores
from deltaserver.datasets.labelling import default_workers
from deltaserver.serve.loading import default_threads


def test_as_many_as_the_system_allows():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no lists of cores")
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)
    assert usable_cores() == len(before)


def test_macos_keeps_no_list_of_a_process_s_cores(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert usable_cores() == default_workers() == default_threads() == 3
