"""What Prometheus gets, over a real connection."""

import socket
import sys
import urllib.request

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deltaserver.errors import InputError, MissingExtraError
from deltaserver.serve.answer import Contribution, Structure
from deltaserver.serve.watchers.metrics import Metrics
from deltaserver.serve.watchers.watch import Condition, Vitals


def scrape(address):
    """Return {(sample name, component or state): value}."""
    with urllib.request.urlopen(address, timeout=60) as reply:
        text = reply.read().decode()
    return {
        (sample.name, next(iter(sample.labels.values()), "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name != "deltaserver_request_seconds_bucket"
    }


@pytest.fixture
def metrics():
    metrics = Metrics(0)
    yield metrics
    metrics.close()


def test_steps_energies_and_latencies(metrics):
    metrics.step((Structure(-1.0, {}), Structure(-2.5, {})), 3.0, "total")
    metrics.step((Structure(-7.0, {"prior": Contribution(-7.0, 0.1)}),), 1.5, "binding")
    values = scrape(metrics.address)
    assert values["deltaserver_structures_total", "total"] == 2
    assert values["deltaserver_structures_total", "binding"] == 1
    assert values["deltaserver_request_seconds_count", "total"] == 1
    assert values["deltaserver_request_seconds_sum", "total"] == pytest.approx(0.003)
    assert values["deltaserver_energy_ev", "total"] == -2.5
    assert values["deltaserver_energy_ev", "binding"] == -7.0
    assert values["deltaserver_binding_energy_ev", "binding"] == -7.0
    assert ("deltaserver_binding_energy_ev", "total") not in values
    assert values["process_resident_memory_bytes", ""] > 1e6


def test_counts_are_taken_over_once(metrics):
    vitals = Vitals(
        Condition.RECONNECTING, 5, 1, 2, 4, 1.75e9, -1.0, {"binding": 0.25}, {"total": 0.03}
    )
    for _ in range(3):
        metrics.tick(vitals, 0.0)
    values = scrape(metrics.address)
    assert values["deltaserver_reconnects_total", ""] == 2
    assert values["deltaserver_log_lines_lost_total", ""] == 4
    assert values["deltaserver_connections", ""] == 1
    assert values["deltaserver_last_step_timestamp_seconds", ""] == 1.75e9
    assert values["deltaserver_novelty", "binding"] == 0.25
    assert values["deltaserver_uncertainty_ev_per_ang", "total"] == 0.03
    states = {key[1]: value for key, value in values.items() if key[0] == "deltaserver_state"}
    assert [state for state, value in states.items() if value] == ["reconnecting"]
    assert metrics.due(0.0) is None


def test_it_listens_on_this_machine_only_and_no_longer_than_it_should():
    metrics = Metrics(0)
    port = int(metrics.address.rpartition(":")[2].partition("/")[0])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        assert connection.getpeername()[0] == "127.0.0.1"
    assert metrics._server.server_address[0] == "127.0.0.1"
    metrics.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_a_port_that_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        with pytest.raises(
            InputError, match=f"--metrics-port {port} on 127.0.0.1: address already"
        ):
            Metrics(port)


def test_a_host_that_is_none():
    with pytest.raises(InputError, match=r"--metrics-port 0 on nowhere\.invalid: "):
        Metrics(0, "nowhere.invalid")


def test_the_library_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'deltaserver\[metrics\]'"):
        Metrics(0)
