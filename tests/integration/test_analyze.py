"""`deltaserver analyze` of what the real i-PI has written: killed, restarted, finished."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from deltaserver.analysis.read.directory import find_runs
from deltaserver.analysis.results import Options
from deltaserver.analysis.workflow import analyse
from deltaserver.serve.transport import DEFAULT_PREFIX

from .conftest import DIMER, ROOT, TIMEOUT_S, Setup, render, start_daemon, start_ipi

STEPS, CHECKPOINT, STRIDE = 110, 40, 2
OUTPUTS = (
    f'<trajectory stride="{STRIDE}" filename="pos">positions{{angstrom}}</trajectory>'
    f'<checkpoint stride="{CHECKPOINT}" filename="checkpoint"/></output>'
)


def run_ipi(directory, name, until=None):
    """Run i-PI and a daemon; end i-PI without mercy once step ``until`` is written."""
    address = f"analyze{abs(hash(str(directory / name))) % 10**9}"  # the killed one left a file
    path = directory / name
    path.write_text(re.sub(r"<address>.*?</address>", f"<address>{address}</address>",
                           path.read_text()))  # fmt: skip
    log = directory / "deltaserver.jsonl"
    daemon = start_daemon(DIMER, "--socket", f"unix:{address}", "--log-file", log)
    ipi = start_ipi(directory, name)
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while ipi.poll() is None and (until is None or last_step(directory) < until):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        if until is not None:
            ipi.kill()
        ipi.wait(TIMEOUT_S)
        daemon.wait(TIMEOUT_S)
    finally:
        for process in (ipi, daemon):
            process.kill()
            process.wait()
        # i-PI, killed, has left its socket.
        Path(f"{DEFAULT_PREFIX}{address}").unlink(missing_ok=True)


def last_step(directory):
    path = directory / "run.pos_0.xyz"
    steps = re.findall(r"Step:\s+(\d+)", path.read_text()) if path.exists() else []
    return int(steps[-1]) if steps else -1


@pytest.fixture(scope="module")
def restarted(tmp_path_factory):
    """A run killed past a checkpoint, then continued from it by i-PI, which appends."""
    directory = tmp_path_factory.mktemp("restarted")
    text = render(Setup(steps=STEPS), "x").replace("</output>", OUTPUTS)
    (directory / "input.xml").write_text(text)
    run_ipi(directory, "input.xml", until=CHECKPOINT + 7 * STRIDE)
    with (directory / "run.pos_0.xyz").open("ab") as file:
        file.write(b"24\n# CELL(abcABC): half a header")  # as a kill in the middle leaves it
    checkpoint = directory / "run.checkpoint"
    (directory / "RESTART").write_text(checkpoint.read_text())
    run_ipi(directory, "RESTART")
    return directory


def test_a_killed_and_restarted_run_is_joined_without_counting_twice(restarted):
    text = (restarted / "run.pos_0.xyz").read_text()
    written = [int(step) for step in re.findall(r"Step:\s+(\d+)", text)]
    assert len(written) > len(set(written))  # i-PI has written frames twice
    told = []
    (run,) = find_runs([restarted])
    analysis = analyse([run], Options(models=DIMER), note=told.append)
    (found,) = analysis.runs
    steps = found.surveyed.steps
    assert np.all(np.diff(steps) > 0)
    assert set(steps) == set(written)
    assert steps[-1] == STEPS
    assert found.surveyed.n_overwritten == len(written) - len(set(written))
    assert any("were written twice, before and after a restart" in line for line in told)
    assert any("left out" in line for line in told)
    assert (run.timestep_fs, run.temperature_k) == (0.5, 150.0)


def test_the_later_frames_count(restarted):
    frames = re.split(r"(?=24\n# CELL\(abcABC\):  )", (restarted / "run.pos_0.xyz").read_text())
    last = {}
    for frame in frames:
        step = re.search(r"Step:\s+(\d+)", frame)
        if step:
            last[int(step[1])] = "".join(frame.splitlines(keepends=True)[:26])
    (restarted / "last.xyz").write_text("".join(last[step] for step in sorted(last)))
    analysis = analyse(find_runs([restarted]), Options(models=DIMER), ("variables",))
    images = read(restarted / "last.xyz", ":", format="xyz")
    (restarted / "last.xyz").unlink()
    expected = [
        np.linalg.norm(a[:12].get_center_of_mass() - a[12:].get_center_of_mass()) for a in images
    ]
    assert analysis.runs[0].values_of("R_CM")[:, 0] == pytest.approx(expected, abs=1e-5)


def test_properties_and_the_log_fit(restarted):
    analysis = analyse(find_runs([restarted]), Options(models=DIMER), ("thermo", "contributions"))
    (found,) = analysis.runs
    rows = np.loadtxt(restarted / "run.out")
    assert len(rows) > STEPS + 1
    assert found.thermo.temperature_k[-1] == pytest.approx(rows[-1, 2])
    assert len(found.thermo.time_ps) == STEPS + 1
    assert found.thermo.temperature.expected_std_k == pytest.approx(150 * np.sqrt(2 / 69))
    assert set(found.contributions) == {"total", "benzene1", "benzene2", "prior", "binding"}
    assert not analysis.problems


@pytest.mark.usefixtures("one_format")
def test_all_of_it_from_the_command_line(restarted, tmp_path):
    from deltaserver.cli.app import main

    arguments = ["analyze", str(restarted), "--models", str(ROOT / "models" / "benzene_dimer")]
    assert main([*arguments, "--output", str(tmp_path), "--quiet"]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["runs"][0]["frames"] == 1 + STEPS // STRIDE
    assert summary["runs"][0]["msad"]["benzene2"]["frames"] == 1 + STEPS // STRIDE
    assert summary["problems"] == []
    assert (tmp_path / "report.html").is_file()
