"""Train one sGDML model of one length scale σ.

The coefficients solve (K + λ) (−α) = F/std [Chmiela et al., Nat. Commun. 9, 3887 (2018),
DOI 10.1038/s41467-018-06169-2]: in closed form, or iteratively where K would not fit. Energies can
be labels beside the forces (:mod:`deltaserver.training.energy_rows`). The
integration constant is the mean of E − Ê over the training points.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.files.parameters import ModelParameters
from deltaserver.model.fragment_blocks import FragmentBlocks, Reach
from deltaserver.model.sgdml import Evaluation, NativeUnits, SGDMLModel, concatenate
from deltaserver.model.trust.stored_frame import (
    SLOPE_TOLERANCE,
    STENCIL,
    STEP_ANG,
    slope_error,
    some_way,
)
from deltaserver.training import native
from deltaserver.training.components import LabelledSet
from deltaserver.training.energy_rows import coefficients, labels
from deltaserver.training.iterative.system import Resources, System, solve_iteratively
from deltaserver.training.linear.refit import refit_sites
from deltaserver.training.matrix.assembly import Progress, assemble, quiet
from deltaserver.training.matrix.solver import solve_in_place
from deltaserver.training.request import TrainingRequest, data_md5
from deltaserver.units import KCAL_PER_MOL_EV

NOTHING_KCAL = 0.02  # of binding energy besides the prior, kcal/mol
# The same where an expansion takes what a kernel leaves: forces so small fix no energy, and C60's
# kernel, which went on to 10 Å, left its energies there off by 0.35 kcal/mol, in place of 0.02.
NOTHING_KCAL_BESIDE = 0.3
# The same of an expansion alone, which knows energies: of two benzenes 0.0024 kcal/mol is left on
# average from 7 Å on, where 0.02 would have twice as many pairs of a crystal evaluated.
NOTHING_KCAL_ALONE = 0.08
# Of three molecules: all of it is small, of very many; their centres' distances end it.
NOTHING_KCAL_OF_THREE = 0.0
NEARER = (0.85, 0.97)  # of the shortest separation: the model fades between
FADE_ANG = 2.0  # over which it fades out at long separations
VALIDATION_BATCH = 16  # frames evaluated at once


@dataclass(frozen=True)
class TrainedModel:
    """A trained candidate and how good it is on the validation frames."""

    native: native.NativeModel

    @property
    def force_mae(self) -> float:
        """Return the validation force MAE in kcal/mol/Å: what σ is chosen by."""
        return float(self.native.record["valid_force_mae_kcal_mol_ang"])


def train_one(
    request: TrainingRequest,
    sigma: float,
    progress: Progress = quiet,
    unfinished: Path | None = None,
) -> TrainedModel:
    """Train one candidate of length scale ``sigma``; ``unfinished`` is where iterations are kept.

    Raises:
        InputError: memory does not suffice; the kernel matrix is not positive definite.
        DataError: the labels are constant, or two atoms coincide.
    """
    draft, alphas, record = _fitted(request, sigma, progress, unfinished)
    data, positions = request.data, request.data.positions[request.train]
    own = draft.blocks is not None or draft.linear is not None
    return TrainedModel(
        native.NativeModel(
            data.name,
            data.reference,
            data.numbers,
            request.train,
            request.valid,
            data_md5(data),
            draft.x,
            draft.a,
            alphas,
            request.perms,
            draft.c,
            draft.std,
            sigma,
            request.lam,
            record,
            native.Own(positions, draft.blocks, draft.linear) if own else None,
            draft.alphas_energy,
        )
    )


def _fitted(
    request: TrainingRequest, sigma: float, progress: Progress, unfinished: Path | None
) -> tuple[ModelParameters, Floats, dict[str, Any]]:
    """Return the model (kcal/mol, Å), its α as sgdml keeps them, and what to tell of it."""
    data, positions = request.data, request.data.positions[request.train]
    std = float(np.std(request.rest.forces[request.train])) / KCAL_PER_MOL_EV
    if not std > 0.0:
        raise DataError(f"{data.name}: all force labels are the same; nothing can be learned")
    v, timings = _solve(request, sigma, std, progress, unfinished)
    weight = request.energies if request.kernel else 0.0
    alphas, alphas_energy = coefficients(v, positions.shape, weight)
    x, a = _descriptor_coefficients(positions, alphas)
    kernel = ModelParameters(
        data.numbers,
        x,
        a,
        request.perms,
        sigma,
        c=0.0,
        std=std,
        alphas_energy=alphas_energy,
        blocks=request.blocks,
    )
    kernel, notes = _with_constant(kernel, request)
    linear = request.linear
    if request.again is not None:
        linear = refit_sites(request.again, lambda x: _evaluate(kernel, x), progress)
        notes = []  # of energies that forces alone have fixed
    model = replace(kernel, linear=linear)
    unsound = _slope_error(replace(model, c=0.0), positions[0])
    record = {
        **request.identity(),
        "sigma": sigma,
        **_validation_errors(model, data, request.valid),
        "slope_error": unsound,
        "notes": [*_convergence(timings), *notes, *_rounding(unsound)],
        **timings,
    }
    progress("validating", 1.0)
    return model, alphas, record


def _with_constant(
    kernel: ModelParameters, request: TrainingRequest
) -> tuple[ModelParameters, list[str]]:
    """Return a kernel with its constant of integration, and where it ends; and remarks."""
    offset, notes = 0.0, list[str]()
    if request.kernel:
        whole, left = (
            some.energy[request.train] / KCAL_PER_MOL_EV for some in (request.data, request.rest)
        )
        positions = request.data.positions[request.train]
        offset, notes = _integration_constant(kernel, positions, left, whole - left)
    if request.blocks is not None and request.fades:
        kernel = replace(kernel, blocks=replace(request.blocks, reach=_reach(request)))
    return replace(kernel, c=offset), notes


def _labels(request: TrainingRequest, std: float) -> Floats:
    """Return the right-hand side of the system in units of ``std`` (kcal/mol/Å)."""
    rest, unit = request.rest, KCAL_PER_MOL_EV * std
    return labels(
        rest.forces[request.train] / unit, rest.energy[request.train] / unit, request.energies
    )


def _solve(
    request: TrainingRequest, sigma: float, std: float, progress: Progress, unfinished: Path | None
) -> tuple[Floats, dict[str, Any]]:
    """Return v, zeros where there is no kernel, and what there is to tell of how it was found."""
    if not request.kernel:
        return np.zeros(request.data.positions[request.train].size), {}
    choice = request.choice()
    if choice.solver == "exact":
        return _solve_exactly(request, sigma, std, progress)
    resources = Resources(
        choice.columns,
        request.threads,
        request.device,
        unfinished,
        request.scheduler,
        request.workers,
    )
    system = _system(request, sigma, std)
    return solve_iteratively(system, request.bounds, resources, progress)


def _solve_exactly(
    request: TrainingRequest, sigma: float, std: float, progress: Progress
) -> tuple[Floats, dict[str, Any]]:
    """Return v, and how long it took."""
    positions = request.data.positions[request.train]
    began = time.perf_counter()
    matrix = assemble(
        positions,
        request.perms,
        sigma,
        request.threads,
        progress,
        weights=request.by_atoms,
        energy=request.energies,
    )
    assembled = time.perf_counter()
    y = _labels(request, std)
    v = solve_in_place(matrix, y, request.lam, request.threads, request.device, progress)
    solved = time.perf_counter()
    timings = {
        "assembly_s": round(assembled - began, 3),
        "solve_s": round(solved - assembled, 3),
    }
    return v, timings


def _system(request: TrainingRequest, sigma: float, std: float) -> System:
    data, valid = request.rest, request.valid
    warm = request.warm_start
    return System(
        data.positions[request.train],
        _labels(request, std),
        request.perms,
        sigma,
        request.lam,
        data.positions[valid],
        data.forces[valid] / KCAL_PER_MOL_EV / std,
        None if warm is None else warm.vector(request.train, std, request.energies),
        request.blocks,
        request.energies,
    )


def _convergence(record: dict[str, Any]) -> list[str]:
    """Return a remark where the iteration has ended before both of its conditions were met."""
    if record.get("converged", True):
        return []
    return [
        f"not converged: the residual is {record['residual']:.1e} after {record['products']} "
        f"products, {record['tolerance']:.1e} was wanted; raise --max-products or --max-memory, "
        "or use a smaller sigma or a larger lambda"
    ]


def _slope_error(draft: ModelParameters, positions: Floats) -> float:
    """Return how far forces are from the slope of the energy at one geometry, relative."""
    way = some_way(len(positions))
    around = np.array([positions, *(positions + k * STEP_ANG * way for k in STENCIL)])
    found = _evaluate(draft, around)
    return slope_error(found.energy[1:].tolist(), found.forces[0], way)


def _rounding(error: float) -> list[str]:
    """Return a remark where coefficients are so large that energies are lost in rounding."""
    if error <= SLOPE_TOLERANCE:
        return []
    return [
        f"forces are not the slope of the energy (off by {error:.1e} of their size), which "
        "`deltaserver check` refuses: raise --lambda, take a smaller sigma, or leave out --energies"
    ]


def _descriptor_coefficients(positions: Floats, alphas: Floats) -> tuple[Floats, Floats]:
    """Return descriptors D_k = 1/|r_i − r_j| and J α, both (M, D), pairs i > j in row order."""
    pairs = PairDescriptor(positions.shape[1])
    geometry = pairs.geometry(positions)
    return geometry.descriptor, pairs.project(geometry, alphas.reshape(positions.shape))


def _reach(request: TrainingRequest) -> Reach:
    """Return where a model counts, by what it was trained on."""
    assert request.blocks is not None
    some = request.train if request.fitted is None else request.fitted
    nothing = NOTHING_KCAL if request.kernel else NOTHING_KCAL_ALONE
    if request.again is not None:
        nothing = NOTHING_KCAL_BESIDE
    if request.order == 3:
        nothing = NOTHING_KCAL_OF_THREE
    pairs = PairDescriptor(len(request.data.numbers))
    x = pairs.geometry(request.data.positions[some]).descriptor
    return reach_of(request.blocks, x, request.data.energy[some] / KCAL_PER_MOL_EV, nothing)


def reach_of(
    blocks: FragmentBlocks, x: Floats, energy: Floats, nothing: float = NOTHING_KCAL
) -> Reach:
    """Return where a model of training descriptors (M, D) counts.

    It ends where the longest separation is, or where what is left to learn (kcal/mol) is nothing
    from there on, if that is nearer; and where the shortest one is.
    """
    rho = blocks.shortest(x)
    order = np.argsort(rho)
    matters = np.flatnonzero(np.abs(energy[order]) > nothing)
    last = rho[order[matters[-1]]] if len(matters) else rho.min()
    end, start = float(max(last, np.median(rho))), float(rho.min())
    return Reach((NEARER[0] * start, NEARER[1] * start), (end, end + FADE_ANG))


def _evaluate(parameters: ModelParameters, positions: Floats) -> Evaluation:
    """Evaluate in the model's own units."""
    model = SGDMLModel(parameters, NativeUnits(1.0, 1.0))
    parts = range(0, len(positions), VALIDATION_BATCH)
    return concatenate([model.evaluate(positions[k : k + VALIDATION_BATCH]) for k in parts])


