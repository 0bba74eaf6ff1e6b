"""Requests of several connections that arrive together are evaluated together."""

import threading

import numpy as np
import pytest

from deltaserver.serve.answer import Request, answer, answer_together
from tests.serve.running.test_daemon import assert_same, named, serve
from tests.serve.server_double import ServerDouble, message, posdata
from tests.tolerances import assert_same_sum, terms_of_kernel

BINDING_TERMS = terms_of_kernel(np.empty((1, 21)), 5, 7)  # the longest of the composite's sums


class Counting:
    """A model that notes how many geometries each evaluation had."""

    def __init__(self, model):
        self._model = model
        self.sizes = []

    def __getattr__(self, name):
        return getattr(self._model, name)

    def evaluate(self, positions, *arguments):
        self.sizes.append(len(positions))
        return self._model.evaluate(positions, *arguments)


def request(positions, repeat=1):
    cells = np.broadcast_to(21.0 * np.eye(3), (repeat, 3, 3))
    return Request(np.repeat(positions[None], repeat, axis=0), cells, repeat - 1)


def numbers(reply, n_atoms):
    """Energy and forces of an unbatched reply, a.u.; its text's length depends on last digits."""
    forces = np.frombuffer(reply, count=3 * n_atoms, offset=12 + 8 + 4)
    return np.array([*np.frombuffer(reply, count=1, offset=12), *forces])


def test_together_is_one_evaluation_and_the_same_reply(composite, batch):
    model = Counting(composite)
    requests = [request(batch[0]), request(batch[1], repeat=3), request(batch[2])]
    together = answer_together(model, requests)
    assert model.sizes == [3]  # padding is computed once
    assert [len(part.structures) for part in together] == [1, 1, 1]
    for one, data in zip(together, requests, strict=True):
        alone = answer(composite, data)
        assert one.reply[:12] == alone.reply[:12] == message("forceready")
        n = composite.n_atoms
        assert_same_sum(numbers(one.reply, n), numbers(alone.reply, n), BINDING_TERMS)
        assert one.structures[0].energy_ev == pytest.approx(
            alone.structures[0].energy_ev, rel=1e-12
        )


@pytest.mark.parametrize(("window_s", "sizes"), [(5.0, [2]), (0.0, [1, 1])])
def test_a_window_waits_for_the_other_connection(composite, batch, tmp_path, window_s, sizes):
    model = Counting(composite)
    first_has_asked = threading.Event()
    barrier = threading.Barrier(2, timeout=50)

    def early(peer):
        peer.introduce()
        barrier.wait()
        peer.send(posdata(batch[0]) + message("getforce"))
        first_has_asked.set()
        reply = peer.reply()
        barrier.wait()
        peer.send(message("exit"))
        return reply

    def late(peer):
        peer.introduce()
        barrier.wait()
        assert first_has_asked.wait(50)
        threading.Event().wait(0.2)
        peer.send(posdata(batch[1]) + message("getforce"))
        reply = peer.reply()
        barrier.wait()
        peer.send(message("exit"))
        return reply

    servers = [
        ServerDouble(f"unix:{tmp_path}/a", early),
        ServerDouble(f"unix:{tmp_path}/b", late),
    ]
    events = serve(model, *servers, batch_window_s=window_s)
    for server, x in zip(servers, batch, strict=False):
        assert_same(server.finish(), composite.evaluate(x))
    assert model.sizes == sizes
    assert len(named(events, "step")) == 2


def test_a_lone_connection_never_waits(composite, positions, tmp_path):
    def script(peer):
        peer.introduce()
        return [peer.forces(positions) for _ in range(5)]

    server = ServerDouble(f"unix:{tmp_path}/s", script)
    events = serve(composite, server, batch_window_s=30.0)
    assert len(server.finish()) == 5
    assert all(step["wall_ms"] < 5_000 for step in named(events, "step"))


def test_a_window_that_runs_out_ends_the_wait(composite, positions, tmp_path):
    both_introduced = threading.Barrier(2, timeout=50)
    done = threading.Event()

    def busy(peer):
        peer.introduce()
        both_introduced.wait()
        reply = peer.forces(positions)
        done.set()
        return reply

    def silent(peer):
        peer.introduce()
        both_introduced.wait()
        assert done.wait(50)

    servers = [
        ServerDouble(f"unix:{tmp_path}/a", busy),
        ServerDouble(f"unix:{tmp_path}/b", silent),
    ]
    events = serve(composite, *servers, batch_window_s=0.2)
    assert_same(servers[0].finish(), composite.evaluate(positions))
    servers[1].finish()
    (step,) = named(events, "step")
    assert step["wall_ms"] >= 200.0


def test_what_follows_a_request_in_the_same_packet_is_answered(composite, positions, tmp_path):
    def script(peer):
        peer.introduce()
        peer.send(posdata(positions) + message("getforce") + message("status"))
        reply = peer.reply()
        return reply, peer.exactly(12)

    server = ServerDouble(f"unix:{tmp_path}/s", script)
    serve(composite, server)
    reply, status = server.finish()
    assert_same(reply, composite.evaluate(positions))
    assert status == b"READY       "
