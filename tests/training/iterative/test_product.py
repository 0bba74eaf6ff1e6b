from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from deltaserver.training.components import components, labelled_set
from deltaserver.training.iterative.preconditioner import FLOOR, Preconditioner, choose_points
from deltaserver.training.iterative.product import EnergyColumns, KernelProduct
from deltaserver.training.matrix.assembly import assemble
from deltaserver.training.matrix.blocks import PairFields
from deltaserver.training.symmetry_modes import resolve
from deltaserver.training.trainer import _descriptor_coefficients
from tests.training.labelled import both_triples, water_dimer

SIGMA = 8.0


def points(mode, count=20, name="binding"):
    frames = water_dimer(40)
    available = components(frames)
    component = next(c for c in available if c.name == name)
    data = labelled_set(frames, component)
    some = np.arange(count)
    return data.positions[some], resolve(mode, frames, available, component, data, some).perms


def whole_matrix(x, perms):
    lower = np.tril(np.asarray(assemble(x, perms, SIGMA)))
    return lower + np.tril(lower, -1).T


@pytest.mark.parametrize("mode", ["none", "product"])
@pytest.mark.parametrize("device", ["cpu", "torch:cpu"])
def test_the_product_is_the_matrix_times_the_vector(mode, device):
    if device != "cpu":
        pytest.importorskip("torch")
    x, perms = points(mode)
    v = np.random.default_rng(0).normal(size=x.size)
    expected = whole_matrix(x, perms) @ v
    found = KernelProduct(x, perms, SIGMA, device=device)(v)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_a_large_group_goes_through_compiled_loops_to_the_same():
    x, _ = points("none", 35)
    perms = both_triples()
    v = np.random.default_rng(1).normal(size=x.size)
    expected = whole_matrix(x, perms) @ v
    for threads in (1, 2):
        found = KernelProduct(x, perms, SIGMA, threads)(v)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_blocks_of_a_large_group_are_shared_out_to_threads(monkeypatch):
    """BLAS has no part in compiled loops: without threads of ours a second core stands idle."""
    x, _ = points("none", 35)
    product, asked = KernelProduct(x, both_triples(), SIGMA, 2), []
    monkeypatch.setattr(product, "_pool", SimpleNamespace(map=lambda run, parts: (
        asked.extend(parts) or [run(part) for part in parts])))  # fmt: skip
    product(np.ones(x.size))
    assert len(asked) == 3  # of 16 points at most


def test_threads_change_no_digit():
    x, _ = points("none", 35)
    v = np.random.default_rng(1).normal(size=x.size)
    one, two = (KernelProduct(x, both_triples(), SIGMA, threads)(v) for threads in (1, 2))
    assert np.array_equal(one, two)


def test_coefficients_in_descriptor_space_are_those_of_the_file():
    x, perms = points("none")
    v = np.random.default_rng(2).normal(size=x.size)
    _, a = _descriptor_coefficients(x, -v)
    np.testing.assert_allclose(KernelProduct(x, perms, SIGMA).in_descriptor_space(v), a, rtol=1e-10)


# B in single precision is off by 6e-8 of itself, which counts √(|K|/λ) times.
@pytest.mark.parametrize(("single", "tolerance"), [(False, 1e-7), (True, 3e-4)])
def test_the_preconditioner_of_all_points_inverts_the_matrix(single, tolerance):
    x, perms = points("product", 8)
    lam, some = 1e-4, choose_points(8, 8)
    inverse = Preconditioner(PairFields.of(x), perms, SIGMA, some, lam, single=single)
    y = np.random.default_rng(3).normal(size=x.size)
    matrix = whole_matrix(x, perms) + lam * np.eye(x.size)
    np.testing.assert_allclose(matrix @ inverse(y), y, rtol=0, atol=tolerance * np.abs(y).max())


def test_few_columns_and_the_blocks_of_every_point():
    x, perms = points("product")
    some = choose_points(20, 5)
    few = Preconditioner(PairFields.of(x), perms, SIGMA, some, 0.0)
    rows = (some[:, None] * 18 + np.arange(18)).ravel()
    K = whole_matrix(x, perms)
    expected = K[:, rows] @ np.linalg.lstsq(K[np.ix_(rows, rows)], K[rows], rcond=1e-13)[0]
    left = K - expected
    for m in range(20):
        block = slice(18 * m, 18 * m + 18)
        expected[block, block] = K[block, block]
    expected += FLOOR * np.diagonal(left).mean() * np.eye(x.size)
    y = np.random.default_rng(3).normal(size=x.size)
    # K_rr is nearly singular: by least squares and by Cholesky its inverse agrees to some digits.
    np.testing.assert_allclose(few(expected @ y), y, rtol=0, atol=1e-4 * np.abs(y).max())


@pytest.mark.parametrize("mode", ["none", "product"])
def test_columns_of_energies_are_those_of_the_matrix_that_has_them(mode):
    x, perms = points(mode, 8)
    whole = np.tril(np.asarray(assemble(x, perms, SIGMA, energy=1.0)))
    whole += np.tril(whole, -1).T
    energies = np.arange(18, len(whole), 19)
    forces = np.setdiff1d(np.arange(len(whole)), energies)
    rows = [np.empty((18, 3)) for _ in range(8)]
    some = np.array([1, 4, 7])
    between = EnergyColumns(KernelProduct(x, perms, SIGMA), some).fill(rows)
    expected = whole[np.ix_(forces, energies[some])]
    found = np.vstack(rows)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    expected = whole[np.ix_(energies[some], energies[some])]
    np.testing.assert_allclose(between, expected, rtol=1e-12)
    labels = KernelProduct(x, perms, SIGMA, energy=0.3)
    column, _ = labels.energy_column(4)
    np.testing.assert_allclose(column[18::19], 0.3 * whole[energies, energies[4]], rtol=1e-12)


def test_columns_in_single_precision_are_as_good():
    """They change the spectrum of what conjugate gradients see only at second order."""
    x, perms = points("product")
    K = whole_matrix(x, perms) + 1e-8 * np.eye(x.size)
    far = []
    for single in (False, True):
        inverse = Preconditioner(
            PairFields.of(x), perms, SIGMA, choose_points(20, 5), 1e-8, single=single
        )
        kept = np.column_stack([inverse(column) for column in K.T])
        spectrum = np.linalg.eigvals(kept).real
        far.append(spectrum.max() / spectrum.min())
    assert far[1] < 1.1 * far[0]


def test_energies_of_all_points_make_it_nearer_to_the_inverse():
    x, perms = points("product")
    some, lam = choose_points(20, 2), 1e-8
    fields, every = PairFields.of(x), EnergyColumns(KernelProduct(x, perms, SIGMA), np.arange(20))
    K = whole_matrix(x, perms) + lam * np.eye(x.size)
    far = []
    for energies in (None, every):
        inverse = Preconditioner(fields, perms, SIGMA, some, lam, energies=energies)
        kept = np.column_stack([inverse(column) for column in K.T])
        spectrum = np.linalg.eigvals(kept).real
        far.append(spectrum.max() / spectrum.min())
    assert far[1] < 0.5 * far[0]


def test_points_are_chosen_the_same_and_once():
    chosen = choose_points(50, 20)
    assert np.array_equal(chosen, choose_points(50, 20))
    assert len(set(chosen.tolist())) == 20
    assert set(choose_points(50, 10)) <= set(chosen.tolist())
