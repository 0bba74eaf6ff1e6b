"""From training points and labels to coefficients, iteratively: the parts put together."""

from __future__ import annotations

import hashlib
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.compute.blas import blas_threads
from deltaserver.datasets.labelling import LOCAL
from deltaserver.model.fragment_blocks import FragmentBlocks
from deltaserver.training.iterative.checkpoint import Checkpoint
from deltaserver.training.iterative.conjugate import Apply, Bounds, Problem, State, begin, solve
from deltaserver.training.iterative.distributed import over_workers
from deltaserver.training.iterative.plan import Columns
from deltaserver.training.iterative.preconditioner import Preconditioner, choose_points
from deltaserver.training.iterative.product import EnergyColumns, KernelProduct
from deltaserver.training.matrix.assembly import Progress, quiet
from deltaserver.training.matrix.blocks import PairFields
from deltaserver.training.matrix.solver import UnsolvableError


class DivergedError(UnsolvableError):
    """Conjugate gradients have left the solution instead of reaching it."""

    def __init__(self, residual: float, products: int) -> None:
        super().__init__(
            f"the iterative solver has diverged: after {products} products the residual is "
            f"{residual:.1e} of the labels, more than with no model at all; use --solver exact, "
            "a larger lambda, a smaller sigma, or fewer permutations"
        )


@dataclass(frozen=True)
class System:
    """(K + λ) v = y, and what the solution is validated by.

    Attributes:
        positions: training points, shape (M, N, 3).
        y: labels, shape (3NM,), or ((3N + 1)M,) with energies.
        perms: a permutation group of the atoms, shape (S, N).
        sigma: length scale of the kernel.
        lam: λ.
        valid_positions: validation frames, shape (V, N, 3).
        valid_y: their labels, in the units of ``y``.
        start: v to begin with, from another model; None is nothing.
        blocks: weights of the descriptor's entries by fragment; None is sGDML's own.
        energy: weight of energies as labels; 0 is forces alone.
    """

    positions: Floats
    y: Floats
    perms: Ints
    sigma: float
    lam: float
    valid_positions: Floats
    valid_y: Floats
    start: Floats | None = None
    blocks: FragmentBlocks | None = None
    energy: float = 0.0

    def fields(self) -> PairFields:
        """Return what blocks of K are made of.

        Raises:
            DataError: two atoms of a training point coincide.
        """
        weights = None if self.blocks is None else self.blocks.by_atoms
        return PairFields.of(self.positions, weights, self.energy)

    def identity(self) -> dict[str, Any]:
        """Return all that decides the iteration."""
        digest = hashlib.sha256()
        none = np.zeros(0)
        start = none if self.start is None else self.start
        weights = none if self.blocks is None else self.blocks.by_pair
        for array in (self.positions, self.y, self.perms, self.valid_positions, start, weights):
            digest.update(np.ascontiguousarray(array).tobytes())
        numbers = {"sigma": self.sigma, "lambda": self.lam, "energy": self.energy}
        return {"arrays": digest.hexdigest(), **numbers}


@dataclass(frozen=True)
class Resources:
    """What the solution may use.

    Attributes:
        columns: that precondition.
        threads: of everything, BLAS included.
        device: that makes the products; see :class:`KernelProduct`.
        checkpoint: file of the unfinished iteration; None keeps none.
        scheduler: ``"local"``, or the address of the Dask scheduler whose workers make products.
        workers: local processes that share the products out; 1 is this one.
    """

    columns: Columns
    threads: int = 1
    device: str = "cpu"
    checkpoint: Path | None = None
    scheduler: str = LOCAL
    workers: int = 1


def solve_iteratively(
    system: System, bounds: Bounds, resources: Resources, progress: Progress = quiet
) -> tuple[Floats, dict[str, Any]]:
    """Return v (3NM,), and how it was found: for the record of the model.

    Raises:
        DivergedError: the solution is worse than none.
        NotPositiveDefiniteError: the columns chosen are linearly dependent.
        DataError, GeometryError: two atoms coincide.
    """
    began = time.perf_counter()
    checkpoint = Checkpoint(resources.checkpoint, system.identity(), resources.columns)
    state = checkpoint.read()
    points = choose_points(len(system.positions), checkpoint.columns.points)
    arguments = _arguments(system, resources)
    alone = KernelProduct(*arguments)
    with blas_threads(resources.threads):
        # Of points whose energies are labels and whose columns are there, these are already.
        others = np.setdiff1d(np.arange(len(system.positions)), points if system.energy else [])
        precondition = Preconditioner(
            system.fields(),
            system.perms,
            system.sigma,
            points,
            system.lam,
            resources.threads,
            progress,
            EnergyColumns(alone, others, resources.threads),
            single=checkpoint.columns.single,
        )
    prepared = time.perf_counter()
    with over_workers(alone, arguments, resources.scheduler, resources.workers) as product:
        problem = _problem(system, precondition, product, alone)
        state = begin(problem, system.start) if state is None else state
        watch = _Watch(bounds, problem, progress)

        def each(state: State) -> None:
            checkpoint.keep(state)
            watch.show(state)

        with blas_threads(resources.threads):  # once: to set them costs more than a small product
            solve(problem, state, bounds, each)
        checkpoint.drop()
        residual = problem.relative(problem.y - problem.product(state.v))
    if not residual < 1.0:
        raise DivergedError(residual, state.products)
    record = {
        "solver": "iterative", "converged": state.converged, "residual": residual,
        "tolerance": bounds.tolerance, "products": state.products,
        "preconditioner_points": len(points), "checks": [list(check) for check in state.checks],
        "assembly_s": round(prepared - began, 3),
        "solve_s": round(time.perf_counter() - prepared, 3),
    }  # fmt: skip
    return state.v, record


def _arguments(system: System, resources: Resources) -> tuple[Any, ...]:
    """Return what :class:`KernelProduct` takes."""
    return (
        system.positions, system.perms, system.sigma, resources.threads, resources.device,
        system.blocks, system.energy,
    )  # fmt: skip


def _problem(
    system: System, precondition: Preconditioner, product: Apply, alone: KernelProduct
) -> Problem:
    def validate(v: Floats) -> float:
        predicted = alone.predict(v, system.valid_positions)
        return float(np.abs(predicted - system.valid_y).mean())

    return Problem(system.y, lambda v: product(v) + system.lam * v, precondition, validate)


class _Watch:
    """Tells how far the iteration is: residuals fall by a like factor with every product."""

    def __init__(self, bounds: Bounds, problem: Problem, progress: Progress) -> None:
        self._bounds, self._problem, self._progress = bounds, problem, progress
        self._fraction = 0.0

    def show(self, state: State) -> None:
        """Report the residual, the validation error, and the share of the work that is done."""
        relative = max(self._problem.relative(state.residual), 1e-300)
        towards = math.log(min(1.0, relative)) / math.log(self._bounds.tolerance)
        share = max(min(towards, 0.99), state.products / self._bounds.max_products)
        self._fraction = 1.0 if state.converged else max(self._fraction, share)
        self._progress(
            f"solving; product {state.products}, residual {relative:.1e}, "
            f"validation {state.checks[-1][2]:.4g} of the spread",
            self._fraction,
        )
