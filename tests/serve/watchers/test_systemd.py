"""What systemd hears, at a real datagram socket."""

import os
import socket

import pytest

from deltaserver.serve.watchers.systemd import from_environment
from deltaserver.serve.watchers.watch import Condition, Vitals


class Systemd:
    """The other end: binds a socket and reads datagrams."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)

    def heard(self):
        found = []
        while True:
            try:
                found.append(self.socket.recv(4096).decode().split("\n"))
            except BlockingIOError:
                return found


@pytest.fixture
def systemd(tmp_path):
    end = Systemd(str(tmp_path / "notify"))
    yield end
    end.socket.close()


def environment(tmp_path, **more):
    return {"NOTIFY_SOCKET": str(tmp_path / "notify")} | more


def test_a_life_as_systemd_hears_it(tmp_path, systemd):
    notifier = from_environment(environment(tmp_path, WATCHDOG_USEC="4000000"))
    assert notifier.due(0.0) == 0.0
    notifier.tick(Vitals(), 0.0)
    notifier.tick(Vitals(), 1.0)
    assert notifier.due(1.0) == pytest.approx(1.0)  # half of what systemd allows
    notifier.tick(Vitals(), 2.0)
    notifier.step((), 1.0, "total")
    notifier.tick(Vitals(Condition.SERVING, 7), 2.5)
    notifier.tick(Vitals(Condition.STOPPED, 8), 2.6)
    assert systemd.heard() == [
        ["STATUS=connecting, 0 structures", "READY=1", "WATCHDOG=1"],
        ["STATUS=connecting, 0 structures", "WATCHDOG=1"],
        ["STATUS=serving, 7 structures", "WATCHDOG=1"],
        ["STATUS=stopped, 8 structures", "WATCHDOG=1", "STOPPING=1"],
    ]
    notifier.close()


def test_no_watchdog_without_being_asked(tmp_path, systemd):
    for more in ({}, {"WATCHDOG_USEC": "4000000", "WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "0"}):
        notifier = from_environment(environment(tmp_path, **more))
        notifier.tick(Vitals(), 0.0)
        assert notifier.due(0.0) == pytest.approx(10.0)
        notifier.close()
    assert not any("WATCHDOG=1" in lines for lines in systemd.heard())
    mine = {"WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}
    notifier = from_environment(environment(tmp_path, **mine))
    notifier.tick(Vitals(), 0.0)
    assert notifier.due(0.0) == pytest.approx(0.5)
    notifier.close()


def test_a_reload_is_announced_with_its_time(tmp_path, systemd):
    notifier = from_environment(environment(tmp_path))
    notifier.reloaded()
    first, second = systemd.heard()
    assert first[0] == "RELOADING=1"
    assert first[1].startswith("MONOTONIC_USEC=")
    assert second == ["READY=1"]
    notifier.close()


def test_an_abstract_address():
    name = f"deltaserver-test-{os.getpid()}"
    end = Systemd("\0" + name)
    notifier = from_environment({"NOTIFY_SOCKET": "@" + name})
    notifier.tick(Vitals(), 0.0)
    assert "READY=1" in end.heard()[0]
    notifier.close()
    end.socket.close()


@pytest.mark.parametrize("address", ["", "vsock:2:1234", "relative"])
def test_without_systemd_nothing_is_sent(address):
    assert from_environment({"NOTIFY_SOCKET": address}) is None
    assert from_environment({}) is None


def test_a_systemd_that_is_gone_or_does_not_listen_is_no_end(tmp_path, systemd):
    notifier = from_environment(environment(tmp_path))
    for k in range(1000):  # more than the socket holds
        notifier.tick(Vitals(), 100.0 * k)
    systemd.socket.close()
    notifier.tick(Vitals(), 1e6)
    (tmp_path / "notify").unlink()
    notifier.tick(Vitals(), 2e6)
    notifier.close()
