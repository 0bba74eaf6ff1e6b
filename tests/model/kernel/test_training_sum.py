"""The matrix products against the sums as the papers write them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.kernel import base
from deltaserver.model.kernel.training_sum import training_sum
from tests.builders import AMMONIA_PERMS, numerical_gradient
from tests.tolerances import assert_same_sum, terms_of_kernel

PAIRS = PairDescriptor(4).permutations(AMMONIA_PERMS)
TERMS = terms_of_kernel(PAIRS, 5)


def literal_sum(sigma, x, a, pair_perms, alphas, q):
    """E = Σ w₂ Δ·Pa + Σ α k, one training point and one permutation at a time."""
    energy = 0.0
    for m in range(len(x)):
        for p in pair_perms:
            delta = q - x[m][p]
            r = np.sqrt(5.0) * np.linalg.norm(delta)
            w2 = 5.0 / (3.0 * sigma**3) * (sigma + r) * np.exp(-r / sigma)
            energy += w2 * delta @ a[m][p]
            if alphas is not None:
                matern = 1 + r / sigma + r**2 / (3 * sigma**2)
                energy += alphas[m] * matern * np.exp(-r / sigma)
    return energy


def arrays(seed, energy_constraints):
    rng = np.random.default_rng(seed)
    x, a = rng.uniform(0.3, 1.0, (5, 6)), rng.normal(size=(5, 6))
    alphas = rng.normal(size=5) if energy_constraints else None
    return x, a, alphas, rng.uniform(0.3, 1.0, (3, 6))


@pytest.mark.parametrize("energy_constraints", [False, True])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), sigma=st.floats(0.3, 50.0))
def test_energy_is_the_literal_sum(energy_constraints, seed, sigma):
    x, a, alphas, q = arrays(seed, energy_constraints)
    energy, _ = training_sum(sigma, x, a, PAIRS, alphas)(q)
    expected = [literal_sum(sigma, x, a, PAIRS, alphas, row) for row in q]
    # Σ|terms|: the weights are at most 5/3σ² and 1, entries of Δ at most 0.7.
    pull = np.abs(a).sum() * 0.7 * 5.0 / (3.0 * sigma**2)
    constraint = 0.0 if alphas is None else np.abs(alphas).sum()
    size = len(PAIRS) * (pull + constraint)
    assert_same_sum(energy, expected, TERMS, size)


@pytest.mark.parametrize("energy_constraints", [False, True])
def test_g_is_minus_the_gradient(energy_constraints):
    x, a, alphas, q = arrays(11, energy_constraints)
    total = training_sum(0.9, x, a, PAIRS, alphas)
    _, g = total(q)
    for row, expected in zip(q, g, strict=True):
        slope = numerical_gradient(lambda y: float(total(y[None])[0][0]), row)
        np.testing.assert_allclose(expected, -slope, rtol=1e-8, atol=1e-9)


def test_permuted_queries_have_the_same_energy_and_permuted_gradients():
    x, a, alphas, q = arrays(12, True)
    total = training_sum(0.9, x, a, PAIRS, alphas)
    energy, g = total(q)
    for p in PAIRS:
        e_p, g_p = total(q[:, p])
        assert_same_sum(e_p, energy, TERMS)
        assert_same_sum(g_p, g[:, p], TERMS)


def test_at_a_training_point_nothing_cancels():
    # |Δ|² is exactly zero here; the expanded form leaves rounding noise, which must not matter.
    x, a, _, _ = arrays(13, False)
    x = 1000.0 + 1e-3 * x  # fluctuations of a millionth of the descriptor
    one = np.arange(6)[None]
    total = training_sum(1e-3, x, a, one, None)
    energy, _ = total(x)
    expected = [literal_sum(1e-3, x, a, one, None, row) for row in x]
    np.testing.assert_allclose(energy, expected, rtol=1e-8)


def test_chunks_do_not_change_the_result(monkeypatch):
    x, a, alphas, q = arrays(14, True)
    total = training_sum(0.9, x, a, PAIRS, alphas)
    whole = total(q)
    monkeypatch.setattr(base, "CHUNK_ELEMENTS", 1)
    for one_by_one, at_once in zip(total(q), whole, strict=True):
        assert_same_sum(one_by_one, at_once, TERMS)


def test_an_empty_batch_gives_empty_results():
    x, a, _, _ = arrays(15, False)
    energy, g = training_sum(0.9, x, a, PAIRS, None)(np.zeros((0, 6)))
    assert energy.shape == (0,)
    assert g.shape == (0, 6)
