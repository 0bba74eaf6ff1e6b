from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deltaserver.errors import ComponentError, GeometryError
from deltaserver.model import force_field
from deltaserver.model.many.model import Box, ManyModel
from tests import shipped
from tests.model.many.builders import (
    BENZENE_DIMER,
    CELL,
    OF_BOTH,
    benzenes,
    directory,
    manifest,
    positions,
    slope_along,
    slope_by_strain,
)
from tests.tolerances import assert_same_sum

N_WATER, N_NEON = 6, 3


def wet_neon(**changes):
    """Return a manifest of all that molecules can have, induction as well."""
    return manifest(N_WATER, N_NEON, induction=OF_BOTH, **changes)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = directory(tmp_path_factory.mktemp("wet"), wet_neon())
    return force_field.load(path)


@pytest.fixture(scope="module")
def x():
    return positions(N_WATER, N_NEON)


def test_no_frames_have_no_energies(tmp_path):
    model = force_field.load(benzenes(tmp_path, 2))
    found = model.evaluate(np.zeros((0, 24, 3)))
    assert found.forces.shape == (0, 24, 3)
    assert set(found.contributions) == {"benzene", "prior", "binding"}
    assert found.molecules["binding"].shape == (0, 2)


def test_parts_sum_to_the_total_and_all_of_them_say_something(model, x):
    assert isinstance(model, ManyModel)
    result = model.evaluate(x, cell=CELL)
    assert set(result.contributions) == {"water", "neon", "prior", "binding", "triples"}
    assert all(abs(part.energy) > 1e-4 for part in result.contributions.values())
    for name in ("energy", "forces", "virial"):
        total = sum(getattr(part, name) for part in result.contributions.values())
        assert np.allclose(getattr(result, name), total, rtol=0, atol=1e-10)
    assert model.components == ("total", "fragments", "binding", "water", "neon")
    shares = {name: share.sum() for name, share in result.molecules.items()}
    energies = {name: part.energy for name, part in result.contributions.items()}
    assert shares == pytest.approx(energies, abs=1e-9)
    assert result.molecules["prior"].shape == (N_WATER + N_NEON,)


@pytest.mark.parametrize("component", ["total", "fragments", "binding"])
def test_forces_are_the_slope_of_the_energy(model, x, component):
    found, expected = slope_along(model, x, component, h=2e-4)
    assert found == pytest.approx(expected, rel=1e-7, abs=1e-7)


@pytest.mark.parametrize(("a", "b"), [(0, 0), (1, 2), (2, 0)])
def test_the_virial_is_the_slope_by_strain(model, x, a, b):
    found, virial = slope_by_strain(model, x, a, b, h=2e-4)
    assert found == pytest.approx(-virial[a, b], rel=1e-6, abs=1e-6)
    assert np.allclose(virial, virial.T, atol=1e-10)


def test_what_i_pi_wraps_is_the_same(model, x):
    whole = model.evaluate(x, cell=CELL)
    inverse = np.linalg.inv(CELL)
    moved = x + np.array([3.1, -7.7, 40.0])  # across all boundaries
    wrapped = moved - np.floor(moved @ inverse.T) @ CELL.T
    assert np.abs(wrapped - moved).max() > 5.0
    found = model.evaluate(wrapped, cell=CELL)
    assert found.energy == pytest.approx(whole.energy, abs=1e-9)
    assert np.allclose(found.forces, whole.forces, atol=1e-9)
    assert np.allclose(found.virial, whole.virial, atol=1e-8)


def test_two_cells_beside_each_other_are_two_cells(tmp_path, model, x):
    """Images, triples of them and what the cutoff leaves of the liquid are counted right."""
    twice = force_field.load(
        directory(tmp_path, manifest(2 * N_WATER, 2 * N_NEON, induction=OF_BOTH))
    )
    n = 3 * N_WATER
    water, neon, step = x[:n], x[n:], CELL[:, 1]
    both = np.concatenate([water, water + step, neon, neon + step])
    found = twice.evaluate(both, cell=CELL * np.array([1.0, 2.0, 1.0]))
    one = model.evaluate(x, cell=CELL)
    for name, part in found.contributions.items():
        assert part.energy == pytest.approx(2.0 * one.contributions[name].energy, abs=1e-9), name
    assert np.allclose(found.virial, 2.0 * one.virial, atol=1e-8)
    assert np.allclose(found.forces[: len(water)], one.forces[:n], atol=1e-9)


def test_molecules_may_change_places(model, x):
    order = np.random.default_rng(3).permutation(N_WATER)
    water = x[: 3 * N_WATER].reshape(N_WATER, 3, 3)
    moved = np.concatenate([water[order].reshape(-1, 3), x[3 * N_WATER :]])
    one, other = model.evaluate(x, cell=CELL), model.evaluate(moved, cell=CELL)
    assert other.energy == pytest.approx(one.energy, abs=1e-10)
    expected = one.forces[: 3 * N_WATER].reshape(N_WATER, 3, 3)[order]
    assert np.allclose(other.forces[: 3 * N_WATER].reshape(N_WATER, 3, 3), expected, atol=1e-10)


