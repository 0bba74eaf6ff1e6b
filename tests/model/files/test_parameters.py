"""Model files: what is read, and that nothing damaged, foreign or dangerous is."""

import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

from deltaserver.errors import ModelFileError
from deltaserver.model.files.parameters import parse_parameters, read_parameters
from tests.builders import TRICLINIC, ammonia_model, old_style, write_model

FIELDS = (
    "numbers", "x", "a", "perms", "sigma", "c", "std", "alphas_energy", "lattice", "length_unit",
    "energy_unit",
)  # fmt: skip


def refusal(path):
    with pytest.raises(ModelFileError) as caught:
        read_parameters(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: ")
    return message


def same(one, other):
    return all(np.array_equal(getattr(one, f), getattr(other, f)) for f in FIELDS)


def test_every_field_of_a_new_file(tmp_path):
    raw = ammonia_model(lattice=TRICLINIC, energy_constraints=True, sig=np.int64(7))
    found = read_parameters(write_model(tmp_path / "new.npz", raw))
    assert np.array_equal(found.numbers, raw["z"])
    assert np.array_equal(found.x, raw["R_desc"].T)
    assert np.array_equal(found.a, raw["R_d_desc_alpha"])
    assert np.array_equal(found.perms, raw["perms"])
    assert np.array_equal(found.alphas_energy, raw["alphas_E"])
    assert np.array_equal(found.lattice, TRICLINIC)
    assert (found.sigma, found.c, found.std) == (7.0, -3.25, 1.7)
    assert (found.length_unit, found.energy_unit) == ("Ang", "kcal/mol")


def test_an_old_file_has_no_units_and_may_lack_std(tmp_path):
    found = read_parameters(write_model(tmp_path / "old.npz", old_style(ammonia_model(std=None))))
    assert (found.length_unit, found.energy_unit) == (None, None)
    assert found.std == 1.0
    assert found.alphas_energy is None
    assert found.lattice is None


def test_one_permutation_may_be_a_plain_row(tmp_path):
    raw = ammonia_model(perms=np.arange(4))
    assert read_parameters(write_model(tmp_path / "m.npz", raw)).perms.tolist() == [[0, 1, 2, 3]]


# -- pickles ----------------------------------------------------------------------------------


class Trap:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.fixture
def trap(tmp_path):
    """An array whose unpickling leaves a trace, and that trace's path."""
    trace = tmp_path / "trace"
    array = np.empty((), dtype=object)
    array[()] = Trap(trace)
    np.save(tmp_path / "trap.npy", array, allow_pickle=True)
    np.load(tmp_path / "trap.npy", allow_pickle=True)
    assert trace.exists()  # the trap works
    trace.unlink()
    return array, trace


@pytest.mark.parametrize("key", ["f_err", "e_err", "md5_test"])
def test_pickles_under_other_keys_are_never_opened(tmp_path, trap, key):
    array, trace = trap
    path = write_model(tmp_path / "m.npz", ammonia_model() | {key: array})
    assert read_parameters(path).c == -3.25
    assert not trace.exists()


@pytest.mark.parametrize("key", ["c", "type", "z", "R_desc", "std", "lattice", "r_unit"])
def test_pickles_under_our_keys_are_refused_unopened(tmp_path, trap, key):
    array, trace = trap
    assert "allow_pickle=False" in refusal(
        write_model(tmp_path / "m.npz", ammonia_model() | {key: array})
    )
    assert not trace.exists()


def test_a_file_that_is_a_pickle_is_refused_unopened(tmp_path, trap):
    trace = trap[1]
    path = tmp_path / "m.npz"
    path.write_bytes(pickle.dumps(Trap(trace)))
    refusal(path)
    assert not trace.exists()


# -- damage -----------------------------------------------------------------------------------


@pytest.fixture(params=["stored", "deflated"])
def intact(request, tmp_path):
    raw = ammonia_model(lattice=TRICLINIC)
    path = tmp_path / "m.npz"
    (np.savez if request.param == "stored" else np.savez_compressed)(path, **raw)
    return path


def test_truncated_files_are_refused_wherever_they_end(intact):
    data = intact.read_bytes()
    for end in {*range(0, len(data), 97), 1, 2, 3, len(data) - 1, len(data) - 22}:
        intact.write_bytes(data[:end])
        refusal(intact)


def test_a_flipped_bit_is_refused_or_harmless(intact):
    data, good = intact.read_bytes(), read_parameters(intact)
    rng = np.random.default_rng(0)
    messages = []
    for index in rng.choice(len(data), 400, replace=False):
        damaged = bytearray(data)
        damaged[index] ^= 1 << int(rng.integers(8))
        intact.write_bytes(damaged)
        try:
            assert same(read_parameters(intact), good), f"byte {index}"
        except ModelFileError as error:
            messages.append(str(error))
    assert not any("\n" in message for message in messages)
    assert len(messages) > 200  # the harmless ones are time stamps, attributes and the like


@pytest.mark.parametrize("key", ["std", "lattice", "r_unit", "e_unit"])
def test_a_damaged_name_does_not_make_an_optional_key_absent(intact, key):
    data = intact.read_bytes()
    index = data.rindex(f"{key}.npy".encode())  # in the archive's directory
    intact.write_bytes(data[:index] + b"q" + data[index + 1 :])
    assert "corrupt" in refusal(intact)


def test_a_damaged_member_that_is_not_needed_counts_as_damage(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, **ammonia_model(), other=np.full(50, 123.456))
    data = path.read_bytes()
    path.write_bytes(data.replace(np.float64(123.456).tobytes(), bytes(8), 1))
    assert "'other.npy'" in refusal(path)


# -- what is no model -------------------------------------------------------------------------


def test_a_missing_file_and_a_directory(tmp_path):
    assert "no such file" in refusal(tmp_path / "nothing.npz")
    assert "no such file" in refusal(tmp_path)
    assert "too long" in refusal(Path("a" * 300))


@pytest.mark.parametrize("content", [b"", b"PK", b"hello world\n" * 100, b"\x80\x04K\x05."])
def test_files_that_are_no_archive(tmp_path, content):
    path = tmp_path / "m.npz"
    path.write_bytes(content)
    refusal(path)


def test_a_single_array_is_no_archive(tmp_path):
    with (tmp_path / "m.npz").open("wb") as file:
        np.save(file, np.arange(4))
    assert "not an .npz archive" in refusal(tmp_path / "m.npz")


def test_an_archive_of_something_else(tmp_path):
    path = tmp_path / "m.npz"
    np.savez(path, hello=1)
    assert "missing type, z, R_desc" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("type", "m")
    assert "missing z" in refusal(path)


@pytest.mark.parametrize(
    ("kind", "said"),
    [("d", "a dataset"), (b"t", "a training task"), ("x\ny", r"type 'x\ny'"), (["m", "m"], "type")],
)
def test_other_kinds_of_sgdml_files(tmp_path, kind, said):
    path = write_model(tmp_path / "m.npz", ammonia_model(type=np.array(kind)))
    assert said in refusal(path)


@pytest.mark.parametrize("key", ["z", "R_desc", "R_d_desc_alpha", "c", "sig", "perms", "type"])
def test_every_required_key_is_named_when_it_is_missing(tmp_path, key):
    path = write_model(tmp_path / "m.npz", ammonia_model(**{key: None}))
    assert f"missing {key};" in refusal(path)


def with_nan(key):
    array = np.array(ammonia_model(lattice=TRICLINIC, energy_constraints=True)[key], dtype=float)
    array.flat[-1] = np.nan
    return array


@pytest.mark.parametrize(
    "key", ["R_desc", "R_d_desc_alpha", "c", "std", "sig", "alphas_E", "lattice"]
)
def test_values_that_are_not_finite(tmp_path, key):
    raw = ammonia_model(lattice=TRICLINIC, energy_constraints=True)
    path = write_model(tmp_path / "m.npz", raw | {key: with_nan(key)})
    assert f"{key} holds 1 values that are not finite" in refusal(path)


PERMS = np.array([[0, 1, 2, 3]])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"z": np.array(7)}, "1 atoms, 5 training points"),
        ({"z": np.array([], dtype=int)}, "0 atoms"),
        ({"z": np.array([[7, 1, 1, 1]])}, "z has shape (1, 4)"),
        ({"z": np.array([7, 1, 1, 1, 1])}, "R_desc has shape (6, 5); expected (10, 5)"),
        ({"z": np.array([7, 1, 1, 0])}, "atomic numbers outside 1 to 118"),
        ({"z": np.array([7, 1, 1, 119])}, "atomic numbers outside 1 to 118"),
        ({"z": np.array([7, 1, 1, 1.5])}, "z holds values that are not whole"),
        ({"z": np.array(["N", "H", "H", "H"])}, "z is not an array of numbers"),
        ({"R_desc": np.ones(6)}, "0 training points"),
        ({"R_desc": np.ones((6, 0))}, "0 training points"),
        ({"R_desc": np.ones((5, 6))}, "R_desc has shape (5, 6); expected (6, 6)"),
        ({"R_d_desc_alpha": np.ones((6, 5))}, "R_d_desc_alpha has shape (6, 5); expected (5, 6)"),
        ({"alphas_E": np.ones(4)}, "alphas_E has shape (4,); expected (5,)"),
        ({"lattice": np.ones(3)}, "lattice has shape (3,); expected (3, 3)"),
        ({"lattice": np.ones((3, 3))}, "lattice is singular"),
        ({"perms": np.array([[0, 1, 2]])}, "perms has shape (1, 3); expected (1, 4)"),
        ({"perms": np.zeros((0, 4), dtype=int)}, "no permutation"),
        ({"perms": PERMS + 1}, "no permutation"),
        ({"perms": np.array([[0, 1, 1, 3]])}, "no permutation"),
        ({"perms": np.array([[1, 0, 2, 3]])}, "exchanges atoms of different elements"),
        ({"sig": np.array([1.0, 2.0])}, "sig has shape (2,); expected one number"),
        ({"sig": 0.0}, "sig is 0.0; expected a positive"),
        ({"sig": -2}, "sig is -2.0; expected a positive"),
        ({"c": np.array("abc")}, "c is not an array of numbers"),
        ({"std": 0.0}, "std is 0.0; expected a positive"),
        ({"std": -1.0}, "std is -1.0; expected a positive"),
    ],
)
def test_arrays_that_disagree(tmp_path, changes, said):
    assert said in refusal(write_model(tmp_path / "m.npz", ammonia_model(**changes)))


