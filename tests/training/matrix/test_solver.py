from __future__ import annotations

import sys

import numpy as np
import pytest

from deltaserver.errors import InputError, MissingExtraError
from deltaserver.training.matrix import solver
from deltaserver.training.matrix.solver import NotPositiveDefiniteError, solve_in_place
from tests.tolerances import assert_same_sum


def system(n, seed=0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n, n))
    full = root @ root.T + 0.1 * n * np.eye(n)
    return full, rng.normal(size=n)


def lower_only(full):
    matrix = np.asfortranarray(np.tril(full))
    matrix[np.triu_indices(len(full), 1)] = np.nan  # whoever reads this shows
    return matrix


@pytest.mark.parametrize("n", [1, 7, 64, 150])
def test_residual_vanishes_over_several_tiles(monkeypatch, n):
    monkeypatch.setattr(solver, "PANEL", 16)
    monkeypatch.setattr(solver, "ROWS", 40)
    full, y = system(n)
    alphas = solve_in_place(lower_only(full), y, lam=0.5)
    np.testing.assert_allclose(full @ alphas + 0.5 * alphas, y, atol=1e-12)


def test_one_tile_suffices_for_small_matrices():
    full, y = system(90)
    alphas = solve_in_place(lower_only(full), y, lam=0.0, threads=2)
    np.testing.assert_allclose(full @ alphas, y, atol=1e-12)


def test_progress_ends_at_one(monkeypatch):
    monkeypatch.setattr(solver, "PANEL", 16)
    seen = []
    full, y = system(60)
    solve_in_place(lower_only(full), y, 0.0, progress=lambda _, x: seen.append(x))
    assert seen == sorted(seen)
    assert seen[-1] == 1.0


@pytest.mark.parametrize("device", ["cpu", "torch:cpu"])
def test_indefinite_matrix_says_what_to_do(monkeypatch, device):
    if device != "cpu":
        pytest.importorskip("torch")
    monkeypatch.setattr(solver, "PANEL", 16)
    full, y = system(40)
    full[30, 30] = -1.0
    matrix = np.asfortranarray(np.tril(full))
    with pytest.raises(NotPositiveDefiniteError, match=r"row 30 .*use a smaller sigma") as caught:
        solve_in_place(matrix, y, 1e-10, device=device)
    assert isinstance(caught.value, InputError)
    assert "\n" not in str(caught.value)


def test_torch_gives_the_same():
    pytest.importorskip("torch")
    full, y = system(50)
    expected = solve_in_place(lower_only(full), y, 1e-3)
    found = solve_in_place(np.asfortranarray(np.tril(full)), y, 1e-3, device="torch:cpu")
    # Backward stable: each solves a system that n roundings have changed, and the condition number
    # tells how far that moves the solution.
    assert_same_sum(found, expected, 50, np.linalg.cond(full) * np.linalg.norm(expected))


def test_a_missing_torch_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    full, y = system(5)
    with pytest.raises(MissingExtraError, match=r"pip install 'deltaserver\[gpu\]'"):
        solve_in_place(lower_only(full), y, 0.0, device="cuda")


def test_a_missing_gpu_is_one_line(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    full, y = system(5)
    with pytest.raises(InputError, match="no GPU; use --device cpu"):
        solve_in_place(lower_only(full), y, 0.0, device="cuda")
