"""Many molecules under the real i-PI: the crystal of benzene at constant pressure."""

from __future__ import annotations

import json

import numpy as np
import pytest

from deltaserver.cli import app
from deltaserver.textio.xyz_frames import read_frames
from tests.shipped import MODELS

pytestmark = pytest.mark.ipi


def test_the_crystal_at_constant_pressure(tmp_path):
    """One cell of four molecules, which meet their own images; wrapped atoms and all."""
    structure = MODELS / "benzenes" / "structure.xyz"
    cell = read_frames(structure, print, True)[0].cell
    models = str(tmp_path / "models")
    made = ["--structure", str(structure), "--periodic", "-o", models]
    assert app.main(["assemble", str(MODELS / "benzenes"), *made]) == 0
    run = tmp_path / "run"
    words = ["--kind", "npt", "--temperature", "100", "--steps", "3", "--directory", str(run)]
    assert app.main(["simulate", "--quiet", "--models", models, *words]) == 0
    table = np.loadtxt(next(run.glob("*.out")))
    assert len(table) == 4
    volume, pressure, density = table[:, -3:].T
    assert volume[0] == pytest.approx(np.linalg.det(cell), rel=1e-6)
    assert 0.0 < np.abs(np.diff(volume)).max() < 5.0
    assert density[0] == pytest.approx(4 * 78.11 * 1.66054 / volume[0], rel=1e-3)
    assert np.isfinite(pressure).all()
    assert np.ptp(table[:, 2]) < 0.02  # conserved, eV, of 48 atoms
    steps = [json.loads(line) for line in (run / "deltaserver.jsonl").open(encoding="utf-8")]
    step = next(line for line in steps if line["event"] == "step")
    assert set(step["fragments"]) == {"benzene"}
    assert {"prior", "binding", "triples"} <= set(step)
    assert set(step["novelty"]) == {"benzene", "binding"}
