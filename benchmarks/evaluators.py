"""Our evaluator against sgdml's: ``python benchmarks/evaluators.py [--json FILE]``.

Random but valid models of the shapes that matter, one thread each, medians of repeated calls in
one process: ours, sgdml's GDMLPredict at its best chunk size, and its torch predictor. Then the
shipped C60@buckycatcher, and goals beside figures. Rooflines of one evaluation: the training
arrays' bytes over the measured memory bandwidth, and the arithmetic of the sum written out over the
measured DGEMM rate; sums over a group need less arithmetic than that, so they may lie below the
second.
"""

from __future__ import annotations

import os

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(variable, "1")  # before numpy is loaded

import argparse
import json
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import sgdml.predict  # noqa: F401  (before numba: both bring an OpenMP runtime)
import torch
from sgdml.torchtools import GDMLTorchPredict

from deltaserver import CompositeModel
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.engines.numpy_engine import NumpyEngine
from deltaserver.model.engines.reference import ReferenceEngine, as_sgdml
from deltaserver.model.engines.storage import choose
from deltaserver.model.files.parameters import ModelParameters
from deltaserver.model.loading import Choice
from deltaserver.model.manifest import IsolatedAtom
from deltaserver.model.parts import Fragment, Part
from deltaserver.model.sgdml import NativeUnits, SGDMLModel, concatenate

UNITS = NativeUnits(1.0, 1.0)
CHUNKS = (1, 2, 5, 10, 20, 50, 100, 200)
REPEAT_S = 1.5
RATIOS = (8.0, 7.0, 35.0, 220.0)  # to sgdml, of each shape: what was reached and must stay


@dataclass(frozen=True)
class Shape:
    """Atoms, training points, permutations: of the first fragment's ring times the second's."""

    name: str
    n_atoms: int
    n_train: int
    rings: tuple[int, ...]

    @property
    def perms(self) -> np.ndarray:
        rings = [[np.roll(np.arange(n), k) for k in range(n)] for n in self.rings]
        rows = []
        for choice in product(*rings):
            offset, row = 0, []
            for ring in choice:
                row.append(ring + offset)
                offset += len(ring)
            rows.append(np.concatenate([*row, np.arange(offset, self.n_atoms)]))
        return np.array(rows)


SHAPES = (
    Shape("dimer, S = 2", 24, 200, (2,)),
    Shape("N = 148, S = 1", 148, 100, (1,)),
    Shape("N = 148, S = 12", 148, 100, (12,)),
    Shape("N = 148, S = 120", 148, 100, (60, 2)),
)


@dataclass(frozen=True)
class Result:
    """One shape's figures; times in ms a geometry."""

    shape: str
    ours_ms: float
    ours_batch8_ms: float
    ours_batch32_ms: float
    sgdml_ms: float
    sgdml_torch_ms: float
    ratio: float
    construct_s: float
    sgdml_construct_s: float
    memory_mb: float
    memory_roof_ms: float
    arithmetic_roof_ms: float
    energy_difference: float
    force_difference: float


def median_ms(call: Callable[[], object]) -> float:
    """Median time of repeated calls, in ms."""
    call()
    times: list[float] = []
    began = time.perf_counter()
    while len(times) < 5 or (time.perf_counter() - began < REPEAT_S and len(times) < 2000):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))


def geometries(n_atoms: int, n: int, rng: np.random.Generator) -> np.ndarray:
    side = int(np.ceil(n_atoms ** (1 / 3)))
    grid = np.stack(np.meshgrid(*[np.arange(side)] * 3), -1).reshape(-1, 3)[:n_atoms]
    return (
        1.5 * grid
        + rng.normal(scale=0.1, size=(n_atoms, 3))
        + rng.normal(scale=0.05, size=(n, n_atoms, 3))
    )


def parameters_of(shape: Shape, descriptors: np.ndarray) -> ModelParameters:
    rng = np.random.default_rng(1)
    return ModelParameters(
        numbers=np.full(shape.n_atoms, 6),
        x=descriptors,
        a=rng.normal(size=descriptors.shape),
        perms=shape.perms,
        sigma=20.0,
        c=0.0,
    )


