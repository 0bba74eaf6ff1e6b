"""Archives that would do harm, and those that only look like it."""

import io
import struct
import time
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from deltaserver.errors import ModelFileError
from deltaserver.model.files.archive import ArchiveLimitError, NoArchiveError, read_arrays
from deltaserver.model.files.parameters import read_parameters
from tests.builders import ammonia_model, write_model


def npy(header: str, data: bytes = b"", version=(1, 0)) -> bytes:
    """A .npy member whose header says whatever it likes."""
    text = header.encode() + b"\n"
    text = b" " * (-(10 + len(text)) % 64) + text
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + data


def archive(path, members: dict[str, bytes]):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def floats(shape: str, data: bytes = b"") -> bytes:
    return npy(f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}", data)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back_as_numpy_reads_them(tmp_path, save):
    rng = np.random.default_rng(0)
    raw = {
        "f": rng.normal(size=(3, 4)),
        "fortran": np.asfortranarray(rng.normal(size=(3, 4, 2))),
        "text": np.array("Ang"),
        "bytes": np.array(b"m"),
        "small": np.arange(5, dtype=np.uint8),
        "empty": np.zeros((0, 3)),
        "swapped": np.arange(4, dtype=">i4"),
        "one": np.float32(2.5),
    }
    save(tmp_path / "a.npz", **raw)
    found = read_arrays(tmp_path / "a.npz")
    assert set(found) == set(raw)
    for name, array in raw.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == np.asarray(array).dtype
    assert set(read_arrays(tmp_path / "a.npz", ("f", "absent"))) == {"f"}


def test_a_zip_bomb_is_refused_unread(tmp_path):
    """A kilobyte for each megabyte; 128 MiB of zeros."""
    path = tmp_path / "m.npz"
    array = floats("(1, 16777216)", bytes(128 << 20))
    archive(path, {"R_desc.npy": array})
    tracemalloc.start()
    began = time.thread_time()
    with pytest.raises(ArchiveLimitError, match="bytes would expand to 134217856"):
        read_arrays(path)
    assert time.thread_time() - began < 1.0
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    with pytest.raises(ModelFileError, match=r"refused: its .* would expand"):
        read_parameters(path)


@pytest.mark.parametrize(
    "shape", ["(1000000000000,)", "(4000000000, 4000000000)", "(2,)", f"({10**30},)", "(-4,)"]
)
def test_a_shape_that_its_member_does_not_hold(tmp_path, shape):
    path = archive(tmp_path / "m.npz", {"R_desc.npy": floats(shape, bytes(8))})
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"announces .* and holds 8"):
        read_arrays(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("name", ["../c.npy", "/etc/c.npy", "a/../../c.npy", "..\\c.npy"])
def test_names_that_lead_out(tmp_path, name):
    path = archive(tmp_path / "m.npz", {name: floats("(1,)", bytes(8))})
    with pytest.raises(ArchiveLimitError, match="leads out of the archive"):
        read_arrays(path)


def test_two_members_of_one_name(tmp_path):
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "m", "w") as file:
        warnings.simplefilter("ignore")  # zipfile's own, about the name
        file.writestr("c.npy", floats("(1,)", bytes(8)))
        file.writestr("c.npy", floats("(1,)", bytes(8)))
    with pytest.raises(ArchiveLimitError, match="'c' stands twice"):
        read_arrays(tmp_path / "m")


def test_thousands_of_members(tmp_path):
    path = archive(tmp_path / "m.npz", {f"a{k}": b"" for k in range(1001)})
    with pytest.raises(ArchiveLimitError, match="1001 members"):
        read_arrays(path)


@pytest.mark.parametrize(
    "member",
    [
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", b"cos\nsystem\n"),
        npy("{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (1,), }", bytes(8)),
        npy("__import__('os').system('true')"),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }", bytes(8), (9, 9)),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1,), }" + " " * 60_000, bytes(8)),
        b"\x93NUMPY",
        b"",
    ],
)
def test_headers_that_are_none(tmp_path, member):
    path = archive(tmp_path / "m.npz", {"c.npy": member})
    with pytest.raises((ValueError, SyntaxError, EOFError)):
        read_arrays(path)
    with pytest.raises(ModelFileError):
        read_parameters(path)


def test_what_is_no_archive(tmp_path):
    path = tmp_path / "m.npz"
    buffer = io.BytesIO()
    np.save(buffer, np.arange(3))
    path.write_bytes(buffer.getvalue())
    with pytest.raises(NoArchiveError, match=r"not an \.npz archive"):
        read_arrays(path)
    for content in (b"", b"P", b"PK", b"\x80\x04K\x01."):
        path.write_bytes(content)
        with pytest.raises(zipfile.BadZipFile):
            read_arrays(path)


def test_an_encrypted_member(tmp_path):
    path = write_model(tmp_path / "m.npz", ammonia_model())
    data = bytearray(path.read_bytes())
    at = data.find(b"PK\x01\x02")
    data[at + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ModelFileError):
        read_parameters(path)


def test_a_table_of_permutations_too_large_to_use(tmp_path):
    """Some kilobytes of zeros; as pairs they would fill 20 GiB."""
    n_atoms, n_perms = 100, 200_000
    raw = ammonia_model() | {
        "z": np.ones(n_atoms, np.uint8),
        "R_desc": np.ones((4950, 1)),
        "R_d_desc_alpha": np.ones((1, 4950)),
        "perms": np.broadcast_to(np.arange(n_atoms, dtype=np.uint8), (n_perms, n_atoms)),
    }
    path = write_model(tmp_path / "m.npz", raw)
    with pytest.raises(ModelFileError) as caught:
        read_parameters(path)
    assert "would expand" in str(caught.value) or "need more memory" in str(caught.value)


def test_complex_numbers_are_no_numbers(tmp_path):
    path = write_model(tmp_path / "m.npz", ammonia_model(sig=np.complex128(2.0)))
    with pytest.raises(ModelFileError, match="sig is not an array of numbers"):
        read_parameters(path)