def test_dictionaries_in_memory_are_checked_too():
    with pytest.raises(ModelFileError, match="here: sig is -1"):
        parse_parameters(ammonia_model(sig=-1.0), "here")


# -- found by fuzzing (tests/fuzz) ------------------------------------------------------------


@pytest.mark.parametrize("sigma", [1e-300, 1e300, 0.0, -1.0])
def test_length_scales_whose_cube_is_no_number(tmp_path, sigma):
    path = write_model(tmp_path / "m.npz", ammonia_model(sig=sigma))
    assert "expected a positive length scale" in refusal(path)


@pytest.mark.parametrize("code", [0xFFFFFFFF, 0x110000])
@pytest.mark.parametrize("key", ["type", "r_unit", "e_unit"])
def test_texts_of_letters_that_do_not_exist(tmp_path, key, code):
    text = np.frombuffer(np.full(3, code, np.uint32).tobytes(), "<U3").reshape(())
    path = write_model(tmp_path / "m.npz", ammonia_model() | {key: text})
    assert f"{key} is not a short text" in refusal(path)


def test_texts_are_short(tmp_path):
    path = write_model(tmp_path / "m.npz", ammonia_model(type="m" * 3000))
    assert len(refusal(path)) < 300


def test_a_header_that_stops_in_the_middle(tmp_path):
    """numpy's own reader lets tokenize.TokenError through."""
    text = b"{'descr': '<f8', 'shape': (\n"
    member = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text
    path = write_model(tmp_path / "m.npz", ammonia_model(c=None))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("c.npy", member)
    assert "no header that can be read" in refusal(path)


