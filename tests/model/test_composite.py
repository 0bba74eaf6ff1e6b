"""The Δ model is the sum of its parts, and its parts must fit."""

import warnings

import numpy as np
import pytest

from deltaserver import CompositeModel, SGDMLModel
from deltaserver.errors import (
    ComponentError,
    GeometryError,
    ManifestError,
    MissingExtraError,
    ModelFileError,
)
from deltaserver.model.composite import CompositeEvaluation, Fragment
from deltaserver.model.descriptor import spread
from deltaserver.model.files.parameters import parse_parameters
from deltaserver.model.manifest import IsolatedAtom
from deltaserver.model.sgdml import AssumedUnitsWarning, NativeUnits
from tests.builders import (
    AMMONIA_ATOMS,
    COMPLEX,
    TRICLINIC,
    WATER,
    WATER_ATOMS,
    ammonia_model,
    binding_model,
    geometry,
    inverse_distances,
    manifest,
    numerical_gradient,
    rotation,
    sgdml_model,
    shaken,
    water_model,
    write_directory,
    write_model,
)
from tests.tolerances import assert_same_sum, terms_of_kernel

KCAL_EV = 4184.0 / (6.02214076e23 * 1.602176634e-19)


def terms_of(raw):
    """Roundings that a force of this model goes through."""
    n_entries, n_points = raw["R_desc"].shape
    return terms_of_kernel(np.empty((len(raw["perms"]), n_entries)), n_points, len(raw["z"]))


def in_memory(raw):
    return SGDMLModel(parse_parameters(raw, "memory"), NativeUnits(1.0, KCAL_EV))


# -- the sum ----------------------------------------------------------------------------------


def test_the_contributions_sum_to_the_total(composite, batch):
    result = composite.evaluate(batch)
    assert list(result.contributions) == ["water", "ammonia", "binding"]
    for field in ("energy", "forces", "virial"):
        parts = [getattr(part, field) for part in result.contributions.values()]
        np.testing.assert_allclose(sum(parts), getattr(result, field), rtol=0, atol=1e-12)


def test_each_contribution_is_its_own_model_on_its_own_atoms(composite, batch):
    result = composite.evaluate(batch)
    for name, raw, atoms in (
        ("water", water_model(), WATER_ATOMS),
        ("ammonia", ammonia_model(), AMMONIA_ATOMS),
        ("binding", binding_model(), np.arange(7)),
    ):
        alone = in_memory(raw).evaluate(batch[:, atoms])
        part = result.contributions[name]
        np.testing.assert_allclose(part.energy, alone.energy, rtol=1e-12)
        assert_same_sum(part.forces[:, atoms], alone.forces, terms_of(raw))
        assert not np.delete(part.forces, atoms, axis=1).any()


@pytest.mark.parametrize("component", ["total", "fragments", "binding", "full", "water"])
def test_forces_and_virial_are_derivatives_of_the_energy(composite, positions, component):
    def energy(x):
        return float(composite.evaluate(x, component).energy)

    result = composite.evaluate(positions, component)
    slope = numerical_gradient(energy, positions)
    np.testing.assert_allclose(result.forces, -slope, atol=1e-7)
    strained = numerical_gradient(lambda e: energy(positions @ (np.eye(3) + e).T), np.zeros((3, 3)))
    np.testing.assert_allclose(result.virial, -strained, atol=1e-7)


@pytest.mark.parametrize(
    ("component", "names"),
    [
        ("total", ["water", "ammonia", "binding"]),
        ("fragments", ["water", "ammonia"]),
        ("binding", ["binding"]),
        ("full", ["full"]),
        ("ammonia", ["ammonia"]),
    ],
)
def test_components(composite, positions, component, names):
    result = composite.evaluate(positions, component)
    assert list(result.contributions) == names
    reference = composite.evaluate(positions, "full" if component == "full" else "total")
    expected = sum(reference.contributions[name].energy for name in names)
    assert float(result.energy) == pytest.approx(float(expected), rel=1e-13)


def test_fragments_and_binding_make_the_total(composite, batch):
    total = composite.evaluate(batch)
    parts = [composite.evaluate(batch, name) for name in ("fragments", "binding")]
    np.testing.assert_allclose(parts[0].forces + parts[1].forces, total.forces, atol=1e-12)


def test_a_fragment_does_not_feel_the_other(composite, positions):
    moved = positions.copy()
    moved[AMMONIA_ATOMS] = moved[AMMONIA_ATOMS] @ rotation(1).T + [0.0, 30.0, 1e3]
    for name, atoms in (("water", WATER_ATOMS), ("ammonia", AMMONIA_ATOMS)):
        here = composite.evaluate(positions, name)
        there = composite.evaluate(moved, name)
        assert float(there.energy) == pytest.approx(float(here.energy), rel=1e-9)
        turn = rotation(1).T if name == "ammonia" else np.eye(3)
        np.testing.assert_allclose(there.forces[atoms], here.forces[atoms] @ turn, atol=1e-9)


