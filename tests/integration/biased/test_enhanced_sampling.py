"""The real i-PI with a bias: what it adds, what a kill leaves, and free energies that are known."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
from ase.io import read

from deltaserver.bias.hills_file import read_hills
from deltaserver.bias.potential import RunningBias
from deltaserver.bias.settings import Bias
from deltaserver.bias.terms import Hills
from deltaserver.cli import app
from deltaserver.simulate.ipi.input import read_input
from deltaserver.simulate.record import read_record
from deltaserver.simulate.request import read_request
from deltaserver.units import ANG3_PER_MOLAR, KB_EV_PER_K
from tests.integration.test_simulate import METHANES, simulate, start, table, wait_for
from tests.two_atoms import constant_ang3, free_energy_ev, write_pair

QUICK = ["--temperature", 120, "--timestep", 4, "--tau", 300, "--plugin"]
METAD = ["--kind", "metad", "--wall", 6, "--hill-every", 20, "--checkpoint-every", 50, *QUICK]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return write_pair(tmp_path_factory.mktemp("models") / "pair")


def columns(path):
    return np.loadtxt(path)


def test_a_window_is_pulled_to_its_place_and_told_apart_from_the_potential(tmp_path, pair):
    """Through the daemon's socket, from the start structure at 3.1 Å."""
    options = ["--windows", "4.1", "--spring", 1.5, "--pull-speed", 4, "--positions-every", 4]
    simulate("--models", pair, "--kind", "umbrella", *QUICK[:-1], *options, "--steps", 60,
             "--directory", tmp_path)  # fmt: skip
    run = tmp_path / "R_CM_4.1"
    bias = read_request(run / "request.json").recipe.bias
    assert bias.spring.start_ang == pytest.approx(3.1)
    assert bias.settled_at == 63  # 1 Å at 4 Å/ps, steps of 4 fs
    assert read_record(run).step == 63 + 60
    frames = read(run / "pair_umbrella.pos_0.xyz", index=":")
    rows = columns(run / "pair_umbrella.out")
    assert len(frames) == len(rows) == 124
    for frame, row in zip(frames[::10], rows[::10], strict=True):
        # Told after a step: the centre has moved on by then, and i-PI has been told.
        expected = RunningBias(bias, int(row[0])).evaluate(frame.positions).energy_ev
        assert row[6] == pytest.approx(expected, abs=2e-6)
    conserved = rows[:, 2]
    # i-PI keeps the force of before the centre moved for half a step: k Δc/2 along the way.
    assert np.ptp(conserved) < 1.5 * (1.5 * 0.016 / 2.0) * 1.0
    assert np.ptp(conserved[64:]) < 2e-3
    values = [np.linalg.norm(f.positions[1] - f.positions[0]) for f in frames[70:]]
    assert abs(np.mean(values) - 4.1) < 0.2
    assert read_input(run / "input.xml").conserved


def test_hills_survive_a_kill(tmp_path, pair):
    """Killed between checkpoints and resumed: every hill once, and V what i-PI had added."""
    slug = "pair_metad"
    process = start("--models", pair, *METAD, "--steps", 400, "--directory", tmp_path)
    wait_for(tmp_path / f"{slug}.out", 130, process)
    ipi = next(
        json.loads(line)["pid"]
        for line in (tmp_path / "deltaserver.jsonl").read_text().splitlines()
        if '"i-pi"' in line
    )
    os.kill(ipi, signal.SIGKILL)
    process.kill()
    process.wait()
    before = read_hills(tmp_path / "hills.csv")
    assert len(before) >= 6
    simulate("--resume", "--directory", tmp_path)
    record = read_record(tmp_path)
    assert (record.status, record.step, len(record.restarts)) == ("finished", 400, 1)
    resumed_at = record.restarts[0].step
    after = read_hills(tmp_path / "hills.csv")
    assert [hill.step for hill in after] == list(range(20, 401, 20))
    kept = resumed_at // 20
    assert kept >= 5
    assert after[:kept] == before[:kept]
    assert table(tmp_path / f"{slug}.out") == list(range(401))
    # The bias that i-PI tells of a step is the sum of the hills up to it.
    bias = Bias.parse(read_request_of(tmp_path))
    frames = read(tmp_path / f"{slug}.pos_0.xyz", index=":")
    rows = columns(tmp_path / f"{slug}.out")
    stride = 400 // (len(frames) - 1)
    for frame, row in zip(frames, rows[::stride], strict=True):
        n = sum(hill.step <= row[0] for hill in after)
        s = np.array([bias.coordinate.value(frame.positions)])
        expected = Hills(bias.growth.hill_width_ang, after).energy(s, n) + bias.fixed_energy(s)
        assert row[6] == pytest.approx(float(expected[0]), abs=2e-6)
    assert np.ptp(rows[:, 2]) < 2e-3


