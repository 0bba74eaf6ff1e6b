"""Multiple time stepping against single stepping: cost and energy conservation, real i-PI, NVE.

    python benchmarks/multiple_time_steps.py [--models models/c60 …] [--ps 1] [--json FILE]

Fragments are stepped inside, the binding outside. Every run covers the same time from the same
start with the same velocities; the first tenth is left out of the statistics. The cost is the CPU
time of daemon and i-PI together, less that of a run of two steps (starting, compiling), so that a
busy machine spoils it little; ``s/ps`` is the wall time beside it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

# (outer time step in fs, inner steps); 1: single stepping
SCHEMES = [(0.5, 1), (1.0, 1), (1.0, 2), (2.0, 4), (3.0, 6), (4.0, 8)]
MEV = 1e3


@dataclass(frozen=True)
class Row:
    models: str
    outer_fs: float
    inner_steps: int
    cpu_s_per_ps: float
    wall_s_per_ps: float
    fluctuation_mev_per_atom: float
    drift_mev_per_atom_per_ps: float
    status: str


def run(models: Path, outer_fs: float, n_inner: int, ps: float, kelvin: float) -> Row:
    start_s = simulate(models, outer_fs, n_inner, 2, kelvin, None)
    steps = round(1e3 * ps / outer_fs)
    with tempfile.TemporaryDirectory() as directory:
        cpu_s = simulate(models, outer_fs, n_inner, steps, kelvin, directory)
        return read(Path(directory), models, outer_fs, n_inner, cpu_s - start_s)


def simulate(
    models: Path, outer_fs: float, n_inner: int, steps: int, kelvin: float, directory: str | None
) -> float:
    """Run one simulation; return its CPU time in s, that of its children included."""
    if directory is None:
        with tempfile.TemporaryDirectory() as own:
            return simulate(models, outer_fs, n_inner, steps, kelvin, own)
    kind = ["--kind", "nve"] if n_inner == 1 else ["--kind", "mts", "--thermostat", "none"]
    command = [
        sys.executable, "-m", "deltaserver", "simulate", "--models", str(models), *kind,
        "--temperature", str(kelvin), "--timestep", str(outer_fs), "--steps", str(steps),
        "--inner-steps", str(n_inner), "--energies-every", "1", "--log-every", "1",
        "--on-extrapolation", "ignore", "--directory", directory, "--quiet",
    ]  # fmt: skip
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def read(directory: Path, models: Path, outer_fs: float, n_inner: int, cpu_s: float) -> Row:
    record = json.loads((directory / "run.json").read_text())
    events = [json.loads(x) for x in (directory / "deltaserver.jsonl").read_text().splitlines()]
    served = [e for e in events if e["event"] == "step"]
    seconds = stamp(served[-1]) - stamp(served[0])
    n_atoms = next(e["atoms"] for e in events if e["event"] == "loaded")
    table = np.loadtxt(directory / f"{record['prefix']}.out", ndmin=2)
    later = table[len(table) // 10 :]
    time_ps, conserved = later[:, 1], later[:, 2] * MEV / n_atoms
    slope, level = np.polyfit(time_ps, conserved, 1)
    total_fs = 1e3 * table[-1, 1]
    return Row(
        models.name, outer_fs, n_inner,
        1e3 * cpu_s / total_fs,
        1e3 * seconds / total_fs,
        float(np.std(conserved - slope * time_ps - level)), float(slope), record["status"],
    )  # fmt: skip


def stamp(event: dict[str, str]) -> float:
    return time.mktime(time.strptime(event["timestamp"][:19], "%Y-%m-%dT%H:%M:%S")) + float(
        event["timestamp"][19:23]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, action="append")
    parser.add_argument("--ps", type=float, default=1.0)
    parser.add_argument("--temperature", type=float, default=150.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    root = Path(__file__).parents[1] / "models"
    rows: list[Row] = []
    print("| model | outer / inner step (fs) | CPU s/ps | s/ps | speed-up (CPU) | σ (meV/atom) | "
          "drift (meV/atom/ps) |\n|---|---|---|---|---|---|---|")  # fmt: skip
    for models in options.models or [root / "c60", root / "benzene_dimer"]:
        first: Row | None = None
        for outer_fs, n_inner in SCHEMES:
            row = run(models, outer_fs, n_inner, options.ps, options.temperature)
            first = first or row
            rows.append(row)
            note = "" if row.status == "finished" else f" ({row.status})"
            print(
                f"| {row.models} | {outer_fs:g} / {outer_fs / n_inner:g}{note} "
                f"| {row.cpu_s_per_ps:.2f} | {row.wall_s_per_ps:.2f} "
                f"| {first.cpu_s_per_ps / row.cpu_s_per_ps:.2f} "
                f"| {row.fluctuation_mev_per_atom:.4f} | {row.drift_mev_per_atom_per_ps:+.4f} |",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()