def test_the_net_binding_force_on_a_fragment_decays_to_nothing(composite, positions):
    nets = []
    for distance in (0.0, 10.0, 100.0, 1000.0):
        moved = positions.copy()
        moved[AMMONIA_ATOMS] += [0.0, 0.0, distance]
        forces = composite.evaluate(moved, "binding").forces
        nets.append(np.abs(forces[AMMONIA_ATOMS].sum(axis=0)).max())
    assert nets[0] > 1e-3
    # Inverse distances: their gradient falls off as 1/R².
    assert nets[2] < 0.02 * nets[1]
    assert nets[3] < 0.02 * nets[2]


def test_single_geometries_have_no_batch_axis(composite, batch):
    together = composite.evaluate(batch)
    for index, x in enumerate(batch):
        alone, same = composite.evaluate(x), together[index]
        assert np.shape(alone.energy) == ()
        assert alone.forces.shape == (7, 3)
        assert alone.virial.shape == (3, 3)
        np.testing.assert_allclose(alone.forces, same.forces, atol=1e-12)
        for name, part in alone.contributions.items():
            np.testing.assert_allclose(part.energy, same.contributions[name].energy, rtol=1e-12)
            np.testing.assert_allclose(part.forces, same.contributions[name].forces, atol=1e-12)
    np.testing.assert_array_equal(
        composite.evaluate(batch[0].tolist()).forces, composite.evaluate(batch[0]).forces
    )


def test_joined_batches_are_the_batch(composite, batch):
    joined = CompositeEvaluation.join(
        [composite.evaluate(batch[:1]), composite.evaluate(batch[1:])]
    )
    whole = composite.evaluate(batch)
    np.testing.assert_allclose(joined.forces, whole.forces, atol=1e-12)
    np.testing.assert_allclose(joined.virial, whole.virial, atol=1e-12)
    assert list(joined.contributions) == list(whole.contributions)
    for name, part in joined.contributions.items():
        np.testing.assert_allclose(part.energy, whole.contributions[name].energy, rtol=1e-12)


def test_evaluating_does_not_change_what_was_returned_before(composite, batch):
    first = composite.evaluate(batch)
    kept = first.contributions["water"].forces.copy()
    first.forces[:] = 0.0
    composite.evaluate(batch + 0.1)
    np.testing.assert_array_equal(first.contributions["water"].forces, kept)


# -- one, two and three fragments; ions; shared files -----------------------------------------


def test_one_fragment_needs_no_binding(tmp_path):
    write_model(tmp_path / "water.npz", water_model())
    (tmp_path / "model.yaml").write_text(
        "format: deltaserver-model/1\nname: w\nfragments:\n"
        '  - {name: water, atoms: "2,0,1", model: water.npz}\n'
    )
    model = CompositeModel.load(tmp_path)
    assert model.components == ("total", "fragments", "water")
    assert model.numbers.tolist() == [1, 1, 8]
    x = shaken(geometry(3), 1, 0)[0]
    expected = in_memory(water_model()).evaluate(x[[2, 0, 1]])
    found = model.evaluate(x).forces[[2, 0, 1]]
    assert_same_sum(found, expected.forces[0], terms_of(water_model()))
    with pytest.raises(ComponentError):
        model.evaluate(x, "binding")


def test_two_fragments_share_one_file_and_an_ion_joins_them(tmp_path):
    data = {
        "format": "deltaserver-model/1",
        "name": "two waters and sodium",
        "fragments": [
            {"name": "first", "atoms": "4-6", "model": "water.npz"},
            {"name": "sodium", "atoms": 3, "species": ["Na"], "energy": -4.5, "energy_unit": "eV"},
            {"name": "second", "atoms": "2,0-1", "model": "water.npz"},
        ],
        "binding": {"model": "b.npz"},
    }
    write_directory(tmp_path, data)
    numbers = np.array([1, 1, 8, 11, *WATER])
    write_model(tmp_path / "b.npz", sgdml_model(numbers, seed=9))
    model = CompositeModel.load(tmp_path)
    assert model.numbers.tolist() == numbers.tolist()
    assert model.fragments[0].model is model.fragments[2].model
    x = shaken(geometry(7, 9), 2, 0)
    result = model.evaluate(x)
    assert result.contributions["sodium"].energy.tolist() == [-4.5, -4.5]
    assert not result.contributions["sodium"].forces.any()
    assert not result.contributions["sodium"].virial.any()
    water = in_memory(water_model())
    second = result.contributions["second"].forces[:, [2, 0, 1]]
    expected = water.evaluate(x[:, [2, 0, 1]]).forces
    assert_same_sum(second, expected, terms_of(water_model()))
    total = sum(part.energy for part in result.contributions.values())
    np.testing.assert_allclose(result.energy, total, rtol=1e-13)
    assert model.evaluate(x[0], "sodium").energy == -4.5