def _integration_constant(
    draft: ModelParameters, positions: Floats, energy: Floats, known: Floats
) -> tuple[float, list[str]]:
    """Return the mean of E − Ê (kcal/mol), and remarks where energies do not follow forces.

    ``known`` are energies that a linear expansion has taken off ``energy``.
    """
    predicted = _evaluate(draft, positions).energy
    notes = []
    if np.ptp(predicted) > 0.0 and len(predicted) > 2:
        slope = float(np.polyfit(predicted + known, energy + known, 1)[0])
        correlation = float(np.corrcoef(predicted + known, energy + known)[0, 1])
        if slope < 0.0:
            notes.append("energies fall where integrated forces rise: gradients for forces?")
        elif correlation < 0.95 or abs(slope - 1.0) > 0.1:
            notes.append(
                f"energies follow integrated forces with slope {slope:.2f}, "
                f"correlation {correlation:.2f}: units, or too few points?"
            )
    return float(np.mean(energy - predicted)), notes


def _validation_errors(model: ModelParameters, data: LabelledSet, valid: Ints) -> dict[str, float]:
    """Return MAE and RMSE of energy (kcal/mol) and force components (kcal/mol/Å)."""
    predicted = _evaluate(model, data.positions[valid])
    force = predicted.forces - data.forces[valid] / KCAL_PER_MOL_EV
    energy = predicted.energy - data.energy[valid] / KCAL_PER_MOL_EV
    return {
        "valid_force_mae_kcal_mol_ang": float(np.abs(force).mean()),
        "valid_force_rmse_kcal_mol_ang": float(np.sqrt((force**2).mean())),
        "valid_energy_mae_kcal_mol": float(np.abs(energy).mean()),
        "valid_energy_rmse_kcal_mol": float(np.sqrt((energy**2).mean())),
    }
