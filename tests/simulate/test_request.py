"""What is asked of a run."""

from __future__ import annotations

import pytest

from deltaserver.simulate.request import RunOptions


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 10, 11, 32, 110])
def test_of_a_long_run_every_replica_comes_into_the_log(n):
    stride = RunOptions().stride(20_000, n)
    assert {k * stride % n for k in range(n)} == set(range(n))
    assert 10 <= stride <= 13


def test_of_a_short_run_every_structure_does():
    assert RunOptions().stride(1000, 8) == 1


def test_what_is_asked_for_counts():
    assert RunOptions(log_every=4).stride(20_000, 8) == 4
