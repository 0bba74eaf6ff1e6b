"""The real i-PI with a model in its own process, against the same through a socket."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from deltaserver.cli import app
from deltaserver.simulate.ipi.plugin import PES_PATH
from deltaserver.simulate.record import read_record
from tests import logs

from .conftest import DIMER, TIMEOUT_S, Setup, render, start_ipi

SLUG = "benzene_dimer"


def simulate(*arguments, code=0):
    words = ["simulate", "--quiet", "--models", DIMER, *arguments]
    assert app.main([*map(str, words)]) == code


def steps(directory: Path) -> list[dict]:
    return logs.events(directory / "deltaserver.jsonl", "step")


KINDS = {
    "nvt": [],
    "pimd": ["--beads", 4],
    "mts": ["--inner-steps", 2],
    # Systems step in threads, and a thermostat's random numbers go to whichever comes first.
    "remd": ["--temperature", 120, "--swap-every", 2, "--thermostat", "none"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_run_is_that_through_a_socket(tmp_path, kind):
    """i-PI's properties, its files of contributions and our log, but for the 9 digits of i-PI."""
    options = ["--kind", kind, "--temperature", 100, "--steps", 10, *KINDS[kind]]
    simulate(*options, "--directory", tmp_path / "socket")
    simulate(*options, "--plugin", "--directory", tmp_path / "plugin")
    record = read_record(tmp_path / "plugin")
    assert (record.status, record.step) == ("finished", 10)
    names = [
        p.name for p in (tmp_path / "socket").glob("*") if re.search(r"\.out$|_ev_\d+$", p.name)
    ]
    assert len(names) >= 3
    for name in names:
        found, expected = (np.loadtxt(tmp_path / way / name) for way in ("plugin", "socket"))
        scale = np.abs(expected).max(axis=0)
        assert (np.abs(found - expected) <= 1e-6 * scale).all()
    per_step = {"pimd": 4, "mts": 3, "remd": 2}.get(kind, 1)
    assert len(steps(tmp_path / "plugin")) == pytest.approx(10 * per_step, abs=per_step)
    assert {step["connection"] for step in steps(tmp_path / "plugin")} == {"plug-in"}


@pytest.mark.parametrize(
    "way",
    [
        pytest.param([], marks=pytest.mark.slow, id="socket"),
        pytest.param(["--plugin"], id="direct"),
    ],
)
def test_replicas_are_runs_of_their_own_evaluated_together(tmp_path, way, capsys):
    options = ["--kind", "mts", "--thermostat", "none", "--steps", 10, "--replicas", 2, *way]
    kelvin = ["--temperature", 20, "--temperature", 60]
    simulate(*options, *kelvin, "--directory", tmp_path)
    simulate("--resume", "--steps", 20, "--directory", tmp_path)
    # i-PI sends what has come where a thread is late: not every batch is whole.
    assert max(step["batch"] for step in steps(tmp_path)) == 4
    tables = [np.loadtxt(path) for path in sorted(tmp_path.glob("*.out"))]
    assert len(tables) == 4
    for table in tables:
        np.testing.assert_array_equal(table[:, 0], np.arange(21))
        assert np.ptp(table[:, 2]) < 0.02 * np.ptp(table[:, 4])  # conserved; potential is not
    start = [table[0, 5] for table in tables]  # kinetic energies: no two have the same velocities
    assert len(set(start)) == 4
    simulate(*options, "--temperature", 20, "--resume", "--directory", tmp_path, code=2)
    assert "was begun with temperatures_k" in capsys.readouterr().err


def by_hand(tmp_path: Path, setup: Setup, parameters: str, *, batch_size: int = 1) -> Path:
    """An input of i-PI's with an ffdirect as a user writes it; return it."""
    text = render(setup, "")
    direct = (
        f"<ffdirect name='delta'><pes>custom</pes><pes_path>{PES_PATH}</pes_path>"
        f"<parameters>{parameters}</parameters><batch_size>{batch_size}</batch_size></ffdirect>"
    )
    text = re.sub(r"<ffsocket.*</ffsocket>", lambda _: direct, text, flags=re.DOTALL)
    (tmp_path / "input.xml").write_text(text)
    return tmp_path / "input.xml"


PIMD = (
    '<dynamics mode="nvt"><timestep units="femtosecond">0.5</timestep>'
    '<thermostat mode="pile_l"><tau units="femtosecond">100</tau></thermostat></dynamics>'
)


def test_beads_that_are_no_multiple_of_the_batch_do_not_hang(tmp_path):
    """6 beads in batches of 4, where i-PI by itself waits for ever for two more."""
    found = []
    for batch_size in (1, 4):
        folder = tmp_path / str(batch_size)
        folder.mkdir()
        setup = Setup(n_beads=6, steps=5, dynamics=PIMD)
        by_hand(folder, setup, f"{{models:{DIMER},log_file:run.jsonl}}", batch_size=batch_size)
        assert start_ipi(folder, "input.xml").wait(TIMEOUT_S) == 0
        found.append(np.loadtxt(folder / "run.out"))
        assert {e["batch"] for e in logs.events(folder / "run.jsonl", "step")} <= {1, 2, 4}
    np.testing.assert_allclose(found[0], found[1], rtol=1e-7)


