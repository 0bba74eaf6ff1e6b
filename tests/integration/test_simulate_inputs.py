"""`deltaserver simulate` on inputs that users write themselves, with the real i-PI."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from ase.io import read, write

from deltaserver.cli import app
from deltaserver.simulate.record import read_record
from tests import logs

from .conftest import ROOT, TIMEOUT_S

METHANES = ROOT / "models" / "methane_dimer"
DRIVER = Path(sys.executable).with_name("i-pi-py_driver")
STRUCTURE = METHANES / "structure.xyz"
NVE = """<motion mode="dynamics"><dynamics mode="nve">
  <timestep units="femtosecond">0.5</timestep></dynamics></motion>"""
OUT = '<properties stride="1" filename="out">[step, conserved{electronvolt}]</properties>'


@dataclass(frozen=True)
class Input:
    """What differs between the inputs of these tests."""

    motion: str = NVE
    outputs: str = OUT
    n_beads: int = 1
    steps: int = 10
    start: str = "<file mode='xyz' units='angstrom'>start.xyz</file>"
    cell: str = "<cell mode='abc' units='angstrom'>[40, 40, 40]</cell>"
    velocities: str = "<velocities mode='thermal' units='kelvin'>50</velocities>"
    forces: str = "<force forcefield='delta'/>"
    sockets: str = ""
    prefix: str = "run"
    head: str = ""
    system: str = "system"

    def text(self, name: str) -> str:
        body = f"""<initialize nbeads="{self.n_beads}">
    {self.start}{self.cell}{self.velocities}</initialize>
    <forces>{self.forces}</forces><ensemble><temperature units="kelvin">50</temperature></ensemble>
    {self.motion}"""
        system = f"<system>{body}</system>"
        if self.system == "system_template":
            system = (
                f"<system_template><template><system prefix='NAME'>{body}</system></template>"
                "<labels>[NAME]</labels><instance>[a]</instance></system_template>"
            )
        return f"""<simulation verbosity="medium" {self.head}>
  <output prefix="{self.prefix}">{self.outputs}</output>
  <total_steps>{self.steps}</total_steps><prng><seed>7</seed></prng>
  <ffsocket mode="unix" name="delta" pbc="false"><address>{name}</address></ffsocket>
  {self.sockets}
  {system}
</simulation>"""


@pytest.fixture
def place(tmp_path):
    """Return a directory with an input's files, and a name for sockets that nobody else has."""
    (tmp_path / "start.xyz").write_text(STRUCTURE.read_text())
    return tmp_path, f"t{os.getpid()}_{abs(hash(str(tmp_path))) % 10**6}"


def simulate(*arguments, code=0):
    words = ["simulate", "--quiet", *map(str, arguments)]
    assert app.main(words) == code


def run(place, what: Input, *arguments, code=0):
    """Write an input, simulate it, return the run's directory."""
    folder, name = place
    (folder / "in.xml").write_text(what.text(name))
    simulate(folder / "in.xml", "-m", METHANES, "-d", folder / "run", *arguments, code=code)
    return folder / "run"


def rows(path) -> np.ndarray:
    return np.loadtxt(path, ndmin=2)


def steps_in(path) -> list[int]:
    return [int(step) for step in re.findall(r"Step:\s+(\d+)", path.read_text())]


def seqs(directory) -> list[int]:
    lines = (directory / "deltaserver.jsonl").read_text().splitlines()
    return [r["seq"] for r in map(json.loads, lines) if r["event"] == "step"]


MINIMISE = """<motion mode="minimize"><optimizer mode="{mode}"><tolerances>
  <energy>1e-5</energy><force>1e-3</force><position>1e-2</position></tolerances></optimizer></motion>"""


@pytest.mark.parametrize("mode", ["bfgs", "lbfgs", "sd"])
def test_a_minimisation_is_finished_when_it_has_converged(place, mode):
    """From a start 1.5 eV up: the potential is conserved by nothing, and falls."""
    folder, _ = place
    atoms = read(folder / "start.xyz")
    atoms.positions[1] += 0.16 * (atoms.positions[1] - atoms.positions[0])
    atoms.write(folder / "start.xyz", plain=True)
    what = Input(MINIMISE.format(mode=mode), steps=400, velocities="")
    directory = run(place, what, "--max-drift", 0.001)
    record = read_record(directory)
    assert record.status == "finished"
    assert 0 < record.step < 400
    assert "converged" in record.reason
    before = (directory / "i-pi.log").stat().st_mtime
    simulate("--resume", "-d", directory)
    assert (directory / "i-pi.log").stat().st_mtime == before


