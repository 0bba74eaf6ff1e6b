"""A run that leaves what its model knows: taught, and gone on, with the real i-PI; and kills."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from deltaserver import CompositeModel
from deltaserver.cli.app import main
from deltaserver.errors import DataError, EndedEarlyError, NoveltyError
from deltaserver.improve import production
from deltaserver.improve.doubt import Doubt
from deltaserver.improve.dynamics import Limits
from deltaserver.improve.production import AT_ONCE, PATIENCE, Production
from deltaserver.improve.settings import Dynamics, round_paths
from deltaserver.model.files.archive import read_arrays
from deltaserver.serve.guard import ServingGuard
from deltaserver.serve.settings import GuardSettings
from deltaserver.serve.watchers.watch import Watch
from deltaserver.simulate.record import read_record
from tests.improve.conftest import CALCULATOR
from tests.improve.killing import labels_of, progress
from tests.integration.conftest import ROOT, start_daemon, start_ipi
from tests.serve.watchers.test_watch import Noting
from tests.training.labelled import water_dimer

LIMIT = 0.55  # of the novelty, which a run at 300 K meets within some fifty steps
STEPS = 120


def words(first, directory, *more):
    return [
        "simulate", "--quiet", "--models", str(first / "models"), "--kind", "nvt",
        "--temperature", "300", "--steps", str(STEPS), "--directory", str(directory),
        "--on-extrapolation", "label", "--novelty-limit", str(LIMIT),
        "--dataset", str(first / "data"), "--calculator", CALCULATOR,
        "--labels-per-stop", "4", *more,
    ]  # fmt: skip


def steps_of(directory):
    lines = (directory / "models_nvt.out").read_text().splitlines()
    return [int(float(line.split()[0])) for line in lines if not line.startswith("#")]


@pytest.fixture(scope="module")
def taught(first, tmp_path_factory):
    """A run at 300 K that has been taught on the way; and what the models were before."""
    directory = tmp_path_factory.mktemp("taught") / "run"
    before = {path: path.read_bytes() for path in (first / "models").iterdir()}
    assert main(words(first, directory)) == 0
    assert {path: path.read_bytes() for path in (first / "models").iterdir()} == before
    return directory


@pytest.mark.ipi
def test_the_run_has_all_its_steps_once(taught):
    record = read_record(taught)
    assert record.status == "finished"
    assert len(record.restarts) >= 1
    assert steps_of(taught) == list(range(STEPS + 1))
    log = [json.loads(line) for line in (taught / "deltaserver.jsonl").read_text().splitlines()]
    assert [r["seq"] for r in log if r["event"] == "step"] == list(range(STEPS + 1))
    novelty = [max(r["novelty"].values()) for r in log if r["event"] == "step"]
    assert max(novelty) <= LIMIT  # nothing beyond was ever sent


@pytest.mark.ipi
def test_what_was_not_known_is_labelled_and_known_then(taught):
    labels_of(taught)  # none twice
    report = json.loads((taught / "learning" / "report.json").read_text())
    assert len(report["rounds"]) == len(read_record(taught).restarts)
    for record in report["rounds"]:
        paths = round_paths(taught / "learning", record["round"])
        unknown = read_arrays(paths.way)["positions"][-1]
        assert record["chosen"][0]["run"] == production.ON_THE_WAY
        assert len(record["chosen"]) == record["n_labelled"] == 4
        assert "above --novelty-limit" in record["reason"]
        for number, known in ((record["round"] - 1, False), (record["round"], True)):
            model = CompositeModel.load(round_paths(taught / "learning", number).models)
            look = Doubt(model)(unknown[None], model.evaluate(unknown[None]))
            assert (look.novelty[0] <= LIMIT) == known
    page = (taught / "learning" / "report.html").read_text()
    assert "the run itself" in page
    assert "http" not in page.replace("http-equiv", "")


@pytest.mark.ipi
def test_a_finished_run_is_left_alone_and_a_longer_one_remembers(taught, first, tmp_path, capsys):
    copy = shutil.copytree(taught, tmp_path / "run")
    assert main(["simulate", "--resume", "--directory", str(copy)]) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert main(words(first, copy)) == 2
    assert "is of an earlier run; continue that with --resume" in capsys.readouterr().err
    n_before = len(read_record(copy).restarts)
    more = ["simulate", "--resume", "--quiet", "--directory", str(copy), "--steps", "130"]
    assert main(more) == 0
    assert steps_of(copy) == list(range(131))
    loaded = [line for line in (copy / "deltaserver.jsonl").open() if '"loaded"' in line]
    assert f"round-{n_before:02d}" in loaded[n_before + 1]  # with what it was taught


@pytest.fixture
def teacher(settings):
    """Make what teaches runs at 300 K, each time anew."""

    def make(**options):
        plan = Dynamics((300.0,), runs=2, steps=40)
        some = {"dynamics": plan, "labels_per_round": 3}
        return Production(type(settings)(**{**vars(settings), **some}), Limits(LIMIT, np.inf, 0.0),
                          **options)  # fmt: skip

    return make


def way(n=30):
    """Structures that end at one with the molecules 0.5 Å nearer to each other."""
    x = water_dimer(60, seed=9).positions[:n].copy()
    x[-1, 3:, 0] -= 0.5
    return x


def test_what_a_kill_has_interrupted_is_taken_up(teacher, settings, monkeypatch):
    """Killed where it trains, it labels nothing again and comes to the same model."""
    teacher().note(way(), "too new")

    def killed(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(production.Learner, "train_on", killed)
        with pytest.raises(KeyboardInterrupt):
            teacher().learn()
    labels = labels_of(settings.output)
    last = teacher().learn()
    assert last == round_paths(settings.output, 1).models
    assert labels_of(settings.output) == labels
    before = (last / "binding.npz").stat().st_mtime_ns
    assert teacher().learn() == last  # and nothing is done again
    assert (last / "binding.npz").stat().st_mtime_ns == before


def test_a_torn_structure_is_not_labelled(teacher, settings):
    torn = way()
    torn[-1, 1] += 9.0
    one = teacher()
    one.note(torn, "too new")
    one.learn()
    chosen = json.loads(round_paths(settings.output, 1).chosen.read_text())
    assert chosen["set_aside"] >= 1
    seen = read_arrays(round_paths(settings.output, 1).dynamics)["positions"]
    assert not any((seen[entry["place"]] == torn[-1]).all() for entry in chosen["chosen"])


def test_of_a_long_way_some_are_looked_at_each_by_its_own_step(teacher, settings, monkeypatch):
    monkeypatch.setattr(production, "MOST_OF_THE_WAY", 4)
    one = teacher()
    one.note(way(), "too new")
    one.learn()
    seen = read_arrays(round_paths(settings.output, 1).dynamics)
    ours = seen["run"] == production.ON_THE_WAY
    steps = seen["step"][ours]
    assert steps[0] == 1 - len(way())
    assert len(steps) == 4
    np.testing.assert_array_equal(seen["positions"][ours], way()[steps - 1])  # 0 is the last


def test_a_run_that_cannot_be_helped_is_ended(teacher, settings):
    """Three times in a row within a few structures, or when the labels are spent."""
    for number in range(1, PATIENCE):
        paths = round_paths(settings.output, number)
        paths.directory.mkdir(parents=True)
        np.savez(paths.way, positions=way(AT_ONCE), reason=np.array("too new"))
        paths.record.write_text(json.dumps({"n_labelled": 3}))
    spent = teacher(max_labels=6)
    spent.note(way(AT_ONCE + 1), "too new")
    with pytest.raises(EndedEarlyError, match="the budget of 6 labelled frames is spent"):
        spent.learn()
    stuck = teacher()
    stuck.note(way(AT_ONCE), "too new")
    with pytest.raises(EndedEarlyError, match="3 times in a row"):
        stuck.learn()


def test_no_more_is_labelled_than_may_be(teacher, settings):
    """The last round labelled as many as any other, whatever was left of the budget."""
    one = teacher(max_labels=8)  # three a round
    before, first, second = (round_paths(settings.output, k) for k in range(3))
    shutil.copytree(before.models, first.models)
    first.record.write_text(json.dumps({"n_labelled": 6}))
    one.note(way(AT_ONCE + 1), "too new")
    one._choose(second, 2)
    assert len(json.loads(second.chosen.read_text())["chosen"]) == 2


@pytest.mark.ipi
def test_a_daemon_goes_on_with_the_structure_that_i_pi_waits_for(taught, first, tmp_path):
    """i-PI runs on all the while: it gets the forces of the model that was taught them."""
    text = (taught / "input.xml").read_text()
    name = f"learns{os.getpid()}"
    start = text.index("<address>") + len("<address>")
    text = text[:start] + name + text[text.index("</address>") :]
    (tmp_path / "input.xml").write_text(text)
    ipi = start_ipi(tmp_path, "input.xml")
    log = tmp_path / "log.jsonl"
    daemon = start_daemon(
        first / "models", "--socket", f"unix:{name}", "--log-file", log,
        "--on-extrapolation", "label", "--novelty-limit", str(LIMIT), "--look-around", "300",
        "--dataset", first / "data", "--calculator", CALCULATOR, "--labels-per-stop", "4",
    )  # fmt: skip
    assert daemon.wait(240) == 0
    assert ipi.wait(60) == 0
    assert len(steps_of(tmp_path)) == STEPS + 1
    report = json.loads((tmp_path / "log_learning" / "report.json").read_text())
    assert len(report["rounds"]) >= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "d"], "only with --on-extrapolation label"),
        (["--on-extrapolation", "label", "--dataset", "d"], "needs --dataset"),
        (
            ["--on-extrapolation", "label", "--dataset", "d", "--calculator", "EMT",
             "--temperature", "100", "--temperature", "200"],
            "one run at a time",
        ),
        (
            ["--on-extrapolation", "label", "--dataset", "d", "--calculator", "EMT",
             "--temperature", "100", "--plugin"],
            "leave out --plugin",
        ),
    ],
)  # fmt: skip
def test_what_does_not_go_together(options, message, first, tmp_path, capsys):
    words = ["simulate", "--models", str(first / "models"), "--kind", "nvt", "--directory",
             str(tmp_path / "run"), *options]  # fmt: skip
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_a_daemon_must_be_told_a_temperature(first, tmp_path, capsys):
    words = ["--models", str(first / "models"), "--socket", "unix:nobody", "--log-file",
             str(tmp_path / "log.jsonl"), "--on-extrapolation", "label", "--dataset",
             str(first / "data"), "--calculator", CALCULATOR]  # fmt: skip
    assert main(words) == 2
    assert "the temperature is not known here" in capsys.readouterr().err


def test_the_way_ends_at_what_is_not_known(first, tmp_path):
    """Of a batch too: what stands behind it there is not on the way."""
    settings = GuardSettings(
        extrapolation="label", novelty_limit=LIMIT, frame_file=tmp_path / "frame.xyz"
    )
    model = CompositeModel.load(first / "models")
    guard, cell = ServingGuard(model, settings), np.eye(3)[None]
    trained = read_arrays(first / "models" / "binding.npz")["idxs_train"][:4]
    x = water_dimer(160).positions[trained]
    guard.after(x[:2], cell.repeat(2, axis=0), model.evaluate(x[:2]))
    batch = np.stack([x[2], way()[-1], x[3]])
    with pytest.raises(NoveltyError) as caught:
        guard.after(batch, cell.repeat(3, axis=0), model.evaluate(batch))
    np.testing.assert_array_equal(caught.value.way, [*x[:3], batch[1]])
    noting = Noting()
    with pytest.raises(NoveltyError), Watch([noting]):
        raise caught.value
    assert noting.conditions == ["learning"]


def test_an_error_without_a_way_is_passed_on():
    assert NoveltyError("too new").way is None


@pytest.mark.slow
@pytest.mark.ipi
def test_killed_at_random_moments_the_run_goes_on(first, tmp_path):
    """Ten kills −9 of everything: every step is there once, and no label twice."""
    directory, rng = tmp_path / "run", random.Random(3)
    command = [sys.executable, "-m", "deltaserver", *words(first, directory)]
    environment = {**os.environ, "SLOW": "0.02"}
    for _ in range(10):
        resume = ["--resume"] if directory.exists() else []
        process = subprocess.Popen([*command, *resume], cwd=ROOT, env=environment)
        before, wanted = progress(directory), rng.randint(1, 40)
        while process.poll() is None and progress(directory) < before + wanted:
            time.sleep(0.002)
        if process.poll() is None:
            time.sleep(rng.random())
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run([*command, "--resume"], cwd=ROOT, env=environment, check=False)
    assert done.returncode == 0
    assert steps_of(directory) == list(range(STEPS + 1))
    assert len(labels_of(directory)) > 0


def test_periodic_models_are_refused(settings, monkeypatch):
    monkeypatch.setattr(CompositeModel, "periodic", property(lambda model: True))
    with pytest.raises(DataError, match="periodic models cannot be taught"):
        Production(settings, Limits(LIMIT, np.inf, 0.0))
    assert not settings.output.exists()  # else the next attempt there would be refused


def test_models_of_many_molecules_are_refused(settings):
    many = replace(settings, models=ROOT / "models" / "benzenes")
    with pytest.raises(DataError, match=r"benzenes: models of many molecules .* cannot be taught"):
        Production(many, Limits(LIMIT, np.inf, 0.0))
    assert not settings.output.exists()
