from __future__ import annotations

import numpy as np
import pytest

from deltaserver.training.matrix import blocks
from deltaserver.training.matrix.blocks import PairFields, PermutationGroup
from tests.tolerances import assert_same_sum, terms_of_block

blocks_numba = pytest.importorskip("deltaserver.training.matrix.blocks_numba")


@pytest.mark.parametrize("n_atoms", [2, 5, 24])
@pytest.mark.parametrize("sigma", [1.0, 20.0])
def test_compiled_block_equals_numpy(n_atoms, sigma):
    rng = np.random.default_rng(n_atoms)
    fields = PairFields.of(rng.normal(scale=3.0, size=(2, n_atoms, 3)))
    perms = np.unique([rng.permutation(n_atoms) for _ in range(8)], axis=0)
    group = PermutationGroup.of(perms)
    expected = blocks.block(fields, 0, 1, group, sigma)
    found = blocks_numba.block(fields, 0, 1, group, sigma)
    n_terms, size = terms_of_block(len(perms), n_atoms), np.abs(expected).max()
    assert_same_sum(found, expected, n_terms, size)


def test_compilation_changes_nothing(monkeypatch):
    """The same functions, interpreted: a difference would be the compiler's."""
    rng = np.random.default_rng(7)
    fields = PairFields.of(rng.normal(scale=3.0, size=(2, 4, 3)))
    group = PermutationGroup.of(np.array([[0, 1, 2, 3], [1, 0, 2, 3], [0, 1, 3, 2], [1, 0, 3, 2]]))
    compiled = blocks_numba.block(fields, 0, 1, group, 5.0)
    for name in ("_pull", "_add_jacobian_products"):
        monkeypatch.setattr(blocks_numba, name, getattr(blocks_numba, name).py_func)
    interpreted = blocks_numba.block(fields, 0, 1, group, 5.0)
    assert_same_sum(compiled, interpreted, terms_of_block(4, 4), np.abs(compiled).max())
