"""Addresses, and attempts to connect that do not block."""

import errno
import itertools
import os
import selectors
import socket

import pytest

from deltaserver.errors import InputError
from deltaserver.serve import transport
from deltaserver.serve.transport import (
    Connector,
    InetAddress,
    UnixAddress,
    check_socket_file,
    close_quietly,
    delays,
    parse_address,
)
from tests.serve.server_double import listening


@pytest.mark.parametrize(
    ("text", "prefix", "address"),
    [
        ("unix:delta", "/tmp/ipi_", UnixAddress("/tmp/ipi_delta")),
        ("unix:delta", "/run/x/", UnixAddress("/run/x/delta")),
        ("unix:/a/b", "/tmp/ipi_", UnixAddress("/a/b")),
        ("unix:a:b", "/tmp/ipi_", UnixAddress("/tmp/ipi_a:b")),
        ("inet:localhost:31415", "", InetAddress("localhost", 31415)),
        ("inet:[::1]:80", "", InetAddress("::1", 80)),
        ("inet:10.0.0.1:65535", "", InetAddress("10.0.0.1", 65535)),
    ],
)
def test_addresses(text, prefix, address):
    assert parse_address(text, prefix) == address


def test_addresses_print_as_they_are_given():
    for text in ("unix:/a/b", "inet:localhost:31415"):
        assert str(parse_address(text)) == text


BAD = [
    "", "unix", "unix:", "delta", "/tmp/x", "inet:", "inet:localhost", "inet::80", "inet:host:0",
    "inet:host:65536", "inet:host:-1", "inet:host:http", "inet:host:", "tcp:host:80", "UNIX:x",
    "unix:a\0b", "inet:host:" + "1" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_address(text):
    with pytest.raises(InputError, match="expected unix:NAME, unix:/absolute/path or inet:HOST"):
        parse_address(text)


def test_a_path_that_no_unix_socket_can_have():
    assert parse_address("unix:/" + "x" * 106) == UnixAddress("/" + "x" * 106)
    with pytest.raises(InputError, match="longer than the 107 bytes"):
        parse_address("unix:/" + "x" * 107)
    with pytest.raises(InputError, match="longer than"):
        parse_address("unix:/" + "ä" * 60)


def test_the_longest_path_is_the_system_s(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("x" * transport.MAX_UNIX_PATH)
    with socket.socket(socket.AF_UNIX) as sock, pytest.raises(OSError, match="too long"):
        sock.bind("x" * (transport.MAX_UNIX_PATH + 2))


def test_delays_double_up_to_a_second():
    first = list(itertools.islice(delays(), 10))
    assert first[:3] == [0.02, 0.04, 0.08]
    assert first[-2:] == [1.0, 1.0]


def test_a_unix_server_that_listens(tmp_path):
    with listening(tmp_path / "s"):
        sock, connected = Connector(UnixAddress(str(tmp_path / "s"))).start()
        assert connected
        assert not sock.getblocking()
        close_quietly(sock)


def test_unix_servers_that_are_not_there_yet(tmp_path):
    connector = Connector(UnixAddress(str(tmp_path / "s")))
    assert connector.start() is None
    assert connector.last_error == "no such file or directory"
    with listening(tmp_path / "s"):
        pass  # leaves its file behind
    assert connector.start() is None
    assert connector.last_error == "connection refused"


def test_a_full_backlog_is_worth_another_try(tmp_path):
    with listening(tmp_path / "s"):
        connector, waiting = Connector(UnixAddress(str(tmp_path / "s"))), []
        while started := connector.start():
            waiting.append(started[0])
            assert len(waiting) < 50
        assert connector.last_error == "resource temporarily unavailable"
        for sock in waiting:
            close_quietly(sock)


def test_what_can_never_work_is_told_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot connect to unix:.*: not a directory"):
        Connector(UnixAddress(str(tmp_path / "file" / "s"))).start()


def finish(connector, started):
    sock, connected = started
    assert not connected
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_WRITE)
        assert selector.select(5.0)
    return connector.finish(sock)


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def test_a_tcp_server():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        connector = Connector(InetAddress("127.0.0.1", listener.getsockname()[1]))
        started = connector.start()
        assert finish(connector, started)
        assert started[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        close_quietly(started[0])


def test_a_tcp_server_that_is_not_there_yet():
    connector = Connector(InetAddress("127.0.0.1", free_port()))
    started = connector.start()
    assert started is None or not finish(connector, started)
    assert connector.last_error == "connection refused"


def test_a_name_that_does_not_resolve_yet(monkeypatch):
    def fail(*args, **kwargs):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    connector = Connector(InetAddress("nowhere", 80))
    assert connector.start() is None
    assert connector.last_error == "cannot resolve the host name: Name or service not known"


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
def test_a_name_that_is_none(host):
    with pytest.raises(InputError, match="is no host name"):
        Connector(InetAddress(host, 80)).start()


def test_every_address_of_a_name_gets_its_turn(monkeypatch):
    """Where localhost is ::1 first: i-PI listens on IPv4 only."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        port = listener.getsockname()[1]
        found = [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", free_port())),
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)),
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: found)
        connector = Connector(InetAddress("localhost", port))
        started = connector.start()
        assert started is None or not finish(connector, started)
        started = connector.start()
        assert finish(connector, started)
        close_quietly(started[0])


def test_a_refusal_of_the_system_counts_as_input(monkeypatch):
    monkeypatch.setattr(socket.socket, "connect_ex", lambda *args: errno.EACCES)
    with pytest.raises(InputError, match="cannot connect to unix:/x: permission denied"):
        Connector(UnixAddress("/x")).start()


# -- what lies at a path ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["../x", "a/../../x", ".."])
def test_names_that_climb(name):
    with pytest.raises(InputError, match=r"a NAME with '\.\.'"):
        parse_address(f"unix:{name}")


@pytest.mark.parametrize("kind", ["file", "directory", "fifo"])
def test_something_else_than_a_socket(tmp_path, kind):
    path = tmp_path / "s"
    {"file": path.touch, "directory": path.mkdir, "fifo": lambda: os.mkfifo(path)}[kind]()
    with pytest.raises(InputError, match="something else than a socket"):
        Connector(UnixAddress(str(path))).start()


def test_a_socket_of_another_user(tmp_path, monkeypatch):
    path = tmp_path / "s"
    with listening(path):
        check_socket_file(str(path))
        owner = path.stat().st_uid
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
        if owner == 0:
            check_socket_file(str(path))  # root's are trusted
            os.chown(path, 12345, -1)
        with pytest.raises(InputError, match="belongs to another user"):
            check_socket_file(str(path))
        monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid)
        check_socket_file(str(path))


def test_nothing_there_is_no_error(tmp_path):
    check_socket_file(str(tmp_path / "nothing"))
    check_socket_file("x" * 5000)
