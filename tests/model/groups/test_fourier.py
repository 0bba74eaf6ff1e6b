"""The Fourier space of a group against the permutations themselves."""

import numpy as np
import pytest

from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.groups.fourier import MAX_ORDER, GroupFourier
from deltaserver.model.kernel import base
from deltaserver.model.kernel.training_sum import DirectSum, FourierSum, Weights, training_sum
from tests.model.groups.test_representations import GROUPS, cyclic, product, symmetric
from tests.model.kernel.test_training_sum import literal_sum
from tests.tolerances import assert_same_sum, terms_of_kernel

CASES = {
    **{name: perms for name, perms in GROUPS.items() if name not in ("trivial", "C2", "C60")},
    "C5 x C4": product(cyclic(5), cyclic(4)),
    "S3 x S3, two atoms apart": product(symmetric(3), symmetric(3), np.arange(2)[None]),
}


def pair_perms(perms):
    return PairDescriptor(perms.shape[1]).permutations(perms)


@pytest.mark.parametrize("name", CASES)
def test_the_basis_is_orthogonal(name):
    perms = pair_perms(CASES[name])
    fourier = GroupFourier.of(perms)
    identity = np.eye(perms.shape[1])
    q = fourier.forward(identity)
    np.testing.assert_allclose(q @ q.T, identity, atol=1e-12)
    np.testing.assert_allclose(fourier.backward(q), identity, atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_correlations_with_every_permutation(name):
    perms = pair_perms(CASES[name])
    fourier = GroupFourier.of(perms)
    x, y = np.random.default_rng(0).normal(size=(2, 1, perms.shape[1]))
    z = np.zeros(fourier.n_elements)
    for part in fourier.components:
        rows = [v[0, part.rows].reshape(part.dim, -1) for v in map(fourier.forward, (x, y))]
        z[part.elements] = (rows[0] @ rows[1].T).ravel()
    found = fourier.at_elements(z[:, None])[:, 0]
    expected = [float(y[0, p] @ x[0]) for p in perms]
    np.testing.assert_allclose(np.sort(found), np.sort(expected), atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_from_elements_is_the_adjoint_of_at_elements(name):
    fourier = GroupFourier.of(pair_perms(CASES[name]))
    rng = np.random.default_rng(1)
    z, w = rng.normal(size=(fourier.n_elements, 3)), rng.normal(size=(fourier.order, 3))
    left = (fourier.at_elements(z) * w).sum()
    assert left == pytest.approx((fourier.from_elements(w) * z).sum(), rel=1e-12)


@pytest.mark.parametrize("energy_constraints", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_the_sum_is_the_literal_one(name, energy_constraints):
    perms = pair_perms(CASES[name])
    rng = np.random.default_rng(2)
    d = perms.shape[1]
    x, a = rng.uniform(0.3, 1.0, (6, d)), rng.normal(size=(6, d))
    alphas = rng.normal(size=6) if energy_constraints else None
    q = rng.uniform(0.3, 1.0, (3, d))
    total = training_sum(0.8, x, a, perms, alphas)
    assert isinstance(total, FourierSum)
    energy, g = total(q)
    expected = [literal_sum(0.8, x, a, perms, alphas, row) for row in q]
    n_terms = terms_of_kernel(perms, len(x)) + 2 * len(perms)  # to Fourier space and back
    assert_same_sum(energy, expected, n_terms)
    _, g_direct = DirectSum(Weights(0.8, alphas), x, a, perms)(q)
    assert_same_sum(g, g_direct, n_terms)


def test_permutations_that_are_no_group_are_summed_as_given():
    # A file may hold any set of permutations; nothing relies on closure.
    perms = pair_perms(np.array([[0, 1, 2, 3, 4], [1, 2, 0, 3, 4], [0, 1, 2, 4, 3]]))
    rng = np.random.default_rng(5)
    x, a, q = rng.uniform(0.3, 1.0, (4, 10)), rng.normal(size=(4, 10)), rng.uniform(0.3, 1, (2, 10))
    total = training_sum(0.8, x, a, perms, None)
    assert isinstance(total, DirectSum)
    expected = [literal_sum(0.8, x, a, perms, None, row) for row in q]
    assert_same_sum(total(q)[0], expected, terms_of_kernel(perms, len(x)))


def test_very_large_groups_are_summed_directly():
    assert GroupFourier.of(np.zeros((MAX_ORDER + 1, 3), dtype=int)) is None


def test_chunks_do_not_change_the_result(monkeypatch):
    perms = pair_perms(symmetric(4))
    rng = np.random.default_rng(6)
    x, a, q = rng.uniform(0.3, 1.0, (4, 6)), rng.normal(size=(4, 6)), rng.uniform(0.3, 1, (5, 6))
    total = training_sum(0.8, x, a, perms, None)
    whole = total(q)
    monkeypatch.setattr(base, "CHUNK_ELEMENTS", 1)
    for one_by_one, at_once in zip(total(q), whole, strict=True):
        assert_same_sum(one_by_one, at_once, terms_of_kernel(perms, len(x)) + 2 * len(perms))
