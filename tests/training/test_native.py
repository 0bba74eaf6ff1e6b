from __future__ import annotations

import numpy as np
import pytest

from deltaserver.errors import DataError
from deltaserver.model.sgdml import SGDMLModel
from deltaserver.training import native
from deltaserver.training.native import NativeModel, read_record, write_model
from deltaserver.units import KCAL_PER_MOL_EV


@pytest.fixture
def model():
    rng = np.random.default_rng(0)
    positions = np.eye(4, 3) * 1.5 + 0.1 * rng.normal(size=(5, 4, 3))
    i, j = np.tril_indices(4, -1)
    x = 1.0 / np.linalg.norm(positions[:, i] - positions[:, j], axis=-1)
    perms = np.array([[0, 1, 2, 3], [0, 1, 3, 2]])
    return NativeModel(
        "made up", "nothing", np.array([7, 1, 1, 1]), np.arange(5), np.arange(3), b"0" * 32,
        x, rng.normal(size=x.shape), rng.normal(size=60), perms,
        -3.0, 2.0, 7.5, 1e-10, {"σ": 7.5},
    )  # fmt: skip


def test_sgdml_and_we_read_the_same(tmp_path, model):
    predict = pytest.importorskip("sgdml.predict")
    path = tmp_path / "model.npz"
    write_model(path, model)
    positions = np.eye(4, 3) * 1.5 + 0.2 * np.random.default_rng(1).normal(size=(6, 4, 3))
    with np.load(path, allow_pickle=False) as arrays:
        energy, forces = predict.GDMLPredict(dict(arrays), max_processes=1).predict(
            positions.reshape(6, -1)
        )
    ours = SGDMLModel.load(path).evaluate(positions)
    np.testing.assert_allclose(ours.energy / KCAL_PER_MOL_EV, energy, rtol=1e-12)
    np.testing.assert_allclose(
        ours.forces.reshape(6, -1) / KCAL_PER_MOL_EV, forces, rtol=0, atol=1e-12
    )


def test_no_key_needs_unpickling_and_integers_stay_integers(tmp_path, model):
    path = tmp_path / "model.npz"
    write_model(path, model)
    with np.load(path, allow_pickle=False) as arrays:
        keys = {key: arrays[key] for key in arrays.files}
    assert not {"f_err", "e_err", "md5_test"} & set(keys)
    assert keys["type"] == "m"
    assert keys["sig"] == 7.5
    assert keys["tril_perms_lin"].shape == (12,)
    assert read_record(path) == {"σ": 7.5}
    assert list(tmp_path.iterdir()) == [path]  # nothing temporary is left


def test_a_file_of_someone_else_has_no_record(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, type="m")
    with pytest.raises(DataError, match="not a model that deltaserver has trained"):
        read_record(path)
    np.savez(path, **{native.RECORD: "[1]"})
    with pytest.raises(DataError, match="no mapping"):
        read_record(path)
