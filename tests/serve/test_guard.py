"""The shipped models behind a socket: wrong structures get no answer."""

import functools
import json
import signal

import numpy as np
import pytest
import structlog
from ase.io import read

from deltaserver import CompositeModel
from deltaserver.cli import serve
from deltaserver.cli.app import main
from deltaserver.errors import StructureError
from deltaserver.serve.answer import Request
from deltaserver.serve.guard import ServingGuard
from deltaserver.serve.settings import GuardSettings
from tests import shipped
from tests.integration.conftest import ROOT
from tests.serve.server_double import ServerDouble, batch_posdata, init, message, posdata


@pytest.fixture(autouse=True)
def _longer(_no_hang):
    """The shipped models take long to load where others compute as well."""
    signal.alarm(120)


@pytest.fixture(scope="module", autouse=True)
def _loaded_once():
    """A shipped model is the same in every test of this file, and takes seconds to load."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CompositeModel, "load", shipped.load)  # in other files' tests too
        patch.setattr(serve, "load_model", functools.cache(serve.load_model))
        yield


@pytest.fixture(autouse=True)
def _reset_structlog():
    yield
    structlog.reset_defaults()


def structure(name):
    return read(ROOT / "ipi_inputs" / f"{name}.xyz").positions


def run(tmp_path, models, script, *options):
    """Serve ``models`` to a script; return the exit code and the log."""
    server = ServerDouble(f"unix:{tmp_path}/s", script)
    log = tmp_path / "log.jsonl"
    code = main(
        ["--models", str(ROOT / "models" / models), "--socket", server.address,
         "--quiet", "--log-file", str(log), *options]
    )  # fmt: skip
    return code, server.finish(), [json.loads(line) for line in log.read_text().splitlines()]


def unanswered(x):
    def script(peer):
        peer.introduce()
        peer.send(posdata(x) + message("getforce"))
        return peer.ends()

    return script


def permuted(x):
    return x[np.random.default_rng(1).permutation(len(x))]


def exchanged(x):
    x = x.copy()
    x[[20, 90]] = x[[90, 20]]
    return x


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (permuted, "atom 0 (C of c60) should be bonded to atom 1 (C of c60)"),
        (exchanged, "atom 20 (C of c60) and atom 90 (C of buckycatcher) are exchanged"),
        (lambda x: 1.08 * x, "the structure is stretched"),
        (lambda x: x / 0.529177, "Bohr taken for Å?"),
    ],
)
def test_wrong_c60_buckycatcher_inputs_are_refused_at_the_first_step(
    capsys, tmp_path, change, cause
):
    x = change(structure("c60_buckycatcher"))
    code, closed_without_a_byte, events = run(tmp_path, "c60", unanswered(x))
    assert code == 4
    assert closed_without_a_byte
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("deltaserver: ")
    assert "structure 0 refused: " in said
    assert cause in said
    assert "--no-structure-check" in said
    assert not [event for event in events if event["event"] == "step"]


def test_the_check_can_be_turned_off(tmp_path):
    x = 1.08 * structure("benzene_dimer")

    def script(peer):
        peer.introduce()
        return peer.forces(x)

    code, reply, _ = run(tmp_path, "benzene_dimer", script, "--no-structure-check")
    assert code == 0
    assert np.isfinite(reply["forces"]).all()


def test_every_replica_of_a_batch_is_looked_at(capsys, tmp_path):
    x = structure("benzene_dimer")

    def script(peer):
        peer.send(init(" batch_size:3"))
        peer.send(batch_posdata(np.array([x, x + 1.0, permuted(x)])) + message("getforce"))
        return peer.ends()

    code, closed, _ = run(tmp_path, "benzene_dimer", script)
    assert (code, closed) == (4, True)
    assert "structure 2 refused" in capsys.readouterr().err


def test_a_second_replica_on_a_connection_is_looked_at(capsys, tmp_path):
    x = structure("benzene_dimer")

    def script(peer):
        peer.introduce()
        first = peer.forces(x)
        peer.send(posdata(x[::-1]) + message("getforce"))
        return first, peer.ends()

    code, (first, closed), _ = run(tmp_path, "benzene_dimer", script)
    assert (code, closed) == (4, True)
    assert np.isfinite(first["forces"]).all()
    assert "structure 1 refused" in capsys.readouterr().err


def test_what_a_run_goes_on_with_is_no_start_but_may_not_be_cut():
    """A continued run may have stretched; atoms that its cell cuts off are as wrong as ever."""
    models, cell = ROOT / "models" / "na_benzene", 20.0 * np.eye(3)
    x = read(models / "structure.xyz").positions
    wrapped = (x - x.mean(axis=0)) % 20.0
    watch = ServingGuard(shipped.load(models), GuardSettings())
    with pytest.raises(StructureError, match="stretched"):
        watch.before(watch, Request(1.2 * x[None], cell[None]), "total")
    watch = ServingGuard(shipped.load(models), GuardSettings(continues=True))
    watch.before(watch, Request(1.2 * x[None], cell[None]), "total")
    with pytest.raises(StructureError, match="structure 1 refused: "):
        watch.before(watch, Request(wrapped[None], cell[None]), "total")


# -- novelty ----------------------------------------------------------------------------------


def new(x):
    """A bond of the first benzene 0.25 Å longer: the molecule it still is, but a new one."""
    x = x.copy()
    x[1] += 0.25 * (x[1] - x[0]) / np.linalg.norm(x[1] - x[0])
    return x


def both(peer):
    x = structure("benzene_dimer")
    peer.introduce()
    return [peer.forces(x), *[peer.forces(new(x)) for _ in range(12)]]


def test_novelty_in_logs_and_extras_and_two_warnings(tmp_path):
    code, replies, events = run(tmp_path, "benzene_dimer", both)
    assert code == 0
    steps = [event for event in events if event["event"] == "step"]
    assert len(steps) == 13
    for step, reply in zip(steps, replies, strict=True):
        assert set(step["novelty"]) == {"benzene1", "benzene2", "binding"}
        for name, value in step["novelty"].items():
            assert reply["extras"][0][f"{name}_novelty"] == value
    assert max(steps[0]["novelty"].values()) < 1.3
    assert steps[1]["novelty"]["benzene1"] > 1.5  # the limit that warns
    warnings = [event for event in events if event["event"] == "extrapolation"]
    told = [
        (e["structure"], e["structures_beyond"]) for e in warnings if e["component"] == "benzene1"
    ]
    assert told == [(1, 1), (10, 10)]
    assert warnings[0]["level"] == "warning"


def test_a_run_stops_at_the_first_structure_beyond_the_limit(capsys, tmp_path):
    x = structure("benzene_dimer")

    def script(peer):
        peer.introduce()
        first = peer.forces(x)
        peer.send(posdata(new(x)) + message("getforce"))
        return first, peer.ends()

    options = ("--on-extrapolation", "stop", "--novelty-limit", "1.7")
    code, (first, closed), events = run(tmp_path, "benzene_dimer", script, *options)
    assert (code, closed) == (4, True)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "structure 1: the novelty of benzene1 is " in said
    assert "above --novelty-limit 1.7" in said
    frame = read(tmp_path / "log_extrapolation.xyz")
    np.testing.assert_allclose(frame.positions, new(x), atol=1e-7)
    assert frame.info["component"] == "benzene1"
    assert np.isfinite(first["forces"]).all()
    assert len([event for event in events if event["event"] == "step"]) == 1


PARTS = {"benzene1", "benzene2", "binding"}


def test_uncertainty_in_logs_and_extras(tmp_path):
    code, replies, events = run(tmp_path, "benzene_dimer", both)
    assert code == 0
    steps = [event for event in events if event["event"] == "step"]
    for step, reply in zip(steps, replies, strict=True):
        told = step["uncertainty_ev_per_ang"]
        assert set(told) == {*PARTS, "total"}
        extras = reply["extras"][0]
        assert extras["uncertainty_ev_per_ang"] == told["total"]
        assert {part: extras[f"{part}_uncertainty_ev_per_ang"] for part in PARTS} == {
            part: told[part] for part in PARTS
        }
    known, other = (step["uncertainty_ev_per_ang"] for step in steps[:2])
    assert 0.0 < known["total"] < 0.02
    assert other["benzene1"] > 5.0 * known["benzene1"]


LIMIT = "0.001"  # eV/Å: between the two structures


def test_a_run_stops_where_forces_are_too_uncertain(capsys, tmp_path):
    def script(peer):
        peer.introduce()
        first = peer.forces(structure("benzene_dimer"))
        peer.send(posdata(new(structure("benzene_dimer"))) + message("getforce"))
        return first, peer.ends()

    options = ("--on-extrapolation", "stop", "--novelty-limit", "99", "--uncertainty-limit", LIMIT)
    code, (_, closed), _ = run(tmp_path, "benzene_dimer", script, *options)
    assert (code, closed) == (4, True)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "structure 1: the uncertainty of " in said
    assert f"above --uncertainty-limit {LIMIT}" in said
    assert read(tmp_path / "log_extrapolation.xyz").info["uncertainty_ev_per_ang"] > float(LIMIT)


def test_novelty_can_be_left_out(tmp_path):
    code, replies, events = run(tmp_path, "benzene_dimer", both, "--on-extrapolation", "ignore")
    assert code == 0
    assert not [event for event in events if event["event"] == "extrapolation"]
    assert not [event for event in events if "novelty" in event]
    assert not [key for key in replies[1]["extras"][0] if key.endswith("novelty")]


def test_a_component_has_the_novelty_of_its_parts(tmp_path):
    def script(peer):
        peer.introduce(" component : fragments , ")
        return peer.forces(structure("benzene_dimer"))

    _, reply, _ = run(tmp_path, "benzene_dimer", script)
    found = {key for key in reply["extras"][0] if key.endswith("novelty")}
    assert found == {"benzene1_novelty", "benzene2_novelty"}
