"""A small process that ends our connections in order when we are killed.

i-PI hangs for ever if a client dies over a request that it has not read: the kernel then resets
the connection, and i-PI's polling thread dies of that. A process that is killed can do nothing
about it. So this file, run as a program of its own, holds a second handle of every connection;
when the daemon is gone it shuts them, reads what was unread, and closes: i-PI sees an end of
file, and sends the step to the next client.

It is told by messages of four bytes over a socket pair: a number with a handle to hold, the same
number without one to let go. The end of that socket is the end of the daemon. Nothing but the
standard library is imported, so that it starts in some milliseconds and needs little memory.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct

NUMBER = struct.Struct("=I")
MAX_UNREAD_BYTES = 1 << 24  # of a peer that goes on sending while we part from it
END_S = 5.0
IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # sent to us with the daemon


class Keeper:
    """The daemon's side: starts the process and tells it what to hold."""

    def __init__(self) -> None:
        import subprocess
        import sys

        self._next = 0
        self._socket, theirs = socket.socketpair()
        self._socket.setblocking(False)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the daemon
            )

    def hold(self, sock: socket.socket) -> int:
        """Have the other process hold ``sock`` too; return what to let go of later."""
        self._next += 1
        self._send(self._next, [sock.fileno()])
        return self._next

    def let_go(self, number: int) -> None:
        """Have it close its handle."""
        self._send(number, [])

    def _send(self, number: int, handles: list[int]) -> None:
        with contextlib.suppress(OSError):  # it is gone: then it is as it was without it
            socket.send_fds(self._socket, [NUMBER.pack(number)], handles)

    def close(self) -> None:
        """End the other process, after all connections were closed."""
        import subprocess

        self._socket.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(END_S)


def keep(told: socket.socket) -> None:
    """Hold connections until the daemon is gone; then end them in order."""
    held: dict[int, int] = {}
    with contextlib.suppress(ConnectionError):
        while True:
            data, handles, _, _ = socket.recv_fds(told, NUMBER.size, 1)
            if len(data) < NUMBER.size:
                break
            (number,) = NUMBER.unpack(data)
            if handles:
                held[number] = handles[0]
            elif number in held:
                os.close(held.pop(number))
    for handle in held.values():
        close_quietly(socket.socket(fileno=handle))


def close_quietly(sock: socket.socket) -> None:
    """Close a socket whose peer may be gone already.

    What the peer has sent is read first: to close over unread bytes resets the connection. After
    ``shutdown`` a unix socket takes no more, so that nothing can come in between.
    """
    with contextlib.suppress(OSError):
        sock.setblocking(False)
        sock.shutdown(socket.SHUT_RDWR)
    with contextlib.suppress(OSError):
        left = MAX_UNREAD_BYTES
        while left > 0 and (data := sock.recv(1 << 18)):
            left -= len(data)
    sock.close()


def main() -> None:
    """Run as the other process: the number of the socket is the argument."""
    import sys

    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    keep(socket.socket(fileno=int(sys.argv[1])))


if __name__ == "__main__":
    main()
