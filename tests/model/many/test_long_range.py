"""Directories of many molecules whose charges act beyond the cutoff, through an Ewald sum."""

from __future__ import annotations

import warnings
from copy import deepcopy

import numpy as np
import pytest

from deltaserver.errors import ManifestError
from deltaserver.model import force_field
from deltaserver.model.trust.evaluation import check_evaluation
from deltaserver.units import COULOMB_EV_ANG
from tests.model.many.builders import (
    CELL,
    PRIOR,
    directory,
    manifest,
    positions,
    slope_along,
    slope_by_strain,
)
from tests.model.many.test_conservation import FS, K_EV

N_WATER = 5
OF_WATER = {"O1": -0.4, "H1": 0.2, "O2": -0.4, "H2": 0.2}


def water_prior(walls=True, **charges):
    """The prior of two waters, with other charges or without anything else."""
    prior = deepcopy(PRIOR)
    for one in prior["classes"]:
        one["charge"] = charges.get(one["name"], one["charge"])
    return prior if walls else prior | {"pairs": []}


def with_ion(name, charge, oxygen=-0.4):
    """The prior of a water and an ion."""
    return {
        "classes": [
            {"name": "O", "atoms": "0", "charge": oxygen},
            {"name": "H", "atoms": "1,2", "charge": -0.5 * oxygen},
            {"name": name, "atoms": "3", "charge": charge},
        ],
        "pairs": [
            {"between": ["O", name], "walls": [[3.2, 300.0]], "attractions": [[4, 2.0, 3.0]]},
            {"between": ["H", name], "walls": [[3.2, 90.0]]},
        ],
    }


SALT = {
    "classes": [
        {"name": "Na", "atoms": "0", "charge": 1.0},
        {"name": "Cl", "atoms": "1", "charge": -1.0},
    ],
    "pairs": [{"between": ["Na", "Cl"], "walls": [[3.2, 900.0]]}],
}


def ion(name, element, count=1):
    return {"name": name, "element": element, "energy": 0.0, "energy_unit": "eV", "count": count}


def brine(**changes):
    """Five waters, a sodium and a chloride; waters have other charges beside sodium."""
    data = manifest(N_WATER, 0, ewald=True)
    data["bindings"][0]["prior"] = water_prior()
    data["species"] += [ion("sodium", "Na"), ion("chloride", "Cl")]
    data["bindings"] += [
        {"between": ["water", "sodium"], "prior": with_ion("Na", 1.0, -0.5)},
        {"between": ["water", "chloride"], "prior": with_ion("Cl", -1.0)},
        {"between": ["sodium", "chloride"], "prior": SALT},
    ]
    return data | changes


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return force_field.load(directory(tmp_path_factory.mktemp("brine"), brine()))


@pytest.fixture(scope="module")
def x():
    return positions(N_WATER, 2, seed=3)


def test_where_pairs_end_does_not_matter_to_charges(tmp_path):
    """A prior of nothing but charges is the Ewald sum, wherever its switch is."""
    found = []
    for k, cutoff in enumerate(([3.0, 4.0], [4.5, 6.0], [9.0, 12.0])):
        data = manifest(N_WATER, 0, ewald=True, cutoff=cutoff)
        data["bindings"] = [{"between": ["water"] * 2, "prior": water_prior(walls=False)}]
        one = force_field.load(directory(tmp_path / str(k), data))
        found.append(one.evaluate(positions(N_WATER, 0), "binding", CELL))
    assert abs(found[0].energy) > 1e-3
    for one in found[1:]:
        assert one.energy == pytest.approx(found[0].energy, abs=1e-9)
        assert np.allclose(one.forces, found[0].forces, atol=1e-9)
        assert np.allclose(one.virial, found[0].virial, atol=1e-7)


def test_without_its_own_charges_the_prior_is_the_same_as_with_both(tmp_path, model, x):
    """Charges that differ are taken off one by one; those that agree are never put on."""
    brine_of = brine()
    brine_of["bindings"][2]["prior"] = with_ion("Na", 1.0)
    same = force_field.load(directory(tmp_path, brine_of))
    alike = same.evaluate(x, "binding", CELL)
    for pair in same.pairs:
        assert pair.counted is not None
        pair.counted[0][0] += 1e-8  # no longer those of any prior
    same._last = None
    for pair in same.pairs:
        vars(pair).pop("_inside", None)
    other = same.evaluate(x, "binding", CELL)
    assert other.energy == pytest.approx(alike.energy, abs=1e-6)
    assert np.allclose(other.forces, alike.forces, atol=1e-6)