def measure(shape: Shape, bandwidth: float, gemm_rate: float) -> Result:
    rng = np.random.default_rng(0)
    x = geometries(shape.n_atoms, shape.n_train + 32, rng)
    descriptors = PairDescriptor(shape.n_atoms).geometry(x).descriptor
    parameters = parameters_of(shape, descriptors[32:])
    SGDMLModel(parameters, UNITS).evaluate(x[:1])  # compiles, once and for all
    tracemalloc.start()
    ours = SGDMLModel(parameters, UNITS)
    ours.evaluate(x[:1])
    memory_mb = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    start = time.perf_counter()
    ours = SGDMLModel(parameters, UNITS)
    construct_s = time.perf_counter() - start
    start = time.perf_counter()
    theirs = SGDMLModel(parameters, UNITS, ReferenceEngine(parameters))
    sgdml_construct_s = time.perf_counter() - start
    sgdml_ms = min(_sgdml_ms(theirs, x[:1], chunk) for chunk in CHUNKS if chunk <= shape.n_train)
    ours_ms = median_ms(lambda: ours.evaluate(x[:1]))
    positions = np.concatenate([x[:4], x[4:8] + 1000.0])  # some of them far away
    a, b = ours.evaluate(positions), theirs.evaluate(positions - positions.mean(1, keepdims=True))
    singles = [ours.evaluate(row) for row in positions]
    a = concatenate([a, *singles])
    b = concatenate([b, b])
    n_desc = descriptors.shape[1]
    return Result(
        shape=shape.name,
        ours_ms=ours_ms,
        ours_batch8_ms=median_ms(lambda: ours.evaluate(x[:8])) / 8,
        ours_batch32_ms=median_ms(lambda: ours.evaluate(x[:32])) / 32,
        sgdml_ms=sgdml_ms,
        sgdml_torch_ms=_sgdml_torch_ms(parameters, x[:1]),
        memory_mb=memory_mb,
        ratio=sgdml_ms / ours_ms,
        construct_s=construct_s,
        sgdml_construct_s=sgdml_construct_s,
        memory_roof_ms=1e3 * 2 * shape.n_train * n_desc * 8 / bandwidth,
        arithmetic_roof_ms=1e3 * 8 * len(shape.perms) * shape.n_train * n_desc / gemm_rate,
        energy_difference=float(np.abs(a.energy / b.energy - 1).max()),
        force_difference=float(np.abs(a.forces - b.forces).max() / np.abs(b.forces).max()),
    )


def _sgdml_ms(model: SGDMLModel, x: np.ndarray, chunk: int) -> float:
    model.engine._predictor._set_chunk_size(chunk)
    return median_ms(lambda: model.evaluate(x))


def _sgdml_torch_ms(parameters: ModelParameters, x: np.ndarray) -> float:
    model = GDMLTorchPredict({**as_sgdml(parameters), "sig": int(parameters.sigma)}).eval()
    positions = torch.tensor(x)
    return median_ms(lambda: model(positions))


def growth() -> None:
    """Print how the cost of one geometry grows with N, M, S and the batch, one at a time."""
    start = Shape("", 148, 100, (1,))
    cases = {
        "N": [replace(start, n_atoms=n) for n in (24, 48, 96, 148, 200)],
        "M": [replace(start, n_train=m) for m in (25, 50, 100, 200, 400)],
        "S": [
            replace(start, rings=rings) for rings in ((1,), (2,), (12,), (60,), (60, 2), (60, 8))
        ],
    }
    print("\n| varied from N = 148, M = 100, S = 1 | value: ms |\n|---|---|")
    for name, shapes in cases.items():
        cells = []
        for shape in shapes:
            x = geometries(shape.n_atoms, shape.n_train, np.random.default_rng(0))
            descriptors = PairDescriptor(shape.n_atoms).geometry(x).descriptor
            model = SGDMLModel(parameters_of(shape, descriptors), UNITS)
            value = {"N": shape.n_atoms, "M": shape.n_train, "S": len(shape.perms)}[name]
            cells.append(f"{value}: {median_ms(lambda m=model, x=x: m.evaluate(x[:1])):.3f}")
        print(f"| {name} | {', '.join(cells)} |", flush=True)


def composite(path: Path) -> None:
    """Print the shipped model's time: every contribution, and batches."""
    model = CompositeModel.load(path, storage="auto")  # as the daemon does
    model.warm_up()
    table = _positions()
    x = table + np.random.default_rng(0).normal(scale=0.02, size=(32, *table.shape))
    print(f"\n{path}: permutations {[part.model.n_perms for part in model.fragments]}", end="")
    print(f" and {model.binding.n_perms}\n\n| component | ms a geometry |\n|---|---|")
    for component in model.components:
        print(f"| {component} | {median_ms(lambda c=component: model.evaluate(x[:1], c)):.3f} |")
    for n in (8, 32):
        print(f"| total, batch of {n} | {median_ms(lambda n=n: model.evaluate(x[:n])) / n:.3f} |")


