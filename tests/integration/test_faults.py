"""The real i-PI and the real daemon when one of them is killed, stopped, or ends too early.

The dynamics are NVE, and without a thermostat one run is like another: after every fault the
trajectory must be that of a run in which nothing happened.
"""

from __future__ import annotations

import signal
import socket
import time
from pathlib import Path

import numpy as np
import pytest

from tests import logs

from .conftest import DIMER, Setup, render, start_daemon, start_ipi
from .nursery import Process

NVE = '<dynamics mode="nve"><timestep units="femtosecond">0.5</timestep></dynamics>'
STEPS = 100
WAIT_S = 240.0


class Run:
    """i-PI in a directory, and daemons that come and go; all of them write one log."""

    def __init__(self, directory: Path, **socket_options: str) -> None:
        self.directory = directory
        self.log = directory / "log"
        self.socket = directory / "s"
        self.processes: list[Process] = []
        setup = Setup(
            steps=STEPS, dynamics=NVE, sockets=[{"name": "delta", "timeout": "60"} | socket_options]
        )
        text = render(setup, "/").replace("<address>/delta", f"<address>{self.socket}")
        checkpoint = '<checkpoint filename="chk" stride="10" overwrite="False"/></output>'
        (directory / "input.xml").write_text(text.replace("</output>", checkpoint))

    def ipi(self, name: str = "input.xml") -> Process:
        self.socket.unlink(missing_ok=True)
        self.processes.append(start_ipi(self.directory, "-S", "", name))
        return self.processes[-1]

    def daemon(self, *options: str) -> Process:
        address = ["--socket", f"unix:{self.socket}", "--log-file", self.log]
        patience = ["--reconnect", "--connect-timeout", "240"]
        process = start_daemon(DIMER, *address, *patience, *options)
        self.processes.append(process)
        return process

    def steps(self) -> list[dict]:
        """The steps logged so far."""
        return self.events("step")

    def events(self, name: str) -> list[dict]:
        return logs.events(self.log, name)

    def wait_for_steps(self, n: int) -> None:
        began = time.monotonic()
        while len(self.steps()) < n:
            assert time.monotonic() - began < WAIT_S, (self.directory / "i-pi.log").read_text()
            time.sleep(0.02)

    def properties(self) -> np.ndarray:
        return np.loadtxt(self.directory / "run.out")


@pytest.fixture
def run(tmp_path):
    runs = []

    def start(**socket_options):
        runs.append(Run(tmp_path, **socket_options))
        return runs[-1]

    yield start
    for each in runs:
        for process in each.processes:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The energies of a run in which nothing happens."""
    run = Run(tmp_path_factory.mktemp("undisturbed"))
    ipi, daemon = run.ipi(), run.daemon()
    try:
        assert ipi.wait(WAIT_S) == 0
        assert daemon.wait(WAIT_S) == 0
    finally:
        for process in (ipi, daemon):
            process.kill()
            process.wait()
    assert len(run.steps()) == STEPS + 1
    return run.properties(), np.array([step["energy_ev"] for step in run.steps()])


def assert_whole(run, ipi, undisturbed):
    """i-PI's trajectory is complete and the undisturbed one."""
    assert ipi.wait(WAIT_S) == 0, (run.directory / "i-pi.log").read_text()[-2000:]
    properties, _ = undisturbed
    np.testing.assert_allclose(run.properties(), properties, rtol=1e-7, atol=1e-7)


