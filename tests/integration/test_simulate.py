"""`deltaserver input` and `deltaserver simulate` with the real i-PI."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read

from deltaserver.cli import app
from deltaserver.simulate.ipi import process as ipi_process
from deltaserver.simulate.record import read_record
from tests import logs
from tests.builders import COMPLEX, geometry

from .conftest import DIMER, ROOT, TIMEOUT_S, start_daemon, start_ipi

METHANES = ROOT / "models" / "methane_dimer"
PBE0 = ROOT / "models" / "methane_dimer_pbe0"
SLUG = "methane_dimer_nvt"


def simulate(*arguments, code=0):
    words = ["simulate", "--quiet", *map(str, arguments)]
    assert app.main(words) == code


def start(*arguments) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "deltaserver", "simulate", "--quiet", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE)


def wait_for(path, step, process):
    """Wait until i-PI has written ``step`` into its properties."""
    deadline = time.monotonic() + TIMEOUT_S
    while not path.exists() or not (rows := table(path)) or rows[-1] < step:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


def table(path) -> list[int]:
    """The step of every whole line."""
    lines = path.read_text().split("\n")[:-1]
    return [int(float(line.split()[0])) for line in lines if not line.startswith("#")]


def steps_in_comments(path) -> list[int]:
    return [int(step) for step in re.findall(r"Step:\s+(\d+)", path.read_text())]


def logged(directory) -> list[dict]:
    lines = (directory / "deltaserver.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == "step"]


KINDS = {
    "nvt": ["--thermostat", "svr"],
    "nve": [],
    "pimd": ["--beads", "4"],
    "remd": ["--temperature", "120", "--swap-every", "1"],
    "mts": ["--inner-steps", "2"],
    "ramp": ["--temperature", "50"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_runs_to_its_end(tmp_path, kind):
    n_steps = 12
    options = ["--models", METHANES, "--kind", kind, "--temperature", 100, *KINDS[kind]]
    simulate(*options, "--steps", n_steps, "--positions-every", 2, "--directory", tmp_path)
    record = read_record(tmp_path)
    assert (record.status, record.step, record.kind) == ("finished", n_steps, kind)
    systems = {"remd": ["0_100K_", "1_120K_"]}.get(kind, [""])
    beads = range(4) if kind == "pimd" else range(1)
    stride = 2 if kind == "mts" else 4  # a frame every 2 fs, and steps of 1 and of 0.5 fs
    for system in systems:
        stem = f"{system}methane_dimer_{kind}"
        assert table(tmp_path / f"{stem}.out") == list(range(n_steps + 1))
        for bead in beads:
            frames = steps_in_comments(tmp_path / f"{stem}.pos_{bead}.xyz")
            assert frames == list(range(0, n_steps + 1, stride))
            for part in ("methane1", "methane2", "binding"):
                extras = steps_in_comments(tmp_path / f"{stem}.{part}_energy_ev_{bead}")
                assert extras == list(range(n_steps + 1))
    per_step = {"pimd": 4, "remd": 2, "mts": 3}.get(kind, 1)
    assert len(logged(tmp_path)) == pytest.approx(n_steps * per_step, abs=per_step)
    assert (tmp_path / "RESTART").exists()


def test_a_small_model_of_the_tests_and_its_structure(tmp_path, model_directory, capsys):
    Atoms(COMPLEX, geometry(7, 3)).write(tmp_path / "start.xyz")
    words = ["input", "--models", model_directory, "--kind", "nve", "--timestep", "0.001",
             "--structure", tmp_path / "start.xyz", "--steps", 5, "--address",
             f"small{os.getpid()}"]  # fmt: skip
    assert app.main([str(word) for word in words]) == 0
    (tmp_path / "input.xml").write_text(capsys.readouterr().out)
    daemon = start_daemon(
        model_directory, "--socket", f"unix:small{os.getpid()}", "--no-structure-check"
    )
    assert start_ipi(tmp_path, "input.xml").wait(TIMEOUT_S) == 0
    assert daemon.wait(20) == 0
    prefix = f"{model_directory.name}_nve"
    assert table(tmp_path / f"{prefix}.out") == list(range(6))
    first = read(tmp_path / f"{prefix}.pos_0.xyz", index=0)
    np.testing.assert_allclose(first.positions, geometry(7, 3), atol=1e-5)
    assert first.get_chemical_formula() == Atoms(COMPLEX).get_chemical_formula()


@pytest.mark.usefixtures("shipped_loaded_once")
def test_the_shipped_templates_are_what_the_command_writes(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for line in Path("ipi_inputs/render.sh").read_text().splitlines():
        if line.startswith("render "):
            _, model, kind, *options = shlex.split(line)
            output = tmp_path / f"{model}_{kind}.xml"
            words = ["input", "--models", f"models/{model}", "--kind", kind, "--output", output]
            assert app.main([*map(str, words), *options]) == 0
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    shipped = {path.name: path.read_text() for path in Path("ipi_inputs").glob("*.xml")}
    assert written == shipped


TEMPLATES = sorted(path.stem for path in (ROOT / "ipi_inputs").glob("*.xml"))


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[] if name in ("c60_mts", "benzene_dimer_pimd") else pytest.mark.slow)
    for name in TEMPLATES
])  # fmt: skip
def test_templates_run_as_they_are(tmp_path, name):
    """From the repository's root, as README says, in a daemon of its own; only shortened."""
    text = (ROOT / "ipi_inputs" / f"{name}.xml").read_text()
    text = re.sub(r"<total_steps>\d+", "<total_steps>6", text)
    address = f"t{os.getpid()}_{name}"
    text = text.replace("<address>delta", f"<address>{address}")
    (tmp_path / "input.xml").write_text(text)
    tails = ("_inner", "_outer") if name.endswith("mts") else ("",)
    sockets = [word for tail in tails for word in ("--socket", f"unix:{address}{tail}")]
    daemon = start_daemon(ROOT / "models" / name.rpartition("_")[0], *sockets)
    code = start_ipi(tmp_path, "input.xml").wait(TIMEOUT_S)
    assert code == 0, (tmp_path / "i-pi.log").read_text()[-2000:]
    assert daemon.wait(20) == 0
    assert len(list(tmp_path.glob("*.binding_energy_ev_*"))) >= 1


