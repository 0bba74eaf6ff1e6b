"""Whatever a peer does, the daemon ends or connects again: no spin, no hang, no wrong answer.

Every test is on a real socket. Rows of docs/reliability.md name the tests here.
"""

import contextlib
import itertools
import os
import signal
import socket
import struct
import threading
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import structlog

from deltaserver.errors import ProtocolError
from deltaserver.serve import link as link_module
from deltaserver.serve.daemon import Daemon
from deltaserver.serve.settings import ServeSettings
from deltaserver.serve.telemetry import StepLog
from deltaserver.serve.transport import (
    Connector,
    InetAddress,
    close_quietly,
    parse_address,
)
from tests.serve.running.test_daemon import assert_same, named, serve, tiny_buffers
from tests.serve.server_double import ServerDouble, init, message, posdata

STATUS, GETFORCE, EXIT = message("status"), message("getforce"), message("exit")
MIB = 1 << 20


class Idle:
    """Measures the CPU time that the whole process uses while a peer sleeps."""

    def __call__(self, seconds):
        used = time.process_time()
        time.sleep(seconds)
        return time.process_time() - used


# -- silence ------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [5, 12 + 100, 12 + 144 + 4 + 50])
def test_silence_in_the_middle_of_a_message_costs_nothing(composite, positions, unix, part):
    data = posdata(positions) + GETFORCE

    def script(peer):
        peer.introduce()
        peer.send(data[:part])
        used = Idle()(0.5)
        peer.send(data[part:])
        return used, peer.reply()

    server = ServerDouble(unix, script)
    serve(composite, server)
    used, reply = server.finish()
    assert used < 0.1
    assert_same(reply, composite.evaluate(positions))


def test_silence_between_steps_costs_nothing(composite, positions, unix):
    """As when i-PI is stopped with SIGSTOP, or computes for itself."""

    def script(peer):
        peer.introduce()
        first = peer.forces(positions)
        used = Idle()(0.7)
        assert peer.forces(positions)["energy"] == first["energy"]
        peer.send(EXIT)
        return used

    server = ServerDouble(unix, script)
    serve(composite, server, reconnect_limit_s=60.0)
    assert server.finish() < 0.1


def test_waiting_for_a_server_costs_nothing(composite, unix):
    settings = ServeSettings((parse_address(unix),), connect_timeout_s=60.0)
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    used = time.process_time()
    with structlog.testing.capture_logs():
        Daemon(composite, settings, StepLog(1, None)).run()
    # A loop that does not sleep uses 1.5 s; beside other tests a processor's seconds are shorter.
    assert time.process_time() - used < 0.3


# -- what is wrong ----------------------------------------------------------------------------


def introduction(bead, length, text=b""):
    return message("init") + struct.pack("=ii", bead, length) + text


def positions_of(n_atoms, rest=b""):
    return init() + message("posdata") + bytes(144) + struct.pack("=i", n_atoms) + rest


BIG = 2**31 - 1
WRONG = {
    "zeros": bytes(12),
    "HTTP": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": bytes.fromhex("16030100f8010000f40303") + bytes(50),
    "lower case": b"status      ",
    "not padded": b"STATUS\0\0\0\0\0\0",
    "an answer": b"FORCEREADY  ",
    "another state": b"READY       ",
    "high bytes": bytes(range(244, 256)),
    "a text of 2 GB": introduction(0, BIG, b"x" * 1000),
    "a text a byte too long": introduction(0, (1 << 16) + 1),
    "a negative text": introduction(0, -1),
    "the least number as length": introduction(0, -(2**31)),
    "batch_size 0": init("batch_size:0"),
    "batch_size -4": init("batch_size:-4"),
    "batch_size of many digits": init("batch_size:" + "9" * 5000),
    "batch_size too large": init("batch_size:4097"),
    "no batch_size": init("batch_size:four"),
    "no atoms": positions_of(0),
    "one atom less": positions_of(6, bytes(6 * 24)),
    "one atom more": positions_of(8, bytes(8 * 24)),
    "negative atoms": positions_of(-7),
    "2 billion atoms": positions_of(BIG),
    "2 billion atoms in a batch": init("batch_size:2") + message("posdata")
    + struct.pack("=i", BIG),
    "positions before INIT": posdata(np.zeros((7, 3))),
    "GETFORCE before INIT": GETFORCE,
    "GETFORCE without positions": init() + GETFORCE,
    "positions twice": init() + 2 * posdata(np.zeros((7, 3))),
    "INIT after positions": init() + posdata(np.zeros((7, 3))) + init(),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("limit", [None, 10.0])
def test_what_is_no_protocol_ends_it_at_once(composite, unix, name, limit):
    """One line, exit code 3, no second try, no memory for what is only announced."""

    def script(peer):
        peer.send(WRONG[name])
        return peer.ends()

    server = ServerDouble(unix, script)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError) as caught:
            serve(composite, server, reconnect_limit_s=limit)
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
    assert server.finish()


