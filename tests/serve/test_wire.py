"""Bytes to messages and back, against i-PI's layout packed by hand."""

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from deltaserver.errors import ProtocolError
from deltaserver.serve import wire
from deltaserver.serve.wire import Exit, GetForce, Init, MessageReader, PosData, Status
from tests.builders import geometry
from tests.serve.server_double import (
    BOHR_ANG,
    CELL_BOHR,
    batch_posdata,
    init,
    message,
    posdata,
    split_reply,
)

X = geometry(3)
ONE = message("status") + init(" a : b ,", 7) + posdata(X) + message("getforce") + message("exit")


def read_all(reader, pieces):
    found = []
    for piece in pieces:
        reader.feed(piece)
        while (got := reader.next_message()) is not None:
            found.append(got)
    return found


def assert_is_the_exchange(found):
    status, first, data, get, leave = found
    assert (status, get, leave) == (Status(), GetForce(), Exit())
    assert first == Init(7, " a : b ,")
    assert isinstance(data, PosData)
    np.testing.assert_array_equal(data.cells, CELL_BOHR[None])
    np.testing.assert_allclose(data.positions, X[None] / BOHR_ANG, rtol=1e-15)


def test_byte_by_byte():
    reader = MessageReader(3)
    assert_is_the_exchange(read_all(reader, [ONE[i : i + 1] for i in range(len(ONE))]))
    assert reader.idle


@pytest.mark.parametrize("start", range(0, len(ONE), 40))
def test_every_cut_in_two(start):
    for cut in range(start, min(start + 40, len(ONE))):
        assert_is_the_exchange(read_all(MessageReader(3), [ONE[:cut], ONE[cut:]]))


def test_a_cell_keeps_its_vectors_in_columns():
    (data,) = read_all(MessageReader(3), [posdata(X)])
    # i-PI: h is upper triangular where the first vector lies along x; row-major on the wire.
    assert data.cells[0, 0, 1] == 3.0
    assert data.cells[0, 1, 0] == 0.0


def test_the_batched_layout():
    x = np.stack([X, X + 0.5])
    cells = [CELL_BOHR, 2.0 * CELL_BOHR.T]
    reader = MessageReader(3)
    reader.batch_size = 2
    data, get = read_all(reader, [batch_posdata(x, cells) + message("getforce")])
    np.testing.assert_array_equal(data.cells, cells)
    np.testing.assert_allclose(data.positions, x / BOHR_ANG, rtol=1e-15)
    assert get == GetForce()
    assert reader.idle


def test_idle_only_between_messages():
    reader = MessageReader(3)
    assert reader.idle
    for cut in range(1, len(posdata(X))):
        reader = MessageReader(3)
        assert read_all(reader, [posdata(X)[:cut]]) == []
        assert not reader.idle


@pytest.mark.parametrize("length", [-1, -(2**31), 1 << 17, 2**31 - 1])
def test_a_length_of_init_that_cannot_be_is_refused_before_its_bytes(length):
    reader = MessageReader(3)
    reader.feed(message("init") + struct.pack("=ii", 0, length))
    with pytest.raises(ProtocolError, match=f"INIT text of {length} bytes"):
        reader.next_message()


@pytest.mark.parametrize("batch_size", [None, 4])
@pytest.mark.parametrize("n_atoms", [-1, 0, 2, 4, 2**31 - 1, -(2**31)])
def test_another_number_of_atoms_is_refused_before_its_bytes(n_atoms, batch_size):
    reader = MessageReader(3)
    reader.batch_size = batch_size
    cells = bytes(144) if batch_size is None else b""
    reader.feed(message("posdata") + cells + struct.pack("=i", n_atoms))
    with pytest.raises(ProtocolError, match=f"the peer sent {n_atoms} atoms; the model has 3"):
        reader.next_message()


@pytest.mark.parametrize(
    "header",
    [b"GET / HTTP/1", b"\0" * 12, b"status      ", b" STATUS     ", b"FORCEREADY  ",
     b"READY       ", b"            ", b"STATUS\0     "],
)  # fmt: skip
def test_a_header_that_is_none(header):
    reader = MessageReader(3)
    reader.feed(header)
    with pytest.raises(ProtocolError) as caught:
        reader.next_message()
    assert repr(header) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"), [(b"\0", "\0"), (b"", ""), (b"\xff\xfe", "\ufffd\ufffd")]
)
def test_init_texts_that_are_no_text(text, expected):
    data = message("init") + struct.pack("=ii", 3, len(text)) + text
    assert read_all(MessageReader(3), [data]) == [Init(3, expected)]


def test_headers_are_twelve_bytes():
    assert wire.header("READY") == b"READY       "


finite = st.floats(-1e100, 1e100)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.integers(1, 4), st.integers(1, 6))
def test_force_ready_is_read_back_by_i_pi_s_layout(data, n_batch, n_atoms):
    energy = data.draw(arrays(np.float64, (n_batch,), elements=finite))
    forces = data.draw(arrays(np.float64, (n_batch, n_atoms, 3), elements=finite))
    virial = data.draw(arrays(np.float64, (n_batch, 3, 3), elements=finite))
    extras = [b'{"a": %d}' % index for index in range(n_batch)]
    reply = wire.force_ready(energy, forces, virial, extras)
    assert reply[:12] == b"FORCEREADY  "
    at = 12 + 8 * n_batch
    assert reply[12:at] == energy.tobytes()
    assert struct.unpack_from("=i", reply, at) == (n_atoms,)
    assert reply[at + 4 :].startswith(forces.tobytes() + virial.tobytes())
    assert [extra["a"] for extra in split_reply(reply, n_batch)["extras"]] == list(range(n_batch))


def test_arrays_of_any_memory_layout_go_out_row_by_row():
    forces = np.asfortranarray(np.arange(12.0).reshape(1, 4, 3))
    reply = wire.force_ready(np.zeros(1), forces, np.zeros((1, 3, 3)), [b"{}"])
    assert np.frombuffer(reply, np.float64, 12, 24).tolist() == list(range(12))


@pytest.mark.parametrize("batch_size", [None, 4])
def test_shared_memory_is_told_by_its_name(batch_size):
    """As ``SHMDriver`` of i-PI 3.3.1 writes its first POSDATA."""
    names = [f"ipi_shm_4711_9_{kind}".encode() for kind in ("pos", "h", "ih", "pot")]
    data = message("posdata") + struct.pack("=i", 2)
    data += b"".join(struct.pack("=i", len(name)) + name for name in names)
    reader = MessageReader(2)
    reader.batch_size = batch_size
    for k in range(12 + 4 + 4 + 7):
        reader.feed(data[k : k + 1])
        assert reader.next_message() is None
    reader.feed(data[27:])
    with pytest.raises(ProtocolError, match='set mode="unix" in the ffsocket'):
        reader.next_message()