@pytest.mark.usefixtures("one_format")
def test_a_run_killed_as_a_whole_is_resumed_without_gap_or_overlap(tmp_path):
    """kill -9 of simulate and of i-PI; what is there afterwards equals a run never killed."""
    options = ["--models", METHANES, "--kind", "nvt", "--temperature", 100, "--steps", 200,
               "--checkpoint-every", 20, "--positions-every", 2]  # fmt: skip
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    process = start(*options, "--directory", killed)
    wait_for(killed / f"{SLUG}.out", 50, process)
    (ipi,) = [event["pid"] for event in logs.events(killed / "deltaserver.jsonl", "i-pi")]
    process.kill()
    os.kill(ipi, signal.SIGKILL)
    process.wait()
    assert read_record(killed).status == "running"
    simulate("--resume", "--directory", killed)
    simulate(*options, "--directory", straight)
    record = read_record(killed)
    assert (record.status, record.step) == ("finished", 200)
    (restart,) = record.restarts
    assert restart.step % 20 == 0
    assert 40 <= restart.step < 200
    assert table(killed / f"{SLUG}.out") == list(range(201))
    assert steps_in_comments(killed / f"{SLUG}.pos_0.xyz") == list(range(0, 201, 4))
    assert steps_in_comments(killed / f"{SLUG}.binding_energy_ev_0") == list(range(201))
    assert [step["seq"] for step in logged(killed)] == list(range(201))
    assert app.main(["analyze", str(killed), "--output", str(tmp_path / "found"), "--quiet"]) == 0
    (found,) = json.loads((tmp_path / "found" / "summary.json").read_text())["runs"]
    assert found["frames"] == 51
    # i-PI prints 9 digits, and its state holds as many: a resumed path is not the same to the bit.
    for column in (2, 4):
        values = [np.loadtxt(d / f"{SLUG}.out")[:, column] for d in (killed, straight)]
        np.testing.assert_allclose(values[0], values[1], rtol=1e-6)