@pytest.mark.parametrize("seed", range(20))
def test_garbage_never_gets_an_answer(composite, unix, seed):
    rng = np.random.default_rng(seed)
    noise = rng.bytes(int(rng.integers(12, 5000)))

    def script(peer):
        peer.send(noise)
        return peer.ends()

    server = ServerDouble(unix, script)
    with pytest.raises(ProtocolError):
        serve(composite, server)
    assert server.finish()


def test_text_that_is_no_utf8_is_no_end(composite, positions, unix):
    def script(peer):
        peer.send(introduction(0, 4, b"\xff\xfe\0\x80"))
        return peer.forces(positions)

    server = ServerDouble(unix, script)
    serve(composite, server)
    assert_same(server.finish(), composite.evaluate(positions))


# -- too much ---------------------------------------------------------------------------------


def test_a_storm_of_status_is_answered_one_by_one(composite, positions, unix):
    n = 50_000

    def script(peer):
        reader = threading.Thread(target=lambda: replies.append(peer.exactly(12 * n)))
        replies = []
        reader.start()
        peer.send(STATUS * n)
        reader.join(50)
        peer.send(init())
        assert replies[0] == b"NEEDINIT    " * n
        return peer.forces(positions)

    server = ServerDouble(unix, script)
    used = time.process_time()
    serve(composite, server)
    assert_same(server.finish(), composite.evaluate(positions))
    assert time.process_time() - used < 5.0


def fill(peer, data, seconds=0.5):
    """Send again and again, as long as the daemon takes it; return how many bytes it took."""
    peer.sock.settimeout(seconds)
    n_bytes, many = 0, 1000 * data
    try:
        while n_bytes < 64 * MIB:
            n_bytes += peer.sock.send(many[n_bytes % len(data) :])
    except TimeoutError:
        return n_bytes
    raise AssertionError("the daemon takes without end")


@pytest.mark.parametrize("what", ["STATUS", "requests"])
def test_a_peer_that_asks_without_reading_is_not_listened_to_for_ever(
    composite, positions, unix, what, monkeypatch
):
    """Memory stays bounded, the daemon sleeps, and whoever reads at last gets every answer."""
    data = STATUS if what == "STATUS" else posdata(positions) + GETFORCE
    monkeypatch.setattr(link_module, "MAX_UNSENT_BYTES", 1 << 16)
    monkeypatch.setattr(link_module, "RECEIVE_BYTES", 1 << 15)
    tiny_buffers(monkeypatch)

    def script(peer):
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        peer.introduce()
        n_bytes = fill(peer, data)
        used = Idle()(0.3)
        peer.sock.settimeout(50)
        answer = peer.reply if what == "requests" else lambda: peer.exactly(12)
        for _ in range(n_bytes // len(data)):
            answer()
        peer.send(data[n_bytes % len(data) :])
        return used, answer()

    server = ServerDouble(unix, script)
    tracemalloc.start()
    try:
        serve(composite, server)
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()
    used, last = server.finish()
    assert used < 0.1
    if what == "requests":
        assert_same(last, composite.evaluate(positions))


def test_a_peer_that_floods_while_others_are_waited_for(composite, positions, tmp_path):
    """A batch window does not collect what a peer goes on sending."""
    hold = threading.Event()

    def flood(peer):
        peer.introduce()
        hold.wait(50)
        n_bytes = fill(peer, posdata(positions) + GETFORCE, 0.3)
        peer.sock.shutdown(socket.SHUT_WR)
        return n_bytes

    def idle(peer):
        peer.introduce()
        hold.set()
        time.sleep(1.0)

    servers = [
        ServerDouble(f"unix:{tmp_path}/a", flood),
        ServerDouble(f"unix:{tmp_path}/b", idle),
    ]
    serve(composite, *servers, batch_window_s=0.8)
    assert servers[0].finish() < 4 * MIB
    servers[1].finish()


# -- who stays, who goes ----------------------------------------------------------------------


def test_a_peer_that_dies_while_we_compute_takes_nobody_with_it(composite, batch, tmp_path):
    both = threading.Barrier(2, timeout=50)

    def die(peer):
        peer.introduce()
        both.wait()
        peer.send(posdata(batch[0]) + GETFORCE)

    def stay(peer):
        peer.introduce()
        both.wait()
        replies = [peer.forces(x) for x in batch]
        peer.send(EXIT)
        return replies

    servers = [ServerDouble(f"unix:{tmp_path}/a", die), ServerDouble(f"unix:{tmp_path}/b", stay)]
    serve(composite, *servers)
    for reply, x in zip(servers[1].finish(), batch, strict=True):
        assert_same(reply, composite.evaluate(x))


def test_sigterm_at_any_moment_under_load_leaves_whole_replies_only(composite, batch, tmp_path):
    """What was logged was received, what was received is whole, and the peer sees a clean end."""
    rng = np.random.default_rng(5)
    n_served = 0

    def hammer(peer):
        peer.introduce()
        threading.Timer(rng.uniform(0.0, 0.02), os.kill, (os.getpid(), signal.SIGTERM)).start()
        replies = []
        while True:
            try:
                peer.send(posdata(batch[0]) + GETFORCE)
            except BrokenPipeError:
                return replies
            first = peer.sock.recv(1)  # a reset would raise here
            if not first:
                return replies
            replies.append(peer.reply(first=first))  # half a reply would raise

    for k in itertools.count():
        if k >= 25 and n_served > 25:  # a busy machine serves none in many of these moments
            return
        server = ServerDouble(f"unix:{tmp_path}/{k}", hammer)
        events = serve(composite, server)
        replies = server.finish()
        assert named(events, "stopped")[0]["reason"] == "SIGTERM"
        assert len(named(events, "step")) == len(replies)
        for reply in replies:
            assert_same(reply, composite.evaluate(batch[0]))
        n_served += len(replies)


def test_sigterm_before_getforce_waits_for_it(composite, positions, unix):
    """i-PI that has heard HAVEDATA loops for ever if its client then ends."""

    def script(peer):
        peer.introduce()
        peer.send(posdata(positions))
        assert peer.status() == "HAVEDATA"
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        peer.send(GETFORCE)
        reply = peer.reply()
        assert peer.ends()
        return reply

    server = ServerDouble(unix, script)
    events = serve(composite, server)
    assert_same(server.finish(), composite.evaluate(positions))
    assert len(named(events, "step")) == 1


def test_sigterm_behind_the_forces_waits_for_the_status_that_follows(composite, positions, unix):
    """i-PI that finds its client gone at that STATUS asks the next for the step that it has."""

    def script(peer):
        peer.introduce()
        peer.send(posdata(positions))
        assert peer.status() == "HAVEDATA"
        peer.send(GETFORCE)
        peer.reply()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.3)
        assert peer.status() == "READY"
        return peer.ends()

    server = ServerDouble(unix, script)
    events = serve(composite, server)
    assert server.finish()
    assert len(named(events, "step")) == 1


