"""Every job script of docker/slurm runs on a real Slurm; a node is killed in the middle."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import logs

from .slurm import ADDRESSES, NODES, ROOT, SlurmCluster

DIMER = ROOT / "models" / "benzene_dimer"
STEPS = 20
PREFIX = "benzene_dimer_nvt"


@pytest.fixture
def folder(tmp_path):
    """Where a job runs: on a file system that every node sees."""
    tmp_path.chmod(0o755)
    return tmp_path


def write_input(path: Path, steps: int = STEPS, n_beads: int = 1, checkpoint: int = 10) -> Path:
    """Have deltaserver write an input for the dimer, as a user would."""
    command = [
        sys.executable, "-m", "deltaserver", "input", "--models", DIMER, "--output", path,
        "--kind", "nvt" if n_beads == 1 else "pimd", "--temperature", "150",
        "--beads", str(n_beads), "--steps", str(steps), "--energies-every", "1",
        "--checkpoint-every", str(checkpoint),
    ]  # fmt: skip
    subprocess.run(command, check=True, timeout=60, cwd=ROOT)
    return path


def properties(run: Path) -> np.ndarray:
    return np.loadtxt(run / f"{PREFIX}.out", ndmin=2)


def served(log: Path) -> int:
    return len(logs.events(log, "step"))


def output(job: dict[str, str]) -> str:
    return Path(job["StdOut"]).read_text()


def submit(cluster: SlurmCluster, folder: Path, script: str, *options: str, **variables) -> str:
    return cluster.submit(
        script, f"--output={folder}/%x-%j-%a.out", *options,
        **{"MODELS": DIMER, "RUN": folder / "run"} | variables,
    )  # fmt: skip


def test_one_node(cluster: SlurmCluster, folder: Path):
    number = submit(cluster, folder, "one_node", INPUT=write_input(folder / "input.xml"))
    assert cluster.wait_for(number) == ["COMPLETED"], output(cluster.job(number))
    assert properties(folder / "run")[:, 0].tolist() == list(range(STEPS + 1))
    assert served(folder / "run" / "deltaserver.jsonl") == STEPS + 1


def test_a_failing_daemon_ends_the_job_and_says_why(cluster: SlurmCluster, folder: Path):
    number = submit(
        cluster, folder, "one_node", INPUT=write_input(folder / "input.xml"), MODELS=folder
    )
    assert cluster.wait_for(number, timeout_s=300) == ["FAILED"]
    job = cluster.job(number)
    assert job["ExitCode"] == "2:0"  # bad input
    assert "deltaserver: " in output(job)
    assert "model.yaml" in output(job)


def test_many_nodes_with_one_daemon_per_gpu(cluster: SlurmCluster, folder: Path):
    n_beads = 8
    spy = folder / "daemon.sh"
    spy.write_text(
        f'#!/bin/sh\necho "$SLURMD_NODENAME $CUDA_VISIBLE_DEVICES" > {folder}/gpu-$SLURM_PROCID\n'
        'exec deltaserver "$@"\n'
    )
    spy.chmod(0o755)
    number = submit(
        cluster, folder, "many_nodes", "--nodes=2", "--ntasks-per-node=2", DELTASERVER=spy,
        INPUT=write_input(folder / "input.xml", n_beads=n_beads),
    )  # fmt: skip
    assert cluster.wait_for(number) == ["COMPLETED"], output(cluster.job(number))
    assert "<batch_size>2</batch_size>" in (folder / "run" / "input.xml").read_text()
    gpus = sorted(path.read_text().strip() for path in folder.glob("gpu-*"))
    assert gpus == [f"{node} {gpu}" for node in NODES for gpu in (0, 1)]
    shares = [served(folder / "run" / f"deltaserver-{rank}.jsonl") for rank in range(4)]
    # The first, equal beads are logged once a daemon.
    assert n_beads * STEPS < sum(shares) <= n_beads * (STEPS + 1)
    assert min(shares) > 0  # i-PI had work for each of them
    # Over the network between the namespaces, not over loopback.
    assert "i-PI listens at 10.83.0." in output(cluster.job(number))


def test_temperature_sweep(cluster: SlurmCluster, folder: Path):
    temperatures = (10, 100, 400)
    number = submit(
        cluster, folder, "temperature_sweep", "--array=0-2", TEMPERATURES="10 100 400",
        INPUT=write_input(folder / "input.xml"), RUN=folder / "sweep",
    )  # fmt: skip
    assert cluster.wait_for(number) == ["COMPLETED"] * 3
    for temperature in temperatures:
        run = folder / "sweep" / f"{temperature}K"
        assert properties(run)[:, 0].tolist() == list(range(STEPS + 1))
        # Column 4 is i-PI's temperature; 24 atoms draw theirs to within 12 % (1 σ).
        assert properties(run)[0, 3] == pytest.approx(temperature, rel=0.6)


def test_job_goes_on_after_its_time_limit(cluster: SlurmCluster, folder: Path):
    """The job is queued again before its limit of one minute, and goes on.

    Slurm looks every half minute, and so signals 10 to 40 s before the limit where asked for 10.
    """
    run = folder / "run"
    number = submit(
        cluster, folder, "restart", "--time=1", "--signal=B:USR1@10",
        INPUT=write_input(folder / "input.xml", steps=1_000_000),
    )  # fmt: skip
    cluster.wait_until(
        lambda: (
            cluster.job(number)["Restarts"] == "1" and cluster.job(number)["JobState"] == "RUNNING"
        ),
        600,
        "restart",
    )
    resumed_at = steps_in(run)
    cluster.wait_until(lambda: steps_in(run) > resumed_at + 5, 300, "step after the restart")
    (run / "EXIT").touch()  # i-PI ends after its step: we have seen enough
    assert cluster.wait_for(number) == ["COMPLETED"], output(cluster.job(number))
    assert "queued again" in output(cluster.job(number))
    # Stopped in order: no step is missing and none was done twice.
    steps = properties(run)[:, 0]
    assert steps.tolist() == list(range(len(steps)))


def steps_in(run: Path) -> int:
    path = run / f"{PREFIX}.out"
    if not path.exists():
        return 0
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return int(float(lines[-1].split()[0])) if lines else 0


def test_killed_node_requeues_the_job_and_the_run_finishes(cluster: SlurmCluster, folder: Path):
    run, steps = folder / "run", 400
    number = submit(
        cluster, folder, "restart", INPUT=write_input(folder / "input.xml", steps=steps)
    )
    cluster.wait_until(lambda: steps_in(run) >= 15, 300, "first steps")
    victim = cluster.job(number)["BatchHost"]
    cluster.kill_node(victim)
    try:
        assert cluster.wait_for(number, timeout_s=600) == ["COMPLETED"]
    finally:
        cluster.start_node(victim)
        cluster.wait_until(lambda: cluster.states() == ["idle"] * 2, 120, "node that came back")
    job = cluster.job(number)
    assert job["Restarts"] == "1"
    assert job["BatchHost"] in set(NODES) - {victim}
    assert "from step" in output(job)
    rows = properties(run)
    done = rows[:, 0].astype(int)
    assert sorted(set(done)) == list(range(steps + 1))
    # What was done twice, before the failure and after the restart, came out the same.
    for step in {step for step in done if (done == step).sum() == 2}:
        before, after = rows[done == step]
        np.testing.assert_allclose(after, before, rtol=1e-6, atol=1e-9)


def test_labels_on_dask(cluster: SlurmCluster, folder: Path):
    dataset = folder / "dataset"
    sample = [
        Path(sys.executable).with_name("deltaserver"), "dataset", "sample",
        ROOT / "data" / "structures" / "methane_dimer_S22-8.xyz",
        "--fragment", "methane1:0-4", "--fragment", "methane2:5-9", "--frames", "6",
        "--trajectories", "1", "--equilibrate", "10", "--interval", "2", "--no-relax",
        "--calculator", "GFN2-xTB", "--output", dataset,
    ]  # fmt: skip
    subprocess.run(sample, check=True, capture_output=True, timeout=120)
    number = submit(
        cluster, folder, "dask_labels", "--ntasks-per-node=2", DATASET=dataset,
        OPTIONS="--calculator GFN2-xTB",
    )  # fmt: skip
    assert cluster.wait_for(number) == ["COMPLETED"], output(cluster.job(number))
    text = output(cluster.job(number))
    assert "listens at tls://10.83.0." in text
    for address in ADDRESSES.values():
        assert f"Register worker addr: tls://{address}:" in text
    journal = [json.loads(line) for line in (dataset / "journal" / "labels.jsonl").open()]
    assert len(journal) == 6 * 3
    assert not list(ROOT.glob(f"dask-{number}-*"))  # the job's certificate is gone
