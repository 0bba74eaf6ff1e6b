"""What is to be trained for one component: which frames, permutations, prior and expansion."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Bools, Ints
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.datasets.labelling import LOCAL
from deltaserver.errors import DataError
from deltaserver.model.fragment_blocks import FragmentBlocks, owner_of
from deltaserver.model.prior import Prior
from deltaserver.training.components import (
    BINDING,
    FULL,
    Component,
    LabelledSet,
    labelled_set,
    without_prior,
)
from deltaserver.training.iterative.conjugate import Bounds
from deltaserver.training.linear.fit import LinearFit, linear_fit, product_fit
from deltaserver.training.linear.frame_weights import FrameWeights
from deltaserver.training.linear.site_fit import WALL_EV, SiteFit
from deltaserver.training.linear.units import STRAIN_EV, strain
from deltaserver.training.points import DEFAULT_SELECTION, NONE, Candidates
from deltaserver.training.prior_fit import FRAMES, Asymptote, choose_prior
from deltaserver.training.request import LAMBDA, TrainingRequest
from deltaserver.training.selection import Split, draw_stratified
from deltaserver.training.symmetry import DEFAULT_CAP, Symmetry
from deltaserver.training.symmetry_modes import resolve
from deltaserver.training.three.checks import is_of_three
from deltaserver.training.three.entry import induction_of
from deltaserver.training.three.flowing import Flowing
from deltaserver.training.three.prior import fit_three
from deltaserver.training.three.reach import fade_of
from deltaserver.training.warm_start import WarmStart, read_warm_start

DISTANCES = "distances"  # the linear expansion below a kernel
UNITS = "units"  # the same, and what stiff units of a molecule do to each other
PRODUCTS = "products"  # a linear expansion of the binding without a kernel
PRIOR_FRAMES = 600  # of its prior, whose tail is all that is left far apart


@dataclass(frozen=True)
class TrainingPlan:
    """How to train a complex; see ``deltaserver train --help``."""

    n_train: int = 100
    n_valid: int = 50
    sigmas: tuple[float, ...] = ()
    symmetry: str = "product"
    component: str = "all"
    cap: int = DEFAULT_CAP
    lambdas: tuple[float, ...] = (LAMBDA,)
    seed: int = 0
    train_fraction: float = 0.8
    held_out_trajectories: tuple[int, ...] = ()
    trained_trajectories: tuple[int, ...] = ()
    threads: int = 1
    device: str = "cpu"
    max_bytes: float | None = None
    overwrite: bool = False
    solver: str = "auto"
    tolerance: float = Bounds.tolerance
    max_products: int = Bounds.max_products
    warm_start: Path | None = None
    prior: str = "none"
    intra_weights: tuple[float, ...] = (1.0,)
    linear: str = "none"
    frame_weights: FrameWeights | None = None
    energies: float = 0.0
    selection: str = DEFAULT_SELECTION
    scheduler: str = LOCAL
    workers: int = 1
    induction: Path | None = None


@dataclass(frozen=True)
class Job:
    """One component to train.

    Attributes:
        component: which.
        request: with the first of the weights.
        symmetry: where its permutations come from.
        prior: what its labels are without, of the binding; None is nothing.
        weights: blocks of the descriptor to choose from by validation; None is sGDML's own.
        fit: of the linear expansion that the kernel stands on; None is none.
        again: of the one that takes its place beside the kernel, with frames of the wall; None:
            it stays.
        fade: Å between centres, over which what is learned of three molecules ends; None of all
            else.
        induction: what of ``prior`` goes into ``model.yaml`` as induction.
    """

    component: Component
    request: TrainingRequest
    symmetry: Symmetry
    prior: Prior | None
    weights: tuple[FragmentBlocks | None, ...]
    fit: LinearFit | None
    again: SiteFit | None
    fade: tuple[float, float] | None = None
    induction: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Drawn:
    """Entries of a labelled set, each (M,).

    Attributes:
        pool: those that points of a kernel are drawn from.
        points: those that are.
        valid: of the validation.
        entries: all that an expansion or a prior may be fitted to.
    """

    pool: Ints
    points: Ints
    valid: Ints
    entries: Ints


def job_of(
    frames: LabelledFrames,
    available: tuple[Component, ...],
    component: Component,
    split: Split,
    plan: TrainingPlan,
) -> Job:
    """Return what is to be trained for ``component``; nothing of a kernel is computed yet.

    Raises:
        InputError: frames, permutations or labels do not allow what ``plan`` wants.
    """
    data, three = labelled_set(frames, component), is_of_three(frames, component)
    weights = _weights(frames, component, plan)
    warm = _warm_start(plan, component, data)

    def symmetry(points: Ints) -> Symmetry:
        return resolve(plan.symmetry, frames, available, component, data, points, plan.cap)

    by_pair = None if weights[0] is None else weights[0].by_pair

    def compared(pool: Ints) -> Candidates:
        trajectories = frames.trajectory[data.frame[pool]]
        return Candidates(data, pool, trajectories, lambda: symmetry(pool).perms, by_pair)

    low = _low(frames, component, data, plan)
    drawn = _draw(frames, data, split, plan, warm, low, compared)
    found = symmetry(drawn.points)
    prior = _prior(frames, available, component, drawn, plan)
    if prior is not None:
        data = without_prior(data, prior)
    fit, again = _expansion(frames, available, component, data, drawn, found.perms, plan)
    request = TrainingRequest(
        data,
        found.perms,
        drawn.points,
        drawn.valid,
        plan.lambdas[0],
        plan.threads,
        plan.device,
        plan.max_bytes,
        plan.solver,
        Bounds(plan.tolerance, plan.max_products),
        warm,
        weights[0],
        three or prior is not None or (fit is not None and component.name == BINDING),
        "" if fit is None else _basis(plan, again or fit),
        fitted=None if _has_kernel(component, plan) else drawn.entries,
        energies=plan.energies,
        order=3 if three else 2,
        scheduler=plan.scheduler,
        workers=plan.workers,
    )
    fade = fade_of(frames, drawn.points) if three else None
    induction = induction_of(prior, available)
    return Job(component, request, found, prior, weights, fit, again, fade, induction)


def _is_baseline(component: Component, plan: TrainingPlan) -> bool:
    """Tell whether it is sGDML's own full model, to compare with."""
    return component.name == FULL != plan.component


