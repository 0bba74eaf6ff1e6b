"""Forces and virial of a bias are those of its energy, whatever stands in it."""

import json

import numpy as np
import pytest

from deltaserver.bias.coordinate import Coordinate
from deltaserver.bias.hills_file import HillsFile, cut_hills, read_hills
from deltaserver.bias.potential import RunningBias
from deltaserver.bias.settings import PES_NAME, Bias, split_parameters
from deltaserver.bias.terms import Hill, Hills, Spring, UpperWall, WellTempered
from deltaserver.errors import InputError
from deltaserver.simulate.ipi.bias import PES_PATH
from deltaserver.simulate.ipi.plugin import parameters_text
from deltaserver.units import BOHR_ANG, HARTREE_EV, KB_EV_PER_K
from tests.builders import geometry, numerical_gradient
from tests.serve.server_double import CELL_BOHR

# Groups that are out of order, share an atom, and leave one out.
COORDINATE = Coordinate("R", ((4, 0, 1), (3, 6, 1)), ((12.011, 1.008, 1.008), (1.0, 2.5, 15.999)))
GROWTH = WellTempered(0.02, 0.2, 3, 8.0, 300.0)
BIASES = {
    "spring": Bias(COORDINATE, Spring(2.0, 0.7, 2.0)),
    "moving spring": Bias(COORDINATE, Spring(3.5, 0.7, 1.0, 40)),
    "wall": Bias(COORDINATE, wall=UpperWall(0.1, 0.9)),
    "hills": Bias(COORDINATE, growth=GROWTH),
    "all": Bias(COORDINATE, Spring(3.0, 0.4, 1.5, 9), UpperWall(0.2), GROWTH),
}
HILLS = [Hill(3, 1.1, 0.02), Hill(6, 1.4, 0.015), Hill(9, 0.9, 0.011)]


@pytest.fixture
def positions():
    return geometry(7, 3)


def running(bias, step=9):
    return RunningBias(bias, step, HILLS if bias.growth else [])


@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)
def test_forces_and_virial_are_those_of_the_energy(bias, positions):
    one = running(bias)
    found = one.evaluate(positions)
    slope = numerical_gradient(lambda x: one.evaluate(x).energy_ev, positions)
    scale = max(np.abs(slope).max(), 1e-3)
    np.testing.assert_allclose(found.forces, -slope, atol=1e-8 * scale)
    assert np.abs(found.forces).max() > 1e-4
    assert not found.forces[[2, 5]].any()

    def strained(strain):
        return one.evaluate(positions @ (np.eye(3) + strain).T).energy_ev

    virial = -numerical_gradient(strained, np.zeros((3, 3)))
    np.testing.assert_allclose(found.virial, virial, atol=1e-8 * np.abs(virial).max())


@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)
def test_no_force_and_no_torque_on_the_whole(bias, positions):
    forces = running(bias).evaluate(positions).forces
    scale = 1e-13 * np.abs(forces).max()
    np.testing.assert_allclose(forces.sum(axis=0), 0.0, atol=scale * 7)
    assert np.abs(np.cross(positions, forces).sum(axis=0)).max() < 1e-12


def test_the_value_is_that_of_an_analysis(positions):
    from deltaserver.analysis.measure.variables import Variable

    masses = np.array([1.008, 15.999, 7.0, 1.0, 12.011, 7.0, 2.5])
    groups = ((4, 0, 1), (3, 6, 1))
    weights = tuple(tuple(masses[list(g)].tolist()) for g in groups)
    expected = Variable("R", "distance", groups).values(positions[None], masses)[0]
    assert Coordinate("R", groups, weights).value(positions) == pytest.approx(expected, rel=1e-14)


def test_where_centres_meet_there_is_no_direction():
    pair = Coordinate("R", ((0,), (1,)), ((1.0,), (1.0,)))
    value, gradient = pair.gradient(np.zeros((2, 3)))
    assert value == 0.0
    assert not gradient.any()


@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)
def test_work_is_what_the_bias_loses_where_a_structure_stands(bias, positions):
    one = running(bias, step=5)
    for _ in range(4):
        before = one.evaluate(positions).energy_ev
        work = one.advance(positions)
        assert before - one.evaluate(positions).energy_ev == pytest.approx(work, abs=1e-15)
    assert one.step == 9


def test_hills_are_left_in_time_and_get_lower(positions):
    kept = []
    one = RunningBias(BIASES["hills"], 0, [], kept.append)
    for _ in range(12):
        one.advance(positions)
    assert [hill.step for hill in kept] == [3, 6, 9, 12]
    first, second, *_ = [hill.height_ev for hill in kept]
    delta_t_ev = (GROWTH.bias_factor - 1.0) * KB_EV_PER_K * GROWTH.temperature_k
    assert first == GROWTH.hill_height_ev
    assert second == pytest.approx(first * np.exp(-first / delta_t_ev), rel=1e-14)


def test_a_moving_window_arrives_and_stays():
    spring = Spring(5.0, 1.0, 3.0, 10)
    places = [spring.centre_at(step) for step in (0, 5, 10, 1000)]
    assert places == pytest.approx([3.0, 4.0, 5.0, 5.0], abs=1e-15)


