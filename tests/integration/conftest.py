"""Real i-PI, real daemons, in directories of their own."""

from __future__ import annotations

import json
import select
import socket
import threading
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from deltaserver.simulate.ipi import process as ipi_process

from .nursery import I_PI, ROOT, IpiOfSimulate, Process

DIMER = ROOT / "models" / "benzene_dimer"
TIMEOUT_S = 240


def pytest_collection_modifyitems(items):
    for item in items:
        if "integration" in str(item.fspath):
            item.add_marker(pytest.mark.ipi)


@dataclass
class Setup:
    """What differs between the i-PI inputs of these tests."""

    sockets: list[dict] = field(default_factory=lambda: [{"name": "delta"}])
    n_beads: int = 1
    steps: int = 20
    dynamics: str = (
        '<dynamics mode="nvt"><timestep units="femtosecond">0.5</timestep>'
        '<thermostat mode="langevin"><tau units="femtosecond">100</tau></thermostat></dynamics>'
    )
    temperatures: tuple[float, ...] = (150.0,)
    structure: Path = ROOT / "ipi_inputs" / "benzene_dimer.xyz"
    mts_weights: dict[str, str] = field(default_factory=dict)
    smotion: str = ""
    timeout_s: float = TIMEOUT_S


def render(setup: Setup, prefix: str) -> str:
    """Write an i-PI input; ``prefix`` keeps the sockets of parallel tests apart."""
    sockets = ""
    for entry in setup.sockets:
        options = {"latency": "1e-4", "timeout": "60"} | {
            key: value for key, value in entry.items() if key not in ("name", "mode")
        }
        mode = entry.get("mode", "unix")
        if mode == "unix":
            options["address"] = f"{prefix}{entry['name']}"
        body = "".join(f"<{key}>{value}</{key}>" for key, value in options.items())
        sockets += f'<ffsocket mode="{mode}" name="{entry["name"]}" pbc="false">{body}</ffsocket>\n'
    forces = "".join(
        f'<force forcefield="{e["name"]}">'
        + (
            f"<mts_weights>{setup.mts_weights[e['name']]}</mts_weights>"
            if setup.mts_weights
            else ""
        )
        + "</force>"
        for e in setup.sockets
    )
    systems = "".join(
        f"""<system{f' prefix="s{k}"' if len(setup.temperatures) > 1 else ""}>
    <initialize nbeads="{setup.n_beads}"><file mode="xyz">{setup.structure}</file>
      <velocities mode="thermal" units="kelvin">{t}</velocities></initialize>
    <forces>{forces}</forces>
    <ensemble><temperature units="kelvin">{t}</temperature></ensemble>
    <motion mode="dynamics"><fixcom>True</fixcom>{setup.dynamics}</motion>
  </system>\n"""
        for k, t in enumerate(setup.temperatures)
    )
    return f"""<simulation verbosity="medium">
  <output prefix="run">
    <properties stride="1" filename="out">[ step, conserved{{electronvolt}},
      temperature{{kelvin}}, potential, kinetic_md{{electronvolt}} ]</properties>
  </output>
  <total_steps>{setup.steps}</total_steps>
  <prng><seed>7</seed></prng>
  {sockets}
  {setup.smotion}
  {systems}
</simulation>
"""


@dataclass
class Run:
    """A finished run: i-PI's properties by system and the daemons' step records."""

    directory: Path
    ipi_log: str
    records: list[list[dict]]

    def properties(self, system: str = "") -> np.ndarray:
        """i-PI's columns; the potential in Hartree (its electronvolt is 1e-7 off CODATA)."""
        name = f"{system}_run.out" if system else "run.out"
        return np.loadtxt(self.directory / name)

    @property
    def steps(self) -> list[dict]:
        return [r for records in self.records for r in records if r["event"] == "step"]


@pytest.fixture(autouse=True)
def _simulate_starts_ipi_quickly(monkeypatch):
    """Have `simulate` in this process start i-PI in the nursery; as a process it does as ever."""
    monkeypatch.setattr(ipi_process, "IpiProcess", IpiOfSimulate)


def start_daemon(models: Path, *arguments: str | Path, output: int | None = None) -> Process:
    """Start a daemon in a process of its own; what it says can go to a file of its own."""
    return Process("deltaserver", ["--models", models, "--quiet", *arguments], output=output)


def start_ipi(directory: Path, *arguments: str, log: str = "i-pi.log") -> Process:
    """Start i-PI in ``directory``; what it says is added to a file there."""
    with (directory / log).open("ab") as file:
        return Process(str(I_PI), arguments, cwd=directory, output=file.fileno())


@pytest.fixture
def run_ipi(tmp_path):
    """Return a function that runs i-PI with daemons beside it, to the end."""
    processes = []

    def run(setup: Setup, daemons: list[list[str]] | None = None, models: Path = DIMER) -> Run:
        prefix = f"test{abs(hash(str(tmp_path))) % 10**9}_{len(processes)}_"
        directory = tmp_path / f"run{len(processes)}"
        directory.mkdir()
        (directory / "input.xml").write_text(render(setup, prefix))
        logs = []
        for k, arguments in enumerate(daemons or [["--socket", "unix:{prefix}delta"]]):
            log = directory / f"daemon{k}.jsonl"
            logs.append(log)
            options = [text.format(prefix=prefix) for text in arguments]
            processes.append(start_daemon(models, *options, "--log-file", log))
        mine = processes[-len(logs) :]
        ipi = start_ipi(directory, "input.xml")
        processes.append(ipi)
        code = ipi.wait(setup.timeout_s)
        text = (directory / "i-pi.log").read_text(errors="replace")
        assert code == 0, text[-3000:]
        assert [process.wait(20) for process in mine] == [0] * len(mine)
        records = [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]
        return Run(directory, text, records)

    yield run
    for process in processes:
        process.kill()
        process.wait()


class Recorder:
    """Sits between i-PI and a daemon on unix sockets and keeps every byte of both directions."""

    def __init__(self, upstream: Path, listen: Path) -> None:
        self.upstream = upstream
        self.from_server, self.from_client = bytearray(), bytearray()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(listen))
        self._listener.listen(1)
        self._thread = threading.Thread(target=self._relay, daemon=True)
        self._thread.start()

    def _relay(self) -> None:
        client, _ = self._listener.accept()
        server = socket.socket(socket.AF_UNIX)
        while True:
            try:
                server.connect(str(self.upstream))
                break
            except OSError:
                threading.Event().wait(0.05)
        kept = {client: (server, self.from_client), server: (client, self.from_server)}
        while True:
            for source in select.select(list(kept), [], [])[0]:
                target, record = kept[source]
                data = source.recv(1 << 16)
                if not data:
                    client.close()
                    server.close()
                    return
                record += data
                target.sendall(data)

    def join(self) -> None:
        self._thread.join(20)


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
