"""Rounds on two waters: what is there afterwards, when they end, and after a kill."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from deltaserver import CompositeModel
from deltaserver.datasets.files import read_dataset
from deltaserver.errors import DataError, EndedEarlyError
from deltaserver.improve.settings import Dynamics, Stop, round_paths
from deltaserver.improve.workflow import ended, improve, labelled, labels_left
from deltaserver.model.files.archive import read_arrays
from deltaserver.training.warm_start import read_warm_start
from tests.improve.killing import assert_same, kill_at_random, labels_of
from tests.training.labelled import water_dimer

NEVER = Stop(1e-6, max_labels=8 + 2 * (6 + 8))  # the first test, and two rounds


def run(settings, stop=NEVER):
    with pytest.raises(EndedEarlyError, match="budget of 36 labelled frames is spent"):
        improve(settings, stop)
    return settings.output


@pytest.fixture(scope="module")
def done(first, tmp_path_factory):
    from tests.improve.conftest import CALCULATOR, DYNAMICS, Settings

    settings = Settings(
        first / "models", first / "data", CALCULATOR, tmp_path_factory.mktemp("done") / "out",
        DYNAMICS, labels_per_round=6, test_frames=8,
    )  # fmt: skip
    return run(settings)


def test_rounds_make_the_model_better_and_are_told(done):
    report = json.loads((done / "report.json").read_text())
    errors = [r["test"]["parts"]["total"]["force_mae_kcal_mol_ang"] for r in report["rounds"]]
    assert len(errors) == 3
    assert errors[2] < 0.9 * errors[0]
    assert [r["n_added"] for r in report["rounds"]] == [0, 6, 12]
    page = (done / "report.html").read_text()
    assert "Added in round 2" in page
    assert "http" not in page.replace("http-equiv", "")


def test_all_that_was_chosen_is_trained_on_and_no_test_frame_is(done):
    frames = read_dataset(done / "dataset", plausible=False)
    assert len(frames) == 160 + 12
    model = round_paths(done, 2).models / "binding.npz"
    from deltaserver.training.components import components, labelled_set

    binding = next(c for c in components(frames) if c.name == "binding")
    trained = read_warm_start(model, labelled_set(frames, binding)).entries
    assert set(range(160, 172)) <= set(trained.tolist())
    assert len(trained) == 20 + 12
    tests = [read_arrays(round_paths(done, k).test_dynamics)["positions"] for k in range(3)]
    for positions in tests:
        apart = np.abs(positions[:, None] - frames.positions[None, 160:]).max(axis=(2, 3))
        assert apart.min() > 1e-6


def test_the_last_model_is_calibrated_and_served(done):
    model = CompositeModel.load(round_paths(done, 2).models)
    assert all(m.parameters.uncertainty is not None for m in model.models)
    frames = water_dimer(160)
    error = np.abs(model.evaluate(frames.positions[-20:]).forces - frames.forces[-20:])
    assert error.mean() < 0.1 * np.abs(frames.forces).mean()


def test_what_is_done_is_not_done_again(done, settings):
    before = {p: p.stat().st_mtime_ns for p in done.rglob("*.npz")}
    run(replace(settings, output=done))
    assert {p: p.stat().st_mtime_ns for p in done.rglob("*.npz")} == before


def test_other_settings_are_refused(done, settings):
    with pytest.raises(DataError, match="was begun with seed 0, not 1"):
        improve(replace(settings, output=done, seed=1), NEVER)


def test_a_model_that_is_good_enough_is_left_as_it_is(settings):
    last = improve(settings, Stop(1e3))
    assert last == round_paths(settings.output, 0).models
    assert len(labels_of(settings.output)) == 3 * (1 + 8)


def test_another_method_is_refused(settings):
    wrong = replace(settings, calculator="ase.calculators.emt:EMT")
    with pytest.raises(DataError, match="use the method that labelled it"):
        improve(wrong, NEVER)


def test_random_frames_are_sure_ones(settings):
    output = run(replace(settings, selection="random"))
    chosen = json.loads(round_paths(output, 1).chosen.read_text())["chosen"]
    assert len(chosen) == 6
    assert all(entry["sure"] for entry in chosen)


def record(error, n=6, hours=0.1):
    total = {"force_mae_kcal_mol_ang": error}
    return {"test": {"parts": {"total": total}}, "chosen": [0] * n, "n_test": 8, "hours": hours}


def test_when_it_ends():
    records = [record(1.0, 0), record(0.5), record(0.495), record(0.6)]
    assert labelled(records) == 32 + 18
    assert labels_left(records, Stop(0.1, max_labels=60)) == 2
    assert ended(records, Stop(0.1)) == ""
    assert ended([*records, record(0.499)], Stop(0.1)) == "no progress in 3 rounds"
    assert ended(records, Stop(0.1, max_labels=58)) == "the budget of 58 labelled frames is spent"
    assert ended(records, Stop(0.1, max_hours=0.4)) == "the budget of 0.4 hours is spent"
    assert ended(records, Stop(0.1, max_rounds=4)) == ""  # the first is no round of training
    assert ended(records, Stop(0.1, max_rounds=3)) == "the budget of 3 rounds is spent"


COMMAND = [
    "improve", "--temperature", "150", "--temperature", "400", "--runs", "4", "--steps", "100",
    "--labels-per-round", "6", "--test-frames", "8", "--until-force-mae", "1e-6",
    "--max-labels", "36", "--quiet", "--calculator", "tests.improve.water_springs:WaterSprings",
]  # fmt: skip


def words(first):
    return [*COMMAND, first / "models", "--dataset", first / "data"]


def test_killed_at_random_moments_the_labels_are_the_same(done, first, tmp_path):
    kill_at_random(words(first), tmp_path / "out", 3, 1)
    assert_same(done, tmp_path / "out")


@pytest.mark.slow
def test_killed_ten_times_the_labels_are_the_same(done, first, tmp_path):
    kill_at_random(words(first), tmp_path / "out", 10, 2)
    assert_same(done, tmp_path / "out")


def test_two_processes_do_not_work_at_once(settings):
    import fcntl

    settings.output.mkdir()
    with (settings.output / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(DataError, match="another process is improving there"):
            improve(settings, NEVER)


def test_without_temperature_nothing_runs():
    from deltaserver.errors import InputError

    with pytest.raises(InputError, match="must be > 0 K"):
        Dynamics((0.0,))
