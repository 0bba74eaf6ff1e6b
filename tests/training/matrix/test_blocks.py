from __future__ import annotations

import numpy as np
import pytest

from deltaserver.errors import DataError
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.training.matrix import blocks
from deltaserver.training.matrix.blocks import PairFields, PermutationGroup
from tests.tolerances import assert_same_sum, terms_of_block

blocks_numba = pytest.importorskip("deltaserver.training.matrix.blocks_numba")

RNG = np.random.default_rng(1)
N_ATOMS, SIGMA = 7, 3.0
POSITIONS = RNG.normal(scale=2.0, size=(2, N_ATOMS, 3))
PERMS = np.array([np.arange(N_ATOMS), *(RNG.permutation(N_ATOMS) for _ in range(5))])


def jacobian(positions):
    """Return the descriptor [D] and its Jacobian [D, 3N], built entry by entry."""
    pairs = PairDescriptor(len(positions))
    d = positions[pairs.i] - positions[pairs.j]
    x = 1.0 / np.linalg.norm(d, axis=1)
    full = np.zeros((pairs.dim, len(positions), 3))
    full[np.arange(pairs.dim), pairs.i] = -d * x[:, None] ** 3
    full[np.arange(pairs.dim), pairs.j] = d * x[:, None] ** 3
    return x, full.reshape(pairs.dim, -1)


def brute_force(first, second, perms, sigma):
    """Return K(m, m') as the sum over permutations of J [..] J' with full Jacobians."""
    (x, J), (x2, J2) = jacobian(first), jacobian(second)
    total = 0.0
    for t in PairDescriptor(len(first)).permutations(perms):
        delta = x - x2[t]
        r = np.sqrt(5.0) * np.linalg.norm(delta)
        base = 5.0 / (3.0 * sigma**4) * np.exp(-r / sigma)
        middle = (sigma**2 + sigma * r) * np.eye(len(x)) - 5.0 * np.outer(delta, delta)
        total = total + base * J.T @ middle @ J2[t]
    return total


@pytest.mark.parametrize("backend", [blocks, blocks_numba])
@pytest.mark.parametrize("n_perms", [1, 6])
@pytest.mark.parametrize("pair", [(0, 1), (1, 0), (0, 0)])
def test_block_equals_the_product_of_full_jacobians(backend, n_perms, pair):
    perms = PERMS[:n_perms]
    block = backend.block(PairFields.of(POSITIONS), *pair, PermutationGroup.of(perms), SIGMA).T
    expected = brute_force(*POSITIONS[list(pair)], perms, SIGMA)
    size = np.abs(expected).max()  # on the diagonal all terms have one sign
    assert_same_sum(block, expected, terms_of_block(n_perms, N_ATOMS), size)


def test_block_is_the_mixed_derivative_of_the_kernel():
    """K(m, m') = ∂²k/∂r∂r' for the Matérn kernel k = (1 + r/σ + r²/3σ²) exp(−r/σ)."""

    def kernel(first, second):
        r = np.sqrt(5.0) * np.linalg.norm(jacobian(first)[0] - jacobian(second)[0])
        return (1.0 + r / SIGMA + r**2 / (3.0 * SIGMA**2)) * np.exp(-r / SIGMA)

    block = blocks.block(PairFields.of(POSITIONS), 0, 1, PermutationGroup.of(PERMS[:1]), SIGMA).T
    h = 1e-3
    for row, column in [(0, 0), (4, 9), (20, 2)]:
        numeric = 0.0
        for a in (1, -1):
            for b in (1, -1):
                first, second = POSITIONS.copy()
                first.flat[row] += a * h
                second.flat[column] += b * h
                numeric += a * b * kernel(first, second)
        assert block[row, column] == pytest.approx(numeric / (4 * h * h), rel=1e-4, abs=1e-8)


def test_coinciding_atoms_are_named():
    positions = POSITIONS.copy()
    positions[1, 3] = positions[1, 5]
    with pytest.raises(DataError, match="training frame 1: atoms 3 and 5 are at the same place"):
        PairFields.of(positions)


def test_permutations_are_ordered_by_what_they_bring():
    group = PermutationGroup.of(PERMS)
    assert len(group) == len(PERMS)
    for c in range(N_ATOMS):
        sources = group.inverse[group.by_source[c], c]
        assert (np.diff(sources) >= 0).all()
        np.testing.assert_array_equal(np.sort(group.by_source[c]), np.arange(len(PERMS)))