def read_request_of(directory):
    from deltaserver.bias.settings import split_parameters

    return split_parameters(json.loads((directory / "run.json").read_text())["bias"])


def test_other_hills_are_another_run(tmp_path, pair, capsys):
    simulate("--models", pair, *METAD, "--steps", 40, "--directory", tmp_path)
    words = ["--models", pair, *METAD, "--bias-factor", 5, "--steps", 60, "--resume"]
    simulate(*words, "--directory", tmp_path, code=2)
    assert "was begun with bias" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--kind", "metad"], "give --wall ANG"),
        (["--kind", "umbrella"], "needs --windows"),
        (["--kind", "umbrella", "--windows", "4"], "give --spring"),
        (["--kind", "nvt", "--windows", "4"], "only with --kind umbrella"),
        (["--kind", "nve", "--wall", "4"], "--wall: only with"),
        (["--kind", "metad", "--wall", "4", "--variable", "R_x"], "no variable 'R_x'"),
        (["--kind", "umbrella", "--windows", "5:3:1"], "is no LOW:HIGH:STEP"),
    ],
)
def test_what_does_not_go_together_is_told_at_once(tmp_path, pair, capsys, options, message):
    simulate("--models", pair, *options, "--directory", tmp_path / "run", code=2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_windows_in_i_pi_give_the_surface_of_the_formula(tmp_path, pair):
    pytest.importorskip("pymbar")
    options = ["--windows", "2.6:6.2:0.6", "--spring", 0.15, "--steps", 4000]
    options += ["--positions-every", 16, "--energies-every", 50, "--log-every", 1000]
    simulate("--models", pair, "--kind", "umbrella", *QUICK, *options, "--directory", tmp_path)
    words = ["analyze", "fes", tmp_path, "--bound", 4.2, "--outer", "5.5:6.3", "--bins", 25,
             "--energy-unit", "eV", "--quiet"]  # fmt: skip
    assert app.main([*map(str, words)]) == 0
    found = json.loads((tmp_path / "analysis" / "summary.json").read_text())["profiles"][0]
    table_path = next((tmp_path / "analysis" / "data").glob("umbrella_*/fes_R_CM.csv"))
    r, free, error = np.loadtxt(table_path, delimiter=",", skiprows=1).T
    known = np.isfinite(error) & (error > 0.0)
    off = (free - free_energy_ev(r, 120.0))[known]
    off -= np.average(off, weights=error[known] ** -2)
    assert np.sqrt(np.mean((off / error[known]) ** 2)) < 1.8
    kt = KB_EV_PER_K * 120.0
    expected = -kt * np.log(constant_ang3(4.2, (5.5, 6.3), 120.0) / ANG3_PER_MOLAR)
    binding = found["binding"]
    assert abs(binding["free_energy"] - expected) < 4.0 * binding["error"]


@pytest.mark.slow
def test_methane_binds_in_windows_as_it_does_in_free_runs(tmp_path):
    """The dimer at 100 K: ΔG° from an umbrella, and from a run that a wall alone contains."""
    pytest.importorskip("pymbar")
    common = ["--models", METHANES, "--temperature", 100, "--timestep", 1]
    common += ["--tau", 500, "--energies-every", 20, "--log-every", 1000, "--wall", 8, "--plugin"]
    simulate(*common, "--kind", "umbrella", "--windows", "3.4:7.8:0.4", "--steps", 30_000,
             "--directory", tmp_path / "windows")  # fmt: skip
    simulate(*common, "--kind", "nvt", "--steps", 400_000, "--directory", tmp_path / "free")
    found = []
    for name in ("windows", "free"):
        words = ["analyze", "fes", tmp_path / name, "--bound", 5.5, "--outer", "6.8:7.8", "--quiet"]
        assert app.main([*map(str, words)]) == 0
        summary = json.loads((tmp_path / name / "analysis" / "summary.json").read_text())
        found.append(summary["profiles"][0]["binding"])
    error = np.hypot(*(one["error"] for one in found))
    assert abs(found[0]["free_energy"] - found[1]["free_energy"]) < 4.0 * error
