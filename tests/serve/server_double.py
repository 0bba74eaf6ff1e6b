"""i-PI's side of a socket, written from ipi/interfaces/sockets.py with no code of ours."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

BOHR_ANG = 0.529177210903
HARTREE_EV = 27.211386245988
CELL_BOHR = np.array([[40.0, 3.0, 0.0], [0.0, 41.0, 5.0], [1.0, 0.0, 42.0]])  # not symmetric


def message(name: str) -> bytes:
    return name.upper().ljust(12).encode()


def init(text: str = "", bead: int = 0) -> bytes:
    return message("init") + struct.pack("=ii", bead, len(text)) + text.encode()


def cell_bytes(cell: np.ndarray) -> bytes:
    return cell.tobytes() + np.linalg.inv(cell).tobytes()


def posdata(positions_ang: np.ndarray, cell: np.ndarray = CELL_BOHR) -> bytes:
    x = np.ascontiguousarray(positions_ang) / BOHR_ANG
    return message("posdata") + cell_bytes(cell) + struct.pack("=i", len(x)) + x.tobytes()


def batch_posdata(positions_ang: np.ndarray, cells: Any = None) -> bytes:
    x = np.ascontiguousarray(positions_ang) / BOHR_ANG
    cells = [CELL_BOHR] * len(x) if cells is None else cells
    return (
        message("posdata")
        + struct.pack("=i", x.shape[1])
        + b"".join(cell_bytes(cell) for cell in cells)
        + x.tobytes()
    )


def split_reply(reply: bytes, n_batch: int | None = None) -> dict[str, Any]:
    """Decode FORCEREADY as i-PI reads it, to eV and Å; nothing may be left over."""
    n = n_batch or 1
    assert reply[:12] == b"FORCEREADY  "
    at = 12
    energy = np.frombuffer(reply, np.float64, n, at)
    at += 8 * n
    (n_atoms,) = struct.unpack_from("=i", reply, at)
    at += 4
    forces = np.frombuffer(reply, np.float64, n * 3 * n_atoms, at).reshape(n, n_atoms, 3)
    at += 24 * n * n_atoms
    virial = np.frombuffer(reply, np.float64, 9 * n, at).reshape(n, 3, 3)
    at += 72 * n
    extras = []
    for _ in range(n):
        (length,) = struct.unpack_from("=i", reply, at)
        extras.append(json.loads(reply[at + 4 : at + 4 + length]))
        at += 4 + length
    assert at == len(reply)
    return {
        "energy": energy * HARTREE_EV,
        "forces": forces * HARTREE_EV / BOHR_ANG,
        "virial": virial * HARTREE_EV,
        "extras": extras,
    }


class Peer:
    """One accepted connection, spoken to as i-PI does."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sock.settimeout(60.0)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def exactly(self, n_bytes: int) -> bytes:
        data = b""
        while len(data) < n_bytes:
            piece = self.sock.recv(n_bytes - len(data))
            if not piece:
                raise EOFError("the daemon closed the connection")
            data += piece
        return data

    def status(self) -> str:
        self.send(message("status"))
        return self.exactly(12).decode().strip()

    def introduce(self, text: str = "", bead: int = 0) -> None:
        assert self.status() == "NEEDINIT"
        self.send(init(text, bead))
        assert self.status() == "READY"

    def reply(self, n_batch: int | None = None, first: bytes = b"") -> dict[str, Any]:
        """Read one FORCEREADY, of which ``first`` has been read already."""
        n = n_batch or 1
        head = first + self.exactly(12 + 8 * n + 4 - len(first))
        (n_atoms,) = struct.unpack("=i", head[-4:])
        body = self.exactly(n * (24 * n_atoms + 72))
        for _ in range(n):
            length = self.exactly(4)
            body += length + self.exactly(struct.unpack("=i", length)[0])
        return split_reply(head + body, n_batch)

    def forces(self, positions: np.ndarray) -> dict[str, Any]:
        """One consolidated exchange."""
        self.send(posdata(positions) + message("getforce"))
        return self.reply()

    def batch(self, positions: np.ndarray) -> dict[str, Any]:
        self.send(batch_posdata(positions) + message("getforce"))
        return self.reply(len(positions))

    def ends(self) -> bool:
        """Whether the daemon closes the connection without another byte."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionError:
            return True


Script = Callable[[Peer], Any]


class ServerDouble:
    """Listens at an address and runs a script on each connection in turn, in a thread.

    One script is run on the first connection; of several, the result is a list.
    """

    def __init__(self, address: str, *scripts: Script, send_buffer: int | None = None) -> None:
        kind, _, rest = address.partition(":")
        if kind == "unix":
            self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.listener.bind(rest)
            self.address = address
        else:
            self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self.listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.listener.bind(("127.0.0.1", 0))
            self.address = f"inet:127.0.0.1:{self.listener.getsockname()[1]}"
        if send_buffer:
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, send_buffer)
        self.listener.listen(4)
        self.listener.settimeout(60.0)
        self.scripts = scripts
        self.result: Any = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        results = []
        try:
            for script in self.scripts:
                sock, _ = self.listener.accept()
                with sock:
                    results.append(script(Peer(sock)))
            self.result = results if len(self.scripts) > 1 else results[0]
        except BaseException as error:
            self.error = error
        finally:
            self.listener.close()

    def finish(self) -> Any:
        """Wait for the script; return its result or raise what it raised."""
        self.thread.join(60.0)
        assert not self.thread.is_alive()
        if self.error:
            raise self.error
        return self.result


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(1)
        yield listener
