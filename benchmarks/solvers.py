"""Race our iterative solver against sgdml's to the same validation error.

    python benchmarks/solvers.py                          # the catcher, M = 200: hours for sgdml
    python benchmarks/solvers.py --points 6 --valid 4     # does it run?

Both solve the same system, the catcher's of data/c60_buckycatcher_wide by default: same frames,
labels, permutations, σ and λ. Every so many products the solution so far is evaluated on the
validation frames, in both cases by our product and with the clock stopped. sgdml 1.0.3 is what
`sgdml train` runs where the kernel matrix does not fit its memory: leverage scores, Nyström's
preconditioner, scipy's conjugate gradients, with the memory and the cores that it is given.

Prints one JSON object: the curves (seconds, products, validation force MAE in kcal/mol/Å), and the
time that each takes to come within 50, 10 and 2 % of the error that ours ends at. sgdml is stopped
once it has come within 2 %, or after `--limit` minutes; then a time is null, and its ratio is that
of the limit, with a `>`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np

from deltaserver.compute.blas import blas_threads
from deltaserver.datasets.files import read_dataset
from deltaserver.training.components import components, labelled_set
from deltaserver.training.iterative.conjugate import CHECK, Bounds, Problem, begin, solve
from deltaserver.training.iterative.plan import decide
from deltaserver.training.iterative.preconditioner import Preconditioner, choose_points
from deltaserver.training.iterative.product import EnergyColumns, KernelProduct
from deltaserver.training.iterative.system import System
from deltaserver.training.matrix.memory import Size
from deltaserver.training.points import Candidates
from deltaserver.training.selection import split_in_time
from deltaserver.training.symmetry_modes import resolve
from deltaserver.units import KCAL_PER_MOL_EV

DATA = Path(__file__).parents[1] / "data"
WITHIN = (1.5, 1.1, 1.02)  # of the error that ours ends at


def processor_time() -> float:
    """Return the seconds of all threads, and of child processes that have ended."""
    return sum(os.times()[:4])


# With one thread both count the same work; only the second does on a machine that does other work.
CLOCKS = {"wall": time.perf_counter, "processor": processor_time}


class Stopwatch:
    """Seconds of work, products, and the error then; evaluations do not count.

    Args:
        evaluate: v ↦ validation force MAE, kcal/mol/Å.
        clock: seconds; see CLOCKS.
    """

    def __init__(self, evaluate, clock) -> None:
        self.evaluate, self.clock = evaluate, clock
        self.curve: list[tuple[float, int, float]] = []
        self.began, self.stopped = clock(), 0.0

    def elapsed(self) -> float:
        """Return the seconds of work so far."""
        return self.clock() - self.began - self.stopped

    def look(self, v, products: int) -> float:
        """Note the error of a solution."""
        seconds, before = self.elapsed(), self.clock()
        error = self.evaluate(v)
        self.curve.append((round(seconds, 2), products, round(error, 5)))
        print(f"{seconds:9.1f} s, {products:5d} products, {error:.4f}", file=sys.stderr)
        self.stopped += self.clock() - before
        return error


def system_of(options):
    """Return the system that both solve, atomic numbers, and the spread of its labels."""
    frames = read_dataset(DATA / options.dataset)
    available = components(frames)
    component = next(c for c in available if c.name == options.component)
    data = labelled_set(frames, component)
    held_out = tuple(int(k) for k in options.hold_out.split(",") if k)
    split = split_in_time(frames.trajectory, frames.step, held_out_trajectories=held_out)
    entries = np.flatnonzero(np.isin(data.frame, split.train))

    def perms():
        return resolve("fragment", frames, available, component, data, entries).perms

    pool = Candidates(data, entries, frames.trajectory[data.frame[entries]], perms)
    train = pool.draw("strata", options.points, seed=0)
    valid = np.flatnonzero(np.isin(data.frame, split.valid))
    valid = valid[:: max(1, len(valid) // options.valid)][: options.valid]
    forces = data.forces / KCAL_PER_MOL_EV
    std = float(np.std(forces[train]))
    system = System(
        data.positions[train], forces[train].ravel() / std, perms(), options.sigma, 1e-10,
        data.positions[valid], forces[valid] / std,
    )  # fmt: skip
    return system, data.numbers, std


def ours(system, options, evaluate):
    """Solve as `deltaserver train --solver iterative` does."""
    watch = Stopwatch(evaluate, CLOCKS[options.clock])
    size = Size(system.positions.shape[1], len(system.perms), options.threads)
    limit = options.memory * 2.0**30
    columns = decide(size, len(system.positions), "iterative", limit, "benchmark").columns
    with blas_threads(options.threads):
        points = choose_points(len(system.positions), columns.points)
        product = KernelProduct(system.positions, system.perms, system.sigma, options.threads)
        energies = EnergyColumns(product, np.arange(len(system.positions)), options.threads)
        precondition = Preconditioner(
            system.fields(), system.perms, system.sigma, points, system.lam, options.threads,
            energies=energies, single=columns.single,
        )  # fmt: skip
        made = [0]

        def multiply(v):
            made[0] += 1
            return product(v) + system.lam * v

        problem = Problem(system.y, multiply, precondition, lambda v: watch.look(v, made[0]))
        solve(problem, begin(problem), Bounds(options.tolerance, options.max_products))
    return watch.curve


class ReachedError(Exception):
    """Theirs is as good as ours, or has had its time."""


def theirs(system, numbers, options, evaluate, target):
    """Solve as sgdml's iterative solver does, stopped at ``target`` or after the limit."""
    import scipy.sparse.linalg as sparse
    from sgdml.solvers.analytic import Analytic
    from sgdml.train import GDMLTrain

    Analytic.est_memory_requirement = staticmethod(lambda *_: float("inf"))  # so it is cg
    original, made = sparse.cg, [0]
    watch = Stopwatch(evaluate, CLOCKS[options.clock])

    def watched(*args, callback, **kwargs):
        def each(v):
            # sgdml looks for the residual in its caller's variables; else it makes a product.
            r = sys._getframe(1).f_locals["r"]  # noqa: F841
            made[0] += 1
            if made[0] % CHECK == 0:
                error = watch.look(v, made[0])
                if error <= target or watch.elapsed() > 60.0 * options.limit:
                    raise ReachedError
            callback(v)

        return original(*args, callback=each, **kwargs)

    sparse.cg = watched
    trainer = GDMLTrain(
        max_memory=options.memory, max_processes=options.threads, use_torch=options.torch
    )
    try:
        model = trainer.train(task_of(system, numbers))
        watch.look(-model["alphas_F"], made[0])
    except ReachedError:
        pass
    finally:
        sparse.cg = original
    return watch.curve


