"""Path integrals over several daemons: ``python benchmarks/scaling.py [--json FILE]``.

One i-PI run each for 1, 2, 4 … daemons: PIMD with ``--beads`` beads, every daemon a process with
one BLAS thread, over unix sockets. Times come from the daemons' own logs. i-PI hands structures
out one after the other, so that a step's time is modelled as

    T(D) = B t_ipi + ceil(B / (b D)) t(b)

with B beads, b of them in a request, D daemons, t(b) a daemon's time for a request, and t_ipi
what i-PI takes for one bead: its own integration, handing out and collecting. t_ipi comes from the
run with one daemon; the others, as far as there are cores, test the model. The last table is
that model for daemons with a core or a GPU each: what t_ipi leaves.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

ROOT = Path(__file__).parents[1]
I_PI = Path(sys.executable).with_name("i-pi")
PROJECTED = (1, 2, 4, 8, 16, 32)
TIMEOUT_S = 1200


@dataclass(frozen=True)
class Timing:
    """One run: D daemons, b structures a request; times in ms."""

    daemons: int
    batch: int
    step_ms: float
    request_ms: float
    shares: list[int]


def write_input(path: Path, models: Path, beads: int, steps: int, batch: int, name: str) -> None:
    """Have deltaserver write a PIMD input, and set how many beads go into a request."""
    made = subprocess.run(
        [
            sys.executable, "-m", "deltaserver", "input", "--models", models, "--kind", "pimd",
            "--temperature", "300", "--beads", str(beads), "--steps", str(steps),
            "--address", name,
        ],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    size = f"<batch_size>{batch}</batch_size>"
    path.write_text(re.sub("<batch_size>.*</batch_size>", size, made.stdout))


def run(
    models: Path, beads: int, steps: int, daemons: int, batch: int, options: list[str]
) -> Timing:
    """Run i-PI with its daemons; return the times of all steps but the first."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory(prefix="scaling-") as folder:
        name = f"scaling{os.getpid()}"
        write_input(Path(folder, "input.xml"), models, beads, steps, batch, name)
        logs = [Path(folder, f"daemon{k}.jsonl") for k in range(daemons)]
        started = [
            subprocess.Popen(
                [
                    sys.executable, "-m", "deltaserver", "--models", models, "--quiet",
                    "--sockets-prefix", f"{folder}/", "--socket", f"unix:{name}",
                    "--log-file", log, *options,
                ],
                env=environment,
            )
            for log in logs
        ]  # fmt: skip
        try:
            with Path(folder, "i-pi.log").open("w") as ipi_log:
                subprocess.run(
                    [I_PI, "-S", f"{folder}/", "input.xml"],
                    cwd=folder,
                    env=environment,
                    stdout=ipi_log,
                    stderr=subprocess.STDOUT,
                    timeout=TIMEOUT_S,
                    check=True,
                )
            for process in started:
                process.wait(30)
        finally:
            for process in started:
                process.kill()
        return summarize(logs, beads, daemons, batch)


def summarize(logs: list[Path], beads: int, daemons: int, batch: int) -> Timing:
    """Take the median step from the daemons' logs, leaving out the first force evaluation."""
    events = [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]
    steps = [[e for e in one if e["event"] == "step"] for one in events]
    ends = sorted(datetime.fromisoformat(e["timestamp"]).timestamp() for one in steps for e in one)
    boundaries = ends[::-beads][::-1]  # from the end: the first, equal beads may be logged once
    durations = sorted(1e3 * (b - a) for a, b in pairwise(boundaries))
    requests = sorted(e["wall_ms"] for one in steps for e in one[1:])
    return Timing(
        daemons,
        batch,
        durations[len(durations) // 2],
        requests[len(requests) // 2],
        [len(one) for one in steps],
    )


def model_ms(beads: int, daemons: int, batch: int, request_ms: float, ipi_ms: float) -> float:
    """Return T(D), see above."""
    return beads * ipi_ms + math.ceil(beads / (batch * daemons)) * request_ms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=ROOT / "models" / "c60")
    parser.add_argument("--beads", type=int, default=32)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--daemons", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--options", default="", help="further options of the daemons")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    beads, options = arguments.beads, arguments.options.split()
    print(f"{arguments.models.name}, {beads} beads, {len(os.sched_getaffinity(0))} cores")
    print("| daemons | beads a request | ms a step | speed-up | ms a request | shares |")
    print("|---|---|---|---|---|---|")
    timings: list[Timing] = []
    for batch_of in (lambda n: 1, lambda n: math.ceil(beads / n)):
        first = None
        for n in arguments.daemons:
            t = run(arguments.models, beads, arguments.steps, n, batch_of(n), options)
            first = first or t
            timings.append(t)
            print(
                f"| {n} | {t.batch} | {t.step_ms:.1f} | {first.step_ms / t.step_ms:.2f} "
                f"| {t.request_ms:.2f} | {' '.join(map(str, t.shares))} |",
                flush=True,
            )
    projection = project(timings, beads)
    if arguments.json:
        facts = {"timings": [asdict(t) for t in timings], "projection": projection}
        arguments.json.write_text(json.dumps(facts, indent=1) + "\n")


def project(timings: list[Timing], beads: int) -> dict[str, object]:
    """Print the model's step times for daemons with a core or a GPU each."""
    one = next(t for t in timings if t.daemons == 1 and t.batch == 1)
    ipi_ms = max(0.0, one.step_ms / beads - one.request_ms)
    print(f"\nt_ipi = {ipi_ms:.2f} ms a bead, t(1) = {one.request_ms:.2f} ms a structure\n")
    requests = {f"as here, {one.request_ms:.1f} ms": one.request_ms, "1 ms": 1.0, "0.3 ms": 0.3}
    print("| daemons | " + " | ".join(requests) + " |\n" + "|---" * (len(requests) + 1) + "|")
    rows = {}
    for n in PROJECTED:
        if n <= beads:
            rows[n] = [model_ms(beads, n, 1, t, ipi_ms) for t in requests.values()]
            print(f"| {n} | " + " | ".join(f"{value:.1f}" for value in rows[n]) + " |")
    return {"ipi_ms": ipi_ms, "request_ms": list(requests.values()), "step_ms": rows}


if __name__ == "__main__":
    main()
