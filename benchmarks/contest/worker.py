"""One rival in its own environment: ``python -m benchmarks.contest.worker NAME OUTPUT SYSTEM``.

A line of JSON in, a line of JSON out: {"do": "errors"} and so on; {"error": …} where it failed.
What libraries print goes to standard error.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from benchmarks.contest import calculators
from benchmarks.contest.cases import Case, read_case
from benchmarks.contest.entries import BY_NAME
from benchmarks.contest.survival import survive


class Worker:
    """One rival on one system; calculators are made once."""

    def __init__(self, name: str, case: Case) -> None:
        self.name, self.case = name, case
        self.timed: list[Any] = []
        self.at = 0

    def version(self) -> dict[str, Any]:
        return {"version": importlib.metadata.version(BY_NAME[self.name].package)}

    def complex(self) -> Any:
        return self._atoms(np.arange(len(self.case.numbers)), None)

    def alone(self) -> list[Any]:
        """Return every fragment by itself; none where the rival has no fragments."""
        some = [self._atoms(atoms, k) for k, atoms in enumerate(self.case.fragments)]
        return some if all(atoms.calc is not None for atoms in some) else []

    def _atoms(self, some: Any, fragment: int | None) -> Any:
        calculator = calculators.make(self.name, self.case, fragment)
        return Atoms(self.case.numbers[some], self.case.start[some], calculator=calculator)

    def errors(self) -> dict[str, Any]:
        """Return mean absolute differences to the labels, eV/Å: whole, and binding force."""
        case, whole, alone = self.case, self.complex(), self.alone()
        off, off_binding = [], []
        for k, x in enumerate(case.frames):
            forces = forces_at(whole, x)
            off.append(np.abs(forces - case.forces[k]).mean())
            if not alone:
                continue
            binding = forces.copy()
            for atoms, some in zip(alone, case.fragments, strict=True):
                binding[some] -= forces_at(atoms, x[some])
            off_binding.append(np.abs(binding - (case.forces - case.fragment_forces)[k]).mean())
        return {
            "n_frames": len(off),
            "force_mae": float(np.mean(off)),
            "binding_mae": float(np.mean(off_binding)) if alone else None,
        }

    def curve(self) -> dict[str, Any]:
        """Return E_b along the curve, eV; without fragments from the last point's energy."""
        whole, alone = self.complex(), self.alone()
        energies = []
        for x in self.case.curve:
            whole.positions = x
            energies.append(whole.get_potential_energy())
        apart = sum(atoms.get_potential_energy() for atoms in alone) if alone else energies[-1]
        return {"e_b": [float(e - apart) for e in energies], "of_fragments": bool(alone)}

    def survival(self, ps: float, limit_s: float) -> dict[str, Any]:
        return survive(self.complex(), self.case.fragments, ps, limit_s)

    def load(self, core: int) -> dict[str, Any]:
        """Make what is timed, on one core, and let it compile."""
        os.sched_setaffinity(0, {core})
        for piece in calculators.pieces(self.name, self.case):
            atoms = Atoms(
                self.case.numbers[piece.atoms], self.case.path[0][piece.atoms],
                calculator=piece.calculator,
            )  # fmt: skip
            self.timed.append((atoms, piece))
        for _ in range(3):
            self._step()
        return {}

    def burst(self, seconds: float) -> dict[str, Any]:
        """Return processor and wall time, ms, of steps one after the other."""
        cpu: list[float] = []
        wall: list[float] = []
        while len(cpu) < 2 or (sum(cpu) < 1e3 * seconds and len(cpu) < 2000):
            one = self._step()
            cpu.append(one[0])
            wall.append(one[1])
        return {"cpu_ms": float(np.median(cpu)), "wall_ms": float(np.median(wall)), "n": len(cpu)}

    def _step(self) -> Any:
        """Go to and fro along the path; return processor and wall time in ms."""
        path = self.case.path
        self.at += 1
        period = 2 * (len(path) - 1)
        x = path[min(self.at % period, period - self.at % period)]
        total = np.zeros(2)
        for atoms, piece in self.timed:
            began = time.process_time(), time.perf_counter()
            forces_at(atoms, x[piece.atoms])
            atoms.get_potential_energy()
            ended = time.process_time(), time.perf_counter()
            total += 1e3 * piece.times * (np.array(ended) - began)
        return total


def forces_at(atoms: Any, x: Any) -> Any:
    atoms.positions = x
    return np.array(atoms.get_forces(), dtype=float)


def answer(worker: Worker, asked: dict[str, Any]) -> dict[str, Any]:
    try:
        return getattr(worker, asked.pop("do"))(**asked)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


def main() -> None:
    name, output, system = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # also what Fortran prints
    with contextlib.redirect_stdout(sys.stderr):
        worker = Worker(name, read_case(output, system))
        for line in sys.stdin:
            replies.write(json.dumps(answer(worker, json.loads(line))) + "\n")
            replies.flush()


if __name__ == "__main__":
    main()