def test_a_wrong_structure_ends_i_pi_with_the_daemon_s_code(tmp_path):
    start = tmp_path / "start.xyz"
    atoms = read(Setup().structure)
    lines = Setup().structure.read_text().splitlines()
    order = np.random.default_rng(3).permutation(len(atoms))
    start.write_text("\n".join([*lines[:2], *(lines[2 + k] for k in order)]) + "\n")
    by_hand(tmp_path, Setup(structure=start), f"{{models:{DIMER}}}")
    assert start_ipi(tmp_path, "input.xml").wait(TIMEOUT_S) == 4
    said = (tmp_path / "i-pi.log").read_text()
    assert "deltaserver: structure 0 refused: " in said
    assert "Traceback" not in said
    written = (tmp_path / "run.out").read_text().splitlines()
    assert [line for line in written if not line.lstrip().startswith("#")] == []


@pytest.mark.parametrize("batched", [[], ["--kind", "pimd", "--beads", 4]])
def test_a_run_that_comes_apart_is_stopped_with_its_frame(tmp_path, capsys, batched):
    """From i-PI's main thread, and from the one that batches are evaluated in."""
    simulate(*(batched or ["--kind", "nve"]), "--plugin", "--temperature", 3000, "--timestep", 4,
             "--steps", 300, "--directory", tmp_path, code=4)  # fmt: skip
    line = capsys.readouterr().err
    assert re.search(r"blown up after step \d+: .*; the structure is in .*blow_up.xyz", line)
    record = read_record(tmp_path)
    assert (record.status, record.frame) == ("blown up", "blow_up.xyz")
    assert len(read(tmp_path / "blow_up.xyz")) == 24
    assert (tmp_path / "RESTART").exists()


def test_energy_that_is_not_conserved_is_seen_from_outside(tmp_path, capsys):
    simulate("--kind", "nve", "--plugin", "--temperature", 300, "--timestep", 1, "--steps", 20_000,
             "--max-drift", 1e-9, "--directory", tmp_path, code=4)  # fmt: skip
    assert "the conserved quantity has changed by" in capsys.readouterr().err
    assert len(read(tmp_path / "blow_up.xyz")) == 24


def test_a_stopped_run_goes_on_without_gap_or_overlap(tmp_path):
    options = ["--kind", "nvt", "--plugin", "--steps", "100000", "--energies-every", "1",
               "--log-every", "1", "--directory", str(tmp_path)]  # fmt: skip
    command = [sys.executable, "-m", "deltaserver", "simulate", "--models", str(DIMER), "--quiet"]
    process = subprocess.Popen([*command, *options])
    deadline = time.monotonic() + TIMEOUT_S
    out = tmp_path / f"{SLUG}_nvt.out"
    while not out.exists() or out.read_text().count("\n") < 40:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    assert process.wait(TIMEOUT_S) == 130
    stopped = read_record(tmp_path)
    assert stopped.status == "stopped"
    assert stopped.step >= 20
    more = stopped.step + 10
    assert (
        app.main(["simulate", "--quiet", "--resume", "--steps", str(more), "-d", str(tmp_path)])
        == 0
    )
    assert read_record(tmp_path).step == more
    assert np.loadtxt(out)[:, 0].tolist() == list(range(more + 1))
    assert [step["seq"] for step in steps(tmp_path)] == list(range(more + 1))


def test_an_input_by_hand_keeps_what_it_says_itself(tmp_path, capsys):
    setup = Setup(steps=3)
    path = by_hand(tmp_path, setup, f"{{models:{DIMER},component:binding,novelty_limit:9}}")
    simulate(path, "--directory", tmp_path / "run")
    text = (tmp_path / "run" / "input.xml").read_text()
    assert "component:binding" in text
    assert "novelty_limit:9" in text
    assert {step["component"] for step in steps(tmp_path / "run")} == {"binding"}
    code = app.main(["simulate", str(path), "-m", "models/c60", "-d", str(tmp_path / "other")])
    assert code == 2
    assert "its plug-in evaluates" in capsys.readouterr().err


def test_the_path_is_printed(capsys):
    assert app.main(["pes-path"]) == 0
    assert Path(capsys.readouterr().out.strip()) == PES_PATH
    assert PES_PATH.is_file()


def test_extras_are_i_pi_s_to_write(tmp_path):
    """Full extras reach i-PI as what it parses: one JSON object a structure."""
    simulate("--kind", "nve", "--plugin", "--steps", 2, "--extras", "full", "-d", tmp_path)
    name = f"{SLUG}_nve.binding_energy_ev_0"
    values = np.loadtxt(tmp_path / name)
    logged = [step["binding"]["energy_ev"] for step in steps(tmp_path)]
    np.testing.assert_allclose(values, logged, rtol=1e-7)