@pytest.mark.parametrize("component", ["total", "binding"])
def test_forces_are_the_slope_of_the_energy(model, x, component):
    found, expected = slope_along(model, x, component, h=1e-3)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize(("a", "b"), [(0, 0), (1, 2), (2, 0)])
def test_the_virial_is_the_slope_by_strain(model, x, a, b):
    """To what is neglected: with the cell vectors k come in at the end of the sum."""
    found, virial = slope_by_strain(model, x, a, b, h=1e-3)
    assert found == pytest.approx(-virial[a, b], rel=1e-4, abs=1e-4)
    assert np.allclose(virial, virial.T, atol=1e-9)


def test_what_the_daemon_checks_holds_and_shares_add_up(model, x):
    found = model.evaluate(x[None], cell=CELL)
    check_evaluation(found, x[None], periodic=True)
    assert set(found.contributions) == {
        "water", "sodium", "chloride", "prior", "binding", "triples",
    }  # fmt: skip
    assert found.molecules["prior"].sum() == pytest.approx(found.contributions["prior"].energy[0])


def test_what_i_pi_wraps_is_the_same(model, x):
    whole = model.evaluate(x, cell=CELL)
    moved = x + np.array([3.1, -7.7, 40.0])
    wrapped = moved - np.floor(moved @ np.linalg.inv(CELL).T) @ CELL.T
    found = model.evaluate(wrapped, cell=CELL)
    assert found.energy == pytest.approx(whole.energy, abs=1e-9)
    assert np.allclose(found.forces, whole.forces, atol=1e-9)


def test_two_cells_beside_each_other_are_two_cells(tmp_path, model, x):
    data = brine()
    for one in data["species"]:
        one["count"] *= 2
    data["bindings"] += [  # ions of one sign need no prior; here they have one, of nothing
        {"between": ["sodium", "sodium"], "prior": _nothing("Na", 1.0)},
    ]
    twice = force_field.load(directory(tmp_path, data))
    n, step = 3 * N_WATER, CELL[:, 1]
    parts = [x[:n], x[n : n + 1], x[n + 1 :]]
    both = np.concatenate([np.concatenate([some, some + step]) for some in parts])
    found = twice.evaluate(both, cell=CELL * np.array([1.0, 2.0, 1.0]))
    one = model.evaluate(x, cell=CELL)
    assert found.energy == pytest.approx(2.0 * one.energy, abs=1e-6)
    assert np.allclose(found.virial, 2.0 * one.virial, atol=1e-4)


def _nothing(name, charge):
    return {
        "classes": [{"name": f"{name}{k}", "atoms": f"{k}", "charge": charge} for k in range(2)],
        "pairs": [],
    }


def test_a_wide_cell_is_a_cluster_without_a_cutoff(tmp_path, x):
    """But for the field of its images, 4π μ/3V, by a conducting boundary, and the tail."""
    data = brine(cutoff=[25.0, 28.0])
    cell = 150.0 * np.eye(3)
    wide = force_field.load(directory(tmp_path / "wide", data)).evaluate(x, cell=cell)
    alone = {k: v for k, v in data.items() if k not in ("ewald", "cutoff")} | {"periodic": False}
    cluster = force_field.load(directory(tmp_path / "alone", alone)).evaluate(x)
    charges = np.array([*[-0.4, 0.2, 0.2] * N_WATER, 1.0, -1.0])
    field = 4.0 * np.pi / 3.0 * COULOMB_EV_ANG / 150.0**3 * (charges @ x)
    assert wide.energy == pytest.approx(cluster.energy - 0.5 * field @ (charges @ x), abs=1e-5)
    assert np.allclose(wide.forces, cluster.forces + charges[:, None] * field, atol=2e-6)
    assert abs(cluster.contributions["prior"].energy) > 0.5


