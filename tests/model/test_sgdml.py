"""One model: against sgdml, against finite differences, and what symmetry demands."""

import warnings

import numpy as np
import pytest

from deltaserver import SGDMLModel
from deltaserver.errors import GeometryError, UnitError
from deltaserver.model.files.parameters import parse_parameters
from deltaserver.model.sgdml import AssumedUnitsWarning, NativeUnits, resolve_units
from tests.builders import (
    AMMONIA,
    AMMONIA_PERMS,
    TRICLINIC,
    ammonia_model,
    geometry,
    numerical_gradient,
    old_style,
    rotation,
    sgdml_model,
    sgdml_predictor,
    shaken,
    water_model,
    write_model,
)

KCAL_EV = 4184.0 / (6.02214076e23 * 1.602176634e-19)
RAW = NativeUnits(1.0, 1.0)

MODELS = {
    "one permutation": sgdml_model(AMMONIA, seed=5),
    "six permutations": ammonia_model(),
    "whole sigma": ammonia_model(sig=np.int64(3)),
    "energy constraints": ammonia_model(energy_constraints=True),
    "lattice": ammonia_model(lattice=TRICLINIC),
    "lattice and energies": sgdml_model(AMMONIA, lattice=TRICLINIC, energy_constraints=True),
    "two atoms": sgdml_model(np.array([7, 7]), seed=6, perms=np.array([[0, 1], [1, 0]])),
    "no std": ammonia_model(std=None),
    "tiny sigma": ammonia_model(sig=np.float64(0.35)),
}


@pytest.fixture(params=MODELS)
def raw(request):
    return MODELS[request.param]


def in_own_units(raw):
    return SGDMLModel(parse_parameters(raw, "test"), RAW)


def geometries(raw, n=4):
    return shaken(geometry(len(raw["z"]), 2), n, 21, 0.15)


def assert_same_as_sgdml(model, raw, positions, length=1.0, energy=1.0):
    predictor = sgdml_predictor(raw)
    e, f = predictor.predict(positions.reshape(len(positions), -1) / length)
    result = model.evaluate(positions)
    f = f.reshape(positions.shape) * energy / length
    np.testing.assert_allclose(result.energy, e * energy, rtol=1e-9)
    np.testing.assert_allclose(result.forces, f, rtol=0, atol=1e-9 * np.abs(f).max())


def test_equals_sgdml(raw):
    assert_same_as_sgdml(in_own_units(raw), raw, geometries(raw))


def test_equals_sgdml_far_from_the_origin(raw):
    positions = geometries(raw)
    positions += np.array([310.0, -250.0, 1000.0]) - positions.mean(axis=(0, 1))
    assert_same_as_sgdml(in_own_units(raw), raw, positions)


def test_equals_sgdml_at_the_training_points():
    # Built on the very geometries that it is asked about.
    raw = ammonia_model()
    assert_same_as_sgdml(in_own_units(raw), raw, shaken(geometry(4, 2), 5, 2))


def test_equals_sgdml_across_the_cell_s_faces():
    raw = MODELS["lattice"]
    positions = geometries(raw)
    positions[:, 1] += TRICLINIC @ [1, 0, -1]
    positions[2] *= 2.1  # pairs near half a cell
    assert_same_as_sgdml(in_own_units(raw), raw, positions)
    with pytest.raises(AssertionError):
        assert_same_as_sgdml(in_own_units(raw | {"lattice": TRICLINIC.T}), raw, positions)


@pytest.mark.parametrize("generation", ["new", "old", "old without std"])
def test_files_of_either_generation_equal_sgdml(tmp_path, generation):
    raw = ammonia_model(std=None) if generation == "old without std" else ammonia_model()
    stored = raw if generation == "new" else old_style(raw)
    path = write_model(tmp_path / "model.npz", stored)
    model = SGDMLModel.load(path, "Ang", "kcal/mol")
    assert_same_as_sgdml(model, raw, geometries(raw), energy=KCAL_EV)


def test_the_shipped_benzene_model_equals_sgdml():
    path = "models/benzene_dimer/benzene1.npz"
    with np.load(path, allow_pickle=False) as file:
        keys = ("type", "z", "R_desc", "R_d_desc_alpha", "c", "std", "sig", "perms")
        raw = {key: file[key] for key in keys}
    ring = np.exp(1j * np.pi / 3 * np.arange(6))
    flat = np.concatenate([1.39 * ring, 2.48 * ring])
    positions = shaken(np.stack([flat.real, flat.imag, 0 * flat.real], axis=1), 3, 8, 0.03)
    assert_same_as_sgdml(SGDMLModel.load(path), raw, positions, energy=KCAL_EV)