def test_many_hills_at_many_places_are_the_sum_of_each():
    rng = np.random.default_rng(1)
    hills = Hills(0.3, [Hill(k, c, 0.1 * c) for k, c in enumerate(rng.uniform(2, 4, 200))])
    places = np.linspace(1.5, 4.5, 7)
    alone = [hills.energy_and_slope(s)[0] for s in places]
    np.testing.assert_allclose(hills.energy(places), alone, rtol=1e-13)
    np.testing.assert_allclose(
        hills.energy(places, 50), Hills(0.3, [Hill(k, hills.centres_ang[k], hills.heights_ev[k])
                                              for k in range(50)]).energy(places), rtol=1e-13
    )  # fmt: skip


# -- as text ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", BIASES.values(), ids=BIASES)
def test_parameters_of_an_input_are_the_bias_again(bias):
    text = parameters_text(bias.parameters())
    assert Bias.parse(split_parameters(text)) == bias


def test_masses_of_many_atoms_stay_short():
    atoms = tuple(range(60)), tuple(range(60, 148))
    weights = (12.011,) * 60, (12.011,) * 60 + (1.008,) * 28
    parameters = Bias(Coordinate("R_CM", atoms, weights)).parameters()
    assert parameters["groups"] == "0-59/60-147"
    assert parameters["weights"] == "60*12.011/60*12.011+28*1.008"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sprng": "1"}, "'sprng' is not known"),
        ({"groups": "0-4"}, "groups is '0-4'"),
        ({"weights": "0/1"}, "weights is '0/1'"),
        ({"weights": "1.0/1.0"}, "its weights are not those of its atoms"),
        ({"groups": "4+0+1/4+0+1"}, "a group's distance from itself"),
        ({"centre_ang": "2.0"}, "spring_ev_per_ang2 is missing"),
        ({"wall_ang": "-1", "wall_spring_ev_per_ang2": "1"}, "a place and a spring above 0"),
    ],
)
def test_what_cannot_be_meant_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        Bias.parse(Bias(COORDINATE).parameters() | change)


# -- the file --------------------------------------------------------------------------------------


def test_hills_come_back_to_the_last_bit(tmp_path):
    path = tmp_path / "hills.csv"
    rng = np.random.default_rng(2)
    hills = [Hill(10 * k + 10, *rng.uniform(0, 5, 2).tolist()) for k in range(20)]
    file = HillsFile(path)
    for hill in hills:
        file.keep(hill)
    file.close()
    assert read_hills(path) == hills


def test_cut_back_to_a_step_nothing_is_there_twice_and_nothing_lacks(tmp_path):
    path = tmp_path / "hills.csv"
    file = HillsFile(path)
    for hill in HILLS:
        file.keep(hill)
    file.close()
    whole = path.read_bytes()
    for cut in range(len(whole.splitlines(keepends=True)[0]), len(whole) + 1):
        path.write_bytes(whole[:cut])  # killed while it wrote
        n_whole = whole[:cut].count(b"\n") - 1
        cut_hills(path, 6)
        assert read_hills(path) == HILLS[: min(2, n_whole)]
        HillsFile(path).keep(Hill(7, 2.0, 0.5))
        assert read_hills(path) == [*HILLS[: min(2, n_whole)], Hill(7, 2.0, 0.5)]
    path.write_bytes(whole)
    cut_hills(path, 0)
    assert read_hills(path) == []


@pytest.mark.parametrize("line", ["1,2", "one,2,3", "5,2,3\n4,2,3"])
def test_what_is_no_hill_is_named(tmp_path, line):
    path = tmp_path / "hills.csv"
    path.write_text(f"step,centre_ang,height_ev\n{line}\n")
    with pytest.raises(InputError, match=r"hills.csv:[23]: "):
        read_hills(path)


# -- as i-PI has it --------------------------------------------------------------------------------


def made(parameters, **told):
    pes = pytest.importorskip("ipi.pes")
    kind = pes.load_pes("custom", str(PES_PATH))
    return kind(**parameters, verbosity=3, **told)


def test_i_pi_finds_the_file_and_gets_atomic_units(tmp_path, positions, monkeypatch):
    pes = pytest.importorskip("ipi.pes")
    assert PES_PATH.name == PES_NAME
    assert pes.scan_pes_file(str(PES_PATH)) == ("BiasDriver", "deltaserver_bias")
    monkeypatch.chdir(tmp_path)
    driver = made(BIASES["spring"].parameters())
    energy, forces, virial, extras = driver(CELL_BOHR, positions / BOHR_ANG)
    expected = running(BIASES["spring"]).evaluate(positions)
    assert energy * HARTREE_EV == pytest.approx(expected.energy_ev, rel=1e-13)
    np.testing.assert_allclose(forces * HARTREE_EV / BOHR_ANG, expected.forces, rtol=1e-12)
    np.testing.assert_allclose(virial * HARTREE_EV, expected.virial, rtol=1e-12)
    told = json.loads(extras)
    assert told["R_ang"] == pytest.approx(expected.value_ang)
    assert not list(tmp_path.iterdir())  # no hills, no file


def test_hills_that_a_run_has_not_left_yet_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = HillsFile(tmp_path / "hills.csv")
    for hill in HILLS:
        file.keep(hill)
    file.close()
    parameters = BIASES["hills"].parameters()
    assert len(made(parameters, first_step=9).running.hills) == 3
    with pytest.raises(SystemExit):
        made(parameters, first_step=8)
    assert "holds hills beyond step 8" in capsys.readouterr().err
