"""Training again: the same options, the old points and the new frames."""

from dataclasses import replace

import numpy as np
import pytest

from deltaserver.datasets.files import read_dataset, write_frames
from deltaserver.datasets.workflow import merge
from deltaserver.errors import DataError
from deltaserver.improve import learner
from deltaserver.improve.retrain import (
    joined,
    plan_of,
    plans_of,
    retrain,
    trained_parts,
    write_symmetry,
)
from deltaserver.model.files.parameters import read_parameters
from deltaserver.training.directory.files import read_report
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.linear.frame_weights import FrameWeights
from deltaserver.training.model_directory import train_directory
from tests.training.labelled import water_and_ion, water_dimer


def test_frames_are_joined_behind_the_datasets_own():
    base, more = water_dimer(40), water_dimer(6, seed=3)
    frames = joined(base, [more, more.select(slice(0, 2))])
    assert len(frames) == 48
    assert frames.trajectory[40:].tolist() == [2] * 6 + [3] * 2
    assert frames.step[40:].tolist() == [0, 1, 2, 3, 4, 5, 0, 1]
    np.testing.assert_array_equal(frames.forces[40:46], more.forces)
    assert len(joined(base, [])) == 40


def test_plans_say_what_the_first_training_was_told(first):
    frames = water_dimer(160)
    left, binding = trained_parts(first / "models", frames)
    plan = plan_of(first / "models", first / "models", left, 5, 2)
    assert (plan.n_train, plan.n_valid) == (20 + 2 * 5, 24)  # both waters of each frame
    assert (plan.sigmas, plan.threads) == ((8.0,), 2)
    assert plan_of(first / "models", first / "models", binding, 5, 1).n_train == 25
    assert (plan.train_fraction, plan.held_out_trajectories) == (0.8, ())
    assert (plan.prior, plan.linear, plan.solver) == ("none", "none", "auto")


def test_a_prior_weights_and_a_hold_out_are_taken_over(tmp_path):
    frames = water_dimer(160, n_trajectories=3)
    told = TrainingPlan(
        n_train=20, n_valid=20, sigmas=(8.0,), component="binding", symmetry="none",
        prior="pairs", intra_weights=(0.3,), lambdas=(1e-8,), held_out_trajectories=(2,),
        solver="iterative", tolerance=1e-4, train_fraction=0.9,
    )  # fmt: skip
    train_directory(frames, told, tmp_path)
    train_directory(frames, replace(told, component="left", prior="none"), tmp_path)
    binding = trained_parts(tmp_path, frames)[1]
    plan = plan_of(tmp_path, tmp_path, binding, 0, 1)
    for name in ("prior", "intra_weights", "lambdas", "held_out_trajectories", "solver",
                 "tolerance", "train_fraction", "n_train"):  # fmt: skip
        assert getattr(plan, name) == getattr(told, name), name
    path = write_symmetry(tmp_path, (binding,), tmp_path)
    with np.load(path) as arrays:
        assert arrays["binding"].tolist() == [[0, 1, 2, 3, 4, 5]]


def test_frames_count_as_in_the_first_training(tmp_path):
    """They all counted alike from the first round on, whatever --frame-weights had said."""
    frames = water_dimer(100)
    parts = {"well": frames.select(np.arange(60)), "wall-2": frames.select(np.arange(60, 100))}
    for name, part in parts.items():
        write_frames(replace(part, name=name), tmp_path / name, {})
    path = tmp_path / "all"
    frames = merge([tmp_path / name for name in parts], path, "all", None)
    told = TrainingPlan(
        n_train=15, n_valid=10, sigmas=(5.0,), component="binding", linear="distances",
        symmetry="none", frame_weights=FrameWeights.read(path, {"well": 2.0, "wall-2": 1e-3}),
    )  # fmt: skip
    train_directory(frames, told, tmp_path / "first")
    train_directory(frames, replace(told, component="left"), tmp_path / "first")
    first = tmp_path / "first"
    parts = trained_parts(first, frames)
    plans = plans_of(first, first, parts, 6, 1, path)
    symmetry = write_symmetry(first, parts, tmp_path)
    said, more = list[str](), joined(frames, [water_dimer(6, seed=3)])
    retrain(plans, tmp_path / "more", more, 6, symmetry, said.append)
    assert said
    assert not any("not to be served" in line for line in said)  # the other part follows
    report = read_report(tmp_path / "more")["components"]
    for part in parts:
        counts = report[part.name]["linear"].partition("frames, ")[2]
        assert counts == "well counts 2, wall-2 counts 0.001"


def test_models_of_unknown_training_are_refused(first, tmp_path):
    with pytest.raises(DataError, match="no record of how left, a part of water_dimer"):
        trained_parts(tmp_path, water_dimer(40))
    with pytest.raises(DataError, match="no record of how water, a part of water_sodium"):
        trained_parts(first / "models", water_and_ion())


def test_the_models_permutations_are_written(first, tmp_path):
    parts = trained_parts(first / "models", water_dimer(160))
    path = write_symmetry(first / "models", parts, tmp_path)
    with np.load(path) as arrays:
        for part in parts:
            known = read_parameters(first / "models" / f"{part.name}.npz").perms
            np.testing.assert_array_equal(arrays[part.name], known)


def test_the_dataset_of_a_round_tells_what_it_was_merged_of(settings, tmp_path, monkeypatch):
    """Models that were trained with --frame-weights can be improved again, from where it ended."""
    merged = [{"dataset": "well", "trajectories": {"0": 0, "1": 1}}]
    write_frames(read_dataset(settings.dataset), tmp_path / "data", {"merged": merged})
    taught = learner.Learner(replace(settings, dataset=tmp_path / "data"))
    monkeypatch.setattr(learner, "retrain", lambda *_: None)
    taught.train_on([water_dimer(6, seed=3)], 1)
    weights = FrameWeights.read(settings.output / "dataset", {"well": 2.0})
    assert weights.of(np.array([0, 1, 2])).tolist() == [2.0, 2.0, 1.0]