def test_forces_are_minus_the_gradient(raw):
    model = in_own_units(raw)
    x = geometries(raw)[0]
    forces = model.evaluate(x).forces[0]
    slope = numerical_gradient(lambda y: float(model.evaluate(y).energy[0]), x)
    np.testing.assert_allclose(forces, -slope, rtol=0, atol=1e-7 * np.abs(forces).max())


@pytest.mark.parametrize("periodic", [False, True])
def test_virial_is_minus_the_derivative_with_respect_to_strain(periodic):
    raw = ammonia_model(lattice=TRICLINIC) if periodic else ammonia_model()
    model, x = in_own_units(raw), geometries(raw)[0]
    if periodic:
        x[1] += TRICLINIC @ [0, 1, -1]  # outside the cell: minimum images at work

    def energy(strain, cell=TRICLINIC):
        deform = np.eye(3) + strain
        return float(model.evaluate(x @ deform.T, deform @ cell).energy[0])

    virial = model.evaluate(x, TRICLINIC).virial[0]
    slope = numerical_gradient(energy, np.zeros((3, 3)))
    np.testing.assert_allclose(virial, -slope, rtol=0, atol=1e-7 * np.abs(virial).max())
    if periodic:
        other = model.evaluate(x, TRICLINIC.T).virial[0]
        assert np.abs(other - virial).max() > 1e-2 * np.abs(virial).max()


def test_no_net_force_and_no_torque():
    raw = ammonia_model(energy_constraints=True)
    x = geometries(raw)
    forces = in_own_units(raw).evaluate(x).forces
    size = np.abs(forces).max()
    np.testing.assert_allclose(forces.sum(axis=1), 0.0, atol=1e-12 * size)
    np.testing.assert_allclose(np.cross(x, forces).sum(axis=1), 0.0, atol=1e-11 * size)


def test_a_periodic_model_has_no_net_force_but_a_torque():
    raw = MODELS["lattice"]
    x = geometries(raw)
    x[:, 0] += TRICLINIC @ [1, 0, 0]
    forces = in_own_units(raw).evaluate(x).forces
    size = np.abs(forces).max()
    np.testing.assert_allclose(forces.sum(axis=1), 0.0, atol=1e-12 * size)
    assert np.abs(np.cross(x, forces).sum(axis=1)).max() > 1e-3 * size


def test_every_permutation_leaves_the_energy_and_permutes_the_forces():
    raw = ammonia_model(energy_constraints=True)
    model, x = in_own_units(raw), geometries(raw)
    reference = model.evaluate(x)
    for perm in AMMONIA_PERMS:
        permuted = model.evaluate(x[:, perm])
        np.testing.assert_allclose(permuted.energy, reference.energy, rtol=1e-12)
        np.testing.assert_allclose(
            permuted.forces, reference.forces[:, perm], atol=1e-11 * np.abs(reference.forces).max()
        )
    # A model without the symmetry does not have it by accident.
    plain = in_own_units(MODELS["one permutation"])
    swapped = x[:, [0, 2, 1, 3]]
    assert np.abs(plain.evaluate(swapped).energy - plain.evaluate(x).energy).max() > 1e-3


def test_rotation_turns_the_forces_and_the_virial():
    raw = ammonia_model()
    model, x, turn = in_own_units(raw), geometries(raw), rotation(3)
    here = model.evaluate(x)
    there = model.evaluate(x @ turn.T + np.array([3.0, -70.0, 0.5]))
    size = np.abs(here.forces).max()
    np.testing.assert_allclose(there.energy, here.energy, rtol=1e-11)
    np.testing.assert_allclose(there.forces, here.forces @ turn.T, atol=1e-10 * size)
    np.testing.assert_allclose(there.virial, turn @ here.virial @ turn.T, atol=1e-10 * size)


def test_a_batch_equals_its_geometries_one_by_one(raw):
    model, x = in_own_units(raw), geometries(raw)
    together = model.evaluate(x)
    for index, one in enumerate(x):
        alone, same = model.evaluate(one)[0], together[index]
        np.testing.assert_allclose(alone.energy, same.energy, rtol=1e-11)
        size = np.abs(same.forces).max()
        np.testing.assert_allclose(alone.forces, same.forces, atol=1e-11 * size)
        np.testing.assert_allclose(alone.virial, same.virial, atol=1e-11 * size)


def test_atoms_at_infinity_feel_nothing():
    raw = water_model()
    far = np.array([[0.0, 0, 0], [1e6, 0, 0], [0, 1e6, 0]])
    assert np.abs(in_own_units(raw).evaluate(far).forces).max() < 1e-9


