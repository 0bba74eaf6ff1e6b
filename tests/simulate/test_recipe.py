import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deltaserver.bias.coordinate import Coordinate
from deltaserver.bias.settings import Bias
from deltaserver.bias.terms import Spring, WellTempered
from deltaserver.errors import InputError
from deltaserver.serve.transport import UnixAddress
from deltaserver.simulate.ipi.input import parse_input
from deltaserver.simulate.recipe import KINDS, Recipe, Subject
from deltaserver.simulate.render import render

WATER = Subject(
    "water_nvt", "one -- water", "models/w", (8, 1, 1),
    np.array([[0.0, 0.0, 0.1], [0.0, 0.76, -0.5], [0.0, -0.76, -0.5]]), ("water", "binding"),
)  # fmt: skip


BETWEEN = Coordinate("R", ((0,), (1, 2)), ((15.999,), (1.008, 1.008)))
BIASES = {
    "umbrella": Bias(BETWEEN, Spring(0.7, 1.0, 0.6, 5)),
    "metad": Bias(BETWEEN, growth=WellTempered(0.01, 0.1, 5, 8.0, 120.0)),
}


def subject(kind):
    """Water: in a cell where there is to be a pressure."""
    return replace(WATER, cell_ang=9.0 * np.eye(3)) if kind == "npt" else WATER


def recipe(kind, **changes):
    temperatures = {"remd": (100.0, 150.0, 200.0), "ramp": (300.0, 50.0)}.get(kind, (120.0,))
    return Recipe(kind, temperatures, bias=BIASES.get(kind), **changes)


def root_of(kind, **changes):
    return ElementTree.fromstring(render(recipe(kind, **changes), subject(kind)))


def numbers(text):
    return np.array([float(word) for word in text.strip(" []\n").split(",")])


@pytest.mark.parametrize("kind", KINDS)
def test_atoms_masses_and_cell_stand_in_every_system(kind):
    root = root_of(kind)
    systems = root.findall("system")
    assert len(systems) == (3 if kind == "remd" else 1)
    for system in systems:
        beads = system.find("beads")
        n_beads = int(beads.get("nbeads"))
        assert n_beads == (8 if kind == "pimd" else 1)
        q = numbers(beads.findtext("q")).reshape(n_beads, 3, 3)
        np.testing.assert_allclose(q, np.broadcast_to(WATER.positions_ang, q.shape), atol=1e-8)
        assert beads.find("q").get("units") == "angstrom"
        np.testing.assert_allclose(numbers(beads.findtext("m")), [15.999, 1.008, 1.008])
        assert beads.findtext("names").split() == ["[", "O,", "H,", "H", "]"]
        np.testing.assert_allclose(
            numbers(system.findtext("cell")), (9.0 if kind == "npt" else 300.0) * np.eye(3).ravel()
        )


def test_isotopes_keep_their_masses():
    heavy = replace(WATER, symbols=("O", "D", "H"))
    root = ElementTree.fromstring(render(recipe("nvt"), heavy))
    np.testing.assert_allclose(numbers(root.findtext(".//m")), [15.999, 2.0141, 1.008], atol=1e-4)
    assert root.findtext(".//names").split() == ["[", "O,", "D,", "H", "]"]


@pytest.mark.parametrize("kind", KINDS)
def test_contributions_states_and_energies_are_written(kind):
    output = root_of(kind).find("output")
    extras = [
        node.get("extra_type") for node in output.findall("trajectory") if node.get("extra_type")
    ]
    assert extras == ["water_energy_ev", "binding_energy_ev"]
    assert len(output.findall("checkpoint")) == 2
    assert "conserved{electronvolt}" in output.findtext("properties")


def test_strides_follow_time():
    short, long = recipe("nvt"), recipe("nvt", steps=100_000)
    assert (short.positions_stride, short.energies_stride) == (20, 1)
    assert (long.positions_stride, long.energies_stride) == (20, 10)
    fine = recipe("nvt", steps=100_000, timestep_fs=0.25, positions_every_fs=20.0)
    assert (fine.positions_stride, fine.energies_stride) == (80, 20)
    assert recipe("nvt", energies_every=7).energies_stride == 7


def test_multiple_time_stepping_has_two_sockets_of_one_daemon():
    known = parse_input("input.xml", render(recipe("mts", n_inner=4), WATER, "a"), "/tmp/ipi_")
    assert known.addresses == (UnixAddress("/tmp/ipi_a_inner"), UnixAddress("/tmp/ipi_a_outer"))
    assert known.structures_per_step == 5
    root = root_of("mts", n_inner=4)
    assert root.findtext(".//nmts") == "[1, 4]"
    weights = {f.get("forcefield"): f.findtext("mts_weights") for f in root.iter("force")}
    assert weights == {"outer": "[1, 0]", "inner": "[0, 1]"}
    parameters = [node.findtext("parameters") for node in root.iter("ffsocket")]
    assert parameters == ["{component:fragments}", "{component:binding}"]