def _has_kernel(component: Component, plan: TrainingPlan) -> bool:
    return plan.linear != PRODUCTS or component.name != BINDING


def _expands(component: Component, plan: TrainingPlan) -> bool:
    """Tell whether a kernel stands on a linear expansion."""
    return plan.linear in (DISTANCES, UNITS) and not _is_baseline(component, plan)


def _draw(
    frames: LabelledFrames,
    data: LabelledSet,
    split: Split,
    plan: TrainingPlan,
    warm: WarmStart | None,
    low: Bools,
    compared: Callable[[Ints], Candidates],
) -> _Drawn:
    """Draw points and validation from the frames that are ``low``, and what is known already."""
    candidates = np.flatnonzero(np.isin(data.frame, split.train))
    validation = np.flatnonzero(np.isin(data.frame, split.valid) & low)
    known = _known(data, candidates, frames, plan, warm)
    pool = np.union1d(candidates[low[candidates]], known)
    points = compared(pool).draw(plan.selection, plan.n_train, plan.seed, known)
    valid = _valid(data, validation, plan)
    return _Drawn(pool, points, valid, np.setdiff1d(candidates, valid))


def _valid(data: LabelledSet, validation: Ints, plan: TrainingPlan) -> Ints:
    """Draw entries to validate on; fewer than asked for are no reason to refuse."""
    n_valid = min(plan.n_valid, len(validation))
    drawn = draw_stratified(data.energy[validation], n_valid, plan.seed, f"{data.name} frames")
    some: Ints = validation[drawn]
    return some


def prior_alone(
    frames: LabelledFrames,
    available: tuple[Component, ...],
    component: Component,
    split: Split,
    plan: TrainingPlan,
) -> tuple[Prior, Ints, Ints]:
    """Fit the prior of three molecules, with no kernel to come.

    Returns:
        The prior, the entries of the binding that it was fitted to, and those it was chosen by.

    Raises:
        InputError: frames do not allow it, or ``plan.induction`` has no charges for them.
    """
    data = labelled_set(frames, component)
    candidates, validation = (
        np.flatnonzero(np.isin(data.frame, some)) for some in (split.train, split.valid)
    )
    valid = _valid(data, validation, plan)
    entries = np.setdiff1d(candidates, valid)
    prior = _prior(frames, available, component, _Drawn(NONE, NONE, valid, entries), plan)
    assert prior is not None
    return prior, entries, valid