VIBRATIONS = """<motion mode="vibrations"><vibrations mode="fd"><pos_shift>0.005</pos_shift>
  <energy_shift>0.001</energy_shift><output_shift>0.001</output_shift><prefix>vib</prefix>
  </vibrations></motion>"""
NEB = """<motion mode="neb"><neb_optimizer mode="fire">
  <tolerances><force>1e3</force><position>1e3</position><energy>1e3</energy></tolerances>
  </neb_optimizer></motion>"""


@pytest.mark.parametrize(("motion", "n_beads"), [(VIBRATIONS, 1), (NEB, 3)])
def test_what_conserves_nothing_is_finished_when_it_is_done(place, motion, n_beads):
    """The band pulls a methane away: its images differ by more than a drift may be."""
    folder, _ = place
    atoms = read(folder / "start.xyz")
    with (folder / "start.xyz").open("w") as file:
        for _ in range(n_beads):
            write(file, atoms, format="xyz")
            atoms.positions[:5, 2] += 0.3
    what = Input(motion, steps=200, n_beads=n_beads, velocities="")
    record = read_record(run(place, what, "--max-drift", 1e-9))
    assert record.status == "finished"
    assert record.reason


OTHER = "<ffsocket mode='unix' name='{name}' pbc='false'><address>{name}x</address></ffsocket>"


def test_a_socket_meant_for_another_program_is_left_to_it(place, capsys):
    folder, name = place
    other = f"o{name}"
    what = Input(
        sockets=OTHER.format(name=other), steps=4,
        forces=f"<force forcefield='delta'/><force forcefield='{other}'/>",
    )  # fmt: skip
    directory = run(place, what, code=2)
    told = capsys.readouterr().err
    assert f"'delta', '{other}' name no component" in told
    assert "--serve NAME" in told
    assert not directory.exists()
    path = Path(f"/tmp/ipi_{other}x")
    shell = f"until [ -S {path} ]; do sleep 0.1; done; exec {DRIVER} -u -a {other}x -m dummy"
    with subprocess.Popen(["timeout", "60", "sh", "-c", shell]):  # i-PI's own, of no forces
        run(place, what, "--serve", "delta")
    alone = place[0] / "alone"
    (folder / "in.xml").write_text(Input(steps=4).text(name))
    simulate(folder / "in.xml", "-m", METHANES, "-d", alone)
    np.testing.assert_allclose(rows(directory / "run.out"), rows(alone / "run.out"), rtol=1e-9)
    assert read_record(directory).serve == ("delta",)
    simulate("--resume", "--serve", "gone", "-d", directory, code=2)
    assert "--serve gone" in capsys.readouterr().err


def test_the_input_s_own_prefix_of_sockets(place, monkeypatch):
    folder, _ = place
    monkeypatch.chdir(folder)
    for prefix in (f"{folder}/s_", "here_", ""):
        directory = run(place, Input(steps=2, head=f'sockets_prefix="{prefix}"'))
        assert read_record(directory).status == "finished"


def test_every_file_of_the_input_is_found(place, monkeypatch):
    """From another directory; a matrix, positions, velocities, masses and labels, from files."""
    folder, _ = place
    monkeypatch.chdir("/")
    atoms = read(folder / "start.xyz")
    np.savetxt(folder / "fixed.dat", [0], fmt="%d")
    (folder / "v.xyz").write_text("10\n\n" + "".join(f"{s} 1 2 3\n" for s in atoms.symbols))
    what = Input(
        start="".join(
            f"<{tag} mode='xyz' units='{unit}'>start.xyz</{tag}>" if unit else
            f"<{tag} mode='xyz'>start.xyz</{tag}>"
            for tag, unit in (("positions", "angstrom"), ("masses", ""), ("labels", ""))
        ),
        velocities="<velocities mode='xyz' units='m/s'>v.xyz</velocities>",
        motion=NVE.replace('">', '"><fixatoms mode="file">fixed.dat</fixatoms>', 1),
        steps=3,
        outputs=OUT + "<trajectory filename='v' stride='1'>velocities{m/s}</trajectory>",
    )  # fmt: skip
    directory = run(place, what)
    first = (directory / "run.v_0.xyz").read_text().splitlines()[3].split()
    np.testing.assert_allclose([float(x) for x in first[1:4]], [1, 2, 3], rtol=1e-6)
    (folder / "v.xyz").unlink()
    simulate(folder / "in.xml", "-m", METHANES, "-d", folder / "again", code=2)


