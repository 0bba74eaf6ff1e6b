"""How much the parts of a merged dataset count in an expansion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deltaserver.cli import app
from deltaserver.datasets.files import write_frames
from deltaserver.datasets.workflow import merge
from deltaserver.errors import DataError
from deltaserver.model.files.archive import read_arrays
from deltaserver.training import model_directory
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.linear.frame_weights import FrameWeights
from deltaserver.training.model_directory import train_directory
from tests.training.labelled import water_dimer

PLAN = TrainingPlan(
    n_train=15, n_valid=10, sigmas=(5.0,), component="binding", linear="distances", symmetry="none"
)


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """Return a dataset merged of two parts, of 60 and 40 frames, the second wrong on purpose."""
    where, frames = tmp_path_factory.mktemp("parts"), water_dimer(100)
    first, second = frames.select(np.arange(60)), frames.select(np.arange(60, 100))
    wrong = replace(second, energy=second.energy + 0.3, forces=1.5 * second.forces)
    for name, part in (("well", first), ("wall", wrong)):
        write_frames(replace(part, name=name), where / name, {})
    return where / "all", merge([where / "well", where / "wall"], where / "all", "all", None)


def test_trajectories_count_as_the_dataset_that_they_are_of(merged):
    path, frames = merged
    weights = FrameWeights.read(path, {"wall": 0.25})
    assert weights.of(frames.trajectory).tolist() == [1.0] * 60 + [0.25] * 40
    assert str(weights) == "wall counts 0.25"


def test_what_was_not_merged_has_no_weight(merged, tmp_path):
    path, frames = merged
    with pytest.raises(DataError, match="not merged of 'walls'; expected one of well, wall"):
        FrameWeights.read(path, {"walls": 2.0})
    write_frames(frames, tmp_path / "plain", {})
    with pytest.raises(DataError, match=r"plain/dataset\.yaml: not merged of datasets"):
        FrameWeights.read(tmp_path / "plain", {"wall": 2.0})


@pytest.mark.parametrize("linear", ["distances", "products"])
def test_frames_that_count_for_nothing_do_not_spoil_an_expansion(merged, tmp_path, linear):
    path, frames = merged
    plan = replace(PLAN, linear=linear)
    ignoring = replace(plan, frame_weights=FrameWeights.read(path, {"wall": 0.0}))
    errors = []
    for k, one in enumerate((plan, ignoring)):
        report = train_directory(frames, one, tmp_path / str(k))["binding"]
        with np.load(tmp_path / str(k) / "binding.npz") as file:
            valid = file["idxs_valid"]
        errors.append(report["valid_force_mae_kcal_mol_ang"])
        assert set(valid) <= set(range(100))
    assert errors[0] != errors[1]
    assert "wall counts 0" in report["linear"]


def test_the_command_names_them(merged, tmp_path, capsys):
    path, _ = merged
    words = ["train", str(path), "-o", str(tmp_path / "m"), "--linear", "products"]
    for text in ("wall", "wall=", "wall=x", "=2", "wall=-1", "wall=inf"):
        assert app.main([*words, "--frame-weights", text]) == 2
        assert "expected a dataset's name and a number from 0 on" in capsys.readouterr().err
    assert app.main([*words, "--frame-weights", "nothing=2"]) == 2
    assert "was not merged of 'nothing'" in capsys.readouterr().err


def test_an_expansion_fitted_to_something_else_is_not_taken_up(merged, tmp_path, monkeypatch):
    """A training is killed, and begun again with another prior: its labels are other ones."""
    _, frames = merged
    train = model_directory.train

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(model_directory, "train", killed)
    first = replace(PLAN, intra_weights=(0.1, 0.3))
    for output in ("again", "resumed"):
        with pytest.raises(KeyboardInterrupt):
            train_directory(frames, first, tmp_path / output)
    monkeypatch.setattr(model_directory, "train", train)
    other = replace(PLAN, prior="pairs", intra_weights=(0.3,))
    for output in ("again", "clean"):
        train_directory(frames, other, tmp_path / output)
    again, clean = (read_arrays(tmp_path / o / "binding.npz") for o in ("again", "clean"))
    np.testing.assert_array_equal(again["site_coefficients"], clean["site_coefficients"])
    fitted = []
    monkeypatch.setattr(model_directory, "write_arrays", lambda path, *_, **__: fitted.append(path))
    train_directory(frames, first, tmp_path / "resumed")
    assert fitted == []  # taken up, where it is the same
