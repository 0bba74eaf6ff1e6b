from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from deltaserver.datasets.native import native_datasets
from deltaserver.errors import DataError, InputError
from deltaserver.model.sgdml import SGDMLModel
from deltaserver.model.trust.stored_frame import SLOPE_TOLERANCE
from deltaserver.training import sigmas
from deltaserver.training.components import components, labelled_set
from deltaserver.training.matrix.solver import NotPositiveDefiniteError
from deltaserver.training.native import write_model
from deltaserver.training.request import TrainingRequest, data_md5
from deltaserver.training.sigmas import train
from deltaserver.training.symmetry_modes import resolve
from deltaserver.training.trainer import train_one
from deltaserver.units import KCAL_PER_MOL_EV
from tests.training.labelled import water_dimer

SIGMA = 8.0


def request_for(name, mode="product", n_train=15, frames=None):
    frames = frames or water_dimer(80)
    available = components(frames)
    component = next(c for c in available if c.name == name)
    data = labelled_set(frames, component)
    points = np.arange(n_train)
    perms = resolve(mode, frames, available, component, data, points).perms
    return TrainingRequest(data, perms, points, np.arange(50, 70))


@pytest.fixture(scope="module")
def binding():
    request = request_for("binding")
    return request, train_one(request, SIGMA)


def saved(tmp_path, trained):
    path = tmp_path / "model.npz"
    write_model(path, trained.native)
    return path


def test_training_points_are_reproduced(tmp_path, binding):
    request, trained = binding
    data = request.data
    found = SGDMLModel.load(saved(tmp_path, trained)).evaluate(data.positions[request.train])
    scale = np.abs(data.forces[request.train]).max()
    residual = np.abs(found.forces - data.forces[request.train]).max()
    assert residual < 5e-3 * scale  # not nothing: lambda damps what the kernel hardly sees
    assert np.mean(found.energy - data.energy[request.train]) == pytest.approx(0.0, abs=1e-9)


def test_the_model_learns(binding):
    request, trained = binding
    size = np.abs(request.data.forces[request.valid]).mean() / KCAL_PER_MOL_EV
    assert trained.force_mae < 0.25 * size
    assert trained.native.record["notes"] == []


def test_agrees_with_sgdml_and_its_predictor_reads_our_file(tmp_path, binding):
    train_module = pytest.importorskip("sgdml.train")
    predict = pytest.importorskip("sgdml.predict")
    request, trained = binding
    data, k = request.data, KCAL_PER_MOL_EV
    task = {
        "type": "t", "code_version": "1.0.3", "dataset_name": "d", "dataset_theory": "t",
        "z": data.numbers.astype(np.uint8), "R_train": data.positions[request.train],
        "F_train": data.forces[request.train] / k, "E_train": data.energy[request.train] / k,
        "idxs_train": request.train, "md5_train": b"0", "idxs_valid": request.valid,
        "md5_valid": b"0", "sig": SIGMA, "lam": request.lam, "use_E": True, "use_E_cstr": False,
        "use_sym": True, "perms": request.perms, "r_unit": "Ang", "e_unit": "kcal/mol",
    }  # fmt: skip
    theirs = train_module.GDMLTrain(max_processes=1).train(task)
    unseen = data.positions[30:60]
    flat = unseen.reshape(len(unseen), -1)
    energy, forces = predict.GDMLPredict(theirs, max_processes=1).predict(flat)
    path = saved(tmp_path, trained)
    ours = SGDMLModel.load(path).evaluate(unseen)
    ours_forces = ours.forces.reshape(forces.shape) / k
    assert np.abs(ours_forces - forces).max() < 1e-6 * np.abs(forces).max()
    assert np.abs(ours.energy / k - energy).max() < 1e-6
    with np.load(path, allow_pickle=False) as arrays:
        energy, forces = predict.GDMLPredict(dict(arrays), max_processes=1).predict(flat)
    assert np.abs(ours_forces - forces).max() < 1e-9 * np.abs(forces).max()
    np.testing.assert_allclose(ours.energy / k, energy, rtol=1e-9)


@pytest.mark.parametrize("name", ["left", "binding"])
def test_every_permutation_leaves_energy_and_forces_invariant(tmp_path, name):
    request = request_for(name)
    path = saved(tmp_path, train_one(request, SIGMA))
    model = SGDMLModel.load(path)
    x = request.data.positions[75]
    reference = model.evaluate(x[None])
    for p in request.perms:
        moved = model.evaluate(x[p][None])
        assert moved.energy[0] == pytest.approx(reference.energy[0], rel=1e-10)
        np.testing.assert_allclose(moved.forces[0], reference.forces[0][p], rtol=0, atol=1e-9)


def test_symmetry_and_pooling_pay(tmp_path):
    errors = {mode: train_one(request_for("left", mode, 6), SIGMA).force_mae
              for mode in ("none", "fragment")}  # fmt: skip
    assert errors["fragment"] < errors["none"]


