"""The daemon: one thread, one copy of the models, any number of sockets to i-PI."""

from __future__ import annotations

import difflib
import selectors
import time
from collections.abc import Sequence

import structlog

from deltaserver.errors import InputError, NoServerError, ProtocolError
from deltaserver.model.force_field import ForceField
from deltaserver.serve import telemetry
from deltaserver.serve.answer import Answer, Inspect, answer_together
from deltaserver.serve.guard import ServingGuard
from deltaserver.serve.keeper import Keeper
from deltaserver.serve.link import Link, Patience
from deltaserver.serve.protocol import Closed, ForceRequest, Introduced
from deltaserver.serve.settings import ServeSettings
from deltaserver.serve.signals import Signals
from deltaserver.serve.telemetry import Origin, StepLog, StepTimes
from deltaserver.serve.transport import Address
from deltaserver.serve.watchers.watch import Condition, Watch, Watcher

# What i-PI's input may say in an ffsocket's <parameters>; i-PI adds the last one itself.
COMPONENT_PARAMETER = "component"
PARAMETERS = (COMPONENT_PARAMETER, "batch_size")
FINISH_S = 2.0  # how long a peer may take to bring the step that we stop in to its end
DRAIN_S = 5.0  # how long a peer may take to read the rest of a reply when we stop
SERVER_CLOSED = "the server closed the connection"
SERVER_GAVE_UP = "EXIT before its answer: the server no longer waited"


