"""The i-PI wire format: bytes to messages and results to bytes. No IO, no state machine.

Layout (i-PI ≥ 3.3, ``ipi/interfaces/sockets.py``): a message is a 12-byte header, padded with
spaces, and for some a body of native int32 and float64 in atomic units.

    INIT        int32 bead, int32 length, text
    POSDATA     h[9], ih[9], int32 nat, pos[3 nat]
    POSDATA     int32 nat, N × (h[9], ih[9]), N × pos[3 nat]     after INIT with batch_size:N
    FORCEREADY  E[N], int32 nat, f[N, 3 nat], vir[N, 9], N × (int32 length, extras)

h is row-major with the lattice vectors in its columns.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.errors import ProtocolError

HEADER_LENGTH = 12
MAX_INIT_LENGTH = 1 << 16
MAX_BATCH_SIZE = 1 << 12
CELL_BYTES = 2 * 9 * 8  # h and its inverse
# With mode="shm" i-PI 3.3 sends POSDATA, int32 nat and, the first time, int32 length and the name
# of every segment, which begins so.
SHARED_MEMORY = b"ipi_shm_"
INT = np.dtype(np.int32)
FLOAT = np.dtype(np.float64)


@dataclass(frozen=True)
class Status:
    """The peer asks what state we are in."""


@dataclass(frozen=True)
class Init:
    """The peer introduces a bead; ``text`` carries the ``<parameters>`` of its ffsocket."""

    bead: int
    text: str


@dataclass(frozen=True)
class PosData:
    """Cells (B, 3, 3), lattice vectors in columns, and positions (B, N, 3), both in Bohr."""

    cells: Floats
    positions: Floats


@dataclass(frozen=True)
class GetForce:
    """The peer wants the result of the positions it sent last."""


@dataclass(frozen=True)
class Exit:
    """The peer is done with us."""


Message = Status | Init | PosData | GetForce | Exit


class MessageReader:
    """Cuts a byte stream into messages, however the bytes arrive.

    ``batch_size`` decides the layout of the next POSDATA: set it when INIT asks for batches.
    Lengths are checked before their bytes are waited for, so that memory stays bounded by what
    the model needs, whatever a peer announces.
    """

    def __init__(self, n_atoms: int) -> None:
        self.n_atoms = n_atoms
        self.batch_size: int | None = None
        self._buffer = bytearray()
        self._parser = self._parse()
        next(self._parser)

    @property
    def idle(self) -> bool:
        """Whether every byte received so far belongs to a message that is complete."""
        return not self._buffer and not self._inside_message

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes from the stream."""
        self._buffer += data

    def next_message(self) -> Message | None:
        """Return the next complete message, or None until more bytes arrive.

        Raises:
            ProtocolError: the bytes are no i-PI message.
        """
        return self._parser.send(None)

    def _parse(self) -> Generator[Message | None, None, None]:
        self._inside_message = False
        message: Message | None = None
        while True:
            yield message
            header = yield from self._read_exact(HEADER_LENGTH)
            self._inside_message = True
            message = yield from self._body(header)
            self._inside_message = False

    def _body(self, header: bytes) -> Generator[None, None, Message]:
        name = header.rstrip(b" ")
        if name == b"STATUS":
            return Status()
        if name == b"GETFORCE":
            return GetForce()
        if name == b"EXIT":
            return Exit()
        if name == b"INIT":
            return (yield from self._init())
        if name == b"POSDATA":
            return (yield from self._posdata())
        raise ProtocolError(
            f"the peer sent the header {header!r}; "
            "expected STATUS, INIT, POSDATA, GETFORCE or EXIT, padded to 12 bytes"
        )

    def _init(self) -> Generator[None, None, Init]:
        bead, length = np.frombuffer((yield from self._read_exact(2 * INT.itemsize)), INT)
        if not 0 <= length <= MAX_INIT_LENGTH:
            raise ProtocolError(
                f"the peer announced an INIT text of {length} bytes; at most {MAX_INIT_LENGTH} "
                "are read"
            )
        text = (yield from self._read_exact(int(length))).decode("utf-8", "replace")
        return Init(int(bead), text)

    def _posdata(self) -> Generator[None, None, PosData]:
        n_batch = self.batch_size or 1
        if self.batch_size is None:
            yield from self._refuse_shared_memory(at=2 * INT.itemsize)
            cells = yield from self._read_exact(CELL_BYTES)
            yield from self._atom_count()
        else:
            yield from self._atom_count()
            yield from self._refuse_shared_memory(at=INT.itemsize)
            cells = yield from self._read_exact(n_batch * CELL_BYTES)
        positions = yield from self._read_exact(n_batch * self.n_atoms * 3 * FLOAT.itemsize)
        return PosData(
            np.frombuffer(cells, FLOAT).reshape(n_batch, 2, 3, 3)[:, 0],
            np.frombuffer(positions, FLOAT).reshape(n_batch, self.n_atoms, 3),
        )

    def _atom_count(self) -> Generator[None, None, None]:
        (n_atoms,) = np.frombuffer((yield from self._read_exact(INT.itemsize)), INT)
        if n_atoms != self.n_atoms:
            raise ProtocolError(
                f"the peer sent {n_atoms} atoms; the model has {self.n_atoms}. "
                "Check the structure in i-PI's input"
            )

    def _refuse_shared_memory(self, at: int) -> Generator[None, None, None]:
        """Look ``at`` bytes on for a segment's name, which stands where a cell is expected."""
        end = at + len(SHARED_MEMORY)
        while len(self._buffer) < end:
            yield None
        if self._buffer[at:end] == SHARED_MEMORY:
            raise ProtocolError(
                "the peer sends positions through shared memory, which is not supported: set "
                'mode="unix" in the ffsocket of i-PI\'s input in place of mode="shm"'
            )

    def _read_exact(self, n_bytes: int) -> Generator[None, None, bytes]:
        while len(self._buffer) < n_bytes:
            yield None
        data = bytes(self._buffer[:n_bytes])
        del self._buffer[:n_bytes]
        return data


def header(name: str) -> bytes:
    """Return a header: the name padded with spaces to 12 bytes."""
    return name.encode("ascii").ljust(HEADER_LENGTH)


def force_ready(
    energies: Floats, forces: Floats, virials: Floats, extras: Sequence[bytes]
) -> bytes:
    """Serialise FORCEREADY for B structures, in one piece.

    Args:
        energies: Hartree, shape (B,).
        forces: Hartree/Bohr, shape (B, N, 3).
        virials: Hartree, shape (B, 3, 3).
        extras: one encoded text a structure.
    """
    parts = [
        header("FORCEREADY"),
        np.ascontiguousarray(energies, FLOAT).tobytes(),
        np.array(forces.shape[1], INT).tobytes(),
        np.ascontiguousarray(forces, FLOAT).tobytes(),
        np.ascontiguousarray(virials, FLOAT).tobytes(),
    ]
    for text in extras:
        parts += [np.array(len(text), INT).tobytes(), text]
    return b"".join(parts)