# -- cells ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def periodic():
    fragments = (
        Fragment("water", WATER_ATOMS, in_memory(water_model())),
        Fragment("ammonia", AMMONIA_ATOMS, in_memory(ammonia_model())),
    )
    return CompositeModel(fragments, in_memory(binding_model(lattice=TRICLINIC)))


def test_a_lattice_anywhere_makes_the_model_periodic(composite, periodic):
    assert periodic.periodic
    assert not composite.periodic


def test_the_cell_holds_vectors_in_columns(periodic, positions):
    wrapped = positions.copy()
    wrapped[WATER_ATOMS] += TRICLINIC @ [1, -1, 0]  # a whole fragment: only binding has to wrap
    here, there = periodic.evaluate(positions), periodic.evaluate(wrapped, cell=TRICLINIC)
    assert float(there.energy) == pytest.approx(float(here.energy), rel=1e-11)
    transposed = periodic.evaluate(wrapped, cell=TRICLINIC.T)
    assert abs(float(transposed.energy) - float(here.energy)) > 1e-4


def test_the_periodic_virial_is_the_derivative_with_respect_to_strain(periodic, positions):
    positions = positions.copy()
    positions[WATER_ATOMS] += TRICLINIC @ [0, 1, 1]

    def energy(strain):
        deform = np.eye(3) + strain
        return float(periodic.evaluate(positions @ deform.T, cell=deform @ TRICLINIC).energy)

    virial = periodic.evaluate(positions, cell=TRICLINIC).virial
    np.testing.assert_allclose(virial, -numerical_gradient(energy, np.zeros((3, 3))), atol=1e-7)


def test_a_free_model_does_not_look_at_the_cell(composite, positions):
    free = composite.evaluate(positions)
    boxed = composite.evaluate(positions, cell=TRICLINIC)
    np.testing.assert_array_equal(boxed.forces, free.forces)


def test_a_cell_that_is_flat_is_refused(periodic, positions):
    with pytest.raises(GeometryError, match="the cell has no volume"):
        periodic.evaluate(positions, cell=np.zeros((3, 3)))


# -- refusals ---------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path):
    return write_directory(tmp_path / "model")


def refusal(directory, error=ManifestError):
    with pytest.raises(error) as caught:
        CompositeModel.load(directory)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["binding", "full"])
def test_element_order_that_disagrees(directory, name):
    numbers = COMPLEX.copy()
    numbers[[5, 1]] = numbers[[1, 5]]
    write_model(directory / f"{name}.npz", sgdml_model(numbers))
    message = refusal(directory)
    assert f"atom 5 is O in fragment 'water' and H in the {name} model" in message


@pytest.mark.parametrize("name", ["binding", "full"])
def test_a_wrong_number_of_atoms_in_the_whole(directory, name):
    write_model(directory / f"{name}.npz", sgdml_model(COMPLEX[:6]))
    message = refusal(directory)
    assert f"the fragments have 7 atoms together, the {name} model has 6" in message


def test_a_wrong_number_of_atoms_in_a_fragment(directory):
    write_model(directory / "water.npz", ammonia_model())
    assert "fragment 'water' lists 3 atoms, its model has 4" in refusal(directory)


def test_an_ion_of_another_element(directory):
    data = manifest()
    del data["full"]
    ion = {"name": "ion", "atoms": 7, "species": ["Na"], "energy": 0, "energy_unit": "eV"}
    data["fragments"].append(ion)
    write_directory(directory, data)
    write_model(directory / "binding.npz", sgdml_model(np.append(COMPLEX, 19)))
    message = refusal(directory)
    assert "atom 7 is Na in fragment 'ion' and K in the binding model" in message


def test_a_broken_model_file_is_named(directory):
    path = directory / "ammonia.npz"
    path.write_bytes(path.read_bytes()[:-100])
    assert str(path) in refusal(directory, ModelFileError)


@pytest.mark.parametrize("atoms", [([0, 1, 2], [2, 3, 4, 5]), ([0, 1, 2], [4, 5, 6, 7])])
def test_fragments_in_memory_must_hold_every_atom_once(atoms):
    models = (in_memory(water_model()), in_memory(ammonia_model()))
    fragments = tuple(
        Fragment(f"f{i}", np.array(a), m)
        for i, (a, m) in enumerate(zip(atoms, models, strict=True))
    )
    with pytest.raises(ManifestError, match="each atom from 0 to 6 exactly once"):
        CompositeModel(fragments, None)


def test_no_fragments_at_all():
    with pytest.raises(ManifestError, match="exactly once"):
        CompositeModel((), None)


