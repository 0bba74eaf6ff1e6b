"""What a step costs besides the model's evaluation: ``python benchmarks/served_path.py [MODELS]``.

One process takes, alternately: the model alone, a request from its bytes to the reply's with
guards, novelty, extras and log as the daemon has them, and the same as i-PI's plug-in has it.
Processor time of the thread, medians: i-PI and the socket itself are not in it (``end_to_end.py``
has them).
"""

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is loaded

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase.io import read

from deltaserver.arrays import Floats
from deltaserver.serve.answer import Request, answer_together
from deltaserver.serve.guard import ServingGuard
from deltaserver.serve.plugin.session import Session
from deltaserver.serve.plugin.settings import PluginSettings
from deltaserver.serve.protocol import ClientProtocol
from deltaserver.serve.telemetry import Origin, StepTimes
from deltaserver.units import BOHR_ANG

CELL_BOHR = 300.0 / BOHR_ANG * np.eye(3)


def header(name: str) -> bytes:
    return name.encode().ljust(12)


def request_bytes(x_bohr: Floats) -> bytes:
    cell = CELL_BOHR.tobytes() + np.linalg.inv(CELL_BOHR).tobytes()
    count = np.array(len(x_bohr), np.int32).tobytes()
    return header("POSDATA") + cell + count + x_bohr.tobytes() + header("GETFORCE")


def daemon(session: Session) -> Callable[[Floats], None]:
    """What the daemon does with a request, its socket left out; the log is the plug-in's."""
    model, protocol = session.model, ClientProtocol(session.model.n_atoms)
    guard = ServingGuard(model, session.settings.guard)
    protocol.receive(header("INIT") + np.array([0, 0], np.int32).tobytes())
    protocol.next_event()
    origin, times = Origin("unix:bench", "total"), StepTimes(0.0, 1.0, 0.0)

    def serve(x_bohr: Floats) -> None:
        protocol.receive(request_bytes(x_bohr))
        request = Request.of(protocol.next_event().data)
        guard.before(guard, request, "total")
        (answer,) = answer_together(model, [request], guard=guard.after)
        protocol.answer(answer.reply)
        protocol.outgoing.clear()
        session.steps.record(answer.structures, times, origin)

    return serve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="?", default=Path("models/c60"))
    parser.add_argument("--repeats", type=int, default=300)
    options = parser.parse_args()
    start = read(options.models / "structure.xyz").positions
    with tempfile.TemporaryDirectory() as name:
        session = Session(PluginSettings(options.models, log_file=Path(name) / "log.jsonl"))
        ways = {
            "model alone": lambda x: session.model.evaluate((BOHR_ANG * x)[None]),
            "daemon": daemon(session),
            "plug-in": lambda x: session(CELL_BOHR[None], x[None]),
        }
        spent: dict[str, list[float]] = {way: [] for way in ways}
        rng = np.random.default_rng(0)
        for _ in range(options.repeats):
            x = (start + rng.normal(0.0, 0.01, start.shape)) / BOHR_ANG
            for way, do in ways.items():
                began = time.thread_time()
                do(x)
                spent[way].append(1e3 * (time.thread_time() - began))
    medians = {way: float(np.median(times)) for way, times in spent.items()}
    print("| way | processor ms | more than the model | over the model |\n|---|---|---|---|")
    for way, ms in medians.items():
        alone = medians["model alone"]
        print(f"| {way} | {ms:.3f} | {ms - alone:.3f} | {ms / alone:.2f} |")


if __name__ == "__main__":
    main()
