"""The client's side of the i-PI protocol as one transition table. No IO.

i-PI asks (STATUS) and commands (INIT, POSDATA, GETFORCE, EXIT); we answer. By default it sends
POSDATA and GETFORCE in one piece with no STATUS between them, with ``consolidate_messages=False``
it asks in between. Both are walks through the same table.

What i-PI 3.3.1 makes of a client that dies decides when we compute. Consolidated, it takes an end
of file for what it is, but its polling thread dies of a reset, which is what a client causes that
dies over unread bytes: so GETFORCE is read before anything is computed. Asked step by step, it is
the other way round: i-PI loops for ever if the client ends after GETFORCE, and notices at once if
it ends before STATUS is answered: so the forces are there before we say HAVEDATA. Behind the forces
it says STATUS once more, and if the client has ended by then it takes the step that it has got for
undone: so the step is over when that STATUS is answered. The next begins with another STATUS: i-PI
that has heard READY to it sends positions, and hangs if it cannot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from deltaserver.errors import ProtocolError
from deltaserver.serve.wire import (
    MAX_BATCH_SIZE,
    Exit,
    GetForce,
    Init,
    Message,
    MessageReader,
    PosData,
    Status,
    header,
)


class State(Enum):
    """What the peer may say next depends on this."""

    NEED_INIT = "NEEDINIT"
    READY = "READY"
    HAVE_POSITIONS = "HAVEPOS"
    MUST_ANSWER = "MUST_ANSWER"
    HAVE_FORCES = "HAVEDATA"
    CLOSED = "CLOSED"


# (state, message) -> state. What is not here is illegal. STATUS changes the state only where it
# asks for forces that are not there yet.
TRANSITIONS: dict[tuple[State, type[Message]], State] = {
    (State.NEED_INIT, Status): State.NEED_INIT,
    (State.NEED_INIT, Init): State.READY,
    (State.NEED_INIT, Exit): State.CLOSED,
    (State.READY, Status): State.READY,
    (State.READY, Init): State.READY,  # a server may introduce itself anew
    (State.READY, PosData): State.HAVE_POSITIONS,
    (State.READY, Exit): State.CLOSED,
    (State.HAVE_POSITIONS, Status): State.MUST_ANSWER,
    (State.HAVE_POSITIONS, GetForce): State.MUST_ANSWER,
    (State.HAVE_POSITIONS, Exit): State.CLOSED,
    (State.HAVE_FORCES, Status): State.HAVE_FORCES,
    (State.HAVE_FORCES, GetForce): State.READY,
    (State.HAVE_FORCES, Exit): State.CLOSED,
}
NAMES: dict[type[Message], str] = {
    Status: "STATUS",
    Init: "INIT",
    PosData: "POSDATA",
    GetForce: "GETFORCE",
    Exit: "EXIT",
}


WITHIN_STEP = (State.HAVE_POSITIONS, State.MUST_ANSWER, State.HAVE_FORCES)


@dataclass(frozen=True)
class Introduced:
    """INIT arrived; ``parameters`` are those of the ffsocket in i-PI's input."""

    bead: int
    parameters: dict[str, str]
    batch_size: int


@dataclass(frozen=True)
class ForceRequest:
    """Positions are here and their forces are waited for.

    ``step_by_step``: it was STATUS that asked for them; GETFORCE follows.
    """

    data: PosData
    step_by_step: bool = False


@dataclass(frozen=True)
class Closed:
    """The peer said EXIT; ``finished`` tells whether it had nothing left to be answered.

    i-PI says EXIT at its end, and to a client that it no longer waits for.
    """

    finished: bool = True


Event = Introduced | ForceRequest | Closed