def test_a_bias_may_be_split_as_mts_is():
    """The inner steps are the same; i-PI adds a bias in the outer ones."""
    root, expected = root_of("umbrella", n_inner=4, split=True), root_of("mts", n_inner=4)
    system, other = root.find("system"), expected.find("system")
    for place in ("forces", "motion"):
        assert ElementTree.tostring(system.find(place)) == ElementTree.tostring(other.find(place))
    assert {node.get("name") for node in root.iter("ffsocket")} == {"inner", "outer"}
    assert system.find("ensemble/bias/force").get("forcefield") == "bias"
    assert root_of("umbrella").find(".//nmts") is None
    with pytest.raises(InputError, match="--inner-steps: only with --kind mts, umbrella, metad"):
        Recipe("nvt", (300.0,), split=True)


@pytest.mark.parametrize(("kind", "structures"), [("nvt", 1), ("pimd", 8), ("remd", 3)])
def test_structures_per_step_and_batches(kind, structures):
    text = render(recipe(kind), subject(kind))
    assert parse_input("input.xml", text).structures_per_step == structures
    batch = ElementTree.fromstring(text).findtext("ffsocket/batch_size")
    assert batch == (None if structures == 1 else str(structures))


@pytest.mark.parametrize(("kind", "per_step"), [("nvt", 1), ("npt", 1), ("nve", 1), ("mts", 3)])
def test_replicas_are_systems_in_one_batch(kind, per_step):
    side_by_side = Recipe(kind, (100.0, 300.0), n_replicas=3)
    text = render(side_by_side, subject(kind))
    assert parse_input("input.xml", text).structures_per_step == 6 * per_step
    root = ElementTree.fromstring(text)
    kelvin = [system.findtext("ensemble/temperature") for system in root.findall("system")]
    assert kelvin == ["100", "300"] * 3
    assert len({system.get("prefix") for system in root.findall("system")}) == 6
    assert {batch.text for batch in root.iter("batch_size")} == {"6"}
    assert root.find("smotion") is None  # nothing is exchanged
    assert root.get("threading") == "True"


@pytest.mark.parametrize("kind", ["pimd", "remd", "ramp", "umbrella", "metad"])
def test_kinds_that_take_no_replicas(kind):
    with pytest.raises(InputError, match="--replicas: only with --kind nvt, nve, npt, mts"):
        recipe(kind, n_replicas=2)


def test_what_a_user_may_not_expect_is_told():
    water, argon = (8, 1, 1), (18, 18)
    plain = recipe("nvt", timestep_fs=1.0)
    assert plain.notes(water) == []
    (note,) = replace(plain, timestep_fs=2.0).notes(water)
    assert note == "a time step of 2 fs is long for hydrogens; 0.5 fs is safe"
    assert replace(plain, timestep_fs=2.0).notes(argon) == []
    assert replace(plain, timestep_fs=5.0).notes(argon)
    assert recipe("mts", timestep_fs=4.0, n_inner=4).notes(water) == []  # that of the inner steps
    (note,) = replace(plain, positions_every_fs=0.1).notes(water)
    assert note == ("--positions-every 0.1 is less than a time step: frames are written every 1 fs")
    (note,) = replace(plain, temperatures_k=(5000.0,)).notes(water)
    assert note == "at 5000 K molecules come apart"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"timestep_fs": 500.0}, "--timestep 500: is in fs, and at most 20"),
        ({"temperatures_k": (1e9,)}, "above 0 K, at most 100000 K"),
    ],
)
def test_settings_that_cannot_be_meant(changes, message):
    with pytest.raises(InputError, match=message):
        replace(recipe("nvt"), **changes)


@pytest.mark.parametrize("kind", KINDS)
def test_the_time_step_of_an_input(kind):
    made = recipe(kind, timestep_fs=3.0, n_inner=3)
    text = render(made, subject(kind))
    found = parse_input(Path("input.xml"), text).step_fs
    assert found == pytest.approx(made.inner_step_fs)


def test_thermostats():
    assert root_of("nve").find(".//thermostat") is None
    assert root_of("nve").find(".//dynamics").get("mode") == "nve"
    assert root_of("pimd").find(".//thermostat").get("mode") == "pile_l"
    assert root_of("nvt", thermostat="svr").find(".//thermostat").get("mode") == "svr"
    assert root_of("mts", thermostat="none").find(".//dynamics").get("mode") == "nve"
    ramp = root_of("ramp", steps=700).find(".//t_ramp")
    assert [node.text for node in ramp] == ["300", "50", "700"]


@pytest.mark.parametrize(
    ("kind", "temperatures", "message"),
    [
        ("nvt", (100.0, 200.0), "--kind nvt takes one --temperature; 2 given"),
        ("remd", (100.0,), "--kind remd takes two or more"),
        ("ramp", (1.0, 2.0, 3.0), "--kind ramp takes two: start and end"),
        ("nvt", (float("inf"),), "expected numbers above 0 K"),
    ],
)
def test_temperatures_that_do_not_fit(kind, temperatures, message):
    with pytest.raises(InputError, match=message):
        Recipe(kind, temperatures)
