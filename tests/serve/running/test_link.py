"""Connections that are made again: when, how often, for how long."""

import os
import selectors
import signal
import threading
import time
from types import SimpleNamespace

import pytest
import structlog

from deltaserver.errors import NoServerError, ProtocolError
from deltaserver.serve import link as link_module
from deltaserver.serve.daemon import Daemon
from deltaserver.serve.link import Link, Patience
from deltaserver.serve.settings import ServeSettings
from deltaserver.serve.telemetry import StepLog
from deltaserver.serve.transport import delays, parse_address
from tests.serve.running.test_daemon import assert_same, named, serve
from tests.serve.server_double import ServerDouble, init, listening, message, posdata


def one_step(positions):
    def script(peer):
        peer.introduce()
        return peer.forces(positions)

    return script


def leave(peer):
    peer.introduce()
    peer.send(message("exit"))
    assert peer.ends()


def test_a_server_that_comes_back_is_served_on(composite, batch, unix):
    server = ServerDouble(unix, *[one_step(x) for x in batch], leave)
    events = serve(composite, server, reconnect_limit_s=60.0)
    for reply, x in zip(server.finish()[:3], batch, strict=True):
        assert_same(reply, composite.evaluate(x))
    assert [step["seq"] for step in named(events, "step")] == [0, 1, 2]  # one count for all
    assert [event["times"] for event in named(events, "connected")] == [1, 2, 3, 4]
    assert len(named(events, "reconnecting")) == 3
    assert [event["reason"] for event in named(events, "closed")][-1] == "EXIT"


def test_without_being_asked_it_does_not_connect_again(composite, positions, unix):
    events = serve(composite, ServerDouble(unix, one_step(positions)))
    assert len(named(events, "connected")) == 1
    assert named(events, "reconnecting") == []


def test_exit_is_the_end_also_when_it_may_connect_again(composite, unix):
    began = time.monotonic()
    events = serve(composite, ServerDouble(unix, leave), reconnect_limit_s=60.0)
    assert time.monotonic() - began < 60.0
    assert named(events, "reconnecting") == []


def test_a_server_that_stays_away_ends_it_after_the_limit(composite, positions, unix):
    server = ServerDouble(unix, one_step(positions))
    began = time.monotonic()
    with pytest.raises(NoServerError) as caught:
        serve(composite, server, reconnect_limit_s=0.3)
    assert 0.3 <= time.monotonic() - began < 60.0
    assert f"{unix}: the server did not come back within 0.3 s (" in str(caught.value)
    assert "--reconnect-limit" in str(caught.value)
    assert caught.value.exit_code == 3