# -- units ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length_unit", "energy_unit", "ang", "ev"),
    [
        ("Ang", "eV", 1.0, 1.0),
        ("bohr", "Hartree", 0.529177210903, 27.211386245988),
        ("Ang", "kcal/mol", 1.0, 0.0433641043),
        ("bohr", "kJ/mol", 0.529177210903, 0.0103642696),
    ],
)
def test_units_of_the_file(tmp_path, length_unit, energy_unit, ang, ev):
    raw = water_model(r_unit=length_unit, e_unit=energy_unit)
    model = SGDMLModel.load(write_model(tmp_path / "m.npz", raw), "nm", "mHa")  # not looked at
    native = geometries(raw)
    expected = in_own_units(raw).evaluate(native)
    result = model.evaluate(native * ang)
    np.testing.assert_allclose(result.energy, expected.energy * ev, rtol=3e-8)
    np.testing.assert_allclose(result.forces, expected.forces * ev / ang, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(result.virial, expected.virial * ev, rtol=1e-7, atol=1e-9)


def test_a_lattice_in_bohr(tmp_path):
    raw = ammonia_model(lattice=TRICLINIC, r_unit="bohr", e_unit="eV")
    model = SGDMLModel.load(write_model(tmp_path / "m.npz", raw))
    cell = TRICLINIC * 0.529177210903
    np.testing.assert_allclose(model.lattice, cell, rtol=1e-12)
    x = geometries(raw) * 0.529177210903
    x[:, 0] += 2 * cell[:, 1]
    for given in (None, cell):
        result = model.evaluate(x, given)
        expected = in_own_units(raw).evaluate(x / 0.529177210903)
        np.testing.assert_allclose(result.energy, expected.energy, rtol=1e-11)


def test_units_from_outside_hold_where_the_file_has_none():
    parameters = parse_parameters(old_style(water_model()), "old.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        native = resolve_units(parameters, "bohr", "Hartree")
    assert (native.length_ang, native.energy_ev) == (0.529177210903, 27.211386245988)


@pytest.mark.parametrize(
    ("length_unit", "energy_unit", "said"),
    [
        (None, None, "Ang and kcal/mol"),
        ("bohr", None, "bohr and kcal/mol"),
        (None, "eV", "Ang and eV"),
    ],
)
def test_assumed_units_are_told(length_unit, energy_unit, said):
    parameters = parse_parameters(old_style(water_model()), "old.npz")
    with pytest.warns(AssumedUnitsWarning, match=f"old.npz: no units .* assuming {said}"):
        resolve_units(parameters, length_unit, energy_unit)


def test_an_unknown_unit_names_the_file():
    parameters = parse_parameters(water_model(e_unit="furlong"), "some.npz")
    with pytest.raises(UnitError, match=r"some\.npz: energy unit 'furlong'"):
        resolve_units(parameters)


# -- refusals ---------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (5, 3), (4, 2), (1, 1, 4, 3), (2, 5, 3), ()])
def test_positions_of_another_shape_are_refused(shape):
    with pytest.raises(GeometryError, match=r"expected \(4, 3\) or \(B, 4, 3\)"):
        in_own_units(ammonia_model()).evaluate(np.ones(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_positions_that_are_not_finite_are_named(value):
    x = geometries(ammonia_model())
    x[2, 3, 1] = value
    with pytest.raises(GeometryError, match="atom 3 in geometry 2 is not finite"):
        in_own_units(ammonia_model()).evaluate(x)


FLAT = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]])


@pytest.mark.parametrize("cell", [np.zeros((3, 3)), FLAT, np.full((3, 3), np.nan), np.eye(2)])
def test_a_cell_without_volume_is_refused_by_periodic_models_only(cell):
    x = geometries(ammonia_model())
    with pytest.raises(GeometryError, match="the cell has"):
        in_own_units(MODELS["lattice"]).evaluate(x, cell)
    free = in_own_units(ammonia_model())
    assert np.array_equal(free.evaluate(x, cell).energy, free.evaluate(x).energy)


def test_an_empty_batch_gives_empty_results():
    result = in_own_units(ammonia_model()).evaluate(np.zeros((0, 4, 3)))
    assert result.energy.shape == (0,)
    assert result.forces.shape == (0, 4, 3)
    assert result.virial.shape == (0, 3, 3)


def test_properties():
    model = in_own_units(ammonia_model())
    assert (model.n_train, model.n_perms) == (5, 6)
    assert model.lattice is None
    assert model.numbers.tolist() == [7, 1, 1, 1]
