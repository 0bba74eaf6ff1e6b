"""One long run in which i-PI and the daemon are killed again and again, and what came of it.

    python -m tests.integration.endurance DIRECTORY --kills 100

kills each of them so often with SIGKILL, at random moments, and prints what was found as JSON. i-PI
is started again from its last whole checkpoint, in a directory of its own (``ipi0``, ``ipi1``, …);
the daemon is started again as it was, and all daemons write one log.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from .conftest import DIMER, Setup, render, start_daemon, start_ipi
from .nursery import Process

NVE = '<dynamics mode="nve"><timestep units="femtosecond">0.25</timestep></dynamics>'
OUTPUTS = """<checkpoint filename="chk" stride="25" overwrite="False"/>
    <trajectory stride="1" filename="b" extra_type="binding_energy_ev">extras</trajectory>
  </output>"""
STUCK_S, LOST_S = 20.0, 180.0  # without a step, both alive
OFFSET_HARTREE = -31.755  # of the model: i-PI prints nine digits, and they shall tell something
DIED = "ConnectionResetError"  # what i-PI's polling thread dies of; i-PI then hangs
EXTRAS = "run.b_0"


@dataclass
class Findings:
    """What a run with kills has done; see :func:`examine`."""

    ended: bool = False
    wall_s: float = 0.0
    kills: dict[str, int] = field(default_factory=lambda: {"i-pi": 0, "daemon": 0})
    ipi_hung: int = 0
    steps: int = 0
    steps_missing: int = 0
    steps_computed_again_by_ipi: int = 0
    largest_difference_when_computed_again_ev: float = 0.0
    conserved_spread_ev: float = 0.0
    largest_step_of_conserved_ev: float = 0.0
    logged: int = 0
    log_lines_broken: int = 0
    steps_not_logged: int = 0
    logged_more_often_than_ipi_has_it: int = 0
    logged_but_not_in_ipis_output: int = 0
    logged_twice_in_one_connection: int = 0


class Endurance:
    """The two processes, and the hand that kills them."""

    def __init__(self, directory: Path, total_steps: int, seed: int, within_s: float) -> None:
        self.directory = directory
        self.random = random.Random(seed)
        self.within_s = within_s
        self.findings = Findings()
        self.socket = directory / "s"
        self.log = directory / "daemon.jsonl"
        self.n_ipi = self.n_read = 0
        self.progress = (0, time.monotonic())
        self.started = time.monotonic()
        sockets = [{"name": "delta", "offset": str(OFFSET_HARTREE)}]
        setup = Setup(steps=total_steps, dynamics=NVE, sockets=sockets)
        text = render(setup, "/").replace("<address>/delta", f"<address>{self.socket}")
        self.first_input = text.replace("</output>", OUTPUTS)
        self.ipi = self.start_ipi()
        self.daemon = self.start_daemon()

    def start_ipi(self) -> Process:
        """Start i-PI on its last whole checkpoint, in a new directory."""
        self.socket.unlink(missing_ok=True)  # i-PI refuses to replace its own
        here = self.directory / f"ipi{self.n_ipi}"
        here.mkdir()
        (here / "input.xml").write_text(self.last_checkpoint() or self.first_input)
        self.n_ipi += 1
        return start_ipi(here, "-S", "", "input.xml")

    def last_checkpoint(self) -> str | None:
        """Return the newest checkpoint that was not cut off by a kill."""
        found = sorted(
            self.directory.glob("ipi*/run.chk_*"), key=lambda path: path.stat().st_mtime_ns
        )
        for path in reversed(found):
            text = path.read_text()
            try:
                if ElementTree.fromstring(text).findtext("step"):
                    return text
            except ElementTree.ParseError:
                path.unlink()
        return None

    def start_daemon(self) -> Process:
        """Start a daemon that outlives i-PI."""
        address = f"unix:{self.socket}"
        options = ["--socket", address, "--log-file", self.log]
        options += ["--reconnect", "--connect-timeout", "600"]
        return start_daemon(DIMER, *options)

    def run(self, kills: int) -> None:
        """Kill each process so often, then let the run end."""
        began = time.monotonic()
        plan = ["i-pi", "daemon"] * kills
        self.random.shuffle(plan)
        for victim in plan:
            self.strike_while_it_runs()
            if self.ipi.poll() is not None:
                break
            self.kill(victim)
        while self.ipi.poll() is None:
            self.wait(0.5)
        self.findings.ended = self.ipi.returncode == 0 and self.daemon.wait(LOST_S) == 0
        self.findings.wall_s = round(time.monotonic() - began, 1)

    def strike_while_it_runs(self) -> None:
        """Wait for a random moment: mostly while steps are made, now and then during a start."""
        if self.random.random() < 0.8:
            before = self.progress[0]
            while self.progress[0] == before and self.ipi.poll() is None:
                self.wait(0.05)
        self.wait(self.random.uniform(0.0, self.within_s))

    def kill(self, victim: str) -> None:
        """SIGKILL one process and start it again."""
        self.findings.kills[victim] += 1
        process = self.ipi if victim == "i-pi" else self.daemon
        process.kill()
        process.wait()
        if victim == "i-pi":
            self.ipi = self.start_ipi()
        else:
            self.daemon = self.start_daemon()
        self.started = time.monotonic()

    def wait(self, seconds: float) -> None:
        """Sleep; if nothing moves for long, i-PI hangs: kill it too."""
        time.sleep(seconds)
        if n_new := self.new_steps():
            self.progress = (self.progress[0] + n_new, time.monotonic())
            return
        stuck_s = time.monotonic() - max(self.progress[1], self.started)
        if stuck_s < STUCK_S or self.ipi.poll() is not None:
            return
        log = self.directory / f"ipi{self.n_ipi - 1}" / "i-pi.log"
        if DIED in log.read_text(errors="replace"):
            self.findings.ipi_hung += 1
            self.kill("i-pi")
            self.findings.kills["i-pi"] -= 1  # not one of those that were planned
        elif stuck_s > LOST_S:
            raise RuntimeError(f"no step for {stuck_s:.0f} s, and i-PI's thread lives: {log}")

    def new_steps(self) -> int:
        """Count the steps logged since the last call."""
        if not self.log.exists():
            return 0
        with self.log.open("rb") as file:
            file.seek(self.n_read)
            new = file.read()
        self.n_read += len(new)
        return new.count(b'{"event": "step"')

    def close(self) -> None:
        """Leave nothing behind."""
        for process in (self.ipi, self.daemon):
            process.kill()
            process.wait()


def read_segment(directory: Path) -> dict[int, tuple[float, float]]:
    """Return {step: (conserved, binding energy)}, eV, of one i-PI; half lines are left out."""
    rows, binding, step = {}, {}, None
    for line in (directory / "run.out").read_text().splitlines():
        columns = line.split()
        if len(columns) == 5 and columns[0] != "#":
            rows[int(float(columns[0]))] = float(columns[1])
    for line in (directory / EXTRAS).read_text().splitlines():
        if "Step:" in line:
            step = int(line.split("Step:")[1].split()[0])
        elif step is not None and len(line.split()) == 1 and line.count("e") == 1:
            binding[step], step = float(line), None
    return {step: (rows[step], binding[step]) for step in rows if step in binding}


def examine(directory: Path, findings: Findings) -> Findings:
    """Compare what i-PI wrote, step by step, with what the daemons logged."""
    n_ipi = len(list(directory.glob("ipi*")))
    seen: dict[int, tuple[float, float]] = {}
    evaluations: list[float] = []  # binding energies, as often as i-PI has them
    for k in range(n_ipi):
        if not (directory / f"ipi{k}" / EXTRAS).exists():
            continue
        for step, values in read_segment(directory / f"ipi{k}").items():
            if step in seen:
                findings.steps_computed_again_by_ipi += 1
                difference = abs(values[1] - seen[step][1])
                findings.largest_difference_when_computed_again_ev = max(
                    findings.largest_difference_when_computed_again_ev, difference
                )
            seen[step] = values
            evaluations.append(values[1])
    findings.steps = len(seen)
    findings.steps_missing = max(seen) + 1 - len(seen)
    conserved = np.array([seen[step][0] for step in sorted(seen)])
    findings.conserved_spread_ev = float(np.ptp(conserved))
    findings.largest_step_of_conserved_ev = float(np.abs(np.diff(conserved)).max())
    connections, findings.log_lines_broken = read_log(directory / "daemon.jsonl")
    logged = np.concatenate(connections)
    findings.logged = len(logged)
    findings.logged_twice_in_one_connection = sum(len(c) - len(set(c)) for c in connections)
    count(np.sort(logged), np.sort(evaluations), findings)
    return findings


def read_log(path: Path) -> tuple[list[list[float]], int]:
    """Return the binding energies logged, connection by connection, and the broken lines."""
    connections: list[list[float]] = [[]]
    broken = 0
    for line in path.read_text().splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            broken += 1
            continue
        if record["event"] == "connected":
            connections.append([])
        elif record["event"] == "step":
            connections[-1].append(record["binding"]["energy_ev"])
    return connections, broken


def count(logged: np.ndarray, written: np.ndarray, findings: Findings) -> None:
    """Match sorted energies: i-PI writes nine digits, so equal means equal to 1e-8 relative."""
    tolerance = 1e-8 * np.abs(written).max()
    edges = np.flatnonzero(np.diff(np.sort(np.concatenate([logged, written]))) > tolerance)
    values = np.sort(np.concatenate([logged, written]))
    groups = np.concatenate([[-np.inf], (values[edges] + values[edges + 1]) / 2, [np.inf]])
    n_logged = np.histogram(logged, groups)[0]
    n_written = np.histogram(written, groups)[0]
    findings.steps_not_logged = int(np.clip(n_written - n_logged, 0, None).sum())
    extra = np.clip(n_logged - n_written, 0, None)
    findings.logged_more_often_than_ipi_has_it = int(extra[n_written > 0].sum())
    findings.logged_but_not_in_ipis_output = int(extra[n_written == 0].sum())


def endure(
    directory: Path, kills: int, total_steps: int, seed: int = 1, within_s: float = 1.0
) -> Findings:
    """Run, kill within ``within_s`` of a step, restart, examine."""
    directory.mkdir(parents=True, exist_ok=True)
    endurance = Endurance(directory, total_steps, seed, within_s)
    try:
        endurance.run(kills)
    finally:
        endurance.close()
    return examine(directory, endurance.findings)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kills", type=int, default=100, help="of each of the two")
    parser.add_argument("--steps", type=int, default=30_000, help="of the whole run")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    findings = endure(options.directory.resolve(), options.kills, options.steps, options.seed)
    json.dump(asdict(findings), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