def cpu_s(process):
    """User and system time of a process, in s."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100.0


def wait_until_idle(process):
    """Wait until it has used no processor time for half a second."""
    used, since = cpu_s(process), time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.05)
        if cpu_s(process) > used:
            used, since = cpu_s(process), time.monotonic()


def test_ipi_is_stopped_and_continued(run, undisturbed):
    it = run()
    ipi, daemon = it.ipi(), it.daemon()
    it.wait_for_steps(25)
    ipi.send_signal(signal.SIGSTOP)
    time.sleep(0.3)
    used = cpu_s(daemon)
    time.sleep(1.0)
    assert cpu_s(daemon) - used < 0.1
    ipi.send_signal(signal.SIGCONT)
    assert_whole(it, ipi, undisturbed)
    assert daemon.wait(WAIT_S) == 0
    assert len(it.steps()) == STEPS + 1
    assert len(it.events("connected")) == 1


def test_ipi_is_killed_and_started_on_its_checkpoint(run, undisturbed):
    """One daemon serves both i-PIs; what the second computes again is what the first had."""
    it = run()
    ipi, daemon = it.ipi(), it.daemon()
    it.wait_for_steps(50)
    ipi.kill()
    ipi.wait()
    chosen = it.directory / "run.chk_2"  # after 20 steps, and whole for long
    (it.directory / "run.out").rename(it.directory / "first.out")
    ipi = it.ipi(chosen.name)
    assert ipi.wait(WAIT_S) == 0
    assert daemon.wait(WAIT_S) == 0
    assert [event["times"] for event in it.events("connected")] == [1, 2]
    properties, energies = undisturbed
    np.testing.assert_allclose(it.properties(), properties[-len(it.properties()) :], rtol=1e-7)
    first, second = ([s["energy_ev"] for s in it.steps()[a]] for a in two_parts(it))
    np.testing.assert_allclose(first, energies[: len(first)], rtol=1e-9)
    np.testing.assert_allclose(second, energies[-len(second) :], rtol=1e-9)
    assert len(first) >= 50
    assert len(second) == STEPS - 20 + 1


def two_parts(it):
    """Where the steps of the first and of the second connection are."""
    records = [record["event"] for record in logs.records(it.log)]
    second = [k for k, event in enumerate(records) if event == "connected"][1]
    n_first = records[:second].count("step")
    return slice(n_first), slice(n_first, None)


@pytest.mark.parametrize("consolidated", ["True", pytest.param("False", marks=pytest.mark.slow)])
def test_the_daemon_is_killed_in_the_middle_of_a_step(run, undisturbed, consolidated):
    """The request is with the daemon when it dies; i-PI sends it again to the next.

    A second connection that idles makes the first wait for the end of the window, so that the
    moment can be chosen.
    """
    it = run(consolidate_messages=consolidated)
    ipi, daemon = it.ipi(), it.daemon()
    it.wait_for_steps(30)
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(WAIT_S) == 0
    n_before = len(it.steps())
    with socket.socket(socket.AF_UNIX) as idle:
        idle.bind(str(it.directory / "idle"))
        idle.listen(1)
        other = ["--socket", f"unix:{it.directory}/idle", "--batch-window", "60000"]
        waiting = it.daemon(*other)
        connection, _ = idle.accept()
        while not it.log.read_text().count("introduced") > 1:
            time.sleep(0.02)
        wait_until_idle(waiting)  # with GETFORCE read
        waiting.kill()
        waiting.wait()
        connection.close()
    assert len(it.steps()) == n_before
    daemon = it.daemon()
    assert_whole(it, ipi, undisturbed)
    assert daemon.wait(WAIT_S) == 0
    energies = [step["energy_ev"] for step in it.steps()]
    np.testing.assert_allclose(energies, undisturbed[1], rtol=1e-9)  # none lost, none twice


@pytest.mark.parametrize("consolidated", ["True", pytest.param("False", marks=pytest.mark.slow)])
def test_daemons_that_end_in_order_hand_the_run_over(run, undisturbed, consolidated):
    """SIGTERM again and again under load: i-PI never hangs, no step is lost or done twice."""
    it = run(consolidate_messages=consolidated)
    ipi = it.ipi()
    for k in range(4):
        daemon = it.daemon()
        it.wait_for_steps(15 + 20 * k)
        daemon.send_signal(signal.SIGTERM)
        assert daemon.wait(WAIT_S) == 0
    daemon = it.daemon()
    assert_whole(it, ipi, undisturbed)
    assert daemon.wait(WAIT_S) == 0
    energies = [step["energy_ev"] for step in it.steps()]
    np.testing.assert_allclose(energies, undisturbed[1], rtol=1e-9)


def test_a_daemon_that_sleeps_too_long_comes_back(run, undisturbed):
    """i-PI drops a client after <timeout> with the word EXIT; it is not the end."""
    it = run(timeout="1")
    ipi, daemon = it.ipi(), it.daemon()
    for k in range(2):  # a stop between two requests is none that i-PI would notice
        it.wait_for_steps(20 * (k + 1))
        daemon.send_signal(signal.SIGSTOP)
        time.sleep(2.5)
        daemon.send_signal(signal.SIGCONT)
    assert_whole(it, ipi, undisturbed)
    assert daemon.wait(WAIT_S) == 0
    assert it.steps()[-1]["energy_ev"] == pytest.approx(undisturbed[1][-1], rel=1e-9)
    assert len(it.events("connected")) > 1


def test_ipi_that_ends_early_says_so(run):
    """SIGTERM to i-PI: it says EXIT, and the daemon ends although it could connect again."""
    it = run()
    ipi, daemon = it.ipi(), it.daemon()
    it.wait_for_steps(20)
    ipi.send_signal(signal.SIGTERM)
    assert daemon.wait(WAIT_S) == 0
    ipi.wait(WAIT_S)
    assert it.events("closed")[-1]["reason"] == "EXIT"