def task_of(system, numbers):
    """Return the system as sgdml's training task; its forces are in units of their spread."""
    count = np.arange(len(system.positions))
    return {
        "type": "t", "code_version": "1.0.3", "dataset_name": "d", "dataset_theory": "t",
        "z": numbers.astype(np.uint8), "R_train": system.positions,
        "F_train": system.y.reshape(system.positions.shape), "E_train": np.zeros(len(count)),
        "idxs_train": count, "md5_train": b"0", "idxs_valid": count, "md5_valid": b"0",
        "sig": int(system.sigma), "lam": system.lam, "use_E": False, "use_E_cstr": False,
        "use_sym": True, "perms": system.perms,
    }  # fmt: skip


def first(curve, target):
    """Return the seconds after which the error was ``target`` for the first time, or None."""
    return next((seconds for seconds, _, error in curve if error <= target), None)


def comparison(curves, options):
    """Return the times to every target, and their ratios."""
    end = curves["ours"][-1][2]
    rows = []
    for within in WITHIN:
        mine, other = (first(curves[who], within * end) for who in ("ours", "sgdml"))
        ratio = None if not mine else f">{60.0 * options.limit / mine:.1f}"
        if mine and other:
            ratio = f"{other / mine:.1f}"
        rows.append({"mae": round(within * end, 5), "ours_s": mine, "sgdml_s": other,
                     "ratio": ratio})  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="c60_buckycatcher_wide")
    parser.add_argument("--component", default="buckycatcher")
    parser.add_argument("--hold-out", default="14,20")
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--valid", type=int, default=40)
    parser.add_argument("--sigma", type=float, default=40)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--memory", type=int, default=8, help="GiB, of either")
    parser.add_argument("--limit", type=float, default=240.0, help="minutes of sgdml")
    parser.add_argument("--tolerance", type=float, default=3e-4)
    parser.add_argument("--max-products", type=int, default=1000)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--torch", action="store_true", help="sgdml's predictions by torch")
    options = parser.parse_args()
    system, numbers, std = system_of(options)
    exact = KernelProduct(system.positions, system.perms, system.sigma)

    def evaluate(v):
        predicted = exact.predict(v, system.valid_positions)
        return std * float(np.abs(predicted - system.valid_y).mean())

    evaluate(system.y)  # compiles
    curves = {"ours": ours(system, options, evaluate)}
    target = WITHIN[-1] * curves["ours"][-1][2]
    curves["sgdml"] = theirs(system, numbers, options, evaluate, target)
    report = {**vars(options), "rows": len(system.y), "permutations": len(system.perms)}
    print(
        json.dumps({**report, "targets": comparison(curves, options), "curves": curves}, indent=1)
    )


if __name__ == "__main__":
    main()
