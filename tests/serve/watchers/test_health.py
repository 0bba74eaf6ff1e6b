"""The health file: whole at every moment, not written too often, never the end of a run."""

import json
import os
import shutil
from datetime import datetime

import pytest
import structlog

from deltaserver.errors import InputError
from deltaserver.serve.answer import Structure
from deltaserver.serve.watchers.health import AT_LEAST_EVERY_S, AT_MOST_EVERY_S, HealthFile
from deltaserver.serve.watchers.watch import Condition, Vitals


def read(path):
    return json.loads(path.read_text())


def test_what_it_tells(tmp_path):
    path = tmp_path / "health.json"
    health = HealthFile(path)
    assert read(path)["state"] == "starting"
    vitals = Vitals(Condition.SERVING, 41, 2, 1, 3, 1.75e9, -7.5, {"binding": 0.5}, {"total": 0.1})
    vitals.last_binding_energy_ev = -0.25
    health.step((Structure(-7.5, {}),), 1.0, "total")
    health.tick(vitals, 100.0)
    told = read(path)
    assert told["state"] == "serving"
    assert (told["structures"], told["connections"], told["reconnects"]) == (41, 2, 1)
    assert (told["log_lines_lost"], told["last_energy_ev"]) == (3, -7.5)
    assert told["last_binding_energy_ev"] == -0.25
    assert told["novelty"] == {"binding": 0.5}
    assert told["uncertainty_ev_per_ang"] == {"total": 0.1}
    assert datetime.fromisoformat(told["last_step"]).timestamp() == 1.75e9
    assert told["pid"] == os.getpid()
    assert datetime.fromisoformat(told["time"]) >= datetime.fromisoformat(told["started"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["health.json"]  # nothing left beside


def test_steps_are_written_now_and_then_but_changes_at_once(tmp_path):
    path = tmp_path / "health.json"
    health = HealthFile(path)
    written = []
    for k in range(1000):
        vitals = Vitals(Condition.SERVING, k)
        health.tick(vitals, 0.01 * k)
        if not written or read(path)["structures"] != written[-1]:
            written.append(read(path)["structures"])
    assert written[:3] == [0, 100, 200]
    assert len(written) == 10
    assert AT_MOST_EVERY_S == 1.0
    health.tick(Vitals(Condition.RECONNECTING, 1000), 9.991)
    assert read(path)["state"] == "reconnecting"


def test_it_stays_young_while_nothing_happens(tmp_path):
    health = HealthFile(tmp_path / "health.json")
    health.tick(Vitals(), 50.0)
    assert health.due(50.0) == AT_LEAST_EVERY_S
    assert health.due(55.0) == AT_LEAST_EVERY_S - 5.0
    assert health.due(1000.0) == 0.0


def test_a_file_that_can_no_longer_be_written_is_one_warning(tmp_path):
    directory = tmp_path / "d"
    directory.mkdir()
    health = HealthFile(directory / "health.json")
    shutil.rmtree(directory)
    with structlog.testing.capture_logs() as events:
        for k in range(5):
            health.tick(Vitals(), 10.0 * k)
        directory.mkdir()
        health.tick(Vitals(n_structures=9), 60.0)
        assert read(directory / "health.json")["structures"] == 9
        shutil.rmtree(directory)
        health.tick(Vitals(), 70.0)
    assert len(events) == 2  # one for each time
    assert all(event["log_level"] == "warning" for event in events)


def test_a_file_that_can_never_be_written(tmp_path):
    with pytest.raises(InputError, match=r"--health-file .*: no such file or directory"):
        HealthFile(tmp_path / "missing" / "health.json")
    (tmp_path / "directory").mkdir()
    with pytest.raises(InputError, match=r"--health-file .*: is a directory"):
        HealthFile(tmp_path / "directory")
    assert [entry.name for entry in tmp_path.iterdir()] == ["directory"]
