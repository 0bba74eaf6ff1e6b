"""Connections that break at every byte of every message, in both directions.

One daemon outlives them all, and answers the connection after them to the last bit as ever.
"""

import socket
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from deltaserver.serve import link as link_module
from tests.serve.running.test_daemon import assert_same, named, serve
from tests.serve.server_double import ServerDouble, batch_posdata, init, message, posdata

STATUS, GETFORCE, EXIT = message("status"), message("getforce"), message("exit")


@pytest.fixture
def at_once(monkeypatch):
    """Connect again without a pause: hundreds of faults in a second."""

    def no_pauses():
        while True:
            yield 0.0

    monkeypatch.setattr(link_module, "delays", no_pauses)


def leave(peer):
    peer.introduce()
    peer.send(EXIT)
    assert peer.ends()


def reset(peer):
    """End a TCP connection as a crash does: RST instead of FIN."""
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def n_open_files():
    return len(list(Path("/proc/self/fd").iterdir()))


def dialogues(x):
    """Everything that i-PI says in a run of one step, message by message."""
    padded = np.stack([x, x])
    return {
        "consolidated": [STATUS, init("component : total , "), STATUS, posdata(x), GETFORCE, EXIT],
        "unconsolidated": [STATUS, init(), STATUS, posdata(x), STATUS, GETFORCE, STATUS, EXIT],
        "batched": [STATUS, init(" batch_size:2"), STATUS, batch_posdata(padded), GETFORCE, EXIT],
    }


KINDS = ("consolidated", "unconsolidated", "batched")


def say(peer, spoken, n_bytes):
    """Say ``n_bytes`` of a dialogue, reading every answer on the way as i-PI does."""
    left = n_bytes
    for each in spoken:
        peer.send(each[:left])
        left -= len(each)
        if left < 0:
            return
        if each == STATUS:
            peer.exactly(12)
        elif each == GETFORCE:
            peer.reply(2 if any(b"batch_size" in each for each in spoken) else None)


@pytest.mark.parametrize("address", ["unix", "inet", "inet with RST"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_ipi_says_cut_off_at_every_byte(composite, positions, unix, at_once, kind, address):
    """One daemon outlives a cut at every offset of every message, and then still answers right."""
    spoken = dialogues(positions)[kind]
    exit_starts = sum(map(len, spoken[:-1]))
    cuts = range(exit_starts + len(EXIT))  # all but the whole of it, which would end the daemon

    def cut_at(n_bytes):
        def script(peer):
            if address == "inet with RST":
                reset(peer)
            say(peer, spoken, n_bytes)

        return script

    def whole(peer):
        peer.introduce()
        reply = peer.forces(positions)
        peer.send(EXIT)
        return reply

    server = ServerDouble(unix if address == "unix" else "inet", *map(cut_at, cuts), whole)
    before, used = n_open_files(), time.process_time()
    events = serve(composite, server, reconnect_limit_s=60.0)
    assert_same(server.finish()[-1], composite.evaluate(positions))
    assert time.process_time() - used < 10.0
    assert n_open_files() <= before  # the listener is closed now
    steps, n_again = named(events, "step"), len(named(events, "reconnecting"))
    # Answered are the dialogues whose GETFORCE was whole, and the last.
    ends = exit_starts - (len(STATUS) if kind == "unconsolidated" else 0)
    n_whole = len([n for n in cuts if n >= ends]) + 1
    if address == "inet with RST":  # may come before the connection is seen to be made
        assert n_again <= len(cuts)
        assert len(steps) <= n_whole
    else:
        assert (n_again, len(steps)) == (len(cuts), n_whole)
    expected = float(composite.evaluate(positions).energy)
    assert all(step["energy_ev"] == pytest.approx(expected) for step in steps)


@pytest.mark.parametrize("kind", KINDS)
def test_without_reconnect_a_cut_at_any_byte_is_an_end(composite, positions, unix, kind):
    spoken = dialogues(positions)[kind]
    for n_bytes in range(0, sum(map(len, spoken)), 5):
        server = ServerDouble("inet", lambda peer, n_bytes=n_bytes: say(peer, spoken, n_bytes))
        events = serve(composite, server)
        server.finish()
        assert len(named(events, "closed")) == 1
        assert len(named(events, "stopped")) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_we_say_cut_off_at_every_byte(composite, positions, unix, at_once, kind):
    """The peer hangs up after each byte of our answers; the next one gets its own from the start.

    Closing over what it has not read resets the connection, as a crash does.
    """
    spoken = b"".join(dialogues(positions)[kind][:-1])

    def listen_for(n_bytes):
        def script(peer):
            peer.send(spoken)
            peer.exactly(n_bytes)

        return script

    def measure(peer):
        peer.send(spoken)
        peer.sock.settimeout(0.3)
        data = b""
        while True:
            try:
                data += peer.sock.recv(1 << 16)
            except TimeoutError:
                return data

    server = ServerDouble(unix, measure)
    serve(composite, server)
    answers = server.finish()
    server = ServerDouble(unix + "2", *map(listen_for, range(len(answers))), measure, leave)
    before = n_open_files()
    serve(composite, server, reconnect_limit_s=60.0)
    assert server.finish()[-2] == answers  # to the last bit, after hundreds of broken ones
    assert n_open_files() <= before


def test_every_byte_in_a_packet_of_its_own(composite, positions, unix):
    def script(peer):
        for each in (STATUS, init(), STATUS, posdata(positions), STATUS, GETFORCE):
            for k in range(len(each)):
                peer.send(each[k : k + 1])
            if each == STATUS:
                peer.exactly(12)
        reply = peer.reply()
        for k in range(12):
            peer.send(EXIT[k : k + 1])
        assert peer.ends()
        return reply

    server = ServerDouble(unix, script)
    events = serve(composite, server)
    assert_same(server.finish(), composite.evaluate(positions))
    assert named(events, "closed")[0]["reason"] == "EXIT"


def test_two_peers_at_once_that_are_cut_off_at_random(composite, batch, tmp_path, at_once):
    """Batches of two connections of which either may break at any byte, three hundred times."""
    spoken = dialogues(batch[0])["consolidated"]
    rng = np.random.default_rng(3)
    total = sum(map(len, spoken[:-1]))

    def cut(peer):
        say(peer, spoken, int(rng.integers(total)))

    def whole(peer):
        peer.introduce()
        reply = peer.forces(batch[1])
        peer.send(EXIT)
        return reply

    servers = [ServerDouble(f"unix:{tmp_path}/{name}", *[cut] * 150, whole) for name in "ab"]
    serve(composite, *servers, reconnect_limit_s=60.0)
    for server in servers:
        assert_same(server.finish()[-1], composite.evaluate(batch[1]))
