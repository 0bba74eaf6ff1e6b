from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from deltaserver import CompositeModel
from deltaserver.errors import ComponentError, DataError, InputError
from deltaserver.training import model_directory
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.model_directory import train_directory
from tests.training.labelled import water_and_ion, water_dimer

PLAN = TrainingPlan(n_train=12, n_valid=10, sigmas=(4.0, 8.0))


@pytest.fixture(scope="module")
def dimer(tmp_path_factory):
    output = tmp_path_factory.mktemp("dimer") / "model"
    lines = []
    report = train_directory(water_dimer(80), PLAN, output, lines.append)
    return output, report, lines


def test_the_directory_is_served_as_it_is(dimer):
    output, _, _ = dimer
    model = CompositeModel.load(output)
    frames = water_dimer(80)
    found = model.evaluate(frames.positions[-10:])
    truth = frames.forces[-10:]
    assert np.abs(found.forces - truth).mean() < 0.1 * np.abs(truth).mean()
    assert set(found.contributions) == {"left", "right", "binding"}
    # Pooled fragments share one file, each in its own order of atoms.
    single = found.contributions["right"].forces[:, 3:]
    reference = frames.fragment_forces[-10:, 3:]
    assert np.abs(single - reference).mean() < 0.05 * np.abs(reference).mean()
    full = model.evaluate(frames.positions[-10:], component="full")
    assert np.abs(full.forces - truth).mean() < 0.5 * np.abs(truth).mean()


def test_the_report_says_what_was_done(dimer):
    output, report, lines = dimer
    written = json.loads((output / "training.json").read_text())
    assert written["components"] == report
    assert set(report) == {"left", "binding", "full"}
    assert report["binding"]["n_perms"] == 8
    assert [c["sigma"] for c in report["left"]["candidates"]] == [4.0, 8.0]
    assert written["n_held_out"] == 16
    assert written["train_fraction"] == 0.8
    assert "left: 12 points, 2 permutations, about 0.48 GB" in lines
    assert any(line.startswith("binding: σ = ") for line in lines)
    assert not (output / ".training").exists()


def test_a_finished_training_is_kept(dimer, monkeypatch):
    output, report, _ = dimer
    monkeypatch.setattr(model_directory, "train", None)
    lines = []
    again = train_directory(water_dimer(80), PLAN, output, lines.append)
    assert again == report
    assert "full: already trained, kept" in lines


def test_components_one_by_one(tmp_path):
    output = tmp_path / "model"
    frames = water_dimer(80)
    train_directory(frames, replace(PLAN, component="left"), output)
    assert not (output / "model.yaml").exists()
    train_directory(frames, replace(PLAN, component="binding", symmetry="none"), output)
    model = CompositeModel.load(output)
    with pytest.raises(ComponentError):
        model.check_component("full")
    written = json.loads((output / "training.json").read_text())
    assert written["symmetry"] == {"left": "product", "binding": "none"}


def test_a_lone_ion_is_an_entry_of_the_manifest(tmp_path):
    frames = water_and_ion(60)
    train_directory(frames, replace(PLAN, symmetry="fragment"), tmp_path)
    model = CompositeModel.load(tmp_path)
    found = model.evaluate(frames.positions[-3:])
    np.testing.assert_allclose(found.contributions["sodium"].energy, -4.5)
    assert np.abs(found.energy - frames.energy[-3:]).max() < 0.02
    assert {p.name for p in tmp_path.glob("*.npz")} == {"water.npz", "binding.npz", "full.npz"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_train": 500}, "500 water_dimer_left training frames are wanted"),
        ({"component": "middle"}, "no component 'middle'"),
        ({"symmetry": "all of it"}, "expected none, fragment"),
        ({"max_bytes": 4.0e8}, "left: 12 training points of 3 atoms need"),
    ],
)
def test_refusals_come_before_anything_is_written(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        train_directory(water_dimer(80), replace(PLAN, **change), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_foreign_report_is_refused(tmp_path):
    (tmp_path / "training.json").write_text("[]")
    with pytest.raises(DataError, match="not a report of deltaserver train"):
        train_directory(water_dimer(80), PLAN, tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_fraction": 0.9}, "trained with train_fraction = 0.8, now it is 0.9"),
        ({"held_out_trajectories": (1,)}, r"held_out_trajectories = \[\], now it is \[1\]"),
    ],
)
def test_models_of_different_splits_do_not_mix(dimer, change, message):
    output, _, _ = dimer
    with pytest.raises(DataError, match=message):
        train_directory(water_dimer(80), replace(PLAN, **change), output)
    with pytest.raises(DataError, match="trained with n_frames = 80, now it is 70"):
        train_directory(water_dimer(70), PLAN, output)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"n_train": 10}, "n_train"),
        ({"lambdas": (1e-8,)}, "lambda"),
        ({"symmetry": "none", "component": "binding"}, "permutations"),
        ({"sigmas": (4.0,)}, "sigmas"),
        ({"seed": 5}, "train_points"),
    ],
)
def test_models_of_other_options_are_not_overwritten(dimer, tmp_path, change, said):
    """Refused before anything is trained; what is there stays, byte for byte."""
    output, _, _ = dimer
    before = {path: path.read_bytes() for path in output.iterdir() if path.is_file()}
    plan = replace(PLAN, **change)
    with pytest.raises(InputError, match=rf"other options \(.*{said}.*give --overwrite"):
        train_directory(water_dimer(80), plan, output)
    assert {path: path.read_bytes() for path in output.iterdir() if path.is_file()} == before


def test_overwrite_replaces_them(dimer, tmp_path):
    output = tmp_path / "copy"
    shutil.copytree(dimer[0], output)
    plan = replace(PLAN, n_train=10, component="left", overwrite=True)
    report = train_directory(water_dimer(80), plan, output)
    assert report["left"]["n_train"] == 10
    assert report["binding"] == dimer[1]["binding"]


def test_a_model_that_nobody_knows_of_is_not_overwritten(tmp_path):
    (tmp_path / "binding.npz").write_bytes(b"somebody's")
    with pytest.raises(InputError, match=r"binding\.npz: is there already"):
        train_directory(water_dimer(80), PLAN, tmp_path)
    assert (tmp_path / "binding.npz").read_bytes() == b"somebody's"


def test_a_file_in_the_directory_s_place_is_told_before_anything_is_prepared(tmp_path):
    (tmp_path / "model").write_text("mine")
    said = []
    with pytest.raises(InputError, match="model: is a file; expected a directory"):
        train_directory(water_dimer(80), PLAN, tmp_path / "model", said.append)
    assert not said
