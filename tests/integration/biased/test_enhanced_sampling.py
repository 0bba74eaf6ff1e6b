"""The real i-PI with a bias: what it adds, what a kill leaves, and free energies that are known."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest
from ase import Atoms
from ase.io import read
from scipy.spatial.transform import Rotation

from deltaserver import CompositeModel
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


@pytest.mark.parametrize("splitting", [(), ("--inner-steps", 2)])
def test_a_window_is_pulled_to_its_place_and_told_apart_from_the_potential(
    tmp_path, pair, splitting
):
    """Through the daemon's sockets, from the start structure at 3.1 Å."""
    options = ["--windows", "4.1", "--spring", 1.5, "--pull-speed", 4, "--positions-every", 4]
    simulate("--models", pair, "--kind", "umbrella", *QUICK[:-1], *options, *splitting,
             "--steps", 60, "--directory", tmp_path)  # fmt: skip
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


def profile_of(directory, *words):
    """Return ``analyze fes``'s profile, and where F is known: R (Å), F and its error (eV)."""
    command = ["analyze", "fes", directory, *words, "--energy-unit", "eV", "--quiet"]
    assert app.main([*map(str, command)]) == 0
    summary = json.loads((directory / "analysis" / "summary.json").read_text())
    table_path = next((directory / "analysis" / "data").glob("*_*/fes_R_CM.csv"))
    r, free, error = np.loadtxt(table_path, delimiter=",", skiprows=1).T
    known = np.isfinite(error) & (error > 0.0)
    return summary["profiles"][0], r[known], free[known], error[known]


def differences(free_ev, expected_ev, error_ev):
    """Return by how much two free energies differ beside a constant: RMS in eV, and in errors."""
    off = free_ev - expected_ev
    off -= np.average(off, weights=error_ev**-2)
    return np.sqrt(np.mean(off**2)), np.sqrt(np.mean((off / error_ev) ** 2))


# The bounds below lie between what was found and what is found where the analysis takes the bias
# for half or twice as strong: RMS difference in kT; in standard errors; median error in kT.
#                     right               half               twice
# windows of the pair 0.21; 1.0; 0.18     0.33; 2.2; 0.14    0.42; 1.3; 0.32
# metadynamics        0.06; 0.7; 0.08     0.26; 1.1; 0.22    0.58; 3.9; 0.15
# windows of methane  0.23; 0.5; 0.48     0.40; 1.1; 0.37    0.77; 0.9; 0.99


@pytest.mark.slow
def test_windows_in_i_pi_give_the_surface_of_the_formula(tmp_path, pair):
    pytest.importorskip("pymbar")
    options = ["--windows", "2.6:6.2:0.6", "--spring", 0.15, "--steps", 4000]
    options += ["--positions-every", 16, "--energies-every", 50, "--log-every", 1000]
    simulate("--models", pair, "--kind", "umbrella", *QUICK, *options, "--directory", tmp_path)
    found, r, free, error = profile_of(tmp_path, "--bound", 4.2, "--outer", "5.5:6.3", "--bins", 25)
    kt = KB_EV_PER_K * 120.0
    assert len(r) >= 20
    assert np.median(error) < 0.25 * kt
    _, in_errors = differences(free, free_energy_ev(r, 120.0), error)
    assert in_errors < 1.8
    expected = -kt * np.log(constant_ang3(4.2, (5.5, 6.3), 120.0) / ANG3_PER_MOLAR)
    binding = found["binding"]
    assert abs(binding["free_energy"] - expected) < 4.0 * binding["error"]


@pytest.mark.slow
def test_metadynamics_in_i_pi_gives_the_surface_of_the_formula(tmp_path, pair):
    options = ["--wall", 5.5, "--hill-every", 25, "--bias-factor", 6, "--steps", 50_000]
    options += ["--positions-every", 16, "--energies-every", 50, "--log-every", 1000]
    simulate("--models", pair, "--kind", "metad", *QUICK, *options, "--directory", tmp_path)
    _, r, free, error = profile_of(tmp_path, "--bins", 25)
    kt = KB_EV_PER_K * 120.0
    visited = (r > 2.7) & (r < 5.5)
    r, free, error = r[visited], free[visited], error[visited]
    expected = free_energy_ev(r, 120.0)
    assert len(r) >= 15
    off_ev, in_errors = differences(free, expected, error)
    assert off_ev < 0.15 * kt
    assert in_errors < 1.8
    # The hills say the same by themselves: −γ/(γ − 1) V, rough by the height of the last ones.
    width = Bias.parse(read_request_of(tmp_path)).growth.hill_width_ang
    summed = -6.0 / 5.0 * Hills(width, read_hills(tmp_path / "hills.csv")).energy(r)
    assert np.std(summed - expected) < kt