def test_nothing_is_written_twice_in_any_format(place):
    """Killed between two states, resumed: extended XYZ, PDB, binary, no column of steps."""
    frames = "".join(
        f"<trajectory filename='{form}' format='{form}' stride='2'>positions</trajectory>"
        for form in ("xyz", "ase", "pdb", "bin")
    )
    what = Input(
        outputs="<properties filename='md' stride='2'>[time{femtosecond}, conserved]</properties>"
        f"{frames}<checkpoint filename='chk' stride='10' overwrite='false'/>",
        steps=24,
        prefix="",
    )
    directory = run(place, what)
    straight = {p.name: p.read_bytes() for p in directory.iterdir() if p.suffix}
    (directory / "RESTART").unlink()
    record = json.loads((directory / "run.json").read_text())
    (directory / "run.json").write_text(json.dumps(record | {"status": "running"}))
    simulate("--resume", "-d", directory)
    for stem, pattern in (
        ("xyz_0.xyz", rb"Step:\s+(\d+)"), ("ase_0.extxyz", rb"Step:\s+(\d+)"),
        ("pdb_0.pdb", rb"Step:\s+(\d+)"),
    ):  # fmt: skip
        found = [int(n) for n in re.findall(pattern, (directory / stem).read_bytes())]
        assert found == list(range(0, 25, 2)), stem
        assert len((directory / stem).read_bytes()) == pytest.approx(len(straight[stem]), abs=40)
    assert (directory / "bin_0.bin").stat().st_size == len(straight["bin_0.bin"])
    np.testing.assert_allclose(rows(directory / "md")[:, 0], np.arange(0, 25, 2) * 0.5, atol=1e-6)
    assert seqs(directory) == list(range(25))
    assert read_record(directory).restarts[0].step == 20


PIMD = NVE.replace('"nve">', '"nvt">').replace(
    "</timestep>",
    "</timestep><thermostat mode='pile_g'><tau units='femtosecond'>20</tau></thermostat>",
)


@pytest.mark.parametrize("batch", [1, 4])
def test_contracted_ring_polymers_are_logged_once(place, batch):
    """Four beads and a contraction to two; all beads begin at one place, in one batch or not."""
    forces = "<force forcefield='delta' nbeads='2'/><force forcefield='delta' weight='0.5'/>"
    outputs = OUT + "<checkpoint stride='10' filename='chk' overwrite='false'/>"
    what = Input(PIMD, outputs, n_beads=4, steps=24, forces=forces)
    folder, name = place
    text = what.text(name).replace("</address>", f"</address><batch_size>{batch}</batch_size>")
    (folder / "in.xml").write_text(text)
    directory = folder / "run"
    simulate(folder / "in.xml", "-m", METHANES, "-d", directory)
    straight = seqs(directory)
    assert straight == list(range(len(straight)))
    if batch == 1:
        assert len(straight) == 25 * 6
    (directory / "RESTART").unlink()
    record = json.loads((directory / "run.json").read_text())
    (directory / "run.json").write_text(json.dumps(record | {"status": "running"}))
    simulate("--resume", "-d", directory)
    assert read_record(directory).restarts[0].step == 20
    assert seqs(directory) == straight
    assert rows(directory / "run.out")[:, 0].tolist() == list(range(25))


def test_a_template_of_systems_is_a_system(place):
    """It is watched, cut and numbered as one."""
    outputs = OUT + "<checkpoint stride='10' filename='chk'/>"
    directory = run(place, Input(system="system_template", steps=24, outputs=outputs))
    assert read_record(directory).step == 24
    (directory / "RESTART").unlink()
    record = json.loads((directory / "run.json").read_text())
    (directory / "run.json").write_text(json.dumps(record | {"status": "running"}))
    simulate("--resume", "-d", directory)
    assert rows(directory / "a_run.out")[:, 0].tolist() == list(range(25))
    assert seqs(directory) == list(range(25))
    run(place, Input(system="system_template", steps=2000), "--max-drift", 1e-12, code=4)


