"""The same for the same contents, however they are written; another for any other."""

import zipfile

import numpy as np
import pytest
import yaml

from deltaserver import CompositeModel
from tests.builders import (
    ammonia_model,
    binding_model,
    manifest,
    sgdml_model,
    water_model,
    write_directory,
    write_model,
)


@pytest.fixture
def directory(tmp_path):
    return write_directory(tmp_path / "m")


def of(directory):
    return CompositeModel.load(directory).fingerprint()


def test_it_is_a_hash(directory):
    found = of(directory)
    assert found.startswith("sha256:")
    assert len(bytes.fromhex(found.removeprefix("sha256:"))) == 32


def test_how_the_files_are_written_does_not_matter(directory):
    before = of(directory)
    np.savez(directory / "water.npz", **dict(reversed(water_model().items())))
    with zipfile.ZipFile(directory / "water.npz", "a") as archive:
        archive.comment = b"packed another day"
        archive.writestr("note.npy", b"")
    (directory / "ammonia.npz").rename(directory / "nh3.npz")
    text = yaml.safe_dump(manifest(), default_flow_style=True).replace("ammonia.npz", "nh3.npz")
    (directory / "model.yaml").write_text("# the same\n" + text)
    assert of(directory) == before


def test_nor_does_the_kind_of_number(directory):
    before = of(directory)
    raw = water_model()
    raw["z"] = raw["z"].astype(np.float64)
    raw["perms"] = raw["perms"].astype(np.uint8)
    raw["R_desc"] = np.asfortranarray(raw["R_desc"]).astype(">f8")
    write_model(directory / "water.npz", raw)
    assert of(directory) == before


def test_nor_does_the_backend(directory):
    torch = pytest.importorskip("torch")
    assert torch
    assert CompositeModel.load(directory, "torch", "cpu").fingerprint() == of(directory)


def one_bit(raw, key):
    array = np.array(raw[key], dtype=float)
    array.flat[-1] = np.nextafter(array.flat[-1], np.inf)
    return raw | {key: array}


@pytest.mark.parametrize("key", ["R_desc", "R_d_desc_alpha", "sig", "c", "std"])
@pytest.mark.parametrize("name", ["water", "binding", "full"])
def test_one_bit_of_one_number_does(directory, name, key):
    before = of(directory)
    raw = {"water": water_model(), "binding": binding_model(),
           "full": sgdml_model(binding_model()["z"], seed=4)}[name]  # fmt: skip
    write_model(directory / f"{name}.npz", raw)
    assert of(directory) == before
    write_model(directory / f"{name}.npz", one_bit(raw, key))
    assert of(directory) != before


@pytest.mark.parametrize(
    "change",
    [
        {"e_unit": "eV"}, {"perms": np.array([[0, 1, 2, 3]])}, {"r_unit": "bohr"},
        {"alphas_E": np.zeros(5)}, {"lattice": 20.0 * np.eye(3)},
    ],
)  # fmt: skip
def test_so_does_everything_else_that_is_evaluated(directory, change):
    before = of(directory)
    write_model(directory / "ammonia.npz", ammonia_model() | change)
    assert of(directory) != before


def test_so_do_the_fragments(directory):
    before = of(directory)
    text = manifest()
    text["fragments"][0]["atoms"] = "5,3,1"  # its hydrogens in another order
    (directory / "model.yaml").write_text(yaml.safe_dump(text))
    assert of(directory) != before