def test_a_stopped_run_says_so_and_goes_on(tmp_path):
    options = ["--models", METHANES, "--kind", "nvt", "--steps", 5000, "--directory", tmp_path]
    process = start(*options)
    wait_for(tmp_path / f"{SLUG}.out", 20, process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(TIMEOUT_S) == 130
    record = read_record(tmp_path)
    assert record.status == "stopped"
    assert record.step >= 20
    assert record.reason == "stopped by a signal"
    with process.stderr as said:
        assert (
            said.read()
            .decode()
            .strip()
            .endswith(
                f"interrupted at step {record.step}; continue with: deltaserver simulate --resume "
                f"--directory {tmp_path}"
            )
        )
    more = record.step + 20
    simulate("--resume", "--steps", more, "--directory", tmp_path)
    assert read_record(tmp_path).status == "finished"
    assert table(tmp_path / f"{SLUG}.out") == list(range(0, more + 1, 10))
    simulate("--resume", "--steps", more, "--directory", tmp_path)  # nothing to do


def test_a_run_is_continued_with_its_own_models_alone(tmp_path, capsys):
    """Those of another method know the same atoms: only the energy would tell."""
    own, run = tmp_path / "models", ["--resume", "--directory", tmp_path / "run", "--steps"]
    shutil.copytree(METHANES, own)
    simulate("--models", own, "--kind", "nvt", "--temperature", 100, *run[1:], 4)
    record = (tmp_path / "run" / "run.json").read_bytes()
    capsys.readouterr()
    simulate("--models", PBE0, *run, 8, code=2)
    assert f"was begun with other models than {PBE0} holds now" in capsys.readouterr().err
    simulate("--component", "binding", *run, 8, code=2)
    assert "was begun with component total, not binding" in capsys.readouterr().err
    own.rename(tmp_path / "moved")
    shutil.copytree(PBE0, own)
    simulate(*run, 8, code=2)
    assert f"was begun with other models than {own} holds now" in capsys.readouterr().err
    assert (tmp_path / "run" / "run.json").read_bytes() == record
    simulate("--models", tmp_path / "moved", *run, 8)
    old = json.loads((tmp_path / "run" / "run.json").read_text())
    del old["fingerprint"]  # as earlier versions wrote it
    (tmp_path / "run" / "run.json").write_text(json.dumps(old))
    simulate("--models", PBE0, *run, 12, code=2)
    assert "was begun with models" in capsys.readouterr().err
    simulate(*run, 12)
    assert table(tmp_path / "run" / "models_nvt.out") == list(range(13))


def test_a_resume_that_fails_leaves_the_record_as_it_was(tmp_path, monkeypatch, capsys):
    run = tmp_path / "run"
    simulate("--models", METHANES, "--kind", "nvt", "--steps", 4, "--directory", run)
    record = (run / "run.json").read_bytes()
    stopped = json.loads(record) | {"status": "stopped", "reason": "stopped by a signal"}
    (run / "run.json").write_text(json.dumps(stopped))
    simulate("--resume", "--steps", 3, "--directory", run, code=2)  # 3 more, as some would have it
    assert "is at step 4 already, beyond the 3" in capsys.readouterr().err
    assert json.loads((run / "run.json").read_text()) == stopped
    (run / "run.json").write_bytes(record)
    with monkeypatch.context() as patch:  # i-PI ends at once
        patch.setattr(
            ipi_process, "_find_ipi", lambda: [sys.executable, "-c", "raise SystemExit(1)"]
        )
        simulate("--resume", "--steps", 8, "--storage", "single", "--directory", run, code=3)
    assert (run / "run.json").read_bytes() == record
    simulate("--resume", "--steps", 8, "--directory", run)
    assert (read_record(run).status, read_record(run).storage) == ("finished", "auto")


def test_a_start_structure_that_would_end_the_run_is_told_with_what_to_do(tmp_path, capsys):
    atoms = read(METHANES / "structure.xyz")
    atoms.positions[5:, 2] += 30.0
    atoms.write(tmp_path / "apart.xyz")
    simulate("--models", METHANES, "--kind", "nvt", "--steps", 4, "--structure",
             tmp_path / "apart.xyz", "--no-structure-check", "--directory", tmp_path / "run",
             code=4)  # fmt: skip
    said = capsys.readouterr().err
    assert "run: the run would end with its start structure: fragment methane1 is " in said
    assert "a larger --max-separation" in said


def test_a_sweep_goes_on_past_a_run_that_blows_up(tmp_path, capsys):
    options = ["--models", DIMER, "--kind", "nvt", "--temperature", 100, "--temperature", 30_000,
               "--steps", 60, "--timestep", 1.0, "--directory", tmp_path, "--jobs", 2]  # fmt: skip
    simulate(*options, code=4)
    assert capsys.readouterr().err == "deltaserver: blown up: 30000K\n"
    cold, hot = read_record(tmp_path / "100K"), read_record(tmp_path / "30000K")
    assert (cold.status, cold.step, cold.temperatures_k) == ("finished", 60, (100.0,))
    assert hot.status == "blown up"
    assert hot.step < 60
    assert cold.seed != hot.seed  # equal noise would correlate the runs
    frame = read(tmp_path / "30000K" / hot.frame)
    assert len(frame) == 24
    assert frame.info["reason"] == hot.reason
    before = (tmp_path / "100K" / "i-pi.log").stat().st_mtime
    simulate(*options, "--resume", code=4)  # both are over: nothing is run again
    assert (tmp_path / "100K" / "i-pi.log").stat().st_mtime == before


def test_a_time_step_too_large_is_stopped_with_its_frame(tmp_path, capsys):
    simulate("--models", DIMER, "--kind", "nve", "--temperature", 300, "--timestep", 5.0,
             "--steps", 300, "--directory", tmp_path, code=4)  # fmt: skip
    line = capsys.readouterr().err
    assert re.search(r"blown up after step \d+: .*; the structure is in .*blow_up.xyz", line)
    assert "; a time step of 5 fs is long for hydrogens; 0.5 fs is safe;" in line
    record = read_record(tmp_path)
    assert (record.status, record.frame) == ("blown up", "blow_up.xyz")
    simulate("--resume", "--directory", tmp_path, code=2)
    assert "this run has blown up" in capsys.readouterr().err
