"""The file that i-PI loads: found by i-PI's own loader, and the daemon's numbers to the bit."""

import json

import numpy as np
import pytest
import structlog

from deltaserver.serve.answer import Request, answer
from deltaserver.serve.plugin import session
from deltaserver.simulate.ipi.plugin import PES_PATH
from deltaserver.units import BOHR_ANG
from tests.builders import TRICLINIC, binding_model, write_directory, write_model
from tests.serve.server_double import CELL_BOHR

pes = pytest.importorskip("ipi.pes")


@pytest.fixture(autouse=True)
def _nothing_is_kept():
    """The log's configuration and the models are the process's, in i-PI."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)
    session._steps.cache_clear()
    session._model.cache_clear()


@pytest.fixture
def driver(model_directory):
    """As i-PI makes it: everything is given by name, a verbosity added."""
    kind = pes.load_pes("custom", str(PES_PATH))
    return kind(models=str(model_directory), structure_check=False, verbosity=3)


def test_its_names_are_literals_that_i_pi_reads_without_running_it():
    assert pes.scan_pes_file(str(PES_PATH)) == ("DeltaDriver", "deltaserver")


def test_one_structure_is_what_the_daemon_would_send(driver, composite, positions):
    energy, forces, virial, extras = driver(CELL_BOHR, positions / BOHR_ANG)
    expected = composite.evaluate(positions)
    reply = answer(composite, Request(positions[None], BOHR_ANG * CELL_BOHR[None])).reply
    np.testing.assert_allclose(energy, np.frombuffer(reply, float, 1, 12)[0], rtol=1e-14)
    wire = np.frombuffer(reply, float, 21, 24).reshape(7, 3)
    np.testing.assert_allclose(forces, wire, rtol=0, atol=1e-13 * np.abs(wire).max())
    wire = np.frombuffer(reply, float, 9, 24 + 8 * 21).reshape(3, 3)
    np.testing.assert_allclose(virial, wire, rtol=0, atol=1e-12 * np.abs(wire).max())
    assert isinstance(extras, str)
    assert json.loads(extras)["energy_ev"] == pytest.approx(float(expected.energy), rel=1e-13)


def test_a_list_is_evaluated_together(driver, batch):
    cells = [CELL_BOHR, 2 * CELL_BOHR, CELL_BOHR]
    bohr = list(batch / BOHR_ANG)
    together = driver(cells, bohr)
    assert isinstance(together, list)
    for result, cell, x in zip(together, cells, bohr, strict=True):
        alone = driver(cell, x)
        np.testing.assert_allclose(result[0], alone[0], rtol=1e-12)
        np.testing.assert_allclose(result[1], alone[1], atol=1e-12 * np.abs(alone[1]).max())
    assert session._steps.cache_info().currsize == 1


def test_a_periodic_model_has_the_virial_of_its_cell(tmp_path, positions):
    """The virial is −dE/dε of a strain of cell and positions together."""
    write_directory(tmp_path)
    write_model(tmp_path / "binding.npz", binding_model(lattice=TRICLINIC))
    driver = pes.load_pes("custom", str(PES_PATH))(models=tmp_path, structure_check=False)
    cell, x = 3.0 * TRICLINIC / BOHR_ANG, positions / BOHR_ANG
    _, _, virial, _ = driver(cell, x)
    step, strain = 1e-5, np.zeros((3, 3))
    strain[0, 1] = strain[1, 0] = step
    energies = [driver(e @ cell, x @ e.T)[0] for e in (np.eye(3) + strain, np.eye(3) - strain)]
    slope = (energies[0] - energies[1]) / (2 * step)
    assert -slope == pytest.approx(virial[0, 1] + virial[1, 0], rel=1e-5)


def test_two_forcefields_share_the_model_and_the_numbers_of_structures(model_directory, positions):
    kind = pes.load_pes("custom", str(PES_PATH))
    common = {"models": str(model_directory), "structure_check": False}
    inner, outer = kind(**common, component="fragments"), kind(**common, component="binding")
    assert inner.session.model is outer.session.model
    x = positions / BOHR_ANG
    parts = [driver(CELL_BOHR, x) for driver in (inner, outer)]
    total = kind(**common)(CELL_BOHR, x)
    assert parts[0][0] + parts[1][0] == pytest.approx(total[0], rel=1e-13)
    assert outer.session.steps.n_structures == 3


@pytest.mark.parametrize(
    ("batch_size", "threaded", "expected"), [(1, False, False), (4, False, True), (4, True, True)]
)
def test_batches_are_never_waited_for(model_directory, batch_size, threaded, expected):
    kind = pes.load_pes("custom", str(PES_PATH))

    class FFDirect:
        def __init__(self):
            self.batch_size, self.threaded = batch_size, threaded
            self.driver = kind(models=str(model_directory))

    assert FFDirect().threaded is expected


@pytest.mark.parametrize("parameters", [{"models": "nowhere"}, {"models": "m", "modl": 1}, {}])
def test_parameters_that_cannot_be_used_end_i_pi_with_one_line(parameters, capsys):
    with pytest.raises(SystemExit) as raised:
        pes.load_pes("custom", str(PES_PATH))(**parameters)
    assert raised.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("deltaserver: ")
    assert said.count("\n") == 1