def test_atoms_may_stand_in_any_order(tmp_path, model, x):
    data = wet_neon()
    order = np.random.default_rng(4).permutation(len(x))
    place = np.argsort(order)  # where each atom went
    for species, atoms in zip(data["species"], np.split(place, [3 * N_WATER]), strict=True):
        del species["count"]
        species["atoms"] = ",".join(map(str, atoms))
    other = force_field.load(directory(tmp_path, data))
    found, one = other.evaluate(x[order], cell=CELL), model.evaluate(x, cell=CELL)
    assert found.energy == pytest.approx(one.energy, abs=1e-10)
    assert np.allclose(found.forces, one.forces[order], atol=1e-10)
    assert np.array_equal(other.numbers, model.numbers[order])


def test_a_batch_and_threads_are_the_same(tmp_path, model, x):
    batch = x + np.random.default_rng(5).normal(0.0, 0.02, (3, *x.shape))
    several = force_field.load(directory(tmp_path, wet_neon()), threads=3)
    found = several.evaluate(batch, cell=CELL)
    for k, one in enumerate(batch):
        expected = model.evaluate(one, cell=CELL)
        assert found.energy[k] == pytest.approx(expected.energy, abs=1e-10)
        assert np.allclose(found.forces[k], expected.forces, atol=1e-10)
        assert found[k].molecules["prior"].shape == (N_WATER + N_NEON,)


@pytest.mark.parametrize("periodic", [True, False])
def test_triples_in_loops_are_those_of_numpy(tmp_path, x, periodic):
    """Each molecule's share, the ends of the potential and images included."""
    path = directory(tmp_path, manifest(N_WATER, N_NEON, periodic=periodic))
    model = force_field.load(path)
    triples = tuple(replace(t, prior=replace(t.prior, compiled=False)) for t in model.triples)
    other = ManyModel(model.species, model.pairs, triples, box=Box(periodic=periodic))
    cell = CELL if periodic else None
    found, expected = (one.evaluate(x, "binding", cell) for one in (model, other))
    assert abs(expected.contributions["triples"].energy) > 1e-4
    for name in ("energy", "forces", "virial"):
        one, two = (getattr(result.contributions["triples"], name) for result in (found, expected))
        assert_same_sum(one, two, 400)
    assert_same_sum(found.molecules["triples"], expected.molecules["triples"], 400)


def test_halves_far_apart_are_the_sum_of_both(tmp_path):
    data = wet_neon(periodic=False)
    both = force_field.load(directory(tmp_path / "both", data | {"species": [
        species | {"count": 2 * species["count"]} for species in data["species"]
    ]}))  # fmt: skip
    half = force_field.load(directory(tmp_path / "half", data))
    x, y = positions(N_WATER, N_NEON, seed=1), positions(N_WATER, N_NEON, seed=2) + 60.0
    n = 3 * N_WATER
    together = both.evaluate(np.concatenate([x[:n], y[:n], x[n:], y[n:]])).energy
    assert together == pytest.approx(half.evaluate(x).energy + half.evaluate(y).energy, abs=1e-8)


def test_two_benzenes_are_the_shipped_dimer(tmp_path):
    pair = force_field.load(benzenes(tmp_path, 2))
    dimer = shipped.load(BENZENE_DIMER)
    x = force_field.load(BENZENE_DIMER)
    base = np.loadtxt(BENZENE_DIMER / "structure.xyz", skiprows=2, usecols=(1, 2, 3))
    for apart in (0.0, 1.5, 4.0, 9.0):
        x = base.copy()
        x[12:] += apart * np.array([0.1, 0.3, 0.95])
        found, expected = pair.evaluate(x), dimer.evaluate(x)
        assert found.energy == pytest.approx(expected.energy, abs=1e-9)
        assert np.allclose(found.forces, expected.forces, atol=1e-9)
        assert np.allclose(found.virial, expected.virial, atol=1e-8)
        for name in ("prior", "binding"):
            part, other = found.contributions[name], expected.contributions[name]
            assert part.energy == pytest.approx(other.energy, abs=1e-9)


def test_what_cannot_be_evaluated_is_refused(model, x):
    with pytest.raises(GeometryError, match="has no cell"):
        model.evaluate(x)
    with pytest.raises(GeometryError, match="too small to tell"):
        model.evaluate(x, cell=1.5 * np.eye(3))
    with pytest.raises(ComponentError, match="it has total, fragments, binding, water, neon"):
        model.evaluate(x, "full", CELL)
