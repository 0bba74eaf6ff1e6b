from __future__ import annotations

import numpy as np
import pytest

from deltaserver.training import blocks
from deltaserver.training.blocks import PairFields, PermutationGroup

blocks_numba = pytest.importorskip("deltaserver.training.blocks_numba")


@pytest.mark.parametrize("n_atoms", [2, 5, 24])
@pytest.mark.parametrize("sigma", [1.0, 20.0])
def test_compiled_block_equals_numpy(n_atoms, sigma):
    rng = np.random.default_rng(n_atoms)
    fields = PairFields.of(rng.normal(scale=3.0, size=(2, n_atoms, 3)))
    perms = np.unique([rng.permutation(n_atoms) for _ in range(8)], axis=0)
    group = PermutationGroup.of(perms)
    expected = blocks.block(fields, 0, 1, group, sigma)
    found = blocks_numba.block(fields, 0, 1, group, sigma)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-14 * np.abs(expected).max())