def test_energy_stays_while_ions_go_through_the_ends_of_pairs(tmp_path):
    """Verlet's error goes with the square of the step, unless the energy has a kink somewhere."""
    data = brine(cutoff=[4.0, 4.6])
    data["bindings"] = [one for one in data["bindings"] if len(one["between"]) == 2]
    del data["bindings"][0]["model"], data["bindings"][0]["fade"]
    data["bindings"][0]["prior"] = water_prior()
    model = force_field.load(directory(tmp_path, data))
    x, mass = positions(N_WATER, 2, seed=3), np.array([[15.999], [1.008], [1.008]] * N_WATER)
    mass = np.concatenate([mass, [[22.99], [35.45]]])
    coarse, crossed = _trajectory(model, x, mass, 120, 0.4)
    fine, _ = _trajectory(model, x, mass, 240, 0.2)
    assert crossed
    assert coarse.std() / fine.std() == pytest.approx(4.0, rel=0.3)


def _trajectory(model, x, mass, n_steps, timestep_fs):
    """Velocity Verlet of what binds: total energies, eV, and whether pairs went through an end."""
    v = np.random.default_rng(1).normal(size=x.shape) * np.sqrt(K_EV * 400.0 / mass)
    v[: 3 * N_WATER] = np.repeat(v[: 3 * N_WATER].reshape(-1, 3, 3).mean(axis=1), 3, axis=0)
    step, energies, near = timestep_fs * FS, [], []
    result = _rigid(model, x)
    for _ in range(n_steps):
        v = v + 0.5 * step * result[1] / mass
        x = x + step * v
        result = _rigid(model, x)
        v = v + 0.5 * step * result[1] / mass
        energies.append(result[0] + 0.5 * float((mass * v * v).sum()))
        centres = np.concatenate([x[: 3 * N_WATER].reshape(-1, 3, 3).mean(axis=1), x[-2:]])
        near.append(_n_within(centres, 4.6))
    return np.array(energies), len(set(near)) > 1


def _rigid(model, x):
    """Return energy and forces that move molecules as a whole, so that no bond is needed."""
    found = model.evaluate(x, "binding", CELL)
    forces, n = found.forces.copy(), 3 * N_WATER
    mass = np.array([15.999, 1.008, 1.008])
    whole = forces[:n].reshape(-1, 3, 3).sum(axis=1)
    forces[:n] = (whole[:, None] * (mass / mass.sum())[:, None]).reshape(-1, 3)
    return float(found.energy), forces


def _n_within(centres, cutoff):
    d = centres[:, None] - centres
    fraction = d @ np.linalg.inv(CELL).T
    d = (fraction - np.round(fraction)) @ CELL.T
    return int((np.linalg.norm(d, axis=2) < cutoff).sum())


def test_a_cell_that_is_not_neutral_warns_and_is_neutralised(tmp_path, x):
    data = brine(species=brine()["species"][:2])
    data["bindings"] = data["bindings"][:3]
    with pytest.warns(force_field.ChargedCellWarning, match=r"a charge of \+1 e together"):
        model = force_field.load(directory(tmp_path, data))
    assert np.isfinite(model.evaluate(x[:-1], cell=CELL).energy)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        force_field.load(directory(tmp_path, brine()))


def test_what_an_ewald_sum_cannot_be_of_is_refused(tmp_path):
    def refused(data, message):
        with pytest.raises(ManifestError, match=message):
            force_field.load(directory(tmp_path, data))

    refused(brine(periodic=False), "ewald: true is of what repeats")
    refused(brine(ewald=1), "ewald is 1; expected true or false")
    refused(brine(ewald=False), "give ewald: true of what repeats")
    without = brine()
    del without["bindings"][-1]
    refused(without, "no prior between sodium and chloride, and both have charges")
    several = brine()
    several["bindings"][3]["prior"] = with_ion("Cl", -0.9)
    refused(several, r"priors give chloride charges of -1 and -0.9 e")


def test_without_charges_nothing_is_summed(tmp_path):
    data = manifest(N_WATER, 0, ewald=True)
    data["bindings"][0]["prior"] = water_prior(**dict.fromkeys(OF_WATER, 0.0))
    found = force_field.load(directory(tmp_path / "a", data))
    other = force_field.load(directory(tmp_path / "b", data | {"ewald": False}))
    x = positions(N_WATER, 0)
    assert found.ewald is None
    assert found.evaluate(x, cell=CELL).energy == other.evaluate(x, cell=CELL).energy
    assert found.fingerprint() == other.fingerprint()


def test_the_fingerprint_knows_of_the_sum(tmp_path):
    data = manifest(N_WATER, 0)
    one = force_field.load(directory(tmp_path / "a", data))
    other = force_field.load(directory(tmp_path / "b", data | {"ewald": True}))
    assert one.fingerprint() != other.fingerprint()