@dataclass
class ClientProtocol:
    """One connection to i-PI: bytes in, events and reply bytes out.

    Feed :meth:`receive`, then take :meth:`next_event` until it returns None. Bytes for the peer
    collect in :attr:`outgoing`. A ForceRequest is answered with :meth:`answer` before the next
    event is taken.
    """

    n_atoms: int
    state: State = State.NEED_INIT
    outgoing: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self._reader = MessageReader(self.n_atoms)
        self._positions: PosData | None = None
        self._asked_first = False  # STATUS stands between POSDATA and GETFORCE
        self._reply = b""  # waits for GETFORCE
        self._status_due = False  # the peer has its forces, and is about to say STATUS
        self._positions_due = False  # it has begun the next step

    @property
    def idle(self) -> bool:
        """Whether the peer owes us nothing and we owe it nothing: a clean place to part."""
        return self._reader.idle and self.state in (State.NEED_INIT, State.READY, State.CLOSED)

    @property
    def receiving(self) -> bool:
        """Whether part of a request has arrived, but not all of it."""
        return not self._reader.idle or self.state is State.HAVE_POSITIONS

    @property
    def within_step(self) -> bool:
        """Whether the peer has sent positions and has not got their forces."""
        return self.state in WITHIN_STEP

    @property
    def unfinished(self) -> bool:
        """Whether the peer would hang, or ask again for what it has, if we parted now."""
        return self.within_step or self._status_due or self._positions_due

    def receive(self, data: bytes | memoryview) -> None:
        """Take bytes from the peer."""
        self._reader.feed(data)

    def next_event(self) -> Event | None:
        """Return what the peer wants next, or None until more bytes arrive.

        Raises:
            ProtocolError: the bytes are no message, or the message is illegal in this state.
        """
        if self.state is State.MUST_ANSWER:
            raise RuntimeError("answer() the ForceRequest before taking the next event")
        while self.state is not State.CLOSED and (message := self._reader.next_message()):
            event = self._advance(message)
            if event is not None:
                return event
        return None

    def answer(self, reply: bytes) -> None:
        """Queue the FORCEREADY message that answers the last ForceRequest.

        It waits for GETFORCE if the peer has only asked whether it is there.
        """
        if self.state is not State.MUST_ANSWER:
            raise RuntimeError(f"nothing to answer in state {self.state.value}")
        if self._asked_first:
            self._reply = reply
            self.state = State.HAVE_FORCES
            self.outgoing += header(self.state.value)
        else:
            self.outgoing += reply
            self.state = State.READY

    def _advance(self, message: Message) -> Event | None:
        before = self.state
        try:
            self.state = TRANSITIONS[self.state, type(message)]
        except KeyError:
            raise ProtocolError(
                f"the peer sent {NAMES[type(message)]} in state {self.state.value}; "
                f"expected {self._expected()}"
            ) from None
        asked = isinstance(message, Status) and self.state is State.READY
        self._positions_due = asked and self._asked_first and not self._status_due
        self._status_due = isinstance(message, GetForce) and before is State.HAVE_FORCES
        if self.state is State.MUST_ANSWER and self._positions is not None:
            self._asked_first = isinstance(message, Status)
            return ForceRequest(self._positions, self._asked_first)
        if isinstance(message, Status):
            self.outgoing += header(self.state.value)
        elif isinstance(message, Init):
            return self._introduce(message)
        elif isinstance(message, PosData):
            self._positions = message
        elif isinstance(message, GetForce):
            self.outgoing += self._reply
            self._reply = b""
        elif isinstance(message, Exit):
            return Closed(finished=before not in WITHIN_STEP)
        return None

    def _introduce(self, message: Init) -> Introduced:
        parameters = parse_parameters(message.text)
        batch_size = 1
        if "batch_size" in parameters:
            text = parameters["batch_size"]
            # len: Python refuses to convert thousands of digits with an error of its own.
            if not (text.isdecimal() and len(text) < 10 and 1 <= int(text) <= MAX_BATCH_SIZE):
                raise ProtocolError(
                    f"the peer asked for batch_size {text[:20]!r}; expected 1 to {MAX_BATCH_SIZE}"
                )
            batch_size = int(text)
        # batch_size 1 keeps the unbatched layout: i-PI announces batches only above 1.
        self._reader.batch_size = batch_size if batch_size > 1 else None
        return Introduced(message.bead, parameters, batch_size)

    def _expected(self) -> str:
        return ", ".join(NAMES[kind] for state, kind in TRANSITIONS if state is self.state)


def parse_parameters(text: str) -> dict[str, str]:
    """Parse the INIT text: ``" component : binding , , batch_size:4"`` gives two entries.

    i-PI writes ``key : value ,`` for each of the ffsocket's parameters; pieces that are no
    ``key : value`` (other servers send a NUL byte) are passed over.
    """
    pairs = (piece.partition(":") for piece in text.replace("\0", "").split(","))
    return {key.strip(): value.strip() for key, colon, value in pairs if colon and key.strip()}
