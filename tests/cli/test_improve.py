"""``deltaserver improve`` and ``calibrate`` on the command line."""

from __future__ import annotations

import pytest

from deltaserver.cli.app import main
from deltaserver.datasets.files import write_frames
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.model_directory import train_directory
from tests.training.labelled import water_dimer


def test_nothing_there_is_one_line(capsys, tmp_path):
    code = main(
        ["improve", str(tmp_path / "m"), "--dataset", str(tmp_path / "d"), "--calculator", "EMT",
         "--temperature", "300", "--until-force-mae", "1", "--output", str(tmp_path / "o")]
    )  # fmt: skip
    assert code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "no such file; expected a model directory" in said


@pytest.mark.parametrize("missing", ["--dataset", "--calculator", "--until-force-mae"])
def test_what_must_be_given(capsys, tmp_path, missing):
    given = {"--dataset": "d", "--calculator": "EMT", "--temperature": "300",
             "--until-force-mae": "1", "--output": str(tmp_path / "o")}  # fmt: skip
    del given[missing]
    words = [word for pair in given.items() for word in pair]
    assert main(["improve", "m", *words]) == 2
    assert missing in capsys.readouterr().err


def test_calibrate(capsys, tmp_path):
    frames = water_dimer(160)
    write_frames(frames, tmp_path / "data", {})
    plan = TrainingPlan(n_train=20, n_valid=24, sigmas=(8.0,), component="left")
    train_directory(frames, plan, tmp_path / "models")
    plan = TrainingPlan(n_train=20, n_valid=24, sigmas=(8.0,), component="binding")
    train_directory(frames, plan, tmp_path / "models")
    words = ["calibrate", str(tmp_path / "models"), "--dataset", str(tmp_path / "data")]
    assert main(words) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["left", "binding"]
    assert main([*words, "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_what_cannot_be_calibrated_is_no_success(capsys, tmp_path):
    frames = water_dimer(80)
    write_frames(frames, tmp_path / "data", {})
    for part in ("left", "binding"):
        plan = TrainingPlan(n_train=12, n_valid=5, sigmas=(8.0,), component=part)
        train_directory(frames, plan, tmp_path / "models")
    words = ["calibrate", str(tmp_path / "models"), "--dataset", str(tmp_path / "data")]
    assert main([*words, "--quiet"]) == 2
    assert "nothing was calibrated" in capsys.readouterr().err