def composite_of(n_train: int, threads: int) -> tuple[CompositeModel, np.ndarray]:
    """Return a model of the shipped complex's symmetry with so many random points a part.

    Valid, not trained: C60 with 120 permutations, the catcher with 4, the binding with 240 and
    inter-fragment entries alone. Training points are stored as the daemon does.
    """
    shipped, rng = CompositeModel.load(Path("models/c60")), np.random.default_rng(0)
    x = _positions() + rng.normal(scale=0.05, size=(n_train, 148, 3))
    pool = Choice(threads=threads).pool()

    def random(part: Part) -> SGDMLModel:
        assert part.trained is not None
        old = part.trained.parameters
        frames = x[:, part.atoms] / part.trained.native.length_ang
        points = PairDescriptor(len(part.atoms)).geometry(frames).descriptor
        new = replace(
            old,
            x=points,
            a=rng.normal(size=points.shape),
            linear=None,
            alphas_energy=None,
            positions=None if old.positions is None else frames,
        )
        engine, _ = choose(NumpyEngine(new, pool), new, "auto")
        return SGDMLModel(new, UNITS, engine)

    fragments = tuple(Fragment(f.name, f.atoms, random(f)) for f in shipped.fragments)
    binding = next(random(part) for part in shipped.parts if part.name == "binding")
    return CompositeModel(fragments, binding, pool=pool), x


def _positions() -> np.ndarray:
    return np.loadtxt("ipi_inputs/c60_buckycatcher.xyz", skiprows=2, usecols=(1, 2, 3))


def lone_ions() -> float:
    """Return the ms of a composite of 148 ions, which exert nothing."""
    ions = tuple(Fragment(f"ion{k}", np.array([k]), IsolatedAtom(11, -1.0)) for k in range(148))
    model, x = CompositeModel(ions, None), _positions()
    return median_ms(lambda: model.evaluate(x))


def goals(results: list[Result]) -> None:
    """Print goals and figures side by side."""
    rows = [
        (f"{r.shape}: times faster than sgdml", f">= {goal:g}", r.ratio, r.ratio >= goal)
        for r, goal in zip(results, RATIOS, strict=True)
    ]
    limits = [
        ("dimer, S = 2: ms", 0.02, results[0].ours_ms),
        ("148 lone ions: ms", 0.1, lone_ions()),
    ]
    for n_train, threads, goal in ((100, 1, 1.5), (600, 1, 4.0), (600, 2, 2.5)):
        model, x = composite_of(n_train, threads)
        ms = median_ms(lambda m=model, x=x: m.evaluate(x[:1]))
        limits.append((f"composite, M = {n_train}, {threads} thread(s): ms", goal, ms))
    rows += [(name, f"<= {goal:g}", found, found <= goal) for name, goal, found in limits]
    print("\n| what | goal | found | |\n|---|---|---|---|")
    for name, goal, found, reached in rows:
        print(f"| {name} | {goal} | {found:.3g} | {'yes' if reached else 'no'} |", flush=True)


def memory_bandwidth() -> float:
    """Bytes a second that one thread reads from memory, as a dot product sees it."""
    a = np.ones(1 << 25)
    return a.nbytes / (median_ms(lambda: a @ a) * 1e-3)


def dgemm_rate() -> float:
    """Floating-point operations a second of one thread in a square DGEMM."""
    a = np.random.default_rng(0).random((1500, 1500))
    return 2 * 1500**3 / (median_ms(lambda: a @ a) * 1e-3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    bandwidth, gemm_rate = memory_bandwidth(), dgemm_rate()
    print(f"memory {bandwidth / 1e9:.1f} GB/s, DGEMM {gemm_rate / 1e9:.1f} GFLOP/s\n")
    print(
        "| shape | ours | sgdml | ratio | sgdml torch | batch 8 | batch 32 | construct | memory ",
        end="",
    )
    print("| roofs | energy, force difference |\n|" + 11 * "---|")
    results = []
    for shape in SHAPES:
        r = measure(shape, bandwidth, gemm_rate)
        results.append(r)
        print(
            f"| {r.shape} | {r.ours_ms:.3f} ms | {r.sgdml_ms:.2f} ms | {r.ratio:.1f} "
            f"| {r.sgdml_torch_ms:.2f} ms | {r.ours_batch8_ms:.3f} ms | {r.ours_batch32_ms:.3f} ms "
            f"| {r.construct_s:.2f} s ({r.sgdml_construct_s:.1f} s) "
            f"| {r.memory_mb:.0f} MB | {r.memory_roof_ms:.2f}, {r.arithmetic_roof_ms:.2f} ms "
            f"| {r.energy_difference:.0e}, {r.force_difference:.0e} |",
            flush=True,
        )
    growth()
    composite(Path("models/c60"))
    goals(results)
    if options.json:
        options.json.write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")


if __name__ == "__main__":
    main()
