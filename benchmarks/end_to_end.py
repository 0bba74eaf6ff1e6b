"""Steps a second under real i-PI: ``python benchmarks/end_to_end.py [MODELS] [--json FILE]``.

The same NVT input without any force field, with i-PI's own in-process ``dummy`` (ffdirect), with a
client that answers at once (``empty_client.py``: what no client can be quicker than), and served
by the daemon over a unix socket: with one thread, with two, and with one and all models
stripped of their symmetry (S = 1: arithmetic of the same size, but no physics, so that the clock
hardly goes on). Two lengths of each run, taken from one another, leave the time of a step without
start-up. The daemon's log splits a
step: what it spends on receiving, evaluating and sending; the rest is i-PI's and the socket's.
"""

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is loaded

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np

from deltaserver import CompositeModel

EMPTY = "a client that answers at once"
KINDS = {  # and the threads of who serves it
    "no force field": 0,
    "ffdirect dummy": 0,
    EMPTY: 1,
    "deltaserver": 1,
    "deltaserver, 2 threads": 2,
    "deltaserver, S = 1": 1,
}


def command(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def template(models: Path, address: str) -> str:
    arguments = ["input", "--models", models, "--kind", "nvt", "--temperature", "300"]
    arguments += ["--energies-every", "10", "--address", address]
    done = subprocess.run(
        [sys.executable, "-m", "deltaserver", *map(str, arguments)],
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def variant(text: str, kind: str, steps: int) -> str:
    """The input with another force field, or none; extras only where somebody sends them."""
    root = ElementTree.fromstring(text)
    root.find("total_steps").text = str(steps)
    if kind.endswith("S = 1"):
        root.find("system/motion/dynamics/timestep").text = "1e-6"
    if kind == EMPTY or not KINDS[kind]:
        output = root.find("output")
        for trajectory in output.findall("trajectory"):
            if trajectory.get("extra_type"):
                output.remove(trajectory)
    if not KINDS[kind]:
        root.remove(root.find("ffsocket"))
        field = ElementTree.SubElement(root, "ffdirect", name="delta")
        ElementTree.SubElement(field, "pes").text = "dummy"
    if kind == "no force field":
        root.find("system/forces/force").set("weight", "0.0")
    return ElementTree.tostring(root, encoding="unicode")


def without_symmetry(models: Path, to: Path) -> Path:
    """A copy of a model directory whose models know of no permutation but the identity."""
    shutil.copytree(models, to)
    for path in to.glob("*.npz"):
        arrays = dict(np.load(path, allow_pickle=False))
        if "perms" in arrays:
            arrays["perms"] = arrays["perms"][:1]
            arrays.pop("tril_perms_lin", None)
            np.savez(path, **arrays)
    return to


def server(kind: str, models: Path, address: str, directory: Path) -> list[str]:
    """The command that serves this kind of run."""
    if kind == EMPTY:
        n_atoms = CompositeModel.load(models).n_atoms
        return [str(Path(__file__).with_name("empty_client.py")), address, str(n_atoms)]
    options = []
    if kind.endswith("S = 1"):
        models = without_symmetry(models, directory / "models")
        options = ["--no-structure-check"]
    return ["-m", "deltaserver", "--models", str(models), "--socket", f"unix:{address}",
            "--log-file", str(directory / "steps.jsonl"), "--quiet",
            "--threads", str(KINDS[kind]), *options]  # fmt: skip


def wall_s(text: str, served: list[str], directory: Path) -> float:
    """Time of i-PI's run, which the command ``served`` serves, if there is one."""
    (directory / "input.xml").write_text(text)
    daemon = None
    if served:
        daemon = subprocess.Popen([sys.executable, *served])
        time.sleep(4.0)  # loaded and waiting: i-PI's time is to hold no loading
    start = time.perf_counter()
    subprocess.run(
        [command("i-pi"), "input.xml"], cwd=directory, check=True, capture_output=True, timeout=300
    )
    elapsed = time.perf_counter() - start
    if daemon:
        daemon.wait(timeout=30)
    return elapsed


def step_ms(kind: str, models: Path, steps: int, repeats: int) -> tuple[float, dict[str, float]]:
    """Median time of a step in ms, and how the daemon's log splits it."""
    times, split = [], {}
    steps *= 1 if KINDS[kind] else 10  # short steps would drown in start-up's noise
    for _ in range(repeats):
        walls = []
        for n in (steps // 5, steps):
            address = f"bench-{uuid.uuid4().hex[:8]}"
            with tempfile.TemporaryDirectory() as name:
                directory = Path(name)
                text = variant(template(models, address), kind, n)
                served = server(kind, models, address, directory) if KINDS[kind] else []
                walls.append(wall_s(text, served, directory))
                if (directory / "steps.jsonl").exists():
                    split = read_split(directory / "steps.jsonl")
        times.append(1e3 * (walls[1] - walls[0]) / (steps - steps // 5))
    return float(np.median(times)), split


def read_split(log: Path) -> dict[str, float]:
    events = [json.loads(line) for line in log.read_text().splitlines()]
    rows = [event for event in events if event["event"] == "step"]
    keys = [key for key in rows[-1] if key.endswith("_ms")]
    return {key: float(np.median([row[key] for row in rows])) for key in keys}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="?", default=Path("models/c60"))
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, metavar="KIND", help="only these")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    found = {}
    print(
        f"{options.models}, NVT, {options.steps} steps\n\n| force field | ms a step | steps/s "
        "| of it evaluating | i-PI and the socket |"
    )
    print("|---|---|---|---|---|")
    for kind in options.kinds or KINDS:
        ms, split = step_ms(kind, options.models, options.steps, options.repeats)
        found[kind] = {"step_ms": ms, **split}
        evaluating = f"{split['evaluate_ms']:.3f}" if split else ""
        others = f"{ms - split['wall_ms']:.3f}" if split else ""
        print(f"| {kind} | {ms:.3f} | {1e3 / ms:.0f} | {evaluating} | {others} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
