"""Values at elements and their inverses against the matrix elements themselves."""

import numpy as np
import pytest

from deltaserver.model.groups import inversion
from deltaserver.model.groups.fourier import GroupFourier
from deltaserver.model.groups.inversion import Inversion
from tests.model.groups.test_fourier import CASES, pair_perms


@pytest.mark.parametrize("many", [1, 1 << 30])
@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_matrix_elements(monkeypatch, name, many):
    monkeypatch.setattr(inversion, "MANY", many)
    fourier = GroupFourier.of(pair_perms(CASES[name]))
    found = Inversion.of(fourier)
    length = found.forth.shape[2]
    elements = np.random.default_rng(0).normal(size=fourier.n_elements)
    z, y = np.zeros((2, len(fourier.sectors) * length))
    z[found.numbers] = elements
    y[found.alone[:, 1]] = z[found.alone[:, 0]]
    one, other, even, odd = found.pairs.T
    y[even], y[odd] = (z[one] + z[other]) / np.sqrt(2), (z[one] - z[other]) / np.sqrt(2)
    for k, sector in enumerate(fourier.sectors):
        n_even, n_odd, n_own, n_pairs = found.counts[k]
        numbers, table = y[k * length : (k + 1) * length], found.forth[k]
        u = table[:n_pairs, :n_even] @ numbers[:n_even]
        v = table[:n_pairs, n_even:][:, :n_odd] @ numbers[n_even:][:n_odd]
        own = table[n_pairs:, :n_own] @ numbers[:n_own]
        values = sector.values @ elements[sector.elements]
        np.testing.assert_allclose(np.concatenate([u + v, own, u - v]), values, atol=1e-11)


def test_the_way_back_is_the_transpose():
    found = Inversion.of(GroupFourier.of(pair_perms(CASES["S3 x S3, two atoms apart"])))
    for forth, back, (n_even, n_odd, _, n_pairs) in zip(
        found.forth, found.back, found.counts, strict=True
    ):
        np.testing.assert_array_equal(back[:n_even], forth.T[:n_even])
        odd = slice(n_even, n_even + n_odd)
        own_first = np.concatenate([forth.T[odd, n_pairs:], forth.T[odd, :n_pairs]], axis=1)
        np.testing.assert_array_equal(back[odd], own_first)


@pytest.mark.parametrize("name", CASES)
def test_cosets_come_with_their_inverses(name):
    """ρ(t⁻¹) is ρ(t)ᵀ, which of matrix elements is another order."""
    fourier = GroupFourier.of(pair_perms(CASES[name]))
    n = fourier.n_pairs
    for part in fourier.components:
        sector = next(
            s for s in fourier.sectors if s.elements.start <= part.first < s.elements.stop
        )
        here = part.first - sector.elements.start
        rho = sector.values[:, here : here + part.dim**2].reshape(-1, part.dim, part.dim)
        np.testing.assert_allclose(rho[len(rho) - n :], rho[:n].swapaxes(1, 2), atol=1e-11)