def test_an_unknown_component_is_told_with_those_there_are(composite, positions):
    with pytest.raises(
        ComponentError, match="'oxygen' is not in water-ammonia; it has total, frag"
    ):
        composite.evaluate(positions, "oxygen")


def test_full_is_no_component_of_a_model_without_it(directory, positions):
    data = manifest()
    del data["full"]
    model = CompositeModel.load(write_directory(directory, data))
    with pytest.raises(ComponentError):
        model.evaluate(positions, "full")


def test_positions_of_the_wrong_shape(composite):
    with pytest.raises(GeometryError, match=r"water-ammonia: .*expected \(7, 3\)"):
        composite.evaluate(np.zeros((6, 3)))


# -- units and backends -----------------------------------------------------------------------


def test_the_manifest_s_units_hold_where_files_have_none(directory, positions):
    data = manifest() | {"units": {"length": "bohr", "energy": "Hartree"}}
    write_directory(directory, data)
    write_model(directory / "water.npz", water_model(r_unit=None, e_unit=None))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = CompositeModel.load(directory)
    in_bohr = SGDMLModel(parse_parameters(water_model(), "w"), NativeUnits(1.0, 1.0))
    expected = in_bohr.evaluate(positions[WATER_ATOMS] / 0.529177210903)
    result = model.evaluate(positions)
    energy = float(result.contributions["water"].energy)
    assert energy == pytest.approx(float(expected.energy[0]) * 27.211386245988, rel=1e-10)
    # The file of the other fragment says kcal/mol and Å: that stands.
    alone = in_memory(ammonia_model()).evaluate(positions[AMMONIA_ATOMS])
    energy = float(result.contributions["ammonia"].energy)
    assert energy == pytest.approx(float(alone.energy[0]), rel=1e-10)


def test_units_that_nobody_states_are_assumed_aloud(directory):
    write_model(directory / "binding.npz", binding_model(r_unit=None, e_unit=None))
    with pytest.warns(AssumedUnitsWarning, match=r"binding\.npz: .* assuming Ang and kcal/mol"):
        CompositeModel.load(directory)


def test_a_backend_that_is_not_installed(directory, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sgdml.predict", None)
    monkeypatch.delitem(
        __import__("sys").modules, "deltaserver.model.engines.reference", raising=False
    )
    with pytest.raises(MissingExtraError, match=r"pip install 'deltaserver\[train\]'"):
        CompositeModel.load(directory, "sgdml")


def test_isolated_atoms_have_their_number():
    fragment = Fragment("ion", np.array([0]), IsolatedAtom(11, -1.0))
    assert fragment.numbers.tolist() == [11]


@pytest.mark.parametrize("box", [3.0, 10.0, 12.0, 15.0, 20.0, 25.0, 30.0])
@pytest.mark.parametrize("shape", [np.eye(3), TRICLINIC / 6.0])
def test_periodic_models_warm_up_in_any_cell(tmp_path, box, shape):
    directory = write_directory(tmp_path / "m")
    lattice = box * shape
    write_model(directory / "water.npz", water_model(lattice=lattice))
    write_model(directory / "binding.npz", binding_model(lattice=2.0 * lattice))
    model = CompositeModel.load(directory)
    assert model.periodic
    model.warm_up()


def test_warming_up_148_atoms_in_a_cell():
    x = spread(148, (10.0 * np.eye(3),))
    inverse = inverse_distances(x, 10.0 * np.eye(3))
    assert 1.0 / inverse.min() < 10.0 * np.sqrt(3.0) / 2.0
    assert 1.0 / inverse.max() > 0.1


def test_lone_atoms_contribute_their_energies_and_nothing_else():
    ions = tuple(Fragment(f"ion{k}", np.array([k]), IsolatedAtom(11, -0.5 - k)) for k in range(5))
    model = CompositeModel(ions, None)
    x = np.random.default_rng(0).normal(size=(3, 5, 3))
    for batch in (x, x[:2], x):
        found = model.evaluate(batch)
        assert list(found.contributions) == [ion.name for ion in ions]
        assert found.energy == pytest.approx(np.full(len(batch), -12.5), abs=1e-14)
        assert not found.forces.any()
        assert found.virial.shape == (len(batch), 3, 3)
        found.forces[:] = 1.0  # its own: nothing that others see
        assert not found.contributions["ion0"].forces.any()
    one = model.evaluate(x[0], "ion3")
    assert one.energy == -3.5
    assert list(one.contributions) == ["ion3"]
    assert one.contributions["ion3"].forces.shape == (5, 3)
    every = model.evaluate(x[0])
    assert every.energy == -12.5
    assert list(every.contributions) == [ion.name for ion in ions]
    assert all(part.virial.shape == (3, 3) for part in every.contributions.values())
