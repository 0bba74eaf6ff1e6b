"""The state machine: what may be said when, and nothing else."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deltaserver.errors import ProtocolError
from deltaserver.serve.protocol import (
    NAMES,
    TRANSITIONS,
    ClientProtocol,
    Closed,
    ForceRequest,
    Introduced,
    State,
    parse_parameters,
)
from deltaserver.serve.wire import Exit, GetForce, Init, PosData, Status
from tests.builders import geometry
from tests.serve.server_double import batch_posdata, init, message, posdata

X = geometry(3)
BYTES = {
    Status: message("status"),
    Init: init(),
    PosData: posdata(X),
    GetForce: message("getforce"),
    Exit: message("exit"),
}
# What brings a fresh client into each state in which it listens.
PATHS = {
    State.NEED_INIT: b"",
    State.READY: init(),
    State.HAVE_POSITIONS: init() + posdata(X),
    State.HAVE_FORCES: init() + posdata(X) + message("status"),
}


def events(protocol, data=b""):
    protocol.receive(data)
    found = []
    while (event := protocol.next_event()) is not None:
        found.append(event)
        if isinstance(event, ForceRequest):
            protocol.answer(b"FORCES")
    return found


def in_state(state):
    protocol = ClientProtocol(3)
    events(protocol, PATHS[state])
    protocol.outgoing.clear()
    assert protocol.state is state
    return protocol


def test_the_names_i_pi_knows():
    answers = {}
    for state in PATHS:
        protocol = in_state(state)
        n_requests = len(events(protocol, message("status")))
        answers[state] = bytes(protocol.outgoing)
        if state is State.HAVE_POSITIONS:  # the forces are there before we say so
            assert (n_requests, protocol.state) == (1, State.HAVE_FORCES)
        else:
            assert (n_requests, protocol.state) == (0, state)
    said = [b"NEEDINIT    ", b"READY       ", b"HAVEDATA    ", b"HAVEDATA    "]
    assert list(answers.values()) == said


@pytest.mark.parametrize("kind", BYTES)
@pytest.mark.parametrize("state", PATHS)
def test_every_pair_of_the_table_and_every_pair_that_is_not_in_it(state, kind):
    protocol = in_state(state)
    if (state, kind) in TRANSITIONS:
        events(protocol, BYTES[kind])
        # Forces are answered at once by the helper above.
        after = TRANSITIONS[state, kind]
        if after is State.MUST_ANSWER:
            after = State.HAVE_FORCES if kind is Status else State.READY
        assert protocol.state is after
    else:
        legal = [NAMES[k] for s, k in TRANSITIONS if s is state]
        with pytest.raises(ProtocolError) as caught:
            events(protocol, BYTES[kind])
        expected = f"sent {NAMES[kind]} in state {state.value}; expected {', '.join(legal)}"
        assert expected in str(caught.value)


def test_much_of_the_table_is_illegal():
    # The test above would pass on a table that allows all. Thirteen legal pairs of twenty: the
    # twelve that i-PI needs, and INIT anew.
    assert len(TRANSITIONS) == 13


@pytest.mark.parametrize("asks", ["consolidated", "with STATUS in between"])
def test_both_ways_i_pi_asks_for_forces(asks):
    protocol = in_state(State.READY)
    between = message("status") if asks != "consolidated" else b""
    (request,) = events(protocol, posdata(X) + between + message("getforce"))
    assert request.data.positions.shape == (1, 3, 3)
    havedata = b"HAVEDATA    " if between else b""
    assert bytes(protocol.outgoing) == havedata + b"FORCES"
    assert protocol.state is State.READY


def test_forces_wait_for_getforce_and_are_given_once():
    protocol = in_state(State.HAVE_POSITIONS)
    assert len(events(protocol, message("status"))) == 1
    assert events(protocol, 3 * message("status")) == []
    assert bytes(protocol.outgoing) == 4 * b"HAVEDATA    "
    protocol.outgoing.clear()
    assert events(protocol, message("getforce")) == []
    assert bytes(protocol.outgoing) == b"FORCES"
    with pytest.raises(ProtocolError, match="sent GETFORCE in state READY"):
        events(protocol, message("getforce"))


@pytest.mark.parametrize("state", PATHS)
def test_exit_within_a_step_is_told_from_exit_at_its_end(state):
    (closed,) = events(in_state(state), message("exit"))
    assert closed == Closed(finished=state in (State.NEED_INIT, State.READY))


EXCHANGE = (
    message("status") + init(" component : binding , ", 2) + message("status")
    + posdata(X) + message("getforce") + message("status")
    + posdata(X + 1.0) + message("status") + message("getforce") + message("exit")
)  # fmt: skip


def kinds(protocol, pieces):
    return [type(event) for piece in pieces for event in events(protocol, piece)]


@given(st.lists(st.integers(0, len(EXCHANGE)), max_size=6))
def test_events_do_not_depend_on_how_the_bytes_arrive(cuts):
    edges = [0, *sorted(cuts), len(EXCHANGE)]
    pieces = [EXCHANGE[a:b] for a, b in pairwise(edges)]
    protocol = ClientProtocol(3)
    assert kinds(protocol, pieces) == [Introduced, ForceRequest, ForceRequest, Closed]
    assert bytes(protocol.outgoing) == (
        b"NEEDINIT    READY       FORCESREADY       HAVEDATA    FORCES"
    )


def test_every_cut_in_two():
    for cut in range(len(EXCHANGE)):
        protocol = ClientProtocol(3)
        pieces = [EXCHANGE[:cut], EXCHANGE[cut:]]
        assert kinds(protocol, pieces) == [Introduced, ForceRequest, ForceRequest, Closed]


def test_nothing_is_taken_after_exit():
    protocol = in_state(State.READY)
    assert events(protocol, message("exit") + b"garbage everywhere") == [Closed()]
    assert events(protocol, b"more garbage....") == []


def test_batch_size_above_one_switches_the_layout():
    protocol = ClientProtocol(3)
    (hello,) = events(protocol, init(" component : binding ,  batch_size:2", 5))
    assert hello == Introduced(5, {"component": "binding", "batch_size": "2"}, 2)
    (request,) = events(protocol, batch_posdata(np.stack([X, X + 1])) + message("getforce"))
    assert request.data.positions.shape == (2, 3, 3)


@pytest.mark.parametrize("text", ["", "\0", "batch_size:1", "nonsense", "component:x"])
def test_without_it_the_layout_is_the_plain_one(text):
    protocol = ClientProtocol(3)
    (hello,) = events(protocol, init(text))
    assert hello.batch_size == 1
    (request,) = events(protocol, posdata(X) + message("getforce"))
    assert request.data.positions.shape == (1, 3, 3)


@pytest.mark.parametrize("value", ["0", "-1", "4097", "two", "", "1.5", "9" * 5000])
def test_batch_sizes_that_cannot_be(value):
    with pytest.raises(ProtocolError, match="the peer asked for batch_size"):
        events(ClientProtocol(3), init(f"batch_size:{value}"))


@pytest.mark.parametrize(
    ("text", "parameters"),
    [
        ("", {}),
        ("\0", {}),
        ("  ", {}),
        (" component : binding ,  batch_size:4", {"component": "binding", "batch_size": "4"}),
        (", batch_size:4", {"batch_size": "4"}),
        (" batch_size:4", {"batch_size": "4"}),
        (" a : 1 , b : c:d , ", {"a": "1", "b": "c:d"}),
        ("no colon, : no key", {}),
    ],
)
def test_parameters(text, parameters):
    assert parse_parameters(text) == parameters


def test_idle_and_receiving_say_where_a_connection_breaks():
    protocol = ClientProtocol(3)
    assert protocol.idle
    events(protocol, init()[:5])
    assert not protocol.idle
    assert protocol.receiving
    events(protocol, init()[5:])
    assert protocol.idle
    assert not protocol.receiving
    events(protocol, posdata(X))  # complete, but GETFORCE has to follow
    assert not protocol.idle
    assert protocol.receiving
    events(protocol, message("getforce"))
    assert protocol.idle
    assert not protocol.receiving


def test_our_own_misuse_is_told():
    protocol = in_state(State.READY)
    with pytest.raises(RuntimeError, match="nothing to answer in state READY"):
        protocol.answer(b"")
    protocol.receive(posdata(X) + message("getforce"))
    assert isinstance(protocol.next_event(), ForceRequest)
    assert not protocol.idle
    with pytest.raises(RuntimeError, match="before taking the next event"):
        protocol.next_event()