def test_the_best_sigma_comes_first_and_is_searched_for(tmp_path):
    request = request_for("binding", "none")
    ranked = train(request, tmp_path / "list", (1.25, 5.0, 20.0))
    assert sorted(c.sigma for c in ranked) == [1.25, 5.0, 20.0]
    assert ranked[0].error == min(c.error for c in ranked)
    searched = train(request, tmp_path / "auto")
    best = searched[0].sigma
    tried = {c.sigma for c in searched}
    assert sigmas.AUTO_START in tried
    for beside in (best / 2, best * 2):
        assert beside in tried or not sigmas.AUTO_RANGE[0] <= beside <= sigmas.AUTO_RANGE[1]


def test_finished_candidates_are_taken_up(tmp_path, monkeypatch):
    request = request_for("left")
    first = train(request, tmp_path, (4.0, 8.0))
    calls = []

    def counted(request, sigma, *rest):
        calls.append(sigma)
        return train_one(request, sigma, *rest)

    monkeypatch.setattr(sigmas, "train_one", counted)
    again = train(request, tmp_path, (4.0, 8.0, 16.0))
    assert calls == [16.0]
    assert {c.sigma: c.error for c in first}.items() <= {c.sigma: c.error for c in again}.items()


def test_sigmas_that_differ_in_the_seventh_digit_have_files_of_their_own(tmp_path):
    """Short names stay as they were, so that what was interrupted goes on."""
    request, near = request_for("left"), 8.0000001
    ranked = train(request, tmp_path, (8.0, near, 1.0 / 3.0))
    assert {c.sigma: c.path.name for c in ranked} == {
        8.0: "sigma-8.npz",
        near: "sigma-8.0000001.npz",
        1.0 / 3.0: "sigma-0.3333333333333333.npz",
    }
    for one in ranked:
        with np.load(one.path, allow_pickle=False) as arrays:
            assert arrays["sig"] == one.sigma


def test_checkpoints_of_another_training_are_refused(tmp_path):
    request = request_for("left")
    train(request, tmp_path, (8.0,))
    other = replace(request, lam=1e-8, train=request.train[:-1])
    with pytest.raises(DataError, match=r"another training \(n_train, train_points, lambda differ"):
        train(other, tmp_path, (8.0,))
    (tmp_path / sigmas.MANIFEST_NAME).write_text("{")
    with pytest.raises(DataError, match="another training"):
        train(request, tmp_path, (8.0,))


def test_a_sigma_that_fails_is_skipped_unless_all_do(tmp_path, monkeypatch):
    request = request_for("left")

    def fragile(request, sigma, *rest):
        if sigma > 10:
            raise NotPositiveDefiniteError(3, 1e-10)
        return train_one(request, sigma, *rest)

    monkeypatch.setattr(sigmas, "train_one", fragile)
    ranked = train(request, tmp_path, (8.0, 16.0))
    assert [c.sigma for c in ranked] == [8.0, 16.0]
    assert "not positive definite" in ranked[1].record["failed"]
    with pytest.raises(NotPositiveDefiniteError):
        train(request, tmp_path, (32.0,))


def test_memory_is_checked_before_anything_else(tmp_path):
    request = replace(request_for("binding"), max_bytes=4.0e8)
    with pytest.raises(InputError, match=r"training points of 6 atoms need .* points fit"):
        train(request, tmp_path / "new", (8.0,))
    assert not (tmp_path / "new").exists()


def test_constant_labels_are_refused():
    request = request_for("left")
    flat = replace(request.data, forces=np.zeros_like(request.data.forces))
    with pytest.raises(DataError, match="all force labels are the same"):
        train_one(replace(request, data=flat), SIGMA)


def test_gradients_for_forces_are_remarked():
    request = request_for("left")
    turned = replace(request.data, forces=-request.data.forces)
    assert (
        "gradients for forces?"
        in train_one(replace(request, data=turned), SIGMA).native.record["notes"][0]
    )
    scaled = replace(request.data, forces=2.0 * request.data.forces)
    notes = train_one(replace(request, data=scaled), SIGMA).native.record["notes"]
    assert "slope 0.5" in notes[0]


def test_the_record_is_json(binding):
    _, trained = binding
    assert json.loads(json.dumps(trained.native.record))["sigma"] == SIGMA


@pytest.mark.parametrize("name", ["binding", "full"])
def test_the_fingerprint_is_that_of_the_native_dataset(name):
    frames = water_dimer()
    component = next(c for c in components(frames) if c.name == name)
    expected = native_datasets(frames)[name]["md5"]
    assert data_md5(labelled_set(frames, component)) == expected


def test_a_length_scale_that_loses_the_energy_to_rounding_is_told(tmp_path):
    """The larger σ, the larger coefficients that cancel; ``deltaserver check`` refuses them."""
    request = replace(request_for("binding", n_train=10), energies=1.0, lam=1e-12)
    found = {c.sigma: c.record for c in train(request, tmp_path, (8.0, 5120.0))}
    assert found[8.0]["slope_error"] < SLOPE_TOLERANCE < found[5120.0]["slope_error"]
    assert not any("not the slope" in note for note in found[8.0]["notes"])
    assert "raise --lambda, take a smaller sigma" in found[5120.0]["notes"][-1]