def _prior(
    frames: LabelledFrames,
    available: tuple[Component, ...],
    component: Component,
    drawn: _Drawn,
    plan: TrainingPlan,
) -> Prior | None:
    """Fit what the labels of a binding are without; None is nothing."""
    if plan.prior == "none":
        return None
    if is_of_three(frames, component):
        flowing = None
        if plan.induction is not None:
            flowing = Flowing.read(plan.induction, frames, available, plan.cap)
        return fit_three(frames, available, drawn.entries, drawn.valid, flowing)
    if component.name != BINDING:
        return None
    asymptote: Asymptote = "fitted" if plan.prior == "pairs-limit" else "zero"
    if _has_kernel(component, plan):
        some, most = drawn.points, FRAMES
    else:
        some, most = drawn.entries, PRIOR_FRAMES
    return choose_prior(frames, available, some, drawn.valid, plan.cap, asymptote, most)


def _expansion(
    frames: LabelledFrames,
    available: tuple[Component, ...],
    component: Component,
    data: LabelledSet,
    drawn: _Drawn,
    perms: Ints,
    plan: TrainingPlan,
) -> tuple[LinearFit | None, SiteFit | None]:
    """Return :attr:`Job.fit` and :attr:`Job.again`."""
    entries, valid = drawn.entries, drawn.valid
    counts = np.ones(len(data.energy))
    if plan.frame_weights is not None:
        counts = plan.frame_weights.of(frames.trajectory[data.frame])
    if not _has_kernel(component, plan):
        products = product_fit(frames, available, data, entries, valid, perms, plan.cap)
        return replace(products, weight=counts), None
    if not _expands(component, plan):
        return None, None
    more = {"limit": plan.prior == "pairs-limit", "units": plan.linear == UNITS}
    fit = linear_fit(frames, available, component, data, entries, valid, plan.cap, **more)
    if fit is None:
        return None, None
    again = replace(fit, weight=counts if fit.weight is None else counts * fit.weight)
    if not isinstance(again, SiteFit):
        return again, None
    return replace(again, train=np.intersect1d(entries, drawn.pool), weight=counts), again


def _basis(plan: TrainingPlan, fit: LinearFit) -> str:
    """Tell what a linear expansion is fitted to, and how."""
    counts = "" if plan.frame_weights is None else f", {plan.frame_weights}"
    return f"{plan.linear}, {len(fit.train)} frames{counts}"


def _low(
    frames: LabelledFrames, component: Component, data: LabelledSet, plan: TrainingPlan
) -> Bools:
    """Return which frames a kernel is for, (M,): for a wall an expansion is enough.

    The wall is that of the binding, or of a molecule against itself.
    """
    if not _expands(component, plan):
        return np.ones(len(data.energy), dtype=bool)
    if component.name == BINDING:
        low: Bools = frames.binding_energy[data.frame] <= WALL_EV
        return low
    if plan.linear == UNITS and component.name != FULL:
        return strain(data.energy) <= STRAIN_EV
    return np.ones(len(data.energy), dtype=bool)


def _weights(
    frames: LabelledFrames, component: Component, plan: TrainingPlan
) -> tuple[FragmentBlocks | None, ...]:
    """Return the descriptor's blocks for weights within fragments.

    1 is sGDML's own descriptor, which is None where the model can be native.
    """
    if component.name not in (BINDING, FULL) or _is_baseline(component, plan):
        return (None,)
    plain = plan.linear == "none" and not is_of_three(frames, component)
    native = plain or component.name == FULL
    fragment = owner_of([one.atoms for one in frames.fragments])
    n = len(frames.fragments)
    return tuple(
        None
        if native and w == 1.0
        else FragmentBlocks(fragment, np.where(np.eye(n) == 1.0, w, 1.0))
        for w in plan.intra_weights
    )


def _warm_start(plan: TrainingPlan, component: Component, data: LabelledSet) -> WarmStart | None:
    if plan.warm_start is None:
        return None
    path = plan.warm_start
    return read_warm_start(path / f"{component.name}.npz" if path.is_dir() else path, data)


def _known(
    data: LabelledSet, candidates: Ints, frames: LabelledFrames, plan: TrainingPlan,
    warm: WarmStart | None,
) -> Ints:  # fmt: skip
    """Return which candidates are trained on in any case.

    What the model that is begun with was trained on, and what was chosen for it.
    """
    chosen = np.isin(frames.trajectory[data.frame[candidates]], plan.trained_trajectories)
    known = np.union1d(candidates[chosen], NONE if warm is None else warm.once(candidates))
    if len(known) > plan.n_train:
        raise DataError(
            f"{data.name}: the model to begin with has {len(known)} of the training frames, "
            f"more than {plan.n_train}; raise --n-train"
        )
    return known
