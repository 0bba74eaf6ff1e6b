"""The bounds that tests compare by: no order of summing leaves them, and they are not wide."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tolerances import assert_same_sum, rounding


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_order_of_summing_leaves_the_bound(dtype):
    rng = np.random.default_rng(0)
    terms = rng.normal(size=1000).astype(dtype)
    in_order = [np.cumsum(rng.permutation(terms))[-1] for _ in range(50)]
    assert len(set(in_order)) > 1
    size = float(np.abs(terms).sum())
    assert_same_sum(in_order, in_order[0], len(terms), size, dtype)
    with pytest.raises(AssertionError):
        assert_same_sum(in_order[0] + 3.0 * rounding(1000, dtype) * size, in_order[0], 1000, size,
                        dtype)  # fmt: skip


def test_doubles_are_not_judged_as_singles():
    assert rounding(100) < 1.2e-14 < 5e-6 < rounding(100, np.float32)
    with pytest.raises(AssertionError):
        assert_same_sum(1.0 + 1e-12, 1.0, 100)
