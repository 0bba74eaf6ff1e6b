"""Steps a second under real i-PI: ``python benchmarks/end_to_end.py [MODELS] [--json FILE]``.

The same NVT input without any force field, with i-PI's own in-process ``dummy`` (ffdirect), with a
client that answers at once (``empty_client.py``: what no client can be quicker than), served by the
daemon over a unix socket, and evaluated in i-PI's own process by our plug-in: with one thread, with
two, and with one and all models stripped of their symmetry (S = 1: arithmetic of the same size, but
no physics, so that the clock hardly goes on). Two lengths of each run, taken from one another,
leave the time of a step without start-up. Our log splits a step: what it spends on receiving,
evaluating and sending; the rest is i-PI's and the socket's. Where others use the machine too, the
processor time of a step, i-PI's and the server's together, says more than the wall's: it lacks only
what one waits for the other.
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
    "plug-in": 1,
    "plug-in, S = 1": 1,
}
PLUGIN = "plug-in"


def command(name: str) -> str:
    return str(Path(sys.executable).with_name(name))


def template(models: Path, address: str, plugin: bool) -> str:
    arguments = ["input", "--models", models, "--kind", "nvt", "--temperature", "300"]
    arguments += ["--energies-every", "10", "--address", address]
    arguments += ["--plugin"] if plugin else []
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
    if kind.startswith(PLUGIN):
        parameters = root.find("ffdirect/parameters")
        check = not kind.endswith("S = 1")
        told = f"log_file:steps.jsonl, threads:1, structure_check:{check}"
        parameters.text = parameters.text.replace("}", f", {told}}}")
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
    """The command that serves this kind of run; empty where nobody does."""
    if kind.startswith(PLUGIN) or not KINDS[kind]:
        return []
    if kind == EMPTY:
        n_atoms = CompositeModel.load(models).n_atoms
        return [str(Path(__file__).with_name("empty_client.py")), address, str(n_atoms)]
    options = ["--no-structure-check"] if kind.endswith("S = 1") else []
    return ["-m", "deltaserver", "--models", str(models), "--socket", f"unix:{address}",
            "--log-file", str(directory / "steps.jsonl"), "--quiet",
            "--threads", str(KINDS[kind]), *options]  # fmt: skip


def run_s(text: str, served: list[str], directory: Path) -> np.ndarray:
    """Wall and processor time of i-PI's run, which the command ``served`` serves, if there is one.

    The server is loaded before; its loading counts in the processor time of both lengths of a run.
    """
    (directory / "input.xml").write_text(text)
    daemon = None
    if served:
        daemon = subprocess.Popen([sys.executable, *served])
        time.sleep(4.0)  # loaded and waiting: i-PI's time is to hold no loading
    start = time.perf_counter()
    ipi = subprocess.Popen([command("i-pi"), "input.xml"], cwd=directory, stdout=subprocess.DEVNULL)
    busy_s = cpu_s(ipi)
    elapsed = time.perf_counter() - start
    if daemon:
        busy_s += cpu_s(daemon)
    return np.array([elapsed, busy_s])


def cpu_s(process: subprocess.Popen) -> float:
    """Wait for a process's end; return the processor time it took."""
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return used.ru_utime + used.ru_stime


def step_ms(
    kind: str, models: Path, steps: int, repeats: int
) -> tuple[np.ndarray, dict[str, float]]:
    """Median wall and processor time of a step in ms, and how our log splits it."""
    times, split = [], {}
    steps *= 1 if KINDS[kind] else 10  # short steps would drown in start-up's noise
    for _ in range(repeats):
        spent = []
        for n in (steps // 5, steps):
            address = f"bench-{uuid.uuid4().hex[:8]}"
            with tempfile.TemporaryDirectory() as name:
                directory = Path(name)
                used = models
                if kind.endswith("S = 1"):
                    used = without_symmetry(models, directory / "models")
                text = variant(template(used, address, kind.startswith(PLUGIN)), kind, n)
                spent.append(run_s(text, server(kind, used, address, directory), directory))
                if (directory / "steps.jsonl").exists():
                    split = read_split(directory / "steps.jsonl")
        times.append(1e3 * (spent[1] - spent[0]) / (steps - steps // 5))
    return np.median(times, axis=0), split


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
        f"{options.models}, NVT, {options.steps} steps\n\n| force field | ms a step "
        "| processor ms a step | steps/s | of it evaluating | i-PI and the socket |"
    )
    print("|---|---|---|---|---|---|")
    for kind in options.kinds or KINDS:
        (ms, cpu_ms), split = step_ms(kind, options.models, options.steps, options.repeats)
        found[kind] = {"step_ms": ms, "cpu_ms": cpu_ms, **split}
        evaluating = f"{split['evaluate_ms']:.3f}" if split else ""
        others = f"{ms - split['wall_ms']:.3f}" if split else ""
        row = f"| {kind} | {ms:.3f} | {cpu_ms:.3f} | {1e3 / ms:.0f} | {evaluating} | {others} |"
        print(row, flush=True)
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