@pytest.mark.slow
def test_methane_binds_in_windows_as_statistical_mechanics_says(tmp_path):
    """The dimer at 100 K: F(R) and ΔG° of an umbrella against averages over free molecules.

    P(R) ~ R² ⟨exp(−β E_b)⟩ over molecules that do not feel each other, turned anyhow: neither
    bias, nor windows, nor a long run.
    """
    pytest.importorskip("pymbar")
    kelvin, bound, outer = 100.0, 5.5, (6.8, 7.8)
    kt = KB_EV_PER_K * kelvin
    options = ["--windows", "3.5:7.7:0.6", "--temperature", kelvin, "--timestep", 1, "--tau", 200]
    options += ["--spring", 0.08, "--pull-speed", 4, "--steps", 6000, "--wall", 8, "--plugin"]
    options += ["--energies-every", 50, "--log-every", 1000]
    simulate("--models", METHANES, "--kind", "umbrella", *options, "--directory", tmp_path)
    found, r, free, error = profile_of(
        tmp_path, "--bound", bound, "--outer", "6.8:7.8", "--bins", 20
    )
    grid = np.arange(2.9, 8.3, 0.15)
    factor = boltzmann_factor(CompositeModel.load(METHANES), grid, kelvin)
    sampled = (r > 3.4) & (r < 7.9)
    r, free, error = r[sampled], free[sampled], error[sampled]
    density = np.interp(r, grid, factor) * r**2
    assert len(r) >= 14
    assert np.median(error) < 0.75 * kt
    off_ev, in_errors = differences(free, -kt * np.log(density), error)
    assert off_ev < 0.35 * kt
    assert in_errors < 1.8
    fine = np.linspace(grid[0], 8.0, 2000)
    shells = [(fine < bound), (fine >= outer[0]) & (fine < outer[1])]
    weight = np.interp(fine, grid, factor) * fine**2
    ratio = weight[shells[0]].sum() / weight[shells[1]].sum()
    volume = 4.0 / 3.0 * np.pi * (outer[1] ** 3 - outer[0] ** 3)
    expected = -kt * np.log(volume * ratio / ANG3_PER_MOLAR)
    assert found["binding"]["error"] < kt
    assert abs(found["binding"]["free_energy"] - expected) < 4.0 * found["binding"]["error"]


def boltzmann_factor(model, distances_ang, kelvin, n=400):
    """Return ⟨exp(−β E_b)⟩ of two free molecules at each distance of their centres of mass."""
    rng = np.random.default_rng(4)
    masses = np.array([Atoms(numbers=[z]).get_masses()[0] for z in model.numbers])
    first, second = (np.asarray(fragment.atoms) for fragment in model.fragments)
    start = read(METHANES / "structure.xyz").positions
    turned = []
    for fragment, atoms in zip(model.fragments, (first, second), strict=True):
        x = free_molecules(fragment.model, start[atoms], masses[atoms], kelvin, n, rng)
        x -= np.average(x, axis=1, weights=masses[atoms])[:, None]
        turned.append(np.einsum("bij,baj->bai", rotations(n, rng), x))
    factors = []
    for r in distances_ang:
        x = np.zeros((n, len(masses), 3))
        x[:, first], x[:, second] = turned[0], turned[1] + [r, 0.0, 0.0]
        energy = model.evaluate(x, "binding").energy
        factors.append(np.exp(-energy / (KB_EV_PER_K * kelvin)).mean())
    return np.array(factors)


def rotations(n, rng):
    """Return n rotation matrices, uniform: normal quaternions have no preferred direction."""
    return Rotation.from_quat(rng.normal(size=(n, 4))).as_matrix()


def free_molecules(model, start, masses, kelvin, n, rng):
    """Return n geometries of one molecule by Langevin dynamics (BAOAB), 0.3 ps from its well."""
    dt = 0.075  # of √(u Å²/eV), 10.2 fs
    x = np.repeat(start[None], n, axis=0)
    m = masses[:, None]
    thermal = np.sqrt(KB_EV_PER_K * kelvin / m)
    v = thermal * rng.normal(size=x.shape)
    forces = model.evaluate(x).forces
    for _ in range(400):
        v += 0.5 * dt * forces / m
        x += 0.5 * dt * v
        v = 0.9 * v + np.sqrt(1.0 - 0.9**2) * thermal * rng.normal(size=x.shape)
        x += 0.5 * dt * v
        forces = model.evaluate(x).forces
        v += 0.5 * dt * forces / m
    return x