@pytest.mark.parametrize("prefix", ["", "run", "input"])
def test_nothing_of_the_user_s_is_touched(place, monkeypatch, capsys, prefix):
    folder, name = place
    monkeypatch.chdir(folder)
    text = Input(prefix=prefix, steps=2).text(name)
    for other in ("input.xml", "run.sh", "notes", "out", "input.out", "run.out"):
        (folder / other).write_text("mine")
    (folder / "input.xml").write_text(text)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    simulate("input.xml", "-m", METHANES, "-d", ".", code=2)
    assert "holds input.xml" in capsys.readouterr().err
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    simulate("input.xml", "-m", METHANES, "-d", "new")
    (folder / "new" / "run.sh").write_text("mine")
    (folder / "new" / "runs.xyz").write_text("1\nStep: 99\nH 0 0 0\n")
    simulate("input.xml", "-m", METHANES, "-d", "new")
    simulate("--resume", "--steps", 4, "-d", "new")
    assert (folder / "new" / "run.sh").read_text() == "mine"
    assert "99" in (folder / "new" / "runs.xyz").read_text()
    for other, content in before.items():
        assert (folder / other).read_bytes() == content
    assert not list((folder / "new").glob("#run.lock*"))


def test_an_output_called_as_our_own_file(place, capsys):
    outputs = OUT.replace('"out"', '"json"')
    run(place, Input(outputs=outputs), code=2)
    assert "would be called run.json" in capsys.readouterr().err


def test_a_run_that_ends_early_has_a_code_of_its_own(place, capsys):
    what = Input(steps=100_000).text(place[1])
    (place[0] / "in.xml").write_text(what.replace("<prng>", "<total_time>1</total_time><prng>"))
    simulate(place[0] / "in.xml", "-m", METHANES, "-d", place[0] / "run", code=6)
    record = read_record(place[0] / "run")
    assert (record.status, record.reason) == ("stopped", "i-PI ended before the last step")
    assert f"i-PI ended at step {record.step} of 100000" in capsys.readouterr().err


def test_options_of_the_daemon(place):
    what = Input(outputs=OUT + "<trajectory filename='x'>extras</trajectory>", steps=2)
    directory = run(place, what, "--extras", "full", "--device", "cpu", "--threads", 1)
    assert "forces" in (directory / "run.x_0").read_text()
    first = (directory / "deltaserver.jsonl").read_text().splitlines()[0]
    assert json.loads(first)["backend"] == "torch"
    assert read_record(directory).device == "cpu"


def test_a_batch_system_ends_every_process_and_the_run_goes_on(place):
    """SIGTERM to simulate's whole group and to i-PI, more than once."""
    folder, name = place
    (folder / "in.xml").write_text(Input(steps=100_000).text(name))
    directory = folder / "run"
    command = [sys.executable, "-m", "deltaserver", "simulate", "--quiet", folder / "in.xml", "-m",
               METHANES, "-d", directory]  # fmt: skip
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    out = directory / "run.out"
    deadline = time.monotonic() + TIMEOUT_S
    while not out.exists() or len(out.read_text().splitlines()) < 40:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (ipi,) = [event["pid"] for event in logs.events(directory / "deltaserver.jsonl", "i-pi")]
    for _ in range(3):
        for end in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                end(process.pid if end is os.killpg else ipi, signal.SIGTERM)
        time.sleep(0.1)
    assert process.wait(TIMEOUT_S) == 130
    record = read_record(directory)
    assert (record.status, record.reason) == ("stopped", "stopped by a signal")
    assert record.step >= 37
    state = (directory / "RESTART").read_text()
    assert int(re.search(r"<step>\s*(\d+)", state)[1]) == record.step
    simulate("--resume", "--steps", record.step + 5, "-d", directory)
    assert rows(out)[:, 0].tolist() == list(range(record.step + 6))
    assert read_record(directory).restarts[0].step == record.step


def test_a_molecule_that_crosses_the_boundary_of_a_periodic_model(place):
    """i-PI wraps it (``pbc="true"``): the same energies as of the whole molecule, no blow-up."""
    folder, name = place
    models = folder / "models"
    shutil.copytree(METHANES, models)
    for path in models.glob("*.npz"):
        with np.load(path) as model:
            np.savez(path, **model, lattice=20.0 * np.eye(3))
    atoms = read(folder / "start.xyz")
    energies = []
    for place_ang in (10.0, 0.0):  # the middle, the corner
        atoms.positions += place_ang - atoms.positions.mean(axis=0)
        with (folder / "start.xyz").open("w") as file:
            write(file, atoms, format="xyz")
        what = Input(steps=20, cell="<cell mode='abc' units='angstrom'>[20, 20, 20]</cell>")
        text = what.text(name).replace('pbc="false"', 'pbc="true"')
        (folder / "in.xml").write_text(text)
        directory = folder / f"run{place_ang:g}"
        simulate(folder / "in.xml", "-m", models, "-d", directory)
        energies.append(rows(directory / "run.out")[:, 1])
    np.testing.assert_allclose(energies[1], energies[0], atol=1e-5)