# -- uncertainty ------------------------------------------------------------------------------

POINTS, NUMBERS = np.array([0, 2, 4]), np.array([0.3, 0.5, 1.0, 0.5, 0.01])


def test_an_uncertainty_is_read(tmp_path):
    raw = ammonia_model(uncertainty_points=POINTS, uncertainty=NUMBERS)
    block = read_parameters(write_model(tmp_path / "m.npz", raw)).uncertainty
    assert block.points.tolist() == [0, 2, 4]
    assert (block.length, block.scale, block.floor) == (0.3, 0.5, 0.01)
    assert (block.spread_exponent, block.force_exponent) == (1.0, 0.5)
    np.testing.assert_array_equal(block.arrays()["uncertainty"], NUMBERS)
    assert read_parameters(write_model(tmp_path / "n.npz", ammonia_model())).uncertainty is None


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"uncertainty": None}, "half of an uncertainty"),
        ({"uncertainty_points": None}, "half of an uncertainty"),
        ({"uncertainty_points": np.array([0, 5])}, "ascending training points of 5"),
        ({"uncertainty_points": np.array([2, 0])}, "ascending training points of 5"),
        ({"uncertainty_points": np.array([0, 0])}, "ascending training points of 5"),
        ({"uncertainty_points": np.array([-1, 0])}, "ascending training points of 5"),
        ({"uncertainty_points": np.zeros(0)}, "ascending training points of 5"),
        ({"uncertainty": NUMBERS[:4]}, "uncertainty has shape (4,)"),
        ({"uncertainty": -NUMBERS}, "none negative"),
        ({"uncertainty": np.array([0.3, 0.5, 5.0, 0.5, 0.01])}, "from 0 to 4"),
        ({"uncertainty": np.array([0.3, np.nan, 1.0, 0.5, 0.01])}, "not finite"),
    ],
)
def test_an_uncertainty_that_is_none_is_refused(tmp_path, change, expected):
    raw = ammonia_model(**{"uncertainty_points": POINTS, "uncertainty": NUMBERS, **change})
    assert expected in refusal(write_model(tmp_path / "m.npz", raw))
