"""Where i-PI listens, and how to get and keep a connection to it."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from deltaserver.errors import InputError
from deltaserver.serve.keeper import close_quietly as close_quietly

DEFAULT_PREFIX = "/tmp/ipi_"  # i-PI's own default, ipi/interfaces/sockets.py
MAX_UNIX_PATH = 107  # sun_path of Linux, less the closing NUL
FIRST_DELAY_S, LAST_DELAY_S = 0.02, 1.0
# A peer whose machine is gone sends nothing, ever: ask after a minute of silence, then every 15 s.
KEEPALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 8}

# A server that is not up yet: worth another try.
NOT_THERE_YET = {
    errno.ENOENT, errno.ECONNREFUSED, errno.EAGAIN, errno.ETIMEDOUT, errno.EHOSTUNREACH,
    errno.ENETUNREACH, errno.ECONNRESET, errno.ECONNABORTED, errno.EINTR,
}  # fmt: skip
IN_PROGRESS = {errno.EINPROGRESS, errno.EWOULDBLOCK}


@dataclass(frozen=True)
class UnixAddress:
    """A unix socket by its path."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True)
class InetAddress:
    """A TCP socket by host and port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"inet:{self.host}:{self.port}"


Address = UnixAddress | InetAddress


def parse_address(text: str, prefix: str = DEFAULT_PREFIX) -> Address:
    """Parse ``unix:NAME``, ``unix:/absolute/path`` or ``inet:HOST:PORT``.

    Raises:
        InputError: anything else, a path that is too long, a port out of range.
    """
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest and "\0" not in rest:
        if not rest.startswith("/") and ".." in rest.split("/"):
            raise InputError(f"--socket {text}: a NAME with '..'; give the path as unix:/path")
        path = rest if rest.startswith("/") else prefix + rest
        if len(os.fsencode(path)) > MAX_UNIX_PATH:
            raise InputError(
                f"--socket {text}: the path {path} is longer than the {MAX_UNIX_PATH} bytes that "
                "a unix socket may have"
            )
        return UnixAddress(path)
    if kind == "inet":
        host, _, port = rest.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if host and port.isdecimal() and len(port) <= 5 and 1 <= int(port) <= 65535:
            return InetAddress(host, int(port))
    raise InputError(f"--socket {text}: expected unix:NAME, unix:/absolute/path or inet:HOST:PORT")


def delays() -> Iterator[float]:
    """Yield the pauses between attempts to connect, in s: doubling, then steady."""
    delay = FIRST_DELAY_S
    while True:
        yield delay
        delay = min(2 * delay, LAST_DELAY_S)


class Connector:
    """One attempt to connect, without blocking.

    :meth:`start` returns the socket where a connection was made or is being made; once that
    socket is writable :meth:`finish` tells whether it was made.
    """

    def __init__(self, address: Address) -> None:
        self.address = address
        self.last_error: str | None = None  # None: no attempt yet
        self._n_attempts = 0

    def start(self) -> tuple[socket.socket, bool] | None:
        """Begin; return (socket, connected already), or None if the server is not there yet.

        Raises:
            InputError: the address can never work.
        """
        try:
            family, target = self._resolve()
        except socket.gaierror as error:
            self.last_error = f"cannot resolve the host name: {error.strerror}"
            return None
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        if family != socket.AF_UNIX:
            # Replies are small and waited for: Nagle's algorithm would hold them back.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _keep_alive(sock)
        code = sock.connect_ex(target)
        # EAGAIN means "in progress" for TCP and "backlog full" for unix sockets.
        if code in IN_PROGRESS and family != socket.AF_UNIX:
            self.last_error = "no answer"
            return sock, False
        if code and not self._may_retry(code, sock):
            return None
        return sock, True

    def finish(self, sock: socket.socket) -> bool:
        """Return whether the connection under way was made; close the socket if not."""
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        return not code or self._may_retry(code, sock)

    def _may_retry(self, code: int, sock: socket.socket) -> bool:
        """Close the socket; return False for another try, or raise where none can help."""
        sock.close()
        self.last_error = os.strerror(code).lower()
        if code not in NOT_THERE_YET:
            raise InputError(f"cannot connect to {self.address}: {self.last_error}")
        return False

    def _resolve(self) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
        if isinstance(self.address, UnixAddress):
            check_socket_file(self.address.path)
            return socket.AF_UNIX, self.address.path
        try:
            found = socket.getaddrinfo(
                self.address.host, self.address.port, type=socket.SOCK_STREAM
            )
        except UnicodeError:
            raise InputError(f"{self.address}: {self.address.host!r} is no host name") from None
        # A name may stand for several addresses, and i-PI listens on IPv4 only: where localhost
        # is ::1 first, that one is refused forever. Each attempt takes the next.
        family, _, _, _, target = found[self._n_attempts % len(found)]
        self._n_attempts += 1
        return family, (str(target[0]), int(target[1]))


def _keep_alive(sock: socket.socket) -> None:
    """Have the kernel find out, in about three minutes, that the other machine is gone."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEPALIVE.items():
        if hasattr(socket, name):  # not every system can be told
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def check_socket_file(path: str) -> None:
    """Refuse what is at ``path`` if it is no socket, or another user's.

    i-PI's sockets lie in ``/tmp``, where anybody of a shared machine may have put one of that name.
    Nothing at all is no error: the server may come yet.

    Raises:
        InputError: a file, directory or device; or a socket of a user who is not us or root.
    """
    try:
        found = os.stat(path)  # noqa: PTH116  # of a path that may not fit into Path
    except OSError:
        return  # connecting tells
    if not stat.S_ISSOCK(found.st_mode):
        raise InputError(f"unix:{path}: this is something else than a socket; check --socket")
    us = os.geteuid()
    if us != 0 and found.st_uid not in (us, 0):
        raise InputError(
            f"unix:{path}: this socket belongs to another user (uid {found.st_uid}); use another "
            "name in i-PI's input and in --socket"
        )
