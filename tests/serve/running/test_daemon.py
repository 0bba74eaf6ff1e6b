"""The daemon against a server that speaks i-PI's side with code of its own.

Signals belong to the main thread, so the daemon runs there and the server in another one.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import structlog

from deltaserver import CompositeModel
from deltaserver.errors import (
    ComponentError,
    GeometryError,
    GuardError,
    InputError,
    NoServerError,
    ProtocolError,
)
from deltaserver.serve import transport
from deltaserver.serve.daemon import Daemon
from deltaserver.serve.settings import ServeSettings
from deltaserver.serve.telemetry import StepLog
from deltaserver.serve.transport import parse_address
from tests.serve.server_double import (
    ServerDouble,
    batch_posdata,
    init,
    listening,
    message,
    posdata,
)


def serve(model, *servers, **settings):
    """Run a daemon on the servers' addresses; return the events it logged."""
    addresses = tuple(parse_address(server.address) for server in servers)
    settings = {"connect_timeout_s": 60.0} | settings
    with structlog.testing.capture_logs() as events:
        Daemon(model, ServeSettings(addresses, **settings), StepLog(1, None)).run()
    return events


def named(events, name):
    return [event for event in events if event["event"] == name]


def assert_same(reply, result, index=0):
    np.testing.assert_allclose(reply["energy"][index], result.energy, rtol=1e-10)
    np.testing.assert_allclose(reply["forces"][index], result.forces, atol=1e-9)
    np.testing.assert_allclose(reply["virial"][index], result.virial, atol=1e-9)


# -- exchanges --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unix", "inet"])
def test_consolidated_exchanges_then_exit(composite, batch, unix, kind):
    def script(peer):
        peer.introduce("", bead=4)
        replies = []
        for x in batch:
            replies.append(peer.forces(x))
            assert peer.status() == "READY"
        peer.send(message("exit"))
        assert peer.ends()
        return replies

    server = ServerDouble(unix if kind == "unix" else "inet", script)
    events = serve(composite, server)
    for reply, x in zip(server.finish(), batch, strict=True):
        assert_same(reply, composite.evaluate(x))
    steps = named(events, "step")
    assert [step["seq"] for step in steps] == [0, 1, 2]
    for step in steps:
        parts = [part["energy_ev"] for part in step["fragments"].values()]
        assert sum(parts) + step["binding"]["energy_ev"] == pytest.approx(
            step["energy_ev"], abs=1e-10
        )
        assert step["wall_ms"] >= step["evaluate_ms"] > 0
        assert step["connection"] == server.address
    assert named(events, "closed")[0]["reason"] == "EXIT"
    (stopped,) = named(events, "stopped")
    assert (stopped["reason"], stopped["structures"]) == ("every server has closed", 3)


def test_exchanges_with_status_in_between(composite, positions, unix):
    def script(peer):
        peer.introduce()
        peer.send(posdata(positions))
        assert peer.status() == "HAVEDATA"
        assert peer.status() == "HAVEDATA"  # asking again is allowed
        peer.send(message("getforce"))
        return peer.reply()

    server = ServerDouble(unix, script)
    events = serve(composite, server)
    assert_same(server.finish(), composite.evaluate(positions))
    assert len(named(events, "step")) == 1


def test_the_server_of_ase_sends_one_nul_byte(composite, positions, unix):
    def script(peer):
        peer.introduce("\0")
        return peer.forces(positions)

    server = ServerDouble(unix, script)
    serve(composite, server)
    assert_same(server.finish(), composite.evaluate(positions))


@pytest.mark.parametrize("text", [" component : total ,  batch_size:4", " batch_size:4"])
def test_batches_and_their_padding(composite, batch, unix, text):
    padded = batch[[0, 1, 1, 1]]

    def script(peer):
        peer.introduce(text)
        replies = [peer.batch(batch[[0, 1, 2, 0]]), peer.batch(padded)]
        assert peer.status() == "READY"
        return replies

    server = ServerDouble(unix, script)
    events = serve(composite, server)
    whole, short = server.finish()
    for index, x in enumerate(batch[[0, 1, 2, 0]]):
        assert_same(whole, composite.evaluate(x), index)
    for index, x in enumerate(padded):
        assert_same(short, composite.evaluate(x), index)
    steps = named(events, "step")
    assert [step["seq"] for step in steps] == list(range(6))  # 4 + 2: padding does not count
    assert [step["batch"] for step in steps] == [4] * 4 + [2] * 2
    assert named(events, "introduced")[0]["batch_size"] == 4


