"""The tutorial, docs/guide.md: what it shows of a first run happens, with fewer steps."""

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