def test_sigterm_behind_the_status_that_begins_a_step_waits_for_its_positions(
    composite, batch, unix
):
    """i-PI, asking step by step, hangs if it has heard READY and cannot send positions."""

    def script(peer):
        peer.introduce()
        replies = []
        for x in batch[:2]:
            peer.send(posdata(x))
            assert peer.status() == "HAVEDATA"
            peer.send(GETFORCE)
            replies.append(peer.reply())
            assert peer.status() == "READY"  # the end of one step
            if len(replies) == 1:
                assert peer.status() == "READY"  # the beginning of the next
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.3)
        assert peer.ends()
        return replies

    server = ServerDouble(unix, script)
    events = serve(composite, server)
    for reply, x in zip(server.finish(), batch, strict=False):
        assert_same(reply, composite.evaluate(x))
    assert len(named(events, "step")) == 2


def test_sigterm_does_not_wait_for_ever(composite, positions, tmp_path):
    """For a peer that does not ask; another that floods us meanwhile is not listened to."""
    flooded = threading.Event()

    def silent(peer):
        peer.introduce()
        peer.send(posdata(positions))
        assert peer.status() == "HAVEDATA"
        assert flooded.wait(50)
        began, used = time.monotonic(), time.process_time()
        os.kill(os.getpid(), signal.SIGTERM)
        assert peer.ends()
        return time.monotonic() - began, time.process_time() - used

    def flood(peer):
        peer.introduce()
        flooded.set()
        time.sleep(0.5)
        with contextlib.suppress(OSError):
            peer.send(1000 * STATUS)
        return peer.ends()

    servers = [
        ServerDouble(f"unix:{tmp_path}/a", silent),
        ServerDouble(f"unix:{tmp_path}/b", flood),
    ]
    events = serve(composite, *servers)
    waited, used = servers[0].finish()
    assert 1.0 < waited < 30.0
    assert used < 0.5
    assert named(events, "step") == []


@pytest.mark.parametrize("address", ["unix", "inet"])
def test_an_orderly_end_over_an_unread_request_is_no_reset(composite, positions, unix, address):
    """i-PI's polling thread dies of a reset, and i-PI hangs; of an end of file it does not."""

    def script(peer):
        peer.introduce()
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(200):
            try:
                peer.send(posdata(positions) + GETFORCE)
            except BrokenPipeError:
                break
        while data := peer.sock.recv(1 << 16):
            assert data
        return "end of file"

    for _ in range(5):
        server = ServerDouble("inet" if address == "inet" else unix, script)
        serve(composite, server)
        if address == "unix":
            assert server.finish() == "end of file"
            Path(unix.removeprefix("unix:")).unlink()
        else:
            server.thread.join(50)


def test_the_kernel_finds_out_that_a_machine_is_gone():
    """A peer whose machine lost power sends no FIN: keep-alive probes end the connection."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        address = InetAddress("127.0.0.1", listener.getsockname()[1])
        sock, _ = Connector(address).start()
        names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        idle, interval, count = (sock.getsockopt(socket.IPPROTO_TCP, name) for name in names)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert idle + interval * count <= 300
        close_quietly(sock)
