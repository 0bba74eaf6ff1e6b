"""The images are built and run: size, start, signals, sockets of both kinds, without a network."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from deltaserver.model.composite import CompositeModel

from .apptainer import Apptainer
from .containers import BASE, RUN_S, Engine

ROOT = Path(__file__).parents[2]
C60 = ROOT / "models" / "c60"
DIMER = ROOT / "models" / "benzene_dimer"
I_PI = Path(sys.executable).with_name("i-pi")
STEPS = 10
HEADER = 12


@pytest.fixture
def shared(tmp_path):
    """A folder that everybody may write, as a cluster's scratch is to its user."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.fixture
def inputs(tmp_path):
    """The shipped inputs, with fewer steps."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    for path in (ROOT / "ipi_inputs").glob("c60*"):
        text = path.read_text().replace("<total_steps>500<", f"<total_steps>{STEPS}<")
        (folder / path.name).write_text(text)
    return folder


def receive(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        assert part, "the daemon closed the connection"
        data += part
    return data


def steps(log: Path) -> list[dict]:
    records = [json.loads(line) for line in log.read_text().splitlines()]
    return [record for record in records if record["event"] == "step"]


def check_run(folder: Path, log: Path) -> None:
    """Every step was served, and i-PI used what the model gives for its first frame."""
    assert len(steps(log)) == STEPS + 1
    properties = np.loadtxt(folder / "c60_nvt.out")
    assert properties[:, 0].tolist() == list(range(STEPS + 1))
    start = np.loadtxt(ROOT / "ipi_inputs" / "c60_buckycatcher.xyz", skiprows=2, usecols=(1, 2, 3))
    energy_ev = CompositeModel.load(C60).evaluate(start).energy
    assert steps(log)[0]["energy_ev"] == pytest.approx(float(energy_ev), abs=1e-6)
    # i-PI's electronvolt is 1e-7 off CODATA 2018's.
    assert properties[0, 4] == pytest.approx(float(energy_ev), rel=1e-6)


def test_cpu_image_is_small(engine: Engine):
    beyond_base = engine.inspect("deltaserver:cpu")["Size"] - engine.inspect(BASE)["Size"]
    print(f"the cpu image: {beyond_base / 1e6:.0f} MB beyond its base")
    assert beyond_base < 250e6


def test_image_is_what_it_promises(engine: Engine):
    facts = engine.inspect("deltaserver:cpu")
    config = facts["Config"]
    assert config["User"] == "1000:1000"
    assert config["Entrypoint"][0] == "deltaserver"  # exec form: SIGTERM reaches the daemon
    assert facts["Healthcheck"]["Test"] == ["CMD", "healthcheck"]
    assert config["Labels"]["org.opencontainers.image.title"] == "deltaserver"
    found = engine.podman(
        "run", "--rm", "--network=none", "--entrypoint=find", "deltaserver:cpu", "/opt", "/work",
        "-name", "model.yaml", "-o", "-path", "*-packages/torch", "-o", "-path", "*-packages/numba",
    )  # fmt: skip
    assert found == ""


def test_starts_to_ready_within_three_seconds(engine: Engine, shared: Path):
    """From `podman run` to the daemon's READY, C60@buckycatcher loaded: the median of three."""
    taken = [seconds_to_ready(engine, shared / f"socket{k}") for k in range(3)]
    print(f"to READY with models/c60: {', '.join(f'{t:.2f}' for t in taken)} s")
    assert sorted(taken)[1] < 3.0


def seconds_to_ready(engine: Engine, path: Path) -> float:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o777)
        listener.listen(1)
        listener.settimeout(60)
        began = time.monotonic()
        command = [
            "podman", "run", "--rm", "--network=none", "-v", f"{C60}:/models:ro",
            "-v", f"{path.parent}:/sockets", "deltaserver:cpu",
            "--models", "/models", "--socket", f"unix:/sockets/{path.name}", "--quiet",
        ]  # fmt: skip
        with subprocess.Popen(command, env=engine.environment) as process:
            peer, _ = listener.accept()
            with peer:
                peer.settimeout(60)
                peer.sendall(b"STATUS".ljust(HEADER))
                assert receive(peer, HEADER) == b"NEEDINIT    "
                peer.sendall(b"INIT".ljust(HEADER) + struct.pack("=ii", 0, 0))
                peer.sendall(b"STATUS".ljust(HEADER))
                assert receive(peer, HEADER) == b"READY       "
                taken = time.monotonic() - began
                peer.sendall(b"EXIT".ljust(HEADER))
            assert process.wait(20) == 0
    return taken