def test_two_sockets_with_different_components_on_one_daemon(composite, positions, unix):
    barrier = threading.Barrier(2, timeout=50)

    def script(component):
        def run(peer):
            peer.introduce(f" component : {component} , ")
            barrier.wait()  # both are connected before either asks
            reply = peer.forces(positions)
            barrier.wait()
            return reply

        return run

    servers = [
        ServerDouble(unix, script("fragments")),
        ServerDouble("inet", script("binding")),
    ]
    events = serve(composite, *servers)
    fragments, binding = (server.finish() for server in servers)
    assert_same(fragments, composite.evaluate(positions, "fragments"))
    assert_same(binding, composite.evaluate(positions, "binding"))
    total = composite.evaluate(positions)
    np.testing.assert_allclose(
        fragments["forces"][0] + binding["forces"][0], total.forces, atol=1e-9
    )
    by_component = {step["component"]: step for step in named(events, "step")}
    assert set(by_component) == {"fragments", "binding"}
    assert "binding" not in by_component["fragments"]
    assert by_component["binding"]["fragments"] == {}


def test_one_server_leaves_and_the_other_is_served_on(composite, positions, unix):
    left = threading.Event()

    def leave(peer):
        peer.introduce()
        peer.send(message("exit"))
        assert peer.ends()
        left.set()

    def stay(peer):
        peer.introduce()
        assert left.wait(50)
        return peer.forces(positions)

    servers = [ServerDouble(unix, leave), ServerDouble("inet", stay)]
    serve(composite, *servers)
    servers[0].finish()
    assert_same(servers[1].finish(), composite.evaluate(positions))


def test_the_setting_is_the_default_component_and_the_extras(composite, positions, unix):
    def script(peer):
        peer.introduce()
        return peer.forces(positions)

    server = ServerDouble(unix, script)
    serve(composite, server, component="ammonia", extras="full")
    reply = server.finish()
    assert_same(reply, composite.evaluate(positions, "ammonia"))
    forces = np.array(reply["extras"][0]["ammonia_forces_ev_per_ang"])
    np.testing.assert_allclose(forces, reply["forces"][0], atol=1e-9)


