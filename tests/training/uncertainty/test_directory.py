"""The uncertainty in the files that a training writes, and in those that are there."""

from dataclasses import replace

import numpy as np
import pytest

from deltaserver import CompositeModel
from deltaserver.errors import DataError
from deltaserver.model.files.parameters import read_parameters
from deltaserver.model.trust.novelty import NoveltyMeasure
from deltaserver.model.trust.uncertainty import UncertaintyMeasure
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.model_directory import train_directory
from deltaserver.training.uncertainty.directory import calibrate_directory, spread_evenly
from tests.training.labelled import water_and_ion, water_dimer

PLAN = TrainingPlan(n_train=40, n_valid=40, sigmas=(8.0,), symmetry="fragment")
FRAMES = 300


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    output = tmp_path_factory.mktemp("trained") / "model"
    train_directory(water_dimer(FRAMES), PLAN, output)
    return output


def test_a_training_calibrates(trained):
    for name in ("left", "binding", "full"):
        assert read_parameters(trained / f"{name}.npz").uncertainty is not None


def test_models_that_are_there_are_calibrated_alike(trained, tmp_path):
    """Stripped of it and calibrated again, on a few frames more: the same forces, about as sure."""
    for path in trained.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    for name in ("left", "binding"):
        with np.load(tmp_path / f"{name}.npz") as arrays:
            kept = {key: arrays[key] for key in arrays if not key.startswith("uncertainty")}
        np.savez_compressed(tmp_path / f"{name}.npz", **kept)
    said = []
    names = calibrate_directory(tmp_path, water_dimer(FRAMES), said.append)
    assert names == ["left", "binding", "full"]
    assert said[0].startswith("left: u = ")
    models = [CompositeModel.load(d) for d in (trained, tmp_path)]
    assert models[0].fingerprint() == models[1].fingerprint()
    x = water_dimer(FRAMES).positions[-40:]
    parts = models[0].evaluate(x).contributions
    before, after = (UncertaintyMeasure(m, NoveltyMeasure(m))(x, parts) for m in models)
    for name in ("left", "binding"):
        assert np.median(after[name]) == pytest.approx(np.median(before[name]), rel=0.3)
    assert (tmp_path / "check.json").read_bytes() == (trained / "check.json").read_bytes()


def test_too_few_validation_frames_are_said_and_nothing_is_written(tmp_path):
    plan = replace(PLAN, n_train=12, n_valid=5, component="left")
    train_directory(water_dimer(80), plan, tmp_path)
    train_directory(water_dimer(80), replace(plan, component="binding"), tmp_path)
    before = (tmp_path / "left.npz").read_bytes()
    said = []
    assert calibrate_directory(tmp_path, water_dimer(80), said.append) == []
    assert said[0] == "left: too few validation frames or points to calibrate on"
    assert (tmp_path / "left.npz").read_bytes() == before


def test_another_molecules_dataset_is_refused(trained):
    with pytest.raises(DataError, match="its atoms are not those of water_sodium"):
        calibrate_directory(trained, water_and_ion())


def test_spread_evenly():
    assert spread_evenly(5, 10).tolist() == [0, 1, 2, 3, 4]
    assert spread_evenly(101, 3).tolist() == [0, 50, 100]
    assert spread_evenly(3, 10).tolist() == [0, 1, 2]
    assert spread_evenly(11, 3).tolist() == [0, 5, 10]
