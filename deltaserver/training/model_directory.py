"""Train a whole complex into a directory that can be served: model files and ``model.yaml``.

Beside them stands ``training.json``: what σ was chosen from what, validation errors, permutations,
time and memory, and which frames were held out for the test. Checkpoints live in ``.training/``
until everything is done. Components already there, trained on the same, are kept.
"""

from __future__ import annotations

import resource
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Bools, Ints
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.datasets.labelling import LOCAL
from deltaserver.errors import DataError
from deltaserver.model.files.archive import read_arrays, write_arrays
from deltaserver.model.fragment_blocks import FragmentBlocks, owner_of
from deltaserver.model.linear.expansion import Expansion
from deltaserver.model.many.triples import TripleLabels
from deltaserver.model.prior import PairPrior, Prior
from deltaserver.textio.journal import write_atomically
from deltaserver.training.components import (
    BINDING,
    FULL,
    Component,
    LabelledSet,
    choose,
    components,
    labelled_set,
    without_prior,
)
from deltaserver.training.directory_files import (
    read_report,
    refuse_another,
    refuse_other_frames,
    write_report,
    write_served,
)
from deltaserver.training.iterative.conjugate import Bounds
from deltaserver.training.linear.fit import LinearFit, linear_fit, product_fit
from deltaserver.training.linear.site_fit import WALL_EV, SiteFit
from deltaserver.training.linear.units import STRAIN_EV, strain
from deltaserver.training.matrix.assembly import Progress, quiet
from deltaserver.training.native import beside
from deltaserver.training.points import DEFAULT_SELECTION, NONE, Candidates
from deltaserver.training.prior_fit import (
    FRAMES,
    Asymptote,
    choose_prior,
    say_what_is_far_apart,
)
from deltaserver.training.request import LAMBDA, TrainingRequest
from deltaserver.training.selection import Split, draw_stratified, split_in_time
from deltaserver.training.symmetry import DEFAULT_CAP, Symmetry
from deltaserver.training.symmetry_modes import resolve
from deltaserver.training.three.checks import is_of_three, refuse_what_makes_no_sense
from deltaserver.training.three.entry import what_model_yaml_has, write_entry
from deltaserver.training.three.prior import fit_triples
from deltaserver.training.three.reach import fade_of
from deltaserver.training.trainer import Candidate, train
from deltaserver.training.uncertainty.directory import Checked, with_uncertainty
from deltaserver.training.warm_start import WarmStart, read_warm_start

CHECKPOINTS = ".training"
DISTANCES = "distances"  # the linear expansion below a kernel
UNITS = "units"  # the same, and what stiff units of a molecule do to each other
PRODUCTS = "products"  # a linear expansion of the binding without a kernel
PRIOR_FRAMES = 600  # of its prior, whose tail is all that is left far apart
Report = Callable[[str], None]


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
    energies: float = 0.0
    selection: str = DEFAULT_SELECTION
    scheduler: str = LOCAL
    workers: int = 1


