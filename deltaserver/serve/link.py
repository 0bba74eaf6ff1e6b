"""One of i-PI's addresses: waiting for a server, connecting, connected, and back again.

A link owns its socket, what of it the selector watches, and the request that waits for its answer.
It never blocks, and it holds no more than that request and the replies that are not yet sent: a
server that asks without reading is not read from until it does.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from deltaserver.errors import NoServerError
from deltaserver.serve.answer import Answer, Request
from deltaserver.serve.keeper import Keeper
from deltaserver.serve.protocol import ClientProtocol, Event, ForceRequest
from deltaserver.serve.transport import Address, Connector, close_quietly, delays

RECEIVE_BYTES = 1 << 18
MAX_UNSENT_BYTES = 1 << 20  # replies that may wait for the peer before it is read from again
CONNECT_ATTEMPT_S = 5.0  # one TCP attempt; a host that drops packets answers never
STEADY_S = 10.0  # a connection that lasted this long was one, even if nothing was asked


@dataclass(frozen=True)
class Patience:
    """How long to look for a server: at first, and again once its connection has ended.

    Without ``reconnect_s`` a connection that has ended is not made again.
    """

    connect_s: float = 60.0
    reconnect_s: float | None = None


@dataclass(frozen=True)
class Unlogged:
    """A reply that is not wholly sent, and when its request began, was there, was evaluated."""

    answer: Answer
    began: float
    received: float
    evaluated: float


class Link:
    """See the module; ``connected`` tells whether a server is there."""

    def __init__(
        self,
        address: Address,
        n_atoms: int,
        component: str,
        patience: Patience,
        selector: selectors.BaseSelector,
        keeper: Keeper | None = None,
    ) -> None:
        self.address = address
        self.patience = patience
        self.default_component = component
        self.n_connections = 0
        self.next_attempt = 0.0
        self.sock: socket.socket | None = None
        self._n_atoms = n_atoms
        self._selector = selector
        self._keeper = keeper
        self._kept: int | None = None  # the keeper's number of this connection
        self._watched = 0
        self._connector = Connector(address)
        self._pauses: Iterator[float] = delays()
        self._deadline = time.monotonic() + patience.connect_s
        self._connected_at = 0.0
        self._start_anew()

    def _start_anew(self) -> None:
        """Forget everything that belongs to one connection."""
        self.connected = False
        self.component = self.default_component
        self.protocol = ClientProtocol(self._n_atoms)
        self.introduced = False
        self.request_began: float | None = None
        self.request: Request | None = None
        self.received = 0.0
        self.unlogged: Unlogged | None = None

    # -- connecting ----------------------------------------------------------------------------

    def attempt(self, now: float) -> None:
        """Begin an attempt to connect.

        Raises:
            NoServerError: there was time for one, and nobody is there.
        """
        if self.sock:  # the last attempt is still under way: give it up
            self.close()
        if self._connector.last_error and now >= self._deadline:
            raise NoServerError(self._nobody())
        started = self._connector.start()
        if started is None:
            self.next_attempt = min(now + next(self._pauses), self._deadline)
            return
        self.sock, connected = started
        self.next_attempt = min(now + CONNECT_ATTEMPT_S, self._deadline)
        if connected:
            self._has_connected()

    def finish_attempt(self) -> None:
        """See whether the connection under way has been made."""
        assert self.sock is not None
        self._watch(0)
        if self._connector.finish(self.sock):
            self._has_connected()
        else:
            self.sock = None
            self.next_attempt = min(time.monotonic() + next(self._pauses), self._deadline)

    def _has_connected(self) -> None:
        self.connected = True
        self.n_connections += 1
        self._connected_at = time.monotonic()
        if self._keeper and self.sock:
            self._kept = self._keeper.hold(self.sock)

    def unkeep(self) -> None:
        """Let the end of our process be the end of the connection."""
        if self._keeper and self._kept is not None:
            self._keeper.let_go(self._kept)
            self._kept = None

    def _nobody(self) -> str:
        if not self.n_connections:
            return (
                f"nobody listens at {self.address} after {self.patience.connect_s:g} s "
                f"({self._connector.last_error}); "
                "start i-PI, or check --socket and --connect-timeout"
            )
        return (
            f"{self.address}: the server did not come back within {self.patience.reconnect_s:g} s "
            f"({self._connector.last_error}); start i-PI again, or raise --reconnect-limit"
        )

    # -- exchanging bytes ----------------------------------------------------------------------

    def receive(self) -> bool:
        """Take what has arrived; return False if the peer will send no more.

        Raises:
            ConnectionError: the connection broke.
        """
        assert self.sock is not None
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return True
        self.protocol.receive(data)
        return bool(data)

    def take(self) -> Event | None:
        """Return what the peer wants next; a request is kept until :meth:`send` answers it.

        Raises:
            ProtocolError: see :meth:`ClientProtocol.next_event`.
        """
        event = self.protocol.next_event()
        if isinstance(event, ForceRequest):
            self.request, self.received = Request.of(event.data), time.perf_counter()
            if event.step_by_step:  # of such an end i-PI makes less than of a reset
                self.unkeep()
        return event

    def send(self, answer: Answer, evaluated: float) -> None:
        """Answer the request, which was evaluated at that time; see :meth:`flush`."""
        self.request = None
        self.protocol.answer(answer.reply)
        began = self.request_began or self.received
        self.unlogged = Unlogged(answer, began, self.received, evaluated)
        self.request_began = None
        self.flush()

    def flush(self) -> None:
        """Send what is queued: at once as a rule, the rest when the socket takes more.

        Raises:
            ConnectionError: the connection broke.
        """
        assert self.sock is not None
        outgoing = self.protocol.outgoing
        with contextlib.suppress(BlockingIOError):
            while outgoing:
                del outgoing[: self.sock.send(outgoing)]

    def watch(self) -> None:
        """Tell the selector what we wait for now."""
        if not self.connected:
            self._watch(selectors.EVENT_WRITE if self.sock else 0)
            return
        unsent = len(self.protocol.outgoing)
        wanted = selectors.EVENT_WRITE if unsent else 0
        if self.request is None and unsent <= MAX_UNSENT_BYTES:
            wanted |= selectors.EVENT_READ
        self._watch(wanted)

    def ignore(self) -> None:
        """Have the selector say nothing of this link."""
        self._watch(0)

    def _watch(self, wanted: int) -> None:
        if wanted == self._watched:
            return
        assert self.sock is not None
        if not wanted:
            self._selector.unregister(self.sock)
        elif not self._watched:
            self._selector.register(self.sock, wanted, self)
        else:
            self._selector.modify(self.sock, wanted, self)
        self._watched = wanted

    # -- parting -------------------------------------------------------------------------------

    def drain(self, seconds: float) -> None:
        """Send what is left of a reply, waiting for the peer to take it."""
        if self.connected and self.sock and self.protocol.outgoing:
            self.sock.settimeout(seconds)
            with contextlib.suppress(OSError):
                self.sock.sendall(self.protocol.outgoing)

    def close(self) -> None:
        """Close the socket, if there is one."""
        if self.sock:
            self._watch(0)
            close_quietly(self.sock)
            self.unkeep()
            self.sock = None

    def renew(self) -> None:
        """Close, and begin to look for the server again.

        A connection that brought something starts the patience anew. One that did not goes on
        with the pauses and the deadline of before, so that a peer that accepts and hangs up is
        asked ever more rarely, and not for ever.
        """
        now = time.monotonic()
        served = self.introduced or now - self._connected_at >= STEADY_S
        self.close()
        self._start_anew()
        if served or self.n_connections == 1:
            assert self.patience.reconnect_s is not None
            self._deadline = now + self.patience.reconnect_s
            self._pauses = delays()
        self._connector.last_error = None if served else "it hangs up without a word"
        self.next_attempt = min(now + next(self._pauses), self._deadline)