def test_a_peer_that_accepts_and_hangs_up_is_not_asked_for_ever(composite, tmp_path, monkeypatch):
    """Every attempt succeeds, none brings anything: pauses grow and the limit holds."""
    path = tmp_path / "s"
    accepted, pauses = [], []

    def noted():
        for pause in delays():
            pauses.append(pause)
            yield pause

    monkeypatch.setattr(link_module, "delays", noted)

    def hang_up(listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            accepted.append(time.monotonic())
            sock.close()

    with listening(path) as listener:
        threading.Thread(target=hang_up, args=(listener,), daemon=True).start()
        settings = ServeSettings((parse_address(f"unix:{path}"),), reconnect_limit_s=1.0)
        used = time.process_time()
        with structlog.testing.capture_logs(), pytest.raises(NoServerError, match="hangs up"):
            Daemon(composite, settings, StepLog(1, None)).run()
        assert time.process_time() - used < 0.5
        listener.shutdown(2)
    assert 4 <= len(accepted) <= 10
    assert pauses[3] > 4 * pauses[0]


def test_pauses_start_anew_after_a_connection_that_brought_something(tmp_path, monkeypatch):
    now = time.monotonic()  # however long anything takes
    monkeypatch.setattr(link_module, "time", SimpleNamespace(monotonic=lambda: now))
    path = tmp_path / "s"
    with listening(path) as listener, selectors.DefaultSelector() as selector:
        link = Link(parse_address(f"unix:{path}"), 7, "total", Patience(1.0, 5.0), selector)

        def reconnect(served, seconds=0.0):
            link.attempt(now)
            assert link.connected
            listener.accept()[0].close()
            link.introduced = served
            link._connected_at -= seconds
            link.renew()
            return link.next_attempt - now

        first = next(delays())
        assert reconnect(False) == pytest.approx(first, abs=1e-6)
        grown = [reconnect(False) for _ in range(3)]
        assert grown == sorted(grown)
        assert grown[-1] > 4 * first
        assert reconnect(True) == pytest.approx(first, abs=1e-6)
        assert reconnect(False) > first
        assert reconnect(False, link_module.STEADY_S) == pytest.approx(first, abs=1e-6)


@pytest.mark.parametrize("limit", [0.0, 0.5])
def test_the_others_are_served_on_when_one_stays_away(composite, positions, tmp_path, limit):
    gone = threading.Event()

    def stay(peer):
        peer.introduce()
        assert gone.wait(50)
        time.sleep(limit + 0.3)
        reply = peer.forces(positions)
        peer.send(message("exit"))
        return reply

    def go(peer):
        peer.introduce()
        gone.set()

    servers = [ServerDouble(f"unix:{tmp_path}/a", go), ServerDouble(f"unix:{tmp_path}/b", stay)]
    with pytest.raises(NoServerError, match="did not come back"):
        serve(composite, *servers, reconnect_limit_s=limit)
    assert_same(servers[1].finish(), composite.evaluate(positions))


def test_a_stop_request_while_it_waits_for_the_server_to_be_back(composite, positions, unix):
    server = ServerDouble(unix, one_step(positions))
    threading.Timer(0.4, os.kill, (os.getpid(), signal.SIGTERM)).start()
    events = serve(composite, server, reconnect_limit_s=60.0)
    assert named(events, "stopped")[0]["reason"] == "SIGTERM"


def test_what_is_wrong_is_not_tried_again(composite, unix):
    server = ServerDouble(unix, lambda peer: (peer.send(b"GET / HTTP/1.1\r\n"), peer.ends()))
    with pytest.raises(ProtocolError, match="expected STATUS, INIT"):
        serve(composite, server, reconnect_limit_s=60.0)


@pytest.mark.parametrize("kind", ["unix", "inet"])
def test_exit_before_the_answer_means_that_ipi_gave_up_on_us(composite, batch, unix, kind):
    """i-PI says EXIT to a client that it no longer waits for, and gives its work to the next."""

    def give_up(peer):
        peer.introduce()
        peer.send(posdata(batch[0]) + message("getforce") + message("exit"))

    server = ServerDouble(unix if kind == "unix" else "inet", give_up, one_step(batch[1]), leave)
    events = serve(composite, server, reconnect_limit_s=60.0)
    assert_same(server.finish()[1], composite.evaluate(batch[1]))
    assert named(events, "closed")[-1]["reason"] == "EXIT"
    assert len(named(events, "connected")) == 3


def test_exit_with_positions_unanswered_is_no_end_either(composite, batch, unix):
    def give_up(peer):
        peer.introduce()
        peer.send(posdata(batch[0]) + message("exit"))
        assert peer.ends()

    server = ServerDouble(unix, give_up, leave)
    events = serve(composite, server, reconnect_limit_s=60.0)
    server.finish()
    reasons = [event["reason"] for event in named(events, "closed")]
    assert reasons == ["EXIT before its answer: the server no longer waited", "EXIT"]


def test_each_connection_is_introduced_for_itself(composite, batch, unix):
    """The component and the batch size of one connection do not outlive it."""

    def binding(peer):
        peer.send(init("component:binding, batch_size:3"))
        return peer.batch(batch)

    server = ServerDouble(unix, binding, one_step(batch[0]), leave)
    serve(composite, server, reconnect_limit_s=60.0)
    first, second, _ = server.finish()
    assert_same(first, composite.evaluate(batch[2], "binding"), 2)
    assert_same(second, composite.evaluate(batch[0]))


def test_half_a_request_of_one_connection_is_not_glued_to_the_next(composite, batch, unix):
    def cut(peer):
        peer.introduce()
        peer.send(posdata(batch[0])[:200])

    server = ServerDouble(unix, cut, one_step(batch[1]), leave)
    serve(composite, server, reconnect_limit_s=60.0)
    assert_same(server.finish()[1], composite.evaluate(batch[1]))
