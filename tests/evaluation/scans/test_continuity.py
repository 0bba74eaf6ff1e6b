"""Jumps are found wherever they are; slopes and kinks are none."""

import numpy as np
import pytest

from deltaserver.evaluation.scans.continuity import largest_jump


def wall(x):
    return np.stack([400.0 * np.exp(-3.6 * (x + 2.0)), 3.0 / (x + 2.5) ** 7], axis=-1)


def with_jump(at, size):
    return lambda x: wall(x) + size * (x > at)[:, None]


def test_a_smooth_force_has_none():
    assert largest_jump(wall, -1.0, 20.0, 1e-6) == 0.0


@pytest.mark.parametrize("at", [-0.9, 0.125, 1.2345, 12.3, 19.99])
@pytest.mark.parametrize("size", [2e-6, 1e-4, 0.3])
def test_a_jump_is_found_and_its_size_is_right(at, size):
    found = largest_jump(with_jump(at, size), -1.0, 20.0, 1e-6)
    assert 0.5 * size < found < 1.5 * size


def test_a_kink_is_no_jump():
    assert largest_jump(lambda x: np.abs(x - 1.234)[:, None], -1.0, 20.0, 1e-6) == 0.0


def test_noise_ends():
    rng = np.random.default_rng(0)
    assert 0.0 < largest_jump(lambda x: 1e-4 * rng.normal(size=(len(x), 3)), 0.0, 9.0, 1e-6) < 1e-2