class Daemon:
    """Serves a model to i-PI until every server has closed or a signal asks to stop.

    A single thread runs everything: the models are shared without copies or locks, and a stop
    request takes effect between two requests, never inside one.

    ``inspect`` sees every request before it is evaluated; what it raises ends the run. ``others``
    make up a committee with ``model``: the mean is served.
    """

    def __init__(
        self,
        model: ForceField,
        settings: ServeSettings,
        steps: StepLog,
        watchers: Sequence[Watcher] = (),
        inspect: Inspect | None = None,
        others: Sequence[ForceField] = (),
    ) -> None:
        model.check_component(settings.component)
        self.model = model
        self.others = others
        self.settings = settings
        self.steps = steps
        self.inspect = inspect
        self._guard = ServingGuard(model, settings.guard)
        self._log = structlog.get_logger()
        self._selector = selectors.DefaultSelector()
        self._signals = Signals()
        self._watch = Watch(watchers)
        self._keeper: Keeper | None = None
        self._links: list[Link] = []
        self._gave_up: NoServerError | None = None

    def run(self) -> None:
        """Serve; return when there is nothing left to serve.

        Raises:
            NoServerError: nobody listened at an address within the connect timeout, or nobody
                came back within the limit for connecting again.
            ProtocolError: a server broke the protocol.
            InputError: a server's INIT asks for what the model does not have.
            GuardError: a structure is not the model's, or a result cannot be right.
        """
        with self._watch, self._selector, self._signals.handled(self._selector):
            self._keeper = Keeper() if self.settings.keeper else None
            self._links = [self._new_link(address) for address in self.settings.addresses]
            try:
                while self._links and not self._signals.stop:
                    self._turn()
                self._finish_steps()
            finally:
                for link in self._links:
                    link.close()
                if self._keeper:
                    self._keeper.close()
            reason = self._signals.stop or "every server has closed"
            self._log.info("stopped", reason=reason, structures=self.steps.n_structures)
            if self._gave_up and not self._signals.stop:
                raise self._gave_up

    def _new_link(self, address: Address) -> Link:
        self._log.info("connecting", address=str(address))
        settings = self.settings
        patience = Patience(settings.connect_timeout_s, settings.reconnect_limit_s)
        n_atoms, component = self.model.n_atoms, settings.component
        return Link(address, n_atoms, component, patience, self._selector, self._keeper)

    @property
    def stopped_by_signal(self) -> bool:
        """Whether a signal ended the run, not the servers."""
        return self._signals.stop is not None

    # -- the loop ------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Do what is due, then wait for sockets, the next attempt to connect, or a signal."""
        now = time.monotonic()
        for link in tuple(self._links):
            if not link.connected and now >= link.next_attempt:
                self._attempt(link, now)
        for link in self._links:
            link.watch()
        self._watch.tick(self._condition())
        for key, mask in self._selector.select(self._timeout()):
            if key.data is None:
                self._signals.woken()
                self._reopen_log()
            elif self._signals.stop is None:
                self._handle(key.data, mask)
        self._answer_waiting()

    def _finish_steps(self) -> None:
        """Stop, but not in the middle of a step: some are a word from being done."""
        self._answer_waiting(finish=True)
        until = time.monotonic() + FINISH_S
        while links := [link for link in self._links if link.protocol.unfinished]:
            for link in self._links:
                link.watch() if link in links else link.ignore()
            if not (ready := self._selector.select(max(0.0, until - time.monotonic()))):
                break
            for key, mask in ready:
                if key.data is None:
                    self._signals.woken()
                elif key.data in links:
                    self._handle(key.data, mask)
            self._answer_waiting(finish=True)
        for link in self._links:
            link.drain(DRAIN_S)

    def _timeout(self) -> float | None:
        """How long, in s, nothing is due: the next attempt to connect, the end of a window."""
        due = [link.next_attempt - time.monotonic() for link in self._links if not link.connected]
        waiting = [link for link in self._links if link.request]
        if waiting:
            due.append(self._rest_of_window(waiting))
        due += self._watch.due()
        return max(0.0, min(due)) if due else None

    def _condition(self) -> Condition:
        vitals = self._watch.vitals
        vitals.n_connected = sum(link.connected for link in self._links)
        if vitals.n_connected == len(self._links):
            return Condition.SERVING
        was_there = any(link.n_connections for link in self._links if not link.connected)
        return Condition.RECONNECTING if was_there else Condition.CONNECTING

    def _reopen_log(self) -> None:
        """Answer SIGHUP: somebody has moved the log file."""
        if not self._signals.hangup:
            return
        self._signals.hangup = False
        if writer := telemetry.configured():
            writer.reopen()
        self._watch.reloaded()
        self._log.info("log reopened", reason="SIGHUP")

    def _handle(self, link: Link, mask: int) -> None:
        try:
            if not link.connected:
                link.finish_attempt()
                self._note_connected(link)
                return
            if mask & selectors.EVENT_WRITE:
                self._flush(link)
            if mask & selectors.EVENT_READ:
                self._read(link)
        except OSError as error:  # reset, timed out, no route any more
            self._lost(link, _reason(error))

    def _attempt(self, link: Link, now: float) -> None:
        try:
            link.attempt(now)
        except NoServerError as error:
            if len(self._links) == 1 or not link.n_connections:
                raise
            # The others are served on; what went wrong here is told at the end.
            self._log.warning("gave up", address=str(link.address), reason=str(error))
            self._gave_up = error
            self._links.remove(link)
        self._note_connected(link)

    def _note_connected(self, link: Link) -> None:
        if link.connected:
            self._watch.vitals.n_reconnects += link.n_connections > 1
            self._log.info("connected", address=str(link.address), times=link.n_connections)

    # -- serving -------------------------------------------------------------------------------

    def _read(self, link: Link) -> None:
        began = time.perf_counter()
        if not link.receive():
            self._lost(link, SERVER_CLOSED)
            return
        if link.request_began is None:
            link.request_began = began
        self._serve(link)
        if link.connected:
            self._flush(link)
        if not link.protocol.receiving and not link.request:
            link.request_began = None

    def _serve(self, link: Link, overtaken: bool = False) -> None:
        """Take every event that the bytes received so far make up.

        ``overtaken``: the bytes were there before the reply that has just been sent.
        """
        if link.request:
            return  # its answer comes first
        try:
            while event := link.take():
                if isinstance(event, Introduced):
                    self._introduce(link, event)
                elif isinstance(event, ForceRequest):
                    return  # answered with what else has arrived by the end of this turn
                elif isinstance(event, Closed):
                    self._exit(link, event.finished and not overtaken)
                    return
        except ProtocolError as error:
            raise ProtocolError(f"{link.address}: {error}") from error

    def _exit(self, link: Link, finished: bool) -> None:
        """EXIT ends a link, unless it came while an answer was due and we may connect again."""
        if self.settings.reconnect_limit_s is not None and not finished:
            self._lost(link, SERVER_GAVE_UP)
            return
        self._log.info("closed", address=str(link.address), reason="EXIT")
        self._drop(link)

    def _introduce(self, link: Link, event: Introduced) -> None:
        unknown = [name for name in event.parameters if name not in PARAMETERS]
        if unknown:
            near = difflib.get_close_matches(unknown[0].lower(), PARAMETERS, n=1)
            meant = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(
                f"{link.address}: <parameters> of the ffsocket has the unknown key "
                f"{unknown[0][:40]!r}; known keys: {', '.join(PARAMETERS)}{meant}"
            )
        link.component = event.parameters.get(COMPONENT_PARAMETER, self.settings.component)
        self.model.check_component(link.component)
        link.introduced = True
        self._guard.introduced(link)
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
        requests = [link.request for link in links if link.request]
        if self.inspect:
            for request in requests:
                self.inspect(request)
        for link, request in zip(links, requests, strict=True):
            self._guard.before(link, request, component)
        extras, guard = self.settings.extras, self._guard.after
        answers = answer_together(self.model, requests, component, extras, guard, self.others)
        evaluated = time.perf_counter()
        for link, answer in zip(links, answers, strict=True):
            try:
                self._reply(link, answer, evaluated)
            except OSError as error:  # reset, timed out, no route any more
                self._lost(link, _reason(error))

    def _reply(self, link: Link, answer: Answer, evaluated: float) -> None:
        """Send one reply, and take what the peer sent behind its request."""
        if self.settings.reconnect_limit_s is not None:
            link.receive()  # has it said EXIT meanwhile? Then it has not read the reply
        if link.unlogged:  # a server that does not wait for the last reply's end
            self._record(link)
        link.send(answer, evaluated)
        self._note_sent(link)
        self._serve(link, overtaken=True)
        if link.connected:
            self._flush(link)

    def _flush(self, link: Link) -> None:
        link.flush()
        self._note_sent(link)

    def _note_sent(self, link: Link) -> None:
        """Record the last reply once it is all on its way."""
        if link.unlogged and not (link.protocol.outgoing or link.protocol.within_step):
            self._record(link)

    def _record(self, link: Link) -> None:
        assert link.unlogged is not None
        done, link.unlogged = link.unlogged, None
        times = StepTimes(
            receive_ms=1e3 * (done.received - done.began),
            evaluate_ms=1e3 * (done.evaluated - done.received),
            send_ms=1e3 * (time.perf_counter() - done.evaluated),
        )
        origin = Origin(str(link.address), link.component)
        self.steps.record(done.answer.structures, times, origin)
        self._watch.step(done.answer.structures, times.wall_ms, link.component)

    # -- parting -------------------------------------------------------------------------------

    def _lost(self, link: Link, reason: str) -> None:
        """A connection ended without EXIT: look for the server again, or let it go."""
        level = self._log.info if link.protocol.idle else self._log.warning
        level("closed", address=str(link.address), reason=reason)
        if self.settings.reconnect_limit_s is None or self._signals.stop:
            self._drop(link)
            return
        link.renew()
        self._log.info(
            "reconnecting", address=str(link.address), limit_s=self.settings.reconnect_limit_s
        )

    def _drop(self, link: Link) -> None:
        link.connected = False
        link.close()
        self._links.remove(link)


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()
