"""ASE's SocketIOCalculator, a server that nobody here wrote, drives the daemon."""

from __future__ import annotations

import uuid

import numpy as np
import pytest
from ase.calculators.socketio import SocketIOCalculator
from ase.io import read
from ase.md.verlet import VelocityVerlet
from ase.units import fs

from deltaserver.ase import DeltaCalculator

from .conftest import DIMER, ROOT, start_daemon


@pytest.fixture
def name():
    return f"ase_{uuid.uuid4().hex}"  # ASE's server takes a name, not a path


@pytest.fixture
def dimer():
    return read(ROOT / "data" / "benzene_dimer_gfn2_150K.xyz.gz", index=3)


def test_socket_calculator_gives_what_our_calculator_gives(name, dimer):
    frames = [dimer.copy() for _ in range(5)]
    rng = np.random.default_rng(0)
    for frame in frames[1:]:
        frame.positions += rng.normal(scale=0.02, size=frame.positions.shape)
    daemon = start_daemon(DIMER, "--socket", f"unix:{name}")
    direct = DeltaCalculator(DIMER)
    with SocketIOCalculator(unixsocket=name) as calculator:
        for frame in frames:
            frame.calc = calculator
            energy, forces = frame.get_potential_energy(), frame.get_forces()
            frame.calc = direct
            # ASE's Hartree and Bohr are CODATA 2014, ours CODATA 2018: 1e-9 apart.
            assert energy == pytest.approx(frame.get_potential_energy(), rel=1e-8)
            np.testing.assert_allclose(forces, frame.get_forces(), rtol=1e-7, atol=1e-6)
    assert daemon.wait(20) == 0


def test_dynamics_through_the_socket(tmp_path, name, dimer):
    daemon = start_daemon(DIMER, "--socket", f"unix:{name}", "--log-file", tmp_path / "log")
    with SocketIOCalculator(unixsocket=name) as calculator:
        dimer.calc = calculator
        dynamics = VelocityVerlet(dimer, timestep=0.5 * fs)
        before = dimer.get_total_energy()
        dynamics.run(20)
        assert dimer.get_total_energy() == pytest.approx(before, abs=5e-3)
    assert daemon.wait(20) == 0
    assert (tmp_path / "log").read_text().count('"step"') == 21
