"""A first model of two waters, of few points, and the dataset that it was trained on."""

from __future__ import annotations

import pytest

from deltaserver.datasets.files import read_dataset, write_frames
from deltaserver.improve.settings import Dynamics, Settings
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.model_directory import train_directory
from tests.training.labelled import water_dimer

CALCULATOR = "tests.improve.water_springs:WaterSprings"
DYNAMICS = Dynamics((150.0, 400.0), runs=4, steps=100)


@pytest.fixture(scope="session")
def first(tmp_path_factory):
    """The directory with ``data`` and ``models``; read only."""
    directory = tmp_path_factory.mktemp("first")
    write_frames(water_dimer(160), directory / "data", {})
    plan = TrainingPlan(n_train=20, n_valid=24, sigmas=(8.0,), symmetry="fragment")
    frames = read_dataset(directory / "data")
    for name in ("left", "binding"):
        train_directory(
            frames, TrainingPlan(**{**vars(plan), "component": name}), directory / "models"
        )
    return directory


@pytest.fixture
def settings(first, tmp_path):
    return Settings(
        first / "models", first / "data", CALCULATOR, tmp_path / "out", DYNAMICS,
        labels_per_round=6, test_frames=8,
    )  # fmt: skip
