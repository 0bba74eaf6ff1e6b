"""The examples of docs/engines.md run as they are written, on the engines that are installed.

``make test`` has i-PI and ASE; ``make test-cluster`` installs the others and runs these again.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ase.io import read

from deltaserver.ase import DeltaCalculator

ROOT = Path(__file__).parents[2]
DIMER = ROOT / "models" / "benzene_dimer"
SECTIONS = dict(
    re.findall(
        r"^## (.+?)\n(.*?)(?=^## |\Z)",
        (ROOT / "docs" / "engines.md").read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )
)
KJ_MOL_EV = 1e3 / 6.02214076e23 / 1.602176634e-19
TIMEOUT_S = 300


def python_of(section):
    return re.findall(r"```python\n(.*?)```", SECTIONS[section], re.DOTALL)


def commands_of(section):
    return re.findall(r"^    deltaserver (.*)$", SECTIONS[section], re.MULTILINE)


@pytest.fixture
def folder(tmp_path):
    """What the page has its reader make: a folder with the dimer's model in it."""
    shutil.copytree(DIMER, tmp_path / "benzene_dimer")
    return tmp_path


def environment():
    """Ours, with the library folder that the page names for LAMMPS."""
    return os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "LD_LIBRARY_PATH": str(Path(sys.prefix) / "lib"),
    }


def run(arguments, folder):
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def printed_energy(said):
    """The energy that an example prints last, eV; what LAMMPS says at its end has no decimals."""
    line = [line for line in said.splitlines() if re.search(r"\d\.\d{3}", line)][-1]
    number = float(re.search(r"-?\d+\.\d+", line)[0])
    return number * KJ_MOL_EV if "kJ/mol" in line else number


@pytest.mark.parametrize(
    ("section", "k", "module", "moved_ev"),
    [
        ("ASE", 0, "ase", 0.3),  # what relaxing it gains
        ("LAMMPS", 0, "lammps", 1.0),  # kinetic energy at 150 K: 0.45 eV
        ("torch-sim", 0, "torch_sim", 0.6),
        ("OpenMM", 0, "openmm", 0.6),
        ("OpenMM", 1, "openmmml", 1e-3),  # nothing moves
    ],
)
def test_the_python_of_an_engine_runs(section, k, module, moved_ev, folder):
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    (folder / "example.py").write_text(python_of(section)[k])
    atoms = read(DIMER / "structure.xyz")
    atoms.calc = DeltaCalculator(DIMER)
    found = printed_energy(run(["example.py"], folder))
    assert found == pytest.approx(atoms.get_potential_energy(), abs=moved_ev)


def test_ase_through_a_socket(folder):
    """Its socket's name is everybody's on this machine, so it gets one of its own."""
    name = f"ase_{os.getpid()}"
    (command,) = commands_of("ASE")
    (folder / "example.py").write_text(python_of("ASE")[1].replace('"ase"', f'"{name}"'))
    arguments = shlex.split(command.replace("unix:ase", f"unix:{name}"))
    daemon = subprocess.Popen(
        [sys.executable, "-m", "deltaserver", *arguments], cwd=folder, env=environment()
    )
    try:
        found = printed_energy(run(["example.py"], folder))
        assert daemon.wait(20) == 0
    finally:
        daemon.kill()
    atoms = read(DIMER / "structure.xyz")
    atoms.calc = DeltaCalculator(DIMER)
    assert found == pytest.approx(atoms.get_potential_energy(), abs=0.3)


def test_i_pi_by_a_socket_and_as_a_plug_in(folder):
    pytest.importorskip("ipi")
    commands = commands_of("i-PI")
    assert len(commands) == 2
    for command in commands:
        run(["-m", "deltaserver", *shlex.split(command)], folder)
    for name in ("socket", "plugin"):
        (out,) = (folder / name).glob("*.out")
        assert float(out.read_text().splitlines()[-1].split()[0]) == 100