def test_a_request_that_trickles_in(composite, positions, unix):
    data = posdata(positions) + message("getforce")

    def script(peer):
        peer.introduce()
        for start in range(0, len(data), 37):
            peer.send(data[start : start + 37])
            time.sleep(0.003)
        return peer.reply()

    server = ServerDouble(unix, script)
    (step,) = named(serve(composite, server), "step")
    assert_same(server.finish(), composite.evaluate(positions))
    assert step["receive_ms"] > 3.0 * (len(data) // 37 - 1)


def tiny_buffers(monkeypatch):
    """Make the daemon's kernel buffers small, so that no reply fits in one send."""
    original = transport.Connector.start

    def start(self):
        started = original(self)
        if started:
            started[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
        return started

    monkeypatch.setattr(transport.Connector, "start", start)


def test_a_server_that_reads_slowly_gets_all_of_it(composite, batch, unix, monkeypatch):
    tiny_buffers(monkeypatch)
    many = np.concatenate([batch + 0.001 * k for k in range(20)])

    def script(peer):
        peer.introduce(f"batch_size:{len(many)}")
        slow = peer.exactly

        def exactly(n_bytes):
            time.sleep(0.001)
            return b"".join(slow(min(997, n_bytes - k)) for k in range(0, n_bytes, 997))

        peer.exactly = exactly
        return peer.batch(many)

    server = ServerDouble(unix, script)
    events = serve(composite, server, extras="full")
    reply = server.finish()
    for index in (0, 30, 59):
        assert_same(reply, composite.evaluate(many[index]), index)
    assert len(named(events, "step")) == 60
    assert named(events, "step")[0]["send_ms"] > 1.0


def test_requests_sent_without_waiting_are_all_answered_and_logged(
    composite, batch, unix, monkeypatch
):
    tiny_buffers(monkeypatch)
    requests = [np.concatenate([batch + 0.001 * k for k in range(10)]) + shift for shift in (0, 1)]

    def script(peer):
        peer.introduce(" batch_size:30")
        peer.send(b"".join(batch_posdata(x) + message("getforce") for x in requests))
        time.sleep(0.2)
        return [peer.reply(30) for _ in requests]

    server = ServerDouble(unix, script)
    events = serve(composite, server, extras="full")
    for reply, x in zip(server.finish(), requests, strict=True):
        assert_same(reply, composite.evaluate(x[29]), 29)
    assert [step["seq"] for step in named(events, "step")] == list(range(60))


# -- connecting -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unix", "inet"])
def test_a_server_that_comes_late(composite, positions, tmp_path, kind):
    path = tmp_path / "s"
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    address = f"unix:{path}" if kind == "unix" else f"inet:127.0.0.1:{port}"
    replies = []

    def come_late():
        time.sleep(0.3)
        listener = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
        listener.bind(str(path) if kind == "unix" else ("127.0.0.1", port))
        listener.listen(1)
        from tests.serve.server_double import Peer

        with listener, listener.accept()[0] as sock:
            peer = Peer(sock)
            peer.introduce()
            replies.append(peer.forces(positions))

    thread = threading.Thread(target=come_late)
    thread.start()
    settings = ServeSettings((parse_address(address),), connect_timeout_s=60.0)
    with structlog.testing.capture_logs():
        Daemon(composite, settings, StepLog(1, None)).run()
    thread.join()
    assert_same(replies[0], composite.evaluate(positions))


@pytest.mark.parametrize("timeout", [0.0, 0.2])
def test_nobody_listens(composite, unix, timeout):
    settings = ServeSettings((parse_address(unix),), connect_timeout_s=timeout)
    began = time.monotonic()
    with structlog.testing.capture_logs(), pytest.raises(NoServerError) as caught:
        Daemon(composite, settings, StepLog(1, None)).run()
    assert timeout <= time.monotonic() - began < timeout + 60.0
    assert f"{unix} after {timeout:g} s (no such file or directory)" in str(caught.value)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("kind", ["unix", "inet"])
def test_no_time_to_wait_is_time_for_one_attempt(composite, positions, unix, kind):
    def script(peer):
        peer.introduce()
        return peer.forces(positions)

    server = ServerDouble(unix if kind == "unix" else "inet", script)
    serve(composite, server, connect_timeout_s=0.0 if kind == "unix" else 0.5)
    assert_same(server.finish(), composite.evaluate(positions))


def test_a_host_that_does_not_answer(composite, tmp_path):
    """A listener whose backlog is full drops what comes, as a firewall does."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        target = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(target)
        time.sleep(0.05)
        settings = ServeSettings((parse_address(f"inet:127.0.0.1:{target[1]}"),),
                                 connect_timeout_s=0.3)  # fmt: skip
        with structlog.testing.capture_logs(), pytest.raises(NoServerError, match="no answer"):
            Daemon(composite, settings, StepLog(1, None)).run()
        for filler in fillers:
            filler.close()


def test_an_address_that_can_never_work(composite, tmp_path):
    (tmp_path / "file").touch()
    settings = ServeSettings((parse_address(f"unix:{tmp_path}/file/s"),))
    with structlog.testing.capture_logs(), pytest.raises(InputError, match="not a directory"):
        Daemon(composite, settings, StepLog(1, None)).run()


def test_an_unknown_component_is_refused_before_connecting(composite, unix):
    with pytest.raises(ComponentError):
        Daemon(composite, ServeSettings((parse_address(unix),), "oxygen"), StepLog(1, None))


# -- ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sent", "level"),
    [
        (b"", "info"),
        (init(), "info"),
        (message("status")[:5], "warning"),
        (init()[:14], "warning"),
        (init() + posdata(np.zeros((7, 3)))[:100], "warning"),
        (init() + posdata(np.zeros((7, 3))), "warning"),
    ],
)
def test_a_server_that_is_gone(composite, unix, sent, level):
    server = ServerDouble(unix, lambda peer: peer.send(sent))
    events = serve(composite, server)
    server.finish()
    (closed,) = named(events, "closed")
    assert closed["reason"] == "the server closed the connection"
    assert closed["log_level"] == level


def test_a_server_that_does_not_stay_for_the_reply(composite, batch, unix, monkeypatch):
    tiny_buffers(monkeypatch)
    many = np.concatenate([batch + 0.001 * k for k in range(20)])

    def script(peer):
        peer.introduce(f"batch_size:{len(many)}")
        peer.send(batch_posdata(many) + message("getforce"))
        peer.exactly(100)

    server = ServerDouble(unix, script)
    events = serve(composite, server, extras="full")
    server.finish()
    (closed,) = named(events, "closed")
    assert closed["reason"] in ("broken pipe", "connection reset by peer")
    assert named(events, "step") == []


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"GET / HTTP/1.1\r\n", "expected STATUS, INIT, POSDATA, GETFORCE or EXIT"),
        (message("getforce"), "sent GETFORCE in state NEEDINIT; expected STATUS, INIT, EXIT"),
        (init() + posdata(np.zeros((6, 3))), "the peer sent 6 atoms; the model has 7"),
        (init(" batch_size:0"), "batch_size '0'"),
    ],
)
def test_a_server_that_breaks_the_protocol(composite, unix, sent, said):
    def script(peer):
        peer.send(sent)
        return peer.ends()

    server = ServerDouble(unix, script)
    with pytest.raises(ProtocolError) as caught:
        serve(composite, server)
    assert str(caught.value).startswith(f"{server.address}: ")
    assert said in str(caught.value)
    assert server.finish()


@pytest.mark.parametrize("key", ["componet", "Component", "components", "model", "batchsize"])
def test_unknown_parameters_are_refused(composite, unix, key):
    """Else the total would be served to a force component that asked for the binding."""

    def script(peer):
        peer.send(init(f" {key} : binding , "))
        return peer.ends()

    server = ServerDouble(unix, script)
    with pytest.raises(InputError, match=f"the unknown key '{key}'; known keys: component") as told:
        serve(composite, server)
    assert told.value.exit_code == 2
    assert ("did you mean 'component'?" in str(told.value)) == key.lower().startswith("compo")
    assert server.finish()


def test_a_component_that_the_model_does_not_have(composite, unix):
    def script(peer):
        peer.send(init(" component : oxygen , "))
        return peer.ends()

    server = ServerDouble(unix, script)
    with pytest.raises(ComponentError, match="'oxygen' is not in water-ammonia") as caught:
        serve(composite, server)
    assert caught.value.exit_code == 2
    assert server.finish()


@pytest.mark.parametrize(
    ("broken", "error"), [(np.nan, GeometryError), ("coinciding", GeometryError)]
)
def test_positions_that_make_no_sense_are_not_answered(composite, positions, unix, broken, error):
    x = positions.copy()
    x[2] = x[3] if broken == "coinciding" else broken

    def script(peer):
        peer.introduce()
        peer.send(posdata(x) + message("getforce"))
        return peer.ends()

    server = ServerDouble(unix, script)
    with pytest.raises(error):
        serve(composite, server)
    assert server.finish()


@pytest.mark.parametrize("what", ["energy", "forces"])
def test_what_is_not_a_number_is_not_sent(composite, positions, unix, monkeypatch, what):
    original = CompositeModel.evaluate

    def spoiled(self, *args, **kwargs):
        result = original(self, *args, **kwargs)
        if what == "energy":
            result.energy[...] = np.nan
        else:
            result.contributions["binding"].forces[..., 2, 1] = np.inf
            result.forces[..., 2, 1] = np.inf
        return result

    monkeypatch.setattr(CompositeModel, "evaluate", spoiled)

    def script(peer):
        peer.introduce()
        peer.send(posdata(positions) + message("getforce"))
        return peer.ends()

    server = ServerDouble(unix, script)
    with pytest.raises(GuardError, match="not finite; nothing was sent") as caught:
        serve(composite, server)
    assert caught.value.exit_code == 4
    assert server.finish()


# -- signals ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_and_its_handlers_are_put_back(composite, positions, unix, number):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    def script(peer):
        peer.introduce()
        peer.forces(positions)
        os.kill(os.getpid(), number)
        return peer.ends()

    server = ServerDouble(unix, script)
    events = serve(composite, server)
    assert server.finish()
    assert named(events, "stopped")[0]["reason"] == signal.Signals(number).name
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_signal_stops_it_while_it_waits_for_a_server(composite, unix):
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    settings = ServeSettings((parse_address(unix),), connect_timeout_s=60.0)
    began = time.monotonic()
    with structlog.testing.capture_logs() as events:
        Daemon(composite, settings, StepLog(1, None)).run()
    assert time.monotonic() - began < 60.0
    assert named(events, "stopped")[0]["reason"] == "SIGTERM"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_ends_well_on_a_signal(model_directory, tmp_path, number):
    path = tmp_path / "s"
    with listening(path) as listener:
        process = subprocess.Popen(
            [sys.executable, "-m", "deltaserver", "--models", model_directory, "--socket",
             f"unix:{path}"],
            stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3],
        )  # fmt: skip
        listener.settimeout(60)
        connection, _ = listener.accept()
        with connection:
            process.send_signal(number)
            _, stderr = process.communicate(timeout=60)
            assert connection.recv(1) == b""
    assert process.returncode == 0
    assert "Traceback" not in stderr
    assert re.search(f"stopped .*reason={signal.Signals(number).name}", stderr)
