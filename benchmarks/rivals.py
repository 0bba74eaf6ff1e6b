"""We and others on the same frames, the same core, one thread. Markdown, JSON and a figure.

    python benchmarks/rivals.py run/rivals [--only sgdml,so3lr] [--system c60] [--stage speed]

Rivals (``--list`` names them) run in processes of their own; those that the project does not
install get a virtual environment each, made the first time under --venvs. What is finished stays in
OUTPUT/rivals.json: stopped at any moment, the same command goes on; --again measures anew.

*Errors*: mean absolute force differences to GFN2-xTB on 20 frames of trajectories that nothing was
trained on. *Curve*: the first fragment pulled out, rigid. *Survival*: Langevin dynamics at 400 K,
0.5 fs. *Speed*: processor time of steps of dynamics, one after the other, through ASE; all that are
timed take turns, deltaserver always among them, and the ratio to it is the median over the turns.
"""

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[variable] = "1"  # before numpy is loaded, and for everyone

import argparse
import fcntl
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np

from benchmarks.contest import table
from benchmarks.contest.cases import make_case
from benchmarks.contest.entries import BY_NAME, OURS, RIVALS, STAGES, SYSTEMS, Rival
from benchmarks.contest.environments import DEFAULT, python_of
from benchmarks.contest.trained import make_models
from deltaserver.errors import DataError, DeltaserverError, InputError
from deltaserver.plots import save

BURST_S = 1.0
FIGURE = "rivals"


class Process:
    """A rival's worker: one line of JSON in, one out."""

    def __init__(self, rival: Rival, system: str, asked: argparse.Namespace, scratch: Path) -> None:
        python = python_of(rival, asked.venvs)
        make_models(rival.name, system, asked.output, python)
        self.log = asked.output / "log" / f"{system}-{rival.name}.txt"
        self.log.parent.mkdir(exist_ok=True)
        command = [python, "-m", "benchmarks.contest.worker", rival.name, asked.output, system]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
                text=True, cwd=scratch, env=environment,
            )  # fmt: skip

    def ask(self, do: str, **options: Any) -> dict[str, Any]:
        """Return the answer.

        Raises:
            DataError: it failed, or the process has ended; in one line.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps({"do": do, **options}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise DataError(f"its process has ended; see {self.log}")
        found: dict[str, Any] = json.loads(line)
        if table.ERROR in found:
            raise DataError(found[table.ERROR])
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def opened(rival: Rival, system: str, asked: argparse.Namespace) -> Iterator[Process]:
    with tempfile.TemporaryDirectory() as scratch:  # some write files where they stand
        process = Process(rival, system, asked, Path(scratch))
        try:
            yield process
        finally:
            process.close()


class Results:
    """The rows, on disk after every result; several processes may measure into one file."""

    def __init__(self, file: Path) -> None:
        self.file, self.rows = file, table.read_rows(file)

    def keep(self, system: str, rival: str, stage: str, found: dict[str, Any]) -> None:
        stamp = {"date": datetime.now(timezone.utc).isoformat(timespec="minutes")}
        if stage != "version":
            found = {**found, **stamp}
        with self.file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # other rivals may be measured at the same time
            self.rows = table.merged(table.read_rows(self.file), system, rival, stage, found)
            table.write_rows(self.file, self.rows)
        print(f"{system} {rival} {stage}: {json.dumps(found, ensure_ascii=False)}", flush=True)

    def due(self, system: str, rival: Rival, asked: argparse.Namespace) -> list[str]:
        stages = [stage for stage in asked.stage if stage in rival.stages]
        return [
            s for s in stages if asked.again or not table.finished(self.rows, system, rival.name, s)
        ]


def alone(rival: Rival, system: str, results: Results, asked: argparse.Namespace) -> None:
    """Measure everything that needs no turns; what fails is the stage's one line."""
    due = [stage for stage in results.due(system, rival, asked) if stage != "speed"]
    for stage in due:
        options: dict[str, float] = {}
        if stage == "survival":
            ps = asked.ps or dict(rival.ps)[system]
            options = {"ps": ps, "limit_s": asked.limit}
        try:
            with opened(rival, system, asked) as process:
                results.keep(system, rival.name, "version", process.ask("version"))
                results.keep(system, rival.name, stage, process.ask(stage, **options))
        except DeltaserverError as error:
            results.keep(system, rival.name, stage, {table.ERROR: str(error)})


