"""The daemon: one thread, one copy of the models, any number of sockets to i-PI."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

import numpy as np
import structlog

from deltaserver.errors import GuardError, NoServerError, ProtocolError
from deltaserver.model.composite import CompositeModel
from deltaserver.serve.answer import Answer, Extras, answer_together
from deltaserver.serve.protocol import ClientProtocol, Closed, ForceRequest, Introduced
from deltaserver.serve.telemetry import Origin, StepLog, StepTimes
from deltaserver.serve.transport import Address, Connector, close_quietly, delays

RECEIVE_BYTES = 1 << 18
COMPONENT_PARAMETER = "component"
DRAIN_S = 5.0  # how long a peer may take to read the rest of a reply when we stop
CONNECT_ATTEMPT_S = 5.0  # one TCP attempt; a host that drops packets answers never


@dataclass(frozen=True)
class ServeSettings:
    """What to serve and where, validated by whoever builds it."""

    addresses: tuple[Address, ...]
    component: str = "total"
    extras: Extras = "summary"
    connect_timeout_s: float = 60.0
    batch_window_s: float = 0.0


@dataclass(eq=False)
class Link:
    """One address: waiting for its server, connecting, or connected."""

    address: Address
    protocol: ClientProtocol
    component: str
    deadline: float
    connector: Connector = field(init=False)
    pauses: Iterator[float] = field(default_factory=delays)
    sock: socket.socket | None = None
    connected: bool = False
    next_attempt: float = 0.0
    request_began: float | None = None
    request: ForceRequest | None = None
    received: float = 0.0
    unlogged: tuple[Answer, float, float, float] | None = None

    def __post_init__(self) -> None:
        self.connector = Connector(self.address)


class Daemon:
    """Serves a model to i-PI until every server has closed or a signal asks to stop.

    A single thread runs everything: the models are shared without copies or locks, and a stop
    request takes effect between two requests, never inside one.
    """

    def __init__(self, model: CompositeModel, settings: ServeSettings, steps: StepLog) -> None:
        model.check_component(settings.component)
        self.model = model
        self.settings = settings
        self.steps = steps
        self._log = structlog.get_logger()
        self._selector = selectors.DefaultSelector()
        self._stop_signal: str | None = None
        self._links: list[Link] = []

    def run(self) -> None:
        """Serve; return when there is nothing left to serve.

        Raises:
            NoServerError: nobody listened at an address within the connect timeout.
            ProtocolError: a server broke the protocol.
            InputError: a server's INIT asks for what the model does not have.
            GuardError: a result is not finite.
        """
        deadline = time.monotonic() + self.settings.connect_timeout_s
        self._links = [self._new_link(address, deadline) for address in self.settings.addresses]
        with self._selector, self._signals():
            try:
                while self._links and not self._stop_signal:
                    self._turn()
                self._answer_waiting(finish=True)
                self._drain()
            finally:
                for link in self._links:
                    if link.sock:
                        close_quietly(link.sock)
        reason = self._stop_signal or "every server has closed"
        self._log.info("stopped", reason=reason, structures=self.steps.n_structures)

    def _new_link(self, address: Address, deadline: float) -> Link:
        self._log.info("connecting", address=str(address))
        protocol = ClientProtocol(self.model.n_atoms)
        return Link(address, protocol, self.settings.component, deadline)

    @property
    def stopped_by_signal(self) -> bool:
        """Whether a signal ended the run, not the servers."""
        return self._stop_signal is not None

    # -- the loop ------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Do what is due, then wait for sockets, the next attempt to connect, or a signal."""
        now = time.monotonic()
        for link in self._links:
            if not link.connected and now >= link.next_attempt:
                self._attempt(link, now)
        for key, mask in self._selector.select(self._timeout()):
            if key.data is None:
                key.fileobj.recv(64)  # type: ignore[union-attr]  # the signal's wake-up byte
            elif self._stop_signal is None:
                self._handle(key.data, mask)
        self._answer_waiting()

    def _timeout(self) -> float | None:
        """How long, in s, nothing is due: the next attempt to connect, the end of a window."""
        due = [link.next_attempt - time.monotonic() for link in self._links if not link.connected]
        waiting = [link for link in self._links if link.request]
        if waiting:
            due.append(self._rest_of_window(waiting))
        return max(0.0, min(due)) if due else None

    def _handle(self, link: Link, mask: int) -> None:
        try:
            if not link.connected:
                self._finish_connecting(link)
                return
            if mask & selectors.EVENT_WRITE:
                self._flush(link)
            if mask & selectors.EVENT_READ:
                self._read(link)
        except (ConnectionError, TimeoutError) as error:
            self._lost(link, (error.strerror or type(error).__name__).lower())

    # -- connecting ----------------------------------------------------------------------------

    def _attempt(self, link: Link, now: float) -> None:
        if link.sock:  # the last attempt is still under way: give it up
            self._forget(link)
        if link.connector.last_error and now >= link.deadline:
            raise NoServerError(
                f"nobody listens at {link.address} after "
                f"{self.settings.connect_timeout_s:g} s ({link.connector.last_error}); "
                "start i-PI, or check --socket and --connect-timeout"
            )
        started = link.connector.start()
        pause = next(link.pauses)
        if started is None:
            link.next_attempt = min(now + pause, link.deadline)
            return
        link.sock, connected = started
        link.next_attempt = min(now + CONNECT_ATTEMPT_S, link.deadline)
        event = selectors.EVENT_READ if connected else selectors.EVENT_WRITE
        self._selector.register(link.sock, event, link)
        if connected:
            self._connected(link)

    def _finish_connecting(self, link: Link) -> None:
        assert link.sock is not None
        sock = link.sock
        self._selector.unregister(sock)
        if link.connector.finish(sock):
            self._selector.register(sock, selectors.EVENT_READ, link)
            self._connected(link)
        else:
            link.sock = None
            link.next_attempt = min(time.monotonic() + next(link.pauses), link.deadline)

    def _connected(self, link: Link) -> None:
        link.connected = True
        self._log.info("connected", address=str(link.address))

    # -- serving -------------------------------------------------------------------------------

    def _read(self, link: Link) -> None:
        assert link.sock is not None
        began = time.perf_counter()
        try:
            data = link.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._lost(link, "the server closed the connection")
            return
        if link.request_began is None:
            link.request_began = began
        link.protocol.receive(data)
        self._serve(link)
        if link in self._links:
            self._flush(link)
        if not link.protocol.receiving and not link.request:
            link.request_began = None

    def _serve(self, link: Link) -> None:
        """Take every event that the bytes received so far make up."""
        if link.request:
            return  # its answer comes first
        try:
            while event := link.protocol.next_event():
                if isinstance(event, Introduced):
                    self._introduce(link, event)
                elif isinstance(event, ForceRequest):
                    link.request, link.received = event, time.perf_counter()
                    return  # answered with what else has arrived by the end of this turn
                elif isinstance(event, Closed):
                    self._log.info("closed", address=str(link.address), reason="EXIT")
                    self._drop(link)
                    return
        except ProtocolError as error:
            raise ProtocolError(f"{link.address}: {error}") from error

    def _introduce(self, link: Link, event: Introduced) -> None:
        link.component = event.parameters.get(COMPONENT_PARAMETER, self.settings.component)
        self.model.check_component(link.component)
        self._log.info(
            "introduced",
            address=str(link.address),
            component=link.component,
            batch_size=event.batch_size,
        )

    def _answer_waiting(self, finish: bool = False) -> None:
        """Answer what has arrived, from all connections that want the same component at once.

        With ``finish`` no window is waited for.
        """
        while waiting := [link for link in self._links if link.request]:
            if not finish and self._rest_of_window(waiting) > 0.0:
                return
            component = waiting[0].component
            self._answer([link for link in waiting if link.component == component], component)

    def _rest_of_window(self, waiting: list[Link]) -> float:
        """How long, in s, others may still join: nobody waits for connections that idle."""
        if len(waiting) == sum(link.connected for link in self._links):
            return 0.0
        first = min(link.received for link in waiting)
        return first + self.settings.batch_window_s - time.perf_counter()

    def _answer(self, links: list[Link], component: str) -> None:
        data = [link.request.data for link in links if link.request]
        replies = answer_together(self.model, data, component, self.settings.extras)
        evaluated = time.perf_counter()
        for link, reply in zip(links, replies, strict=True):
            self._guard(reply)
            link.request = None
            if link.unlogged:  # a server that does not wait for the last reply's end
                self._record(link)
            link.protocol.answer(reply.reply)
            link.unlogged = (reply, link.request_began or link.received, link.received, evaluated)
            link.request_began = None
            try:
                self._flush(link)
                self._serve(link)  # what the peer sent behind its request
                if link in self._links:
                    self._flush(link)
            except (ConnectionError, TimeoutError) as error:
                self._lost(link, (error.strerror or type(error).__name__).lower())

    def _guard(self, reply: Answer) -> None:
        """Never send what is not a number: i-PI would take it and go on."""
        for structure in reply.structures:
            values = [structure.energy_ev]
            values += [part.force_rms_ev_per_ang for part in structure.contributions.values()]
            if not np.isfinite(values).all():
                raise GuardError(
                    f"the forces at structure {self.steps.n_structures} are not finite; "
                    "nothing was sent. Check the structure and the time step"
                )

    def _flush(self, link: Link) -> None:
        """Send what is queued: at once as a rule, the rest when the socket takes more."""
        assert link.sock is not None
        outgoing = link.protocol.outgoing
        with contextlib.suppress(BlockingIOError):
            while outgoing:
                del outgoing[: link.sock.send(outgoing)]
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if outgoing else 0)
        if self._selector.get_key(link.sock).events != wanted:
            self._selector.modify(link.sock, wanted, link)
        if not outgoing and link.unlogged:
            self._record(link)

    def _record(self, link: Link) -> None:
        assert link.unlogged is not None
        reply, began, received, evaluated = link.unlogged
        link.unlogged = None
        times = StepTimes(
            receive_ms=1e3 * (received - began),
            evaluate_ms=1e3 * (evaluated - received),
            send_ms=1e3 * (time.perf_counter() - evaluated),
        )
        origin = Origin(str(link.address), link.component)
        self.steps.record(reply.structures, times, origin)

    # -- parting -------------------------------------------------------------------------------

    def _lost(self, link: Link, reason: str) -> None:
        level = self._log.info if link.protocol.idle else self._log.warning
        level("closed", address=str(link.address), reason=reason)
        self._drop(link)

    def _drain(self) -> None:
        """Send what is left of replies that a stop request caught half sent."""
        for link in self._links:
            if link.sock and link.protocol.outgoing:
                link.sock.settimeout(DRAIN_S)
                with contextlib.suppress(OSError):
                    link.sock.sendall(link.protocol.outgoing)

    def _drop(self, link: Link) -> None:
        self._forget(link)
        self._links.remove(link)

    def _forget(self, link: Link) -> None:
        assert link.sock is not None
        self._selector.unregister(link.sock)
        close_quietly(link.sock)
        link.sock = None

    # -- signals -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn SIGTERM and SIGINT into a request to stop that also wakes the selector."""
        ours, wake = socket.socketpair()
        ours.setblocking(False)
        wake.setblocking(False)
        self._selector.register(ours, selectors.EVENT_READ, None)
        old_fd = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        numbers = (signal.SIGTERM, signal.SIGINT)
        old = [signal.signal(number, self._stop) for number in numbers]
        try:
            yield
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in zip(numbers, old, strict=True):
                signal.signal(number, handler)
            ours.close()
            wake.close()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stop_signal = signal.Signals(number).name
