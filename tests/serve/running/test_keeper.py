"""The process that ends our connections in order when we cannot."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from deltaserver.serve.keeper import NUMBER, Keeper, keep
from tests.serve.server_double import Peer, ServerDouble, message, posdata

ROOT = Path(__file__).parents[3]


def start(address, models):
    command = [sys.executable, "-m", "deltaserver", "--models", models, "--socket", address]
    return subprocess.Popen([*command, "--quiet"], cwd=ROOT)


def killed_over_a_request(process, peer, positions):
    """Kill a daemon that has not read the request that was sent to it."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    peer.send(posdata(positions) + message("getforce"))
    process.kill()
    process.wait()


@pytest.mark.parametrize("kind", ["unix", "inet"])
def test_a_kill_over_an_unread_request_is_an_end_of_file(model_directory, positions, unix, kind):
    """i-PI hangs after a reset; see docs/reliability.md."""

    def script(peer):
        peer.introduce()
        peer.forces(positions)
        while not started:
            time.sleep(0.01)
        killed_over_a_request(started[0], peer, positions)
        return peer.sock.recv(100)  # a reset would raise

    started = []
    server = ServerDouble(unix if kind == "unix" else "inet", script)
    started.append(start(server.address, model_directory))
    assert server.finish() == b""


def test_asked_step_by_step_it_is_the_reset_that_ipi_needs(model_directory, positions, unix):
    def script(peer):
        peer.introduce()
        peer.send(posdata(positions))
        assert peer.status() == "HAVEDATA"
        peer.send(message("getforce"))
        peer.reply()
        while not started:
            time.sleep(0.01)
        killed_over_a_request(started[0], peer, positions)
        with pytest.raises(ConnectionResetError):
            peer.sock.recv(100)
        return "reset"

    started = []
    server = ServerDouble(unix, script)
    started.append(start(server.address, model_directory))
    assert server.finish() == "reset"


def test_it_holds_lets_go_and_ends_with_the_daemon():
    """The other process's loop, in a thread here."""
    told, tell = socket.socketpair()
    ours, peers = zip(*(socket.socketpair() for _ in range(2)), strict=True)
    keeper = threading.Thread(target=keep, args=(told,))
    keeper.start()
    for number, sock in enumerate(ours):
        socket.send_fds(tell, [NUMBER.pack(number)], [sock.fileno()])
    socket.send_fds(tell, [NUMBER.pack(0)], [])
    socket.send_fds(tell, [NUMBER.pack(77)], [])  # it does not know that one
    while select.select([told], [], [], 0.0)[0]:  # the last one, which changes nothing, is read
        time.sleep(0.01)
    for sock, peer in zip(ours, peers, strict=True):
        peer.sendall(b"unread")
        sock.close()
    peers[1].settimeout(0.2)
    with pytest.raises(ConnectionResetError):
        peers[0].recv(1)
    with pytest.raises(TimeoutError):
        peers[1].recv(1)  # held
    tell.close()
    keeper.join(60)
    peers[1].settimeout(60)
    assert peers[1].recv(1) == b""
    for sock in (told, *peers):
        sock.close()


def ignored(pid):
    """The signals that a process ignores."""
    (line,) = re.findall(r"^SigIgn:\s+(\w+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return {number for number in range(1, 32) if int(line, 16) >> (number - 1) & 1}


def test_it_outlives_what_ends_the_daemon_and_not_the_daemon():
    keeper = Keeper()
    ours, peer = socket.socketpair()
    keeper.hold(ours)
    ended_by = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    while not set(ended_by) <= ignored(keeper._process.pid):  # it has only begun to run
        time.sleep(0.01)
    for number in ended_by:
        keeper._process.send_signal(number)
    time.sleep(0.2)
    assert keeper._process.poll() is None
    ours.close()
    keeper.close()
    assert keeper._process.returncode == 0
    assert peer.recv(1) == b""
    peer.close()


def test_a_keeper_that_is_gone_is_no_end():
    keeper = Keeper()
    keeper._process.kill()
    keeper._process.wait()
    ours, peer = socket.socketpair()
    keeper.let_go(keeper.hold(ours))
    keeper.close()
    ours.close()
    peer.close()


def test_nothing_is_left_of_it_when_the_daemon_ends_in_order(model_directory, positions, unix):
    def script(peer: Peer):
        peer.introduce()
        while not started:
            time.sleep(0.01)
        children = Path(f"/proc/{started[0].pid}/task/{started[0].pid}/children").read_text()
        peer.send(message("exit"))
        assert peer.ends()
        return [int(pid) for pid in children.split()]

    started = []
    server = ServerDouble(unix, script)
    started.append(start(server.address, model_directory))
    (keeper,) = server.finish()
    assert started[0].wait(60) == 0
    assert not Path(f"/proc/{keeper}").exists()
