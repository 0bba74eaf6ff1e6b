"""Results spoilt one way at a time; every one is refused, by name."""

import dataclasses

import numpy as np
import pytest

from deltaserver.compute import jit
from deltaserver.errors import GuardError
from deltaserver.model.trust.evaluation import DOUBLE, SINGLE, _balance, check_evaluation
from tests.builders import WATER_ATOMS, rotation

needs_numba = pytest.mark.skipif(not jit.AVAILABLE, reason="numba is not installed")


@pytest.fixture(params=["NumPy", pytest.param("compiled", marks=needs_numba)], autouse=True)
def way(request, monkeypatch):
    if request.param == "NumPy":
        monkeypatch.setattr(jit, "AVAILABLE", False)


@pytest.fixture
def result(composite, batch):
    return composite.evaluate(batch)


def said(result, batch, **options):
    with pytest.raises(GuardError) as caught:
        check_evaluation(result, batch, **options)
    assert caught.value.exit_code == 4
    assert "nothing was sent" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("component", ["total", "fragments", "binding", "full", "water"])
def test_right_results_pass(composite, batch, component):
    for x in (batch, batch + 1e4, 1.2 * batch @ rotation(3)):
        check_evaluation(composite.evaluate(x, component), x)


def test_at_forces_of_nothing_rounding_is_no_violation(composite, batch):
    small = composite.evaluate(batch)
    parts = [small, *small.contributions.values()]
    for part in parts:
        part.forces[...] *= 1e-9
        part.forces[...] += 1e-14
    small.forces[...] = sum(part.forces for part in small.contributions.values())
    check_evaluation(small, batch)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("array", ["energy", "forces", "virial"])
@pytest.mark.parametrize("part", ["the total", "ammonia", "binding"])
def test_not_finite(result, batch, value, array, part):
    target = result if part == "the total" else result.contributions[part]
    getattr(target, array)[(1, *[0] * (getattr(target, array).ndim - 1))] = value
    if array == "virial" and part != "the total":
        result.virial[1, 0, 0] += value  # as the sum of contributions would be
        part = "the total"
    message = said(result, batch, first=40)
    assert message.startswith(f"structure 41: energy, forces or virial of {part} are not finite")


def test_the_contribution_that_spoils_the_total_is_named(composite, batch):
    result = composite.evaluate(batch)
    for part in (result, result.contributions["water"]):
        part.forces[2, 5] = np.nan
    assert said(result, batch).startswith("structure 2: energy, forces or virial of water are")


def test_an_energy_that_is_not_the_sum(result, batch):
    result.energy[0] += 1e-6
    assert "structure 0: the energy of the total is not the sum" in said(result, batch)


def test_forces_that_are_not_the_sum(result, batch):
    result.forces[1, :2, 0] += [1e-5, -1e-5]
    assert "structure 1: the forces of the total are not the sum" in said(result, batch)


def push(result, name, forces):
    """Add to a contribution and to the total, so that they still sum."""
    result.contributions[name].forces[...] += forces
    result.forces[...] += forces


def test_a_net_force(result, batch):
    forces = np.zeros_like(batch)
    forces[2, WATER_ATOMS[0], 1] = 1e-3
    push(result, "water", forces)
    # it is the total's too, but the total comes first in no other way than this
    message = said(result, batch)
    assert message.startswith("structure 2: the forces of")
    assert "do not sum to zero" in message


def test_opposite_net_forces_of_two_parts_are_found(result, batch):
    forces = np.zeros_like(batch)
    forces[0, 3, 2] = 1e-3
    push(result, "water", forces)
    push(result, "binding", -forces)
    assert "structure 0: the forces of water do not sum to zero" in said(result, batch)


def test_a_net_torque(result, batch):
    arm = batch[1] - batch[1].mean(axis=0)
    forces = np.zeros_like(batch)
    forces[1] = 1e-3 * np.cross([0.0, 0.0, 1.0], arm)  # sums to zero, turns about z
    push(result, "binding", forces)
    assert "turn the complex as a whole" in said(result, batch)
    check_evaluation(result, batch, periodic=True)


def test_single_precision_is_allowed_its_rounding(result, batch):
    rng = np.random.default_rng(0)
    size = np.abs(result.forces).max()
    push(result, "binding", 1e-6 * size * rng.normal(size=batch.shape))
    check_evaluation(result, batch, tolerances=SINGLE)
    assert "do not sum to zero" in said(result, batch)


def test_results_are_left_as_they_were(result, batch):
    before = [part.forces.copy() for part in [result, *result.contributions.values()]]
    check_evaluation(result, batch)
    after = [part.forces for part in [result, *result.contributions.values()]]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert dataclasses.is_dataclass(result)


@needs_numba
@pytest.mark.parametrize("n_parts", [1, 2, 4])
@pytest.mark.parametrize("n_batch", [1, 3])
def test_compiled_and_numpy_see_the_same(monkeypatch, n_parts, n_batch):
    rng = np.random.default_rng(n_parts)
    energies, forces = (
        rng.normal(size=(n_parts, n_batch)),
        rng.normal(size=(n_parts, n_batch, 7, 3)),
    )
    positions = 5.0 * rng.normal(size=(n_batch, 7, 3)) + 20.0
    found = []
    for available in (True, False):
        monkeypatch.setattr(jit, "AVAILABLE", available)
        left_over, allowed, rest = _balance(energies, forces, positions, DOUBLE)
        assert np.isfinite(rest)
        found.append((left_over, allowed))
    for compiled, plain in zip(*found, strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("atom", [0, 3])
def test_one_force_that_is_not_finite_is_seen_wherever_it_is(result, batch, atom, value):
    result.forces[1, atom, 2] = value
    assert "structure 1: energy, forces or virial of the total are not finite" in said(
        result, batch
    )
