"""Many requests to one daemon: neither its memory nor what a request costs grows."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from ase.io import read

from tests.serve.server_double import Peer, listening

from .conftest import ROOT, start_daemon

WINDOWS = 10
N_COMPARED = 400  # requests to the used daemon and to a new one, in turn


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1])


@contextlib.contextmanager
def served(models: Path, log: Path) -> Iterator[tuple[Peer, int]]:
    """Start a daemon; yield the server's side of its connection and its pid."""
    address = log.with_suffix("")
    with listening(address) as listener:
        listener.settimeout(60.0)
        daemon = start_daemon(models, "--socket", f"unix:{address}", "--log-file", log)
        try:
            sock, _ = listener.accept()
            with sock:
                peer = Peer(sock)
                peer.introduce()
                yield peer, daemon.pid
                peer.send(b"EXIT".ljust(12))
                assert daemon.wait(30) == 0
        finally:
            daemon.kill()


def timed(peer: Peer, positions: np.ndarray) -> float:
    """Ask for forces; return how long the answer took, s."""
    began = time.perf_counter()
    reply = peer.forces(positions)
    took = time.perf_counter() - began
    assert np.isfinite(reply["forces"]).all()
    return took


def soak(tmp_path: Path, models: Path, structure: Path, n_requests: int) -> None:
    base = read(structure).positions
    shaken = base + np.random.default_rng(0).normal(scale=0.02, size=(64, *base.shape))
    log = tmp_path / "used.jsonl"
    with served(models, log) as (used, pid):
        for x in shaken:  # compiled, and its structures looked at
            used.forces(x)
        memory = []
        for _ in range(WINDOWS):
            for k in range(n_requests // WINDOWS):
                timed(used, shaken[k % len(shaken)])
            memory.append(resident_kib(pid))
        # A new one beside it: whatever else this machine does at the time, it does to both.
        with served(models, tmp_path / "new.jsonl") as (new, _):
            for x in shaken:
                new.forces(x)
            cost_s = np.array(
                [[timed(peer, shaken[k % 64]) for peer in (used, new)] for k in range(N_COMPARED)]
            )
    n_steps = n_requests // WINDOWS * WINDOWS + len(shaken) + N_COMPARED
    assert sum('"step"' in line for line in log.open()) == n_steps
    # The quickest answers are those that nothing got in the way of. On a busy machine medians of
    # the two differ by a factor of two, the quickest by a tenth; what grows slows these as well.
    late, early = cost_s.min(axis=0)
    print(f"{memory} KiB; {1e6 * late:.0f} µs, a new daemon {1e6 * early:.0f} µs")
    # Nothing is kept of a request: the allocator may take some megabytes once, as it does for the
    # dimer after some 500 requests, but not again in every window.
    assert np.median(np.diff(memory[1:])) < 64
    assert memory[-1] - memory[1] < 8192
    assert late < 1.3 * early


def test_memory_and_cost_do_not_grow(tmp_path):
    models = ROOT / "models" / "na_benzene"  # a quick one
    soak(tmp_path, models, models / "structure.xyz", 1500)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n_requests"), [("benzene_dimer", 200_000), ("c60_buckycatcher", 20_000)]
)
def test_two_hundred_thousand_requests(tmp_path, name, n_requests):
    models = ROOT / "models" / {"c60_buckycatcher": "c60"}.get(name, name)
    soak(tmp_path, models, ROOT / "ipi_inputs" / f"{name}.xyz", n_requests)
