"""Many requests to one daemon: neither its memory nor its latency grows."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from tests.serve.server_double import Peer, ServerDouble

from .conftest import ROOT, start_daemon

WINDOWS = 10


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


def processor_s(pid: int) -> float:
    """User and system time of a process, s; clock ticks of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def soak(tmp_path: Path, models: Path, structure: Path, n_requests: int) -> np.ndarray:
    """Return for each of ten windows the daemon's memory, KiB, median latency and processor, µs."""
    base = read(structure).positions
    shaken = base + np.random.default_rng(0).normal(scale=0.02, size=(64, *base.shape))
    pid: list[int] = []

    def script(peer: Peer) -> np.ndarray:
        peer.introduce()
        for x in shaken:  # compiled, and its structures looked at
            peer.forces(x)
        found = []
        for _ in range(WINDOWS):
            took = np.empty(n_requests // WINDOWS)
            busy = processor_s(pid[0])
            for k in range(len(took)):
                began = time.perf_counter()
                reply = peer.forces(shaken[k % len(shaken)])
                took[k] = time.perf_counter() - began
                assert np.isfinite(reply["forces"]).all()
            busy = (processor_s(pid[0]) - busy) / len(took)
            found.append((resident_kib(pid[0]), 1e6 * np.median(took), 1e6 * busy))
        peer.send(b"EXIT".ljust(12))
        return np.array(found)

    server = ServerDouble(f"unix:{tmp_path}/s", script)
    log = tmp_path / "steps.jsonl"
    daemon = start_daemon(models, "--socket", server.address, "--log-file", log)
    pid.append(daemon.pid)
    try:
        server.thread.join(3600.0)
        found = server.finish()
        assert daemon.wait(30) == 0
    finally:
        daemon.kill()
    assert sum('"step"' in line for line in log.open()) == n_requests // WINDOWS * WINDOWS + 64
    return found


def check(memory: np.ndarray, cost: np.ndarray) -> None:
    # KiB. Nothing is kept of a request: the allocator may take some megabytes once, as it does for
    # the dimer after some 500 requests, but not again in every window.
    assert np.median(np.diff(memory[1:])) < 64
    assert memory[-1] - memory[1] < 8192
    early, late = np.median(cost[1:4]), np.median(cost[-3:])
    assert late < 1.3 * early


def test_memory_and_cost_do_not_grow(tmp_path):
    """By processor time: beside other tests latency says how busy these are."""
    models = ROOT / "models" / "methane_dimer"
    found = soak(tmp_path, models, models / "structure.xyz", 1500)
    memory, _, processor = found.T
    check(memory, processor)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n_requests"), [("benzene_dimer", 200_000), ("c60_buckycatcher", 20_000)]
)
def test_two_hundred_thousand_requests(tmp_path, name, n_requests):
    models = ROOT / "models" / {"c60_buckycatcher": "c60"}.get(name, name)
    found = soak(tmp_path, models, ROOT / "ipi_inputs" / f"{name}.xyz", n_requests)
    for memory, latency, _ in found:
        print(f"{memory:.0f} KiB, {latency:.0f} µs")
    memory, latency, _ = found.T
    check(memory, latency)
