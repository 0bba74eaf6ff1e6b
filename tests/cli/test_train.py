from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from deltaserver import CompositeModel
from deltaserver.cli import train
from deltaserver.datasets.files import write_frames
from deltaserver.errors import DataError
from tests.training.labelled import water_dimer

pytest.importorskip("networkx")
ROOT = Path(__file__).parents[2]

SLOWLY = """
import os, sys, time
from deltaserver.training import sigmas
from deltaserver.cli.train import train
train_one = sigmas.train_one
delays = [float(seconds) for seconds in os.environ["DELAYS"].split(",")]
def slow(*arguments):
    result = train_one(*arguments)
    time.sleep(delays.pop(0) if delays else 0.0)
    return result
sigmas.train_one = slow
train.main(sys.argv[2:], standalone_mode=False)
"""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data") / "water_dimer"
    write_frames(water_dimer(80), directory, {"made": "for this test"})
    return directory


@pytest.fixture
def run():
    def invoke(*arguments):
        return CliRunner().invoke(train.train, [*map(str, arguments)])

    return invoke


OPTIONS = ("--n-train", 12, "--n-valid", 10, "--threads", 1)


def test_from_a_dataset_to_a_served_model(run, dataset, tmp_path):
    output = tmp_path / "model"
    result = run(dataset, "--output", output, *OPTIONS, "--sigma", "4,8", "--max-memory", "2GB")
    assert result.exit_code == 0, result.output
    assert "binding: 12 points, 8 permutations" in result.output
    assert result.output.rstrip().endswith(f"written: {output}")
    assert CompositeModel.load(output).n_atoms == 6


def test_what_is_missing_of_a_directory_to_be_served_is_told(run, dataset, tmp_path):
    result = run(dataset, "-o", tmp_path, *OPTIONS, "--component", "binding", "--sigma", 8)
    assert "not to be served yet: lacks left; train with --component NAME too" in result.output
    assert not (tmp_path / "model.yaml").exists()


def test_quiet_says_nothing(run, dataset, tmp_path):
    result = run(dataset, "-o", tmp_path, *OPTIONS, "--component", "left", "--sigma", 8, "--quiet")
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sigma", "ten"], "expected auto, or numbers such as 10,20,40"),
        (["--sigma", "-1"], "expected positive numbers"),
        (["--hold-out", "a"], "expected numbers such as 3,4"),
        (["--device", "abacus"], "abacus"),
        (["--n-train", "-1"], "-1"),
    ],
)
def test_bad_options_are_refused(run, dataset, tmp_path, arguments, message):
    result = run(dataset, "-o", tmp_path, *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_bad_input_is_one_line(run, dataset, tmp_path):
    result = run(tmp_path / "none", "-o", tmp_path)
    assert isinstance(result.exception, DataError)
    result = run(dataset, "-o", tmp_path, "--max-memory", "much")
    assert result.exit_code == 2
    assert "'--max-memory': 'much' is no size" in result.output
    result = run(dataset, "-o", tmp_path, "--max-memory", "18")
    assert "'--max-memory': '18' are 18 bytes; give it with its unit: 18GB" in result.output
    result = run(dataset, "-o", tmp_path / "x", "--n-train", 40, "--max-memory", "401MB")
    assert "points fit" in str(result.exception)
    assert "\n" not in str(result.exception)


def test_kill_9_and_again_gives_the_same(dataset, tmp_path):
    def start(output, delays):
        return subprocess.Popen(
            [sys.executable, "-c", SLOWLY, "train", dataset, "-o", output, "--component", "binding",
             "--sigma", "4,8,16", *map(str, OPTIONS)],
            cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT), "DELAYS": delays},
        )  # fmt: skip

    reference, output = tmp_path / "reference", tmp_path / "killed"
    whole = start(reference, "0")
    process = start(output, "600")
    first = output / ".training" / "binding"
    deadline = time.monotonic() + 240
    while not (first / "request.json").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)  # before the first candidate is written
    process.wait()
    process = start(output, "0,600")
    while not list(first.glob("sigma-*.npz")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)  # after it, before the last
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in first.glob("sigma-*.npz")}
    assert 0 < len(finished) < 3
    snapshot = {path: path.read_bytes() for path in finished}
    process = start(output, "0,600")  # stands still again: at its end it takes them away
    while len(list(first.glob("sigma-*.npz"))) == len(finished) and process.poll() is None:
        time.sleep(0.02)
    assert all(path.read_bytes() == content for path, content in snapshot.items())
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert start(output, "0").wait(240) == 0
    assert whole.wait(240) == 0
    with np.load(reference / "binding.npz") as one, np.load(output / "binding.npz") as other:
        assert set(one.files) == set(other.files)
        for key in set(one.files) - {"deltaserver"}:  # which holds timings
            np.testing.assert_array_equal(one[key], other[key])


def test_the_terminal_draws_a_bar(monkeypatch, capsys):
    terminal = train.Terminal(quiet=False)
    terminal.live = True
    terminal.progress("assembling", 0.5)
    terminal.say("done")
    captured = capsys.readouterr()
    assert "assembling [###############               ]  50 %" in captured.err
    assert captured.out == "done\n"