def in_turns(rivals: list[Rival], system: str, results: Results, asked: argparse.Namespace) -> None:
    """Time those that are due in turns with deltaserver."""
    due = [r for r in rivals if "speed" in results.due(system, r, asked)]
    if not due:
        return
    core, found = max(os.sched_getaffinity(0)), {}
    with ExitStack() as stack:
        processes: dict[str, Process] = {}
        for rival in dict.fromkeys([BY_NAME[OURS], *due]):
            try:
                process = stack.enter_context(opened(rival, system, asked))
                results.keep(system, rival.name, "version", process.ask("version"))
                process.ask("load", core=core)
                processes[rival.name] = process
                found[rival.name] = []
            except DeltaserverError as error:
                results.keep(system, rival.name, "speed", {table.ERROR: str(error)})
        if OURS not in processes:
            return
        for _ in range(asked.turns):
            for name, process in processes.items():
                found[name].append(process.ask("burst", seconds=BURST_S))
    for rival in due:
        if rival.name in found:
            results.keep(system, rival.name, "speed", of_turns(found[rival.name], found[OURS]))


def of_turns(turns: list[dict[str, Any]], ours: list[dict[str, Any]]) -> dict[str, Any]:
    """Return medians over the turns; ratios of turns that followed each other."""
    ratios = [one["cpu_ms"] / other["cpu_ms"] for one, other in zip(turns, ours, strict=True)]
    return {
        "cpu_ms": float(np.median([one["cpu_ms"] for one in turns])),
        "wall_ms": float(np.median([one["wall_ms"] for one in turns])),
        "range_ms": [f([one["cpu_ms"] for one in turns]) for f in (min, max)],
        "ratio": float(np.median(ratios)),
        "steps": sum(one["n"] for one in turns),
        "processor": processor(),
        "load": os.getloadavg()[0],
    }


def processor() -> str:
    """Return the processor's name, and how many cores there are."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        names = [line for line in information.read_text().splitlines() if "model name" in line]
        name = names[0].split(":", 1)[1].strip() if names else name
    return f"{name}, {os.cpu_count()} cores"


def report(results: Results, output: Path) -> None:
    """Write table and figure of what is there."""
    rows = results.rows
    timed = [row["speed"] for s in rows.values() for row in s.values() if "cpu_ms" in
             row.get("speed", {})]  # fmt: skip
    if timed:
        state = "busy machine" if table.busy(rows) else "quiet machine"
        print(f"\n{timed[-1]['date'][:10]}, {timed[-1]['processor']}, {state}", end="")
    parts = []
    for system in SYSTEMS:
        if system in rows:
            parts += [table.table(rows, system), table.curves(rows, system)]
    text = "\n\n".join(parts)
    (output / "rivals.md").write_text(text + "\n")
    print(f"\n\n{text}")
    if all("e_b" in rows[s].get("gfn2-xtb", {}).get("curve", {}) for s in rows):
        path = save(lambda figure: table.draw(figure, rows), output / FIGURE, (7.2, 3.9), ("png",))
        print(f"\n{path}")


def names(text: str, known: tuple[str, ...]) -> list[str]:
    """Parse a list of names.

    Raises:
        InputError: one of them is not known.
    """
    asked = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in asked if name not in known]:
        raise InputError(f"{', '.join(unknown)}: not known; choose among {', '.join(known)}")
    return asked


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    everyone = tuple(BY_NAME)
    parser.add_argument("output", type=Path, nargs="?", default=Path("run/rivals"))
    parser.add_argument("--only", default=",".join(everyone), help="rivals")
    parser.add_argument("--system", default=",".join(SYSTEMS))
    parser.add_argument("--stage", default=",".join(STAGES))
    parser.add_argument("--again", action="store_true", help="measure what is finished again")
    parser.add_argument("--table", action="store_true", help="measure nothing, print what is there")
    parser.add_argument("--list", action="store_true", help="name the rivals")
    parser.add_argument("--venvs", type=Path, default=DEFAULT)
    parser.add_argument("--turns", type=int, default=5, help="of the timing")
    parser.add_argument("--ps", type=float, help="of dynamics, for everyone")
    parser.add_argument("--limit", type=float, default=1200.0, help="of a run, s of processor time")
    asked = parser.parse_args()
    asked.only = names(asked.only, everyone)
    asked.system, asked.stage = names(asked.system, SYSTEMS), names(asked.stage, STAGES)
    asked.output, asked.venvs = asked.output.resolve(), asked.venvs.resolve()
    return asked


def main() -> None:
    asked = options()
    if asked.list:
        print("\n".join(f"{r.name:12} {r.title}, {r.level}, {r.package}" for r in RIVALS))
        return
    asked.output.mkdir(parents=True, exist_ok=True)
    results = Results(asked.output / "rivals.json")
    for system in [] if asked.table else asked.system:
        make_case(asked.output, system)
        rivals = [BY_NAME[n] for n in asked.only if system in BY_NAME[n].systems]
        for rival in rivals:
            alone(rival, system, results, asked)
        in_turns(rivals, system, results, asked)
    report(results, asked.output)


if __name__ == "__main__":
    try:
        main()
    except (DeltaserverError, OSError) as error:
        raise SystemExit(f"rivals: {error}") from None
