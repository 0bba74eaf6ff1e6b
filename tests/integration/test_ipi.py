"""The real i-PI 3.3 drives the real daemon through every mode that a user would."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from deltaserver import CompositeModel
from deltaserver.model.files.parameters import read_parameters
from deltaserver.model.files.uncertainty import UNCERTAINTY_KEYS
from deltaserver.model.manifest import read_manifest
from deltaserver.serve.wire import MessageReader, PosData
from deltaserver.units import BOHR_ANG, HARTREE_EV

from .conftest import DIMER, ROOT, TIMEOUT_S, Recorder, Setup, render, start_daemon, start_ipi

NVE = '<dynamics mode="nve"><timestep units="femtosecond">0.5</timestep></dynamics>'
POTENTIAL, CONSERVED = 3, 1


def assert_contributions_sum(steps):
    for step in steps:
        parts = [*step["fragments"].values(), *(step[k] for k in ("prior", "binding") if k in step)]
        assert abs(step["energy_ev"] - sum(part["energy_ev"] for part in parts)) < 1e-10


def decode_replies(stream: bytes, n_atoms: int) -> list[tuple[float, np.ndarray]]:
    """Read unbatched FORCEREADY messages as i-PI would: (Hartree, Hartree/Bohr)."""
    replies = []
    while stream:
        name, stream = stream[:12].strip(), stream[12:]
        if name != b"FORCEREADY":
            continue
        energy = np.frombuffer(stream[:8])[0]
        assert np.frombuffer(stream[8:12], np.int32)[0] == n_atoms
        end = 12 + 24 * n_atoms
        replies.append((energy, np.frombuffer(stream[12:end]).reshape(-1, 3)))
        length = np.frombuffer(stream[end + 72 : end + 76], np.int32)[0]
        assert isinstance(json.loads(stream[end + 76 : end + 76 + length]), dict)
        stream = stream[end + 76 + length :]
    return replies


def decode_positions(stream: bytes, n_atoms: int) -> list[np.ndarray]:
    reader = MessageReader(n_atoms)
    reader.feed(stream)
    messages = iter(reader.next_message, None)
    return [m.positions[0] * BOHR_ANG for m in messages if isinstance(m, PosData)]


def thinned(models: Path, directory: Path, n_train: int | None) -> Path:
    """The models of so many training points a part, forces scaled to 1 eV/Å.

    sgdml writes out every permutation of every point: 145 s and 10 GB for 100 points and 120. It
    knows no weights and no prior: the binding is served as the native model of the same points.
    """
    shutil.copytree(models, directory)
    manifest = (directory / "model.yaml").read_text()
    (directory / "model.yaml").write_text(manifest.split("\nprior:")[0] + "\n")
    parts = {}
    for path in sorted(directory.glob("*.npz")):
        part = path.stem
        with np.load(path) as file:
            raw = dict(file)
        if "R" in raw:
            known = read_parameters(path)
            raw |= {"type": "m", "R_desc": known.x.T, "R_d_desc_alpha": known.a}
            for key in ("R", "fragments", "block_weights", "reach"):
                raw.pop(key, None)
        for key in UNCERTAINTY_KEYS:  # of points that are no longer there
            raw.pop(key, None)
        raw["R_desc"] = raw["R_desc"][:, :n_train]
        raw["R_d_desc_alpha"] = raw["R_d_desc_alpha"][:n_train]
        np.savez(path, **raw)
        parts[part] = path, raw
    # Without the others a point's terms of 10⁷ eV/Å no longer cancel.
    x, whole = read(models / "structure.xyz").positions, CompositeModel.load(directory)
    for part, (path, raw) in parts.items():
        raw["std"] /= np.abs(whole.evaluate(x, part).forces).max()
        np.savez(path, **raw)
    return directory


@pytest.fixture
def _shared_at_once(monkeypatch):
    """sgdml fills its shared arrays of 10⁸ numbers one number at a time: most of its start."""

    def share_array(values):
        shared = multiprocessing.RawArray("d", values.size)
        np.frombuffer(shared)[:] = values.ravel()
        return shared, values.shape

    monkeypatch.setattr("sgdml.predict.share_array", share_array)


@pytest.mark.usefixtures("_shared_at_once")
@pytest.mark.parametrize(
    ("name", "n_train"),
    [
        ("benzene_dimer", 200),
        pytest.param("benzene_dimer", None, marks=pytest.mark.slow),
        ("c60", 4),
        pytest.param("c60", 50, marks=pytest.mark.slow),
    ],
)
def test_every_byte_to_ipi_is_what_sgdml_computes(tmp_path, name, n_train):
    """i-PI → recorder → daemon: on the exact positions sent, sgdml gives the forces sent back."""
    structure = {"benzene_dimer": "benzene_dimer", "c60": "c60_buckycatcher"}[name]
    models = thinned(ROOT / "models" / name, tmp_path / "models", n_train)
    setup = Setup(
        steps=10,
        sockets=[{"name": "a"}],
        structure=ROOT / "ipi_inputs" / f"{structure}.xyz",
        temperatures=(300.0,),
    )
    (tmp_path / "input.xml").write_text(render(setup, str(tmp_path / "ipi-")[1:]))
    recorder = Recorder(tmp_path / "ipi-a", tmp_path / "relay")
    daemon = start_daemon(models, "--socket", f"unix:{tmp_path}/relay")
    assert start_ipi(tmp_path, "-S", "/", "input.xml").wait(TIMEOUT_S) == 0
    assert daemon.wait(20) == 0
    recorder.join()
    reference = CompositeModel.load(models, backend="sgdml")
    positions = decode_positions(bytes(recorder.from_server), reference.n_atoms)
    replies = decode_replies(bytes(recorder.from_client), reference.n_atoms)
    assert len(positions) == len(replies) == 11
    for x, (energy, forces) in zip(positions, replies, strict=True):
        expected = reference.evaluate(x)
        assert energy * HARTREE_EV == pytest.approx(float(expected.energy), rel=1e-8)
        scale = np.abs(expected.forces).max()
        assert np.abs(forces * HARTREE_EV / BOHR_ANG - expected.forces).max() < 1e-8 * scale


def test_nvt_logs_contributions_that_sum(run_ipi):
    run = run_ipi(Setup(steps=200))
    assert len(run.steps) == 201
    assert [step["seq"] for step in run.steps] == list(range(201))
    assert_contributions_sum(run.steps)
    logged = np.array([step["energy_ev"] for step in run.steps])
    # i-PI prints 9 digits.
    np.testing.assert_allclose(logged / HARTREE_EV, run.properties()[:, POTENTIAL], rtol=2e-8)
    times = run.steps[-1]
    assert times["wall_ms"] == pytest.approx(
        times["receive_ms"] + times["evaluate_ms"] + times["send_ms"], abs=1e-3
    )


def test_unconsolidated_messages_give_the_same_run(run_ipi):
    fused = run_ipi(Setup())
    asked = run_ipi(Setup(sockets=[{"name": "delta", "consolidate_messages": "False"}]))
    np.testing.assert_allclose(asked.properties(), fused.properties(), rtol=1e-7)


PIMD = (
    '<dynamics mode="nvt"><timestep units="femtosecond">0.5</timestep>'
    '<thermostat mode="pile_l"><tau units="femtosecond">100</tau></thermostat></dynamics>'
)


def test_pimd_in_batches_and_over_two_daemons_equals_one_by_one(run_ipi):
    plain = run_ipi(Setup(n_beads=8, steps=10, dynamics=PIMD))
    batched_setup = Setup(
        n_beads=8, steps=10, dynamics=PIMD, sockets=[{"name": "delta", "batch_size": "4"}]
    )
    batched = run_ipi(batched_setup)
    twice = run_ipi(batched_setup, daemons=[["--socket", "unix:{prefix}delta"]] * 2)
    np.testing.assert_allclose(batched.properties(), plain.properties(), rtol=1e-7)
    np.testing.assert_allclose(twice.properties(), plain.properties(), rtol=1e-7)
    assert {step["batch"] for step in batched.steps} >= {4}
    # Beads start from one structure: what repeats at the end of a batch counts as padding there.
    assert 10 * 8 <= len(batched.steps) <= 11 * 8
    assert all(any(r["event"] == "step" for r in records) for records in twice.records)
    for run in (plain, batched, twice):
        assert_contributions_sum(run.steps)


def test_batches_that_do_not_divide_are_padded_and_padding_is_not_logged(run_ipi):
    setup = Setup(n_beads=6, steps=5, dynamics=PIMD)
    plain = run_ipi(setup)
    setup.sockets = [{"name": "delta", "batch_size": "4"}]
    padded = run_ipi(setup)
    np.testing.assert_allclose(padded.properties(), plain.properties(), rtol=1e-7)
    later = [step for step in padded.steps if step["batch"] > 1]
    assert {step["batch"] for step in later} == {2, 4}
    assert 5 * 6 <= len(padded.steps) <= 6 * 6


def test_replica_exchange(run_ipi):
    smotion = '<smotion mode="remd"><remd><stride>2</stride></remd></smotion>'
    # i-PI steps its systems in threads that share one random generator: a thermostat would make
    # two runs differ.
    setup = Setup(temperatures=(150.0, 200.0), smotion=smotion, steps=20, dynamics=NVE)
    run = run_ipi(setup)
    one_each = run_ipi(setup, daemons=[["--socket", "unix:{prefix}delta"]] * 2)
    for system in ("s0", "s1"):
        assert len(run.properties(system)) == 21
        np.testing.assert_allclose(one_each.properties(system), run.properties(system), rtol=1e-7)
    assert len(run.steps) >= 2 * 20
    assert_contributions_sum(run.steps)


def mts_setup(dynamics: str, weights: dict[str, str], steps: int) -> Setup:
    return Setup(
        sockets=[
            {"name": "inner", "parameters": "{component:fragments}"},
            {"name": "outer", "parameters": "{component:binding}"},
        ],
        dynamics=dynamics,
        mts_weights=weights,
        steps=steps,
    )


TWO_SOCKETS = [["--socket", "unix:{prefix}inner", "--socket", "unix:{prefix}outer"]]


def test_fragments_and_binding_as_two_force_components_equal_the_total(run_ipi):
    together = run_ipi(Setup(dynamics=NVE))
    apart = run_ipi(mts_setup(NVE, {}, steps=20), daemons=TWO_SOCKETS)
    np.testing.assert_allclose(apart.properties(), together.properties(), rtol=1e-7)
    assert {step["component"] for step in apart.steps} == {"fragments", "binding"}


def test_multiple_time_stepping_follows_single_stepping(run_ipi):
    mts = (
        '<dynamics mode="nve"><timestep units="femtosecond">1.0</timestep>'
        "<nmts>[1, 4]</nmts></dynamics>"
    )
    weights = {"outer": "[1, 0]", "inner": "[0, 1]"}
    split = run_ipi(mts_setup(mts, weights, steps=50), daemons=TWO_SOCKETS)
    small = '<dynamics mode="nve"><timestep units="femtosecond">0.25</timestep></dynamics>'
    single = run_ipi(Setup(dynamics=small, steps=200))
    inner = sum(step["component"] == "fragments" for step in split.steps)
    outer = sum(step["component"] == "binding" for step in split.steps)
    assert inner > 3.5 * outer
    # The binding force varies slowly: stepping it every 1 fs changes the path by little.
    np.testing.assert_allclose(
        split.properties()[:, POTENTIAL], single.properties()[::4, POTENTIAL], atol=4e-6, rtol=0
    )
    drift = np.ptp(split.properties()[:, CONSERVED])
    assert drift < 2e-3


def test_one_connection_over_tcp(run_ipi, free_port):
    setup = Setup(
        sockets=[{"name": "delta", "mode": "inet", "address": "127.0.0.1", "port": str(free_port)}]
    )
    run = run_ipi(setup, daemons=[["--socket", f"inet:127.0.0.1:{free_port}"]])
    assert len(run.steps) == 21


def test_extras_reach_ipi_outputs(tmp_path):
    """The shipped template as it is, from the repository's root, shortened."""
    text = (ROOT / "ipi_inputs" / "benzene_dimer_nvt.xml").read_text()
    text = text.replace("<total_steps>2000", "<total_steps>10")
    (tmp_path / "short.xml").write_text(text)
    command = [sys.executable, "-m", "deltaserver", "simulate", str(tmp_path / "short.xml")]
    command += ["--models", str(DIMER), "--directory", str(tmp_path / "run"), "--quiet"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (done.returncode, done.stderr) == (0, "")
    written = (tmp_path / "run" / "benzene_dimer_nvt.binding_energy_ev_0").read_text()
    values = [float(line) for line in written.splitlines() if not line.strip().startswith("#")]
    records = [json.loads(x) for x in (tmp_path / "run/deltaserver.jsonl").read_text().splitlines()]
    logged = [r["binding"]["energy_ev"] for r in records if r["event"] == "step"]
    np.testing.assert_allclose(values, logged, rtol=1e-7)


@pytest.mark.parametrize("name", ["c60_nvt", "benzene_dimer_nvt"])
def test_templates_name_the_contributions_of_their_models(name):
    text = (ROOT / "ipi_inputs" / f"{name}.xml").read_text()
    models = ROOT / "models" / name.removesuffix("_nvt")
    for fragment in read_manifest(models).fragments:
        assert f'extra_type="{fragment.name}_energy_ev"' in text
    assert 'extra_type="binding_energy_ev"' in text


@pytest.mark.slow
def test_nve_does_not_drift(run_ipi):
    """Benzene dimer, 300 K, 0.25 fs, 20 ps: the conserved quantity has no trend beyond noise."""
    nve = '<dynamics mode="nve"><timestep units="femtosecond">0.25</timestep></dynamics>'
    run = run_ipi(Setup(dynamics=nve, steps=80_000, temperatures=(300.0,), timeout_s=3600.0))
    conserved = run.properties()[:, CONSERVED]
    time_ps = 0.25e-3 * np.arange(len(conserved))
    blocks = conserved[1:].reshape(20, -1).mean(axis=1)
    slope, _ = np.polyfit(np.arange(20) + 0.5, blocks, 1)
    residual = blocks - np.polyval(np.polyfit(np.arange(20) + 0.5, blocks, 1), np.arange(20) + 0.5)
    error = np.sqrt((residual**2).sum() / 18 / ((np.arange(20) - 9.5) ** 2).sum())
    print(f"drift {slope:.2e} ± {error:.1e} eV/ps; std {conserved.std():.2e} eV; {time_ps[-1]} ps")
    kinetic = run.properties()[:, 4].mean()
    assert abs(slope) * 20 < 1e-3 * kinetic
