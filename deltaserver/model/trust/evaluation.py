"""What every energy and force that is sent must satisfy, whatever the model.

    finite      i-PI takes NaN and goes on with it
    sum         the contributions make up the total
    net force   Σ F_i = 0: a model of distances does not move a complex as a whole
    net torque  Σ r_i × F_i = 0: nor does it turn it, unless it is periodic

The last two hold for every contribution by itself. A violation means a broken accelerator, memory
or program, not a strange structure: the limits are far above rounding and far below any force
that matters.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deltaserver.arrays import Bools, Floats
from deltaserver.compute import jit
from deltaserver.errors import GuardError
from deltaserver.model import loops

if TYPE_CHECKING:
    from deltaserver.model.composite import CompositeEvaluation


NOT_FINITE = (
    "energy, forces or virial of {} are not finite; nothing was sent. Check the structure and the "
    "time step"
)
FAULT = (
    "; nothing was sent. No structure explains that: run `deltaserver check --models DIR`, here "
    "and on another machine"
)
NO_SUM_OF_ENERGIES = "the energy of {} is not the sum of the contributions" + FAULT
NO_SUM_OF_FORCES = "the forces of {} are not the sum of the contributions" + FAULT
NET_FORCE = "the forces of {} do not sum to zero" + FAULT
NET_TORQUE = "the forces of {} turn the complex as a whole" + FAULT
SHOULD_VANISH = (NO_SUM_OF_ENERGIES, NO_SUM_OF_FORCES, NET_FORCE, NET_TORQUE)


@dataclass(frozen=True)
class Tolerances:
    """How much of the size of the forces may be left over, relative, and below which size.

    Attributes:
        relative: of Σ|F_i| (torques: times the farthest atom's distance).
        floor_ev_per_ang: a force per atom that counts as nothing: at a minimum forces are small
            differences of large numbers.
    """

    relative: float
    floor_ev_per_ang: float


SUM_RELATIVE = 1e-10  # contributions are summed in float64, whatever they were computed in
DOUBLE = Tolerances(relative=1e-8, floor_ev_per_ang=1e-2)
SINGLE = Tolerances(relative=1e-3, floor_ev_per_ang=1e-2)  # --precision float32


def check_evaluation(
    result: CompositeEvaluation,
    positions: Floats,
    *,
    periodic: bool = False,
    tolerances: Tolerances = DOUBLE,
    first: int = 0,
) -> None:
    """Refuse a batch of results in which something cannot be right.

    Args:
        result: of a batch of B structures.
        positions: Å, (B, N, 3).
        periodic: whether forces act between nearest images: then nothing holds for torques.
        tolerances: of the arithmetic that the models were evaluated in.
        first: number of the batch's first structure in the run, for messages.

    Raises:
        GuardError: naming the structure and the component.
    """
    parts = [result, *result.contributions.values()]
    energies = np.array([part.energy for part in parts])  # [K, B]
    forces = np.array([part.forces for part in parts])  # [K, B, N, 3]
    left_over, allowed, rest = _balance(energies, forces, positions, tolerances)
    if periodic:
        allowed[3] = np.inf
    # Not finite: every comparison with NaN is false, and no sum of something infinite is finite.
    rest += float(energies.sum() + result.virial.sum())
    if (left_over <= allowed).all() and math.isfinite(rest):
        return
    names = ("the total", *result.contributions)
    _refuse(_not_finite(result, energies, forces), names, first, NOT_FINITE)
    for bad, what in zip(~(left_over <= allowed), SHOULD_VANISH, strict=True):
        _refuse(bad, names, first, what)


def _balance(
    energies: Floats, forces: Floats, positions: Floats, tolerances: Tolerances
) -> tuple[Floats, Floats, float]:
    """Return what should vanish, its limits, and a number that is finite where all forces are."""
    if jit.AVAILABLE:
        left_over, allowed = np.empty((2, 4, *energies.shape))
        finite: float = loops.load("balance").balance(
            energies,
            forces,
            np.ascontiguousarray(positions),
            SUM_RELATIVE,
            tolerances.relative,
            tolerances.floor_ev_per_ang,
            left_over,
            allowed,
        )
        return left_over, allowed, finite
    left_over = _left_over(energies, forces, positions)
    allowed = _allowed(energies, forces, left_over, tolerances)
    with np.errstate(invalid="ignore"):  # what is not finite is found by the caller
        return left_over, allowed, float(forces.sum())


def _left_over(energies: Floats, forces: Floats, positions: Floats) -> Floats:
    """Return what should vanish, (4, K, B).

    Energy and forces less their contributions' (only in the total's row, k = 0), net force, and
    net torque as a force at the farthest atom.
    """
    n_parts, n_batch, n_atoms, _ = forces.shape
    arms = np.ones((n_batch, n_atoms, 4))
    arms[..., :3] = positions - positions[:, :1]  # any origin does where the net force is zero
    with np.errstate(invalid="ignore"):  # what is not finite is found by the caller
        moments = arms.swapaxes(1, 2) @ forces  # [K, B, 4, 3]: Σ r ⊗ F, then Σ F
        twist = moments[..., :3, :]
        twist = np.abs(twist - twist.swapaxes(2, 3))
        minus = np.where(np.arange(n_parts) == 0, 1.0, -1.0)
        remainder = (minus @ forces.reshape(n_parts, -1)).reshape(n_batch, -1)
    result = np.zeros((4, n_parts, n_batch))
    result[0, 0] = np.abs(minus @ energies)
    result[1, 0] = np.sqrt(np.einsum("bk,bk->b", remainder, remainder))
    result[2] = np.abs(moments[..., 3, :]).max(axis=2)
    result[3] = twist.max(axis=(2, 3)) / np.abs(arms).max(axis=(1, 2))
    return result


def _allowed(energies: Floats, forces: Floats, left_over: Floats, tolerances: Tolerances) -> Floats:
    """Return the limits of :func:`_left_over`, by the size of energies and forces."""
    n_atoms = forces.shape[2]
    size = np.sqrt(np.einsum("kbia,kbia->kb", forces, forces) * n_atoms)  # ≥ Σ|F_i|
    size += tolerances.floor_ev_per_ang * n_atoms
    allowed = np.empty_like(left_over)
    allowed[0] = SUM_RELATIVE * np.abs(energies).sum(axis=0)
    allowed[1] = SUM_RELATIVE * size.sum(axis=0)
    allowed[2:] = tolerances.relative * size
    return allowed


def _not_finite(result: CompositeEvaluation, energies: Floats, forces: Floats) -> Bools:
    """Tell what is not finite; of the total only where no contribution has spoilt it."""
    bad = ~(np.isfinite(energies) & np.isfinite(forces).all(axis=(2, 3)))
    bad[0] |= ~np.isfinite(result.virial).all(axis=(1, 2))
    bad[0] &= ~bad[1:].any(axis=0)
    return bad


def _refuse(bad: Bools, names: tuple[str, ...], first: int, what: str) -> None:
    """Raise GuardError for the first structure and component, [K, B], that is ``bad``."""
    if bad.any():
        structure, component = np.argwhere(bad.T)[0]
        raise GuardError(f"structure {first + structure}: " + what.format(names[component]))
