"""What the daemon tells its watchers, from the first attempt to connect to the end."""

import json
import os
import signal
import threading
import time

import pytest
import structlog

from deltaserver.errors import NoServerError, ProtocolError
from deltaserver.serve import telemetry
from deltaserver.serve.daemon import Daemon
from deltaserver.serve.settings import ServeSettings
from deltaserver.serve.telemetry import StepLog
from deltaserver.serve.transport import parse_address
from deltaserver.serve.watchers.health import HealthFile
from deltaserver.serve.watchers.metrics import Metrics
from tests.serve.server_double import ServerDouble, message
from tests.serve.watchers.test_metrics import scrape


class Noting:
    """A watcher that keeps what it hears."""

    def __init__(self):
        self.conditions = []
        self.steps = []
        self.reloads = 0
        self.closed = False
        self.vitals = None

    def step(self, structures, wall_ms, component):
        self.steps.append((len(structures), wall_ms, component))

    def tick(self, vitals, now):
        self.vitals = vitals
        if self.conditions[-1:] != [vitals.condition.value]:
            self.conditions.append(vitals.condition.value)

    def due(self, now):
        return None

    def reloaded(self):
        self.reloads += 1

    def close(self):
        self.closed = True


def serve(model, address, *watchers, **settings):
    settings = ServeSettings((parse_address(address),), connect_timeout_s=60.0, **settings)
    with structlog.testing.capture_logs() as events:
        Daemon(model, settings, StepLog(1, None), watchers).run()
    return events


def test_a_life_as_watchers_hear_it(composite, batch, unix):
    def first(peer):
        peer.introduce()
        peer.forces(batch[0])

    def second(peer):
        peer.introduce("component:binding")
        energy = peer.forces(batch[1])["energy"][0]
        peer.send(message("exit"))
        return energy

    noting = Noting()
    servers = []
    timer = threading.Timer(0.2, lambda: servers.append(ServerDouble(unix, first, second)))
    timer.start()
    serve(composite, unix, noting, reconnect_limit_s=60.0)
    _, energy = servers[0].finish()
    assert noting.conditions == ["connecting", "serving", "reconnecting", "serving", "stopped"]
    assert [(n, component) for n, _, component in noting.steps] == [(1, "total"), (1, "binding")]
    assert all(wall_ms > 0 for _, wall_ms, _ in noting.steps)
    assert noting.closed
    vitals = noting.vitals
    assert (vitals.n_structures, vitals.n_reconnects, vitals.n_connected) == (2, 1, 0)
    assert vitals.last_energy_ev == pytest.approx(energy, rel=1e-9)
    assert abs(vitals.last_step_unix_s - time.time()) < 10.0
    assert vitals.error is None


def test_the_health_file_of_a_run_that_failed(composite, unix, tmp_path):
    path = tmp_path / "health.json"
    server = ServerDouble(unix, lambda peer: (peer.send(b"x" * 12), peer.ends()))
    with pytest.raises(ProtocolError):
        serve(composite, server.address, HealthFile(path))
    told = json.loads(path.read_text())
    assert told["state"] == "failed"
    assert "the peer sent the header" in told["error"]


def test_the_health_file_of_a_run_that_found_nobody(composite, unix, tmp_path):
    path = tmp_path / "health.json"
    settings = ServeSettings((parse_address(unix),), connect_timeout_s=0.1)
    with structlog.testing.capture_logs(), pytest.raises(NoServerError):
        Daemon(composite, settings, StepLog(1, None), [HealthFile(path)]).run()
    assert json.loads(path.read_text())["state"] == "failed"


def test_metrics_of_a_run_while_it_runs(composite, batch, unix):
    metrics = Metrics(0)

    def script(peer):
        peer.introduce()
        for x in batch:
            reply = peer.forces(x)
        peer.status()  # what was counted has been taken over by now
        values = scrape(metrics.address)
        peer.send(message("exit"))
        return reply, values

    server = ServerDouble(unix, script)
    serve(composite, server.address, metrics)
    reply, values = server.finish()
    assert values["deltaserver_structures_total", "total"] == 3
    assert values["deltaserver_request_seconds_count", "total"] == 3
    assert values["deltaserver_energy_ev", "total"] == pytest.approx(reply["energy"][0], rel=1e-9)
    assert values["deltaserver_connections", ""] == 1
    assert values["deltaserver_state", "serving"] == 1


def test_watchers_cost_no_cpu_while_nothing_happens(composite, unix, tmp_path):
    def script(peer):
        peer.introduce()
        used = time.process_time()
        time.sleep(1.0)
        return time.process_time() - used

    server = ServerDouble(unix, script)
    serve(composite, server.address, HealthFile(tmp_path / "h"), Noting())
    assert server.finish() < 0.1


def test_sighup_in_the_middle_of_a_run(composite, batch, unix, tmp_path):
    """The log moves, and the run does not notice."""
    path = tmp_path / "log"

    def script(peer):
        peer.introduce()
        peer.forces(batch[0])
        path.rename(tmp_path / "moved")
        peer.forces(batch[1])
        os.kill(os.getpid(), signal.SIGHUP)
        while not path.exists():
            time.sleep(0.01)
        peer.forces(batch[2])
        peer.send(message("exit"))

    server = ServerDouble(unix, script)
    noting = Noting()
    telemetry.configure(path, quiet=True)
    try:
        structlog.get_logger().info("loaded", model="m")
        settings = ServeSettings((parse_address(server.address),))
        Daemon(composite, settings, StepLog(1, None), [noting]).run()
        telemetry.configured().file.close()
    finally:
        structlog.reset_defaults()
    server.finish()
    moved, new = (
        [json.loads(line) for line in each.read_text().splitlines()]
        for each in (tmp_path / "moved", path)
    )
    assert [r["seq"] for r in moved if r["event"] == "step"] == [0, 1]
    assert [r["seq"] for r in new if r["event"] == "step"] == [2]
    assert new[0]["event"] == moved[0]["event"] == "loaded"
    assert noting.reloads == 1
