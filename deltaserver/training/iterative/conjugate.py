"""Preconditioned conjugate gradients for (K + λ) v = y, from products alone; resumable.

The direction's factor is Polak's and Ribière's, zᵀ₊(r₊ − r)/zᵀr, not Fletcher's and Reeves's: the
same in exact arithmetic, and not put off by a preconditioner whose last digits are rounding
[Golub and Ye, SIAM J. Sci. Comput. 21, 1305 (1999), DOI 10.1137/S1064827597323415]. The residual
is computed anew every so often, and always before it is believed.

Stops when the residual is below its bound *and* the validation error has settled; gives up where
the residual has long not fallen, or when products run out, and says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from deltaserver.arrays import Floats

Apply = Callable[[Floats], Floats]

CHECK = 10  # products from one validation to the next
RENEW = 50  # products after which the residual is computed anew
SETTLED = 1e-3  # change of the validation error, relative, from one check to the next
PATIENCE = 400  # products without a new least residual after which it is given up


@dataclass(frozen=True)
class Bounds:
    """When to stop.

    Attributes:
        tolerance: of |y − (K + λ) v| / |y|.
        max_products: with K; then it is given up.
    """

    tolerance: float = 3e-7
    max_products: int = 3000


DEFAULT_BOUNDS = Bounds()


@dataclass
class State:
    """Where an iteration stands; all that is needed to go on as if nothing had happened.

    Attributes:
        v: the solution so far.
        residual: y − (K + λ) v.
        direction: of the next step.
        descent: zᵀr of the current residual.
        products: made so far.
        best: least relative residual, and after how many products.
        checks: (products, relative residual, validation error).
        converged: both conditions are met.
    """

    v: Floats
    residual: Floats
    direction: Floats
    descent: float
    products: int = 0
    best: tuple[float, int] = (float("inf"), 0)
    checks: list[tuple[int, float, float]] = field(default_factory=list)
    converged: bool = False

    def arrays(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        scalars = {
            "descent": self.descent.hex(), "products": self.products,
            "best": self.best, "checks": self.checks, "converged": self.converged,
        }  # fmt: skip
        return {
            "v": self.v, "residual": self.residual, "direction": self.direction,
            "scalars": np.array(json.dumps(scalars)),
        }  # fmt: skip

    @classmethod
    def of(cls, arrays: dict[str, Any]) -> State:
        """Return the state that :meth:`arrays` has described.

        Raises:
            KeyError, TypeError, ValueError: it has not.
        """
        scalars = json.loads(str(arrays["scalars"]))
        return cls(
            arrays["v"],
            arrays["residual"],
            arrays["direction"],
            float.fromhex(scalars["descent"]),
            int(scalars["products"]),
            (float(scalars["best"][0]), int(scalars["best"][1])),
            [(int(n), float(r), float(e)) for n, r, e in scalars["checks"]],
            bool(scalars["converged"]),
        )


@dataclass(frozen=True)
class Problem:
    """One system to solve.

    Attributes:
        y: right-hand side.
        product: v ↦ (K + λ) v.
        precondition: r ↦ z, nearly (K + λ)⁻¹ r.
        validate: v ↦ the error that has to settle.
    """

    y: Floats
    product: Apply
    precondition: Apply
    validate: Callable[[Floats], float]

    def relative(self, residual: Floats) -> float:
        """Return |r| / |y|."""
        return float(np.linalg.norm(residual) / np.linalg.norm(self.y))


def begin(problem: Problem, start: Floats | None = None) -> State:
    """Return the first state, from ``start`` or from nothing."""
    v = np.zeros_like(problem.y) if start is None else start.copy()
    residual = problem.y - problem.product(v) if v.any() else problem.y.copy()
    z = problem.precondition(residual)
    relative = problem.relative(residual)
    return State(v, residual, z, float(residual @ z), int(v.any()), (relative, int(v.any())))


def solve(
    problem: Problem, state: State, bounds: Bounds, each: Callable[[State], None] = lambda _: None
) -> State:
    """Iterate from ``state`` until it stops; ``each`` is called after every step."""
    if not state.checks:
        _judge(problem, state, bounds)
    while not state.converged and state.products < bounds.max_products:
        if not _step(problem, state):
            break
        if state.products % CHECK == 0 or problem.relative(state.residual) <= _far(bounds):
            _judge(problem, state, bounds)
        each(state)
        if state.products - state.best[1] >= PATIENCE:
            break
    return state


def _far(bounds: Bounds) -> float:
    """Return the residual at which it is not waited for the next check: rounding is near."""
    return 1e-2 * bounds.tolerance


def _step(problem: Problem, state: State) -> bool:
    """Make one step; return whether that could be done: K + λ is positive up to rounding only."""
    image = problem.product(state.direction)
    curvature = float(state.direction @ image)
    if not (curvature > 0.0 and state.descent > 0.0):
        return False
    length = state.descent / curvature
    state.v = state.v + length * state.direction
    before = state.residual
    state.products += 1
    if state.products % RENEW:
        state.residual = before - length * image
    else:
        state.residual = problem.y - problem.product(state.v)
    z = problem.precondition(state.residual)
    factor = float(z @ (state.residual - before)) / state.descent
    state.descent = float(z @ state.residual)
    state.direction = z + factor * state.direction
    relative = problem.relative(state.residual)
    if relative < state.best[0]:
        state.best = (relative, state.products)
    return True


def _judge(problem: Problem, state: State, bounds: Bounds) -> None:
    """Note residual and validation error, and whether both conditions are met."""
    relative, error = problem.relative(state.residual), problem.validate(state.v)
    # Where it begins below the bound, from another model's coefficients, nothing has to settle.
    earlier = state.checks[-1][2] if state.checks else error
    state.checks.append((state.products, relative, error))
    if relative > bounds.tolerance or abs(error - earlier) > SETTLED * earlier:
        return
    state.residual = problem.y - problem.product(state.v)
    state.converged = problem.relative(state.residual) <= bounds.tolerance
    if not state.converged:  # what was carried along has strayed: begin anew from here
        state.direction = problem.precondition(state.residual)
        state.descent = float(state.residual @ state.direction)
