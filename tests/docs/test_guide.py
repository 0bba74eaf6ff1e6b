"""The tutorial, docs/guide.md: what it shows of a first run happens, with fewer steps.

Its last part, a model of one's own, is a script, whose commands are run with few frames.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deltaserver.cli.app import main

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
STEPS = 60
TIMEOUT_S = 1500


def commands_of(heading):
    """The ``deltaserver`` commands of a part of the guide, as words."""
    part = re.split(r"^## ", GUIDE.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.M)[0]
    blocks = "".join(re.findall(r"```sh\n(.*?)```", part, re.DOTALL)).replace("\\\n", "")
    lines = (line for line in blocks.splitlines() if line.startswith("deltaserver "))
    return [shlex.split(line)[1:] for line in lines]


@pytest.mark.ipi
def test_the_first_run(tmp_path, monkeypatch, capsys):
    """Where the guide is read, in a clone; its run has fewer steps, and a socket of its own."""
    pytest.importorskip("ipi")
    shutil.copytree(ROOT / "models" / "benzene_dimer", tmp_path / "models" / "benzene_dimer")
    (tmp_path / "ipi_inputs").mkdir()
    text = (ROOT / "ipi_inputs" / "benzene_dimer_nvt.xml").read_text(encoding="utf-8")
    assert "<total_steps>2000</total_steps>" in text  # as the guide's progress line says
    shorter = text.replace("<total_steps>2000<", f"<total_steps>{STEPS}<")
    shorter = shorter.replace("<address>delta<", f"<address>guide_{os.getpid()}<")
    (tmp_path / "ipi_inputs" / "benzene_dimer_nvt.xml").write_text(shorter, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    simulate, analyze = commands_of("2. First run")
    assert (simulate[0], analyze[:2]) == ("simulate", ["analyze", "contributions"])
    done = subprocess.run([sys.executable, "-m", "deltaserver", *simulate], check=False,
                          env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=TIMEOUT_S,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stderr
    run = tmp_path / "run" / "dimer"
    names = re.findall(r"^\| `([^*`]+)` \|", GUIDE.partition("In `run/dimer` you find")[2], re.M)
    assert {"deltaserver.jsonl", "i-pi.log", "input.xml", "RESTART"} <= set(names)
    assert [name for name in names[:4] if not (run / name).is_file()] == []
    for pattern in ("*.out", "*.pos_0.xyz", "*_energy_ev_0"):
        assert list(run.glob(pattern)), pattern
    assert main(analyze) == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    expected = re.findall(r"^    (\w+) +-?\d", GUIDE.partition("part         mean E")[2], re.M)[:6]
    assert shown == ["part", *expected, "figure:"]
    assert (run / "contributions.png").is_file()


@pytest.mark.slow
def test_a_model_of_one_s_own_from_two_molecules(tmp_path):
    """``docs/two_molecules.sh``, whole, with few frames; its model is checked."""
    for package in ("sgdml", "networkx"):
        pytest.importorskip(package)
    water = "3\n\nO 0 0 0.119\nH 0 0.763 -0.477\nH 0 -0.763 -0.477\n"
    ammonia = "4\n\nN 0 0 0.116\nH 0 0.94 -0.27\nH 0.814 -0.47 -0.27\nH -0.814 -0.47 -0.27\n"
    (tmp_path / "water.xyz").write_text(water)
    (tmp_path / "ammonia.xyz").write_text(ammonia)
    script = tmp_path / "bin" / "deltaserver"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m deltaserver "$@"\n')
    script.chmod(0o755)
    few = {"FRAMES": "60", "PLACES": "60", "N_TRAIN": "60", "PYTHONPATH": str(ROOT)}
    path = {"PATH": f"{script.parent}:{os.environ['PATH']}"}
    command = [ROOT / "docs" / "two_molecules.sh", "water.xyz", "ammonia.xyz", "mine"]
    subprocess.run(command, cwd=tmp_path, env=os.environ | few | path, check=True,
                   timeout=TIMEOUT_S)  # fmt: skip
    model = tmp_path / "run" / "mine" / "model"
    assert main(["check", "--models", str(model)]) == 0
    report = (tmp_path / "run" / "mine" / "evaluation" / "evaluation.md").read_text()
    delta = re.search(r"^\| force MAE +\| \S+ +\| [^|]+ \| ([\d.]+) ", report, re.MULTILINE)[1]
    assert float(delta) < 1.0  # kcal/mol/Å; the forces are some 20