@contextlib.contextmanager
def ipi_outside(shared: Path, inputs: Path) -> Iterator[None]:
    """i-PI at ``shared/ipi_delta``, which ends well once it has been served."""
    (shared / "ipi_inputs").symlink_to(inputs)
    with (shared / "i-pi.log").open("w") as log:
        ipi = subprocess.Popen(
            [I_PI, "-S", f"{shared}/ipi_", inputs / "c60_nvt.xml"],
            cwd=shared,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield
        assert ipi.wait(60) == 0, (shared / "i-pi.log").read_text()
    finally:
        ipi.kill()


def test_daemon_in_container_serves_ipi_outside(engine: Engine, shared: Path, inputs: Path):
    with ipi_outside(shared, inputs):
        engine.podman(
            "run", "--rm", "--network=none", f"--user={os.getuid()}:{os.getgid()}",
            "-v", f"{C60}:/models:ro", "-v", f"{shared}:/sockets", "deltaserver:cpu",
            "--models", "/models", "--socket", "unix:/sockets/ipi_delta",
            "--log-file", "/sockets/deltaserver.jsonl",
        )  # fmt: skip
    check_run(shared, shared / "deltaserver.jsonl")


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_compose_file(engine: Engine, shared: Path, inputs: Path, kind: str):
    compose = ["podman-compose", "-p", f"delta{os.getpid()}{kind}"]
    compose += ["-f", f"docker/compose.{kind}.yaml"]
    where = {"RUN": str(shared), "INPUTS": str(inputs)}
    try:
        # podman-compose's own exit code is that of being aborted; the containers' count.
        said = engine.run(*compose, "up", "--abort-on-container-exit", check=False, **where)
        assert said.stdout.splitlines()[-2:] == ["exit code: 0"] * 2, said.stdout[-3000:]
    finally:
        engine.run(*compose, "down", "--volumes", check=False, **where)
    check_run(shared, shared / "deltaserver.jsonl")


def test_sigterm_reaches_the_daemon_and_health_is_told(engine: Engine, shared: Path):
    name = f"delta{os.getpid()}"
    engine.podman(
        "run", "-d", "--name", name, "--network=none", "-v", f"{DIMER}:/models:ro",
        "-v", f"{shared}:/work", "deltaserver:cpu", "--models", "/models",
        "--socket", "unix:/sockets/nobody", "--log-file", "/work/log",
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        log = shared / "log"
        while not (log.exists() and '"connecting"' in log.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert engine.run("podman", "healthcheck", "run", name).returncode == 0
        said = engine.podman("exec", name, "healthcheck")
        assert said.startswith("connecting, ")  # from the daemon's own health file
        began = time.monotonic()
        engine.podman("stop", "--time=10", name)
        assert time.monotonic() - began < 5  # not killed after ten seconds
        code = engine.podman("inspect", "--format={{.State.ExitCode}}", name)
        assert code.strip() == "0"
        last = json.loads(log.read_text().splitlines()[-1])
        assert (last["event"], last["reason"]) == ("stopped", "SIGTERM")
    finally:
        engine.podman("rm", "--force", name)


# -- without a network: docs/cluster.md, "Without a network" ------------------------------------


@pytest.fixture(scope="module")
def archive(engine: Engine, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "deltaserver-cpu.tar"
    engine.podman("save", "--output", path, "deltaserver:cpu")
    yield path
    path.unlink()


def test_saved_image_loads_elsewhere(archive: Path, tmp_path: Path):
    with Engine.open(tmp_path / "store") as other:
        other.podman("load", "--input", archive)
        said = other.podman("run", "--rm", "--network=none", "deltaserver:cpu", "--version")
    assert said.startswith("deltaserver, version")


@pytest.fixture
def public():
    """A folder that everybody can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_image_runs_without_privileges(engine: Engine, public: Path):
    """The image as SquashFS and in a SIF file, run by Charliecloud as a user with no rights."""
    squash, sif, again = (public / name for name in ("cpu.sqfs", "cpu.sif", "again.sqfs"))
    name = f"export{os.getpid()}"
    engine.podman("create", "--name", name, "deltaserver:cpu")
    engine.podman("export", "--output", public / "rootfs.tar", name)
    engine.podman("rm", name)
    engine.run("ch-convert", "-i", "tar", "-o", "squash", public / "rootfs.tar", squash)
    engine.run("siftool", "new", sif)
    engine.run(
        "siftool", "add", "--datatype", "4", "--parttype", "2", "--partfs", "1",
        "--partarch", "2", sif, squash,
    )  # fmt: skip
    with again.open("wb") as file:
        subprocess.run(["siftool", "dump", "1", sif], stdout=file, check=True)
    assert again.read_bytes() == squash.read_bytes()
    version = subprocess.run(
        ["ch-run", squash, "--", "/opt/deltaserver/bin/deltaserver", "--version"],
        capture_output=True,
        text=True,
        env=os.environ | {"USER": "nobody", "HOME": "/tmp"},
        user="nobody",
        group="nogroup",
        extra_groups=[],
        timeout=RUN_S,
        check=False,
    )
    assert version.stdout.startswith("deltaserver, version"), version.stderr


@pytest.fixture(scope="module")
def apptainer(tmp_path_factory):
    with tempfile.TemporaryDirectory() as name:
        yield Apptainer.install(Path(name) / "root")


def test_apptainer_serves_from_a_sif(apptainer: Apptainer, archive: Path, shared, inputs):
    """``apptainer build`` makes the SIF from the saved image and the definition, and it serves."""
    shutil.copy(archive, shared / "deltaserver-cpu.tar")
    shutil.copy(ROOT / "docker" / "deltaserver.def", shared)
    # Its %test as a user would run it: a machine's root may lack what Apptainer wants of a root.
    apptainer(shared, "build", "--notest", "deltaserver-cpu.sif", "deltaserver.def")
    apptainer(shared, "test", "--userns", "deltaserver-cpu.sif")
    said = apptainer(shared, "run", "--userns", "deltaserver-cpu.sif", "--version")
    assert said.startswith("deltaserver, version")
    shutil.copytree(C60, shared / "models")
    with ipi_outside(shared, inputs):
        apptainer(
            shared, "run", "--userns", "--bind", "/mnt/models:/models", "--bind", "/mnt:/sockets",
            "deltaserver-cpu.sif", "--models", "/models", "--socket", "unix:/sockets/ipi_delta",
            "--log-file", "/sockets/deltaserver.jsonl",
        )  # fmt: skip
    check_run(shared, shared / "deltaserver.jsonl")