def train_directory(
    frames: LabelledFrames,
    plan: TrainingPlan,
    output: Path,
    say: Report = lambda line: None,
    progress: Progress = quiet,
) -> dict[str, Any]:
    """Train what ``plan`` names and write ``output``; return the report of the components.

    Raises:
        InputError: anything wrong with data, settings, symmetry or memory; see the modules.
    """
    held_out, trained = plan.held_out_trajectories, plan.trained_trajectories
    split = split_in_time(frames.trajectory, frames.step, plan.train_fraction, held_out, trained)
    available = components(frames)
    wanted = [c for c in choose(available, plan.component) if not c.is_lone_atom]
    refuse_what_makes_no_sense(frames, wanted, plan.linear, plan.prior)
    report = read_report(output)
    refuse_other_frames(output, report, _frames_of(frames, plan))
    jobs = []
    for component in wanted:  # all of them before the first is trained: refusals come at once
        job = _job(frames, available, component, split, plan)
        request, found = job.request, job.symmetry
        choice = request.choice() if request.kernel else None
        if not plan.overwrite:
            refuse_another(output, report, component.name, _identity(request, plan))
        jobs.append(job)
        note = f"; {found.note}" if found.note else ""
        size = "no kernel" if choice is None else f"about {choice.bytes_ / 1e9:.2g} GB"
        say(
            f"{component.name}: {len(request.train)} points, {len(found.perms)} permutations, "
            f"{size}{note}"
        )
        if choice is not None:
            say(f"{component.name}: {choice}")
        if isinstance(job.prior, PairPrior) and not job.prior.limit:
            say_what_is_far_apart(frames, request.train, say)
    output.mkdir(parents=True, exist_ok=True)
    for job in jobs:
        _train_component(output, report, job, plan, say, progress)
    report.update(
        **_frames_of(frames, plan),
        reference=frames.reference,
        n_held_out=len(split.held_out),
        seed=plan.seed,
        selection={**report.get("selection", {}), plan.component: plan.selection},
        symmetry={**report.get("symmetry", {}), plan.component: plan.symmetry},
    )
    if frames.order == 3:
        write_report(output, report)
        if what_to_do := write_entry(output, frames, available, report):
            say(what_to_do)
    elif missing := write_served(output, frames, available, split, report):
        say(f"not to be served yet: lacks {', '.join(missing)}; train with --component NAME too")
    _drop_checkpoints(output, choose(available, plan.component))
    return dict(report["components"])


@dataclass(frozen=True)
class _Job:
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
    """

    component: Component
    request: TrainingRequest
    symmetry: Symmetry
    prior: Prior | None
    weights: tuple[FragmentBlocks | None, ...]
    fit: LinearFit | None
    again: SiteFit | None
    fade: tuple[float, float] | None = None


def _job(
    frames: LabelledFrames,
    available: tuple[Component, ...],
    component: Component,
    split: Split,
    plan: TrainingPlan,
) -> _Job:
    data = labelled_set(frames, component)
    candidates = np.flatnonzero(np.isin(data.frame, split.train))
    validation = np.flatnonzero(np.isin(data.frame, split.valid))
    warm = _warm_start(plan, component, data)
    weights: tuple[FragmentBlocks | None, ...] = (None,)
    three = is_of_three(frames, component)
    baseline = component.name == FULL != plan.component  # sGDML's own, to compare with
    if component.name in (BINDING, FULL) and not baseline:
        native = (plan.linear == "none" and not three) or component.name == FULL
        weights = _weights(frames, plan.intra_weights, native=native)

    def symmetry(points: Ints) -> Symmetry:
        return resolve(plan.symmetry, frames, available, component, data, points, plan.cap)

    expands = plan.linear in (DISTANCES, UNITS) and not baseline
    known, pool = _known(data, candidates, frames, plan, warm), candidates
    if expands:  # for a wall an expansion is enough
        low = _low(frames, component, data, plan)
        pool = np.union1d(candidates[low[candidates]], known)
        validation = validation[low[validation]]
    compared = Candidates(
        data,
        pool,
        frames.trajectory[data.frame[pool]],
        lambda: symmetry(pool).perms,
        None if weights[0] is None else weights[0].by_pair,
    )
    points = compared.draw(plan.selection, plan.n_train, plan.seed, known)
    # Fewer validation frames than asked for are no reason to refuse.
    n_valid = min(plan.n_valid, len(validation))
    valid = validation[
        draw_stratified(data.energy[validation], n_valid, plan.seed, f"{data.name} frames")
    ]
    found = symmetry(points)
    kernel = plan.linear != PRODUCTS or component.name != BINDING
    entries = np.setdiff1d(candidates, valid)
    prior: Prior | None = None
    if three and plan.prior != "none":
        prior = TripleLabels(fit_triples(frames, available, entries, valid))
        data = without_prior(data, prior)
    elif component.name == BINDING and plan.prior != "none":
        asymptote: Asymptote = "fitted" if plan.prior == "pairs-limit" else "zero"
        some, most = (points, FRAMES) if kernel else (entries, PRIOR_FRAMES)
        prior = choose_prior(frames, available, some, valid, plan.cap, asymptote, most)
        data = without_prior(data, prior)
    fit: LinearFit | None = None
    if not kernel:
        fit = product_fit(frames, available, data, entries, valid, found.perms, plan.cap)
    elif expands:
        more = {"limit": plan.prior == "pairs-limit", "units": plan.linear == UNITS}
        fit = linear_fit(frames, available, component, data, entries, valid, plan.cap, **more)
    again: SiteFit | None = None
    if kernel and isinstance(fit, SiteFit):
        again, fit = fit, replace(fit, train=np.intersect1d(entries, pool), weight=None)
    request = TrainingRequest(
        data,
        found.perms,
        points,
        valid,
        plan.lambdas[0],
        plan.threads,
        plan.device,
        plan.max_bytes,
        plan.solver,
        Bounds(plan.tolerance, plan.max_products),
        warm,
        weights[0],
        three or prior is not None or (fit is not None and component.name == BINDING),
        "" if fit is None else f"{plan.linear}, {len((again or fit).train)} frames",
        fitted=None if kernel else entries,
        energies=plan.energies,
        order=3 if three else 2,
        scheduler=plan.scheduler,
        workers=plan.workers,
    )
    fade = fade_of(frames, points) if three else None
    return _Job(component, request, found, prior, weights, fit, again, fade)


def _low(
    frames: LabelledFrames, component: Component, data: LabelledSet, plan: TrainingPlan
) -> Bools:
    """Return which frames are no wall, of the binding or of a molecule against itself, (M,)."""
    if component.name == BINDING:
        low: Bools = frames.binding_energy[data.frame] <= WALL_EV
        return low
    if plan.linear == UNITS and component.name != FULL:
        return strain(data.energy) <= STRAIN_EV
    return np.ones(len(data.energy), dtype=bool)


def _weights(
    frames: LabelledFrames, intra: tuple[float, ...], *, native: bool
) -> tuple[FragmentBlocks | None, ...]:
    """Return the descriptor's blocks for weights within fragments.

    1 is sGDML's own descriptor, which is None where the model can be ``native``.
    """
    fragment = owner_of([one.atoms for one in frames.fragments])
    n = len(frames.fragments)
    return tuple(
        None
        if native and w == 1.0
        else FragmentBlocks(fragment, np.where(np.eye(n) == 1.0, w, 1.0))
        for w in intra
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
    known = np.union1d(
        candidates[chosen], NONE if warm is None else np.intersect1d(warm.entries, candidates)
    )
    if len(known) > plan.n_train:
        raise DataError(
            f"{data.name}: the model to begin with has {len(known)} of the training frames, "
            f"more than {plan.n_train}; raise --n-train"
        )
    return known


def _identity(request: TrainingRequest, plan: TrainingPlan) -> dict[str, Any]:
    lists = {"intra_weights": plan.intra_weights, "lambdas": plan.lambdas}
    several = {key: list(values) for key, values in lists.items() if len(values) > 1}
    return {**request.identity(), "sigmas": list(plan.sigmas) or "auto", **several}


def _train_component(
    output: Path,
    report: dict[str, Any],
    job: _Job,
    plan: TrainingPlan,
    say: Report,
    progress: Progress,
) -> None:
    """Train one component unless it is there already; enter it into ``report`` and save that."""
    name, identity = job.component.name, _identity(job.request, plan)
    path = output / f"{name}.npz"
    known = report["components"].get(name, {})
    if path.exists() and known.get("identity") == identity:
        say(f"{name}: already trained, kept")
        return
    ranked = _ranked(output / CHECKPOINTS / name, job, plan, progress)
    checked = Checked(job.request.data, job.request.valid, job.prior)
    content = ranked[0].path.read_bytes()
    if job.request.kernel:  # whose points the spread stands on
        content = with_uncertainty(ranked[0].path, checked)[0]
    if name == BINDING:
        content = beside(content, job.prior, 2 if job.fade is None else 3)
    write_atomically(path, content)
    report["components"][name] = _entry(job, ranked, identity)
    write_report(output, report)
    best = ranked[0]
    weight = best.record.get("intra_weight", 1.0)
    within = "" if weight == 1.0 else f", weight {weight:g} within fragments"
    within += f", λ = {best.record['lambda']:g}" if len(plan.lambdas) > 1 else ""
    what = f"σ = {best.sigma:g}{within}" if job.request.kernel else "no kernel"
    say(f"{name}: {what}, validation force MAE {best.error:.4f} kcal/mol/Å")
    for note in best.record.get("notes", []):
        say(f"{name}: {note}")


def _ranked(
    checkpoints: Path, job: _Job, plan: TrainingPlan, progress: Progress
) -> list[Candidate]:
    """Train every σ with every weight and λ; return the candidates, best first."""
    found: list[Candidate] = []
    first = replace(
        job.request,
        linear=_linear(checkpoints, job, progress),
        again=job.again,
    )
    for blocks, lam in product(job.weights, plan.lambdas):
        weight = 1.0 if blocks is None else float(blocks.weights[0, 0])
        words = [f"weight {weight:g}"] * (len(job.weights) > 1)
        words += [f"λ = {lam:g}"] * (len(plan.lambdas) > 1)
        place, label = checkpoints, ", ".join([job.component.name, *words])
        for word in words:
            place /= word.replace("λ = ", "lambda-").replace(" ", "-")

        def named(what: str, fraction: float, label: str = label) -> None:
            progress(f"{label}, {what}", fraction)

        for candidate in train(replace(first, blocks=blocks, lam=lam), place, plan.sigmas, named):
            candidate.record.setdefault("intra_weight", weight)
            candidate.record.setdefault("lambda", lam)
            found.append(candidate)
    return sorted(found, key=lambda candidate: candidate.error)


def _linear(checkpoints: Path, job: _Job, progress: Progress) -> Expansion | None:
    """Fit the linear expansion, or take up what an interrupted training has fitted."""
    if job.fit is None:
        return None
    kept = checkpoints / "linear.npz"
    if not kept.exists():
        expansion: Expansion = job.fit.solve(
            lambda what, fraction: progress(f"{job.component.name}, {what}", fraction)
        )
        checkpoints.mkdir(parents=True, exist_ok=True)
        write_arrays(kept, expansion.arrays(), compress=False)
    return job.fit.parse(read_arrays(kept), str(kept))


def _entry(job: _Job, ranked: list[Candidate], identity: dict[str, Any]) -> dict[str, Any]:
    request = job.request
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    kept = ("valid_force_mae_kcal_mol_ang", "valid_force_rmse_kcal_mol_ang",
            "valid_energy_mae_kcal_mol", "valid_energy_rmse_kcal_mol",
            "assembly_s", "solve_s", "failed", "solver", "converged", "residual", "tolerance",
            "products", "preconditioner_points", "notes", "intra_weight", "linear",
            "lambda", "slope_error")  # fmt: skip
    return {
        "sigma": ranked[0].sigma,
        "n_train": len(request.train),
        "n_perms": len(request.perms),
        "symmetry_note": job.symmetry.note,
        **what_model_yaml_has(job.prior, job.fade),
        **{key: ranked[0].record[key] for key in kept if key in ranked[0].record},
        "candidates": [
            {"sigma": c.sigma, **{key: c.record[key] for key in kept if key in c.record}}
            for c in sorted(ranked, key=lambda c: c.sigma)
        ],
        "peak_memory_gb": round(peak_kib * 1024 / 1e9, 3),
        "identity": identity,
    }


def _frames_of(frames: LabelledFrames, plan: TrainingPlan) -> dict[str, Any]:
    """Return which frames models are trained and tested on."""
    return {
        "dataset": frames.name,
        "n_frames": len(frames),
        "train_fraction": plan.train_fraction,
        "held_out_trajectories": list(plan.held_out_trajectories),
        **(
            {"trained_trajectories": list(plan.trained_trajectories)}
            if plan.trained_trajectories
            else {}
        ),
    }


def _drop_checkpoints(output: Path, finished: Sequence[Component]) -> None:
    for component in finished:
        shutil.rmtree(output / CHECKPOINTS / component.name, ignore_errors=True)
    if (output / CHECKPOINTS).is_dir() and not any((output / CHECKPOINTS).iterdir()):
        (output / CHECKPOINTS).rmdir()
