"""Train a whole complex into a directory that can be served: model files and ``model.yaml``.

Beside them stands ``training.json``: what σ was chosen from what, validation errors, permutations,
time and memory, and which frames were held out for the test. Checkpoints live in ``.training/``
until everything is done. Components already there, trained on the same, are kept.
"""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from deltaserver.datasets.frames import LabelledFrames
from deltaserver.model.directories import refuse_file
from deltaserver.model.files.archive import read_arrays, write_arrays
from deltaserver.model.linear.expansion import Expansion
from deltaserver.model.many.triples import TripleLabels
from deltaserver.model.prior import PairPrior
from deltaserver.textio.journal import write_atomically
from deltaserver.training.components import BINDING, Component, choose, components
from deltaserver.training.directory.alone import describe, fit_alone
from deltaserver.training.directory.files import (
    read_report,
    refuse_another,
    refuse_other_frames,
    write_report,
    write_served,
)
from deltaserver.training.directory.job import Job, TrainingPlan, job_of
from deltaserver.training.matrix.assembly import Progress, quiet
from deltaserver.training.native import beside
from deltaserver.training.prior_fit import say_what_is_far_apart
from deltaserver.training.request import TrainingRequest
from deltaserver.training.selection import Split, split_in_time
from deltaserver.training.sigmas import Candidate, train
from deltaserver.training.three.checks import refuse_what_makes_no_sense, refuse_without_prior
from deltaserver.training.three.entry import what_model_yaml_has, write_entry
from deltaserver.training.uncertainty.directory import Checked, with_uncertainty

CHECKPOINTS = ".training"
Report = Callable[[str], None]


def train_directory(
    frames: LabelledFrames,
    plan: TrainingPlan,
    output: Path,
    say: Report = lambda line: None,
    progress: Progress = quiet,
    others_follow: bool = False,
) -> dict[str, Any]:
    """Train what ``plan`` names and write ``output``; return the report of the components.

    What the directory lacks to be served is said, unless ``others_follow``.

    Raises:
        InputError: anything wrong with data, settings, symmetry or memory; see the modules.
    """
    refuse_file(output)
    held_out, trained = plan.held_out_trajectories, plan.trained_trajectories
    split = split_in_time(frames.trajectory, frames.step, plan.train_fraction, held_out, trained)
    available = components(frames)
    wanted = [c for c in choose(available, plan.component) if not c.is_lone_atom]
    refuse_what_makes_no_sense(frames, wanted, plan.linear, plan.prior)
    refuse_without_prior(frames, plan.component, plan.prior, plan.n_train, plan.induction)
    report = read_report(output)
    refuse_other_frames(output, report, _frames_of(frames, plan))
    jobs = []
    if plan.n_train == 0:
        output.mkdir(parents=True, exist_ok=True)
        fit_alone(frames, available, split, plan, output, report, say)
    else:
        jobs = [
            _job(frames, available, component, split, plan, (output, report), say)
            for component in wanted  # all before the first is trained: refusals come at once
        ]
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
    elif (missing := write_served(output, frames, available, split, report)) and not others_follow:
        say(f"not to be served yet: lacks {', '.join(missing)}; train with --component NAME too")
    _drop_checkpoints(output, choose(available, plan.component))
    return dict(report["components"])


def _job(
    frames: LabelledFrames,
    available: tuple[Component, ...],
    component: Component,
    split: Split,
    plan: TrainingPlan,
    there: tuple[Path, dict[str, Any]],
    say: Report,
) -> Job:
    """Return what is to be trained for one component, and tell what it takes."""
    job = job_of(frames, available, component, split, plan)
    request, found = job.request, job.symmetry
    choice = request.choice() if request.kernel else None
    if not plan.overwrite:
        refuse_another(*there, component.name, _identity(request, plan))
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
    if isinstance(job.prior, TripleLabels):
        say(f"{component.name}: {describe(job.prior, request.data, request.valid)}")
    return job


def _identity(request: TrainingRequest, plan: TrainingPlan) -> dict[str, Any]:
    lists = {"intra_weights": plan.intra_weights, "lambdas": plan.lambdas}
    several = {key: list(values) for key, values in lists.items() if len(values) > 1}
    return {**request.identity(), "sigmas": list(plan.sigmas) or "auto", **several}


def _train_component(
    output: Path,
    report: dict[str, Any],
    job: Job,
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


def _ranked(checkpoints: Path, job: Job, plan: TrainingPlan, progress: Progress) -> list[Candidate]:
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


def _linear(checkpoints: Path, job: Job, progress: Progress) -> Expansion | None:
    """Fit the linear expansion, or take up what an interrupted training has fitted."""
    if job.fit is None:
        return None
    kept = checkpoints / f"linear-{_fitted_to(job)}.npz"
    if not kept.exists():
        expansion: Expansion = job.fit.solve(
            lambda what, fraction: progress(f"{job.component.name}, {what}", fraction)
        )
        checkpoints.mkdir(parents=True, exist_ok=True)
        write_arrays(kept, expansion.arrays(), compress=False)
    return job.fit.parse(read_arrays(kept), str(kept))


def _fitted_to(job: Job) -> str:
    """Return a name for all that decides the expansion: labels without the prior, and entries."""
    assert job.fit is not None
    told = json.dumps(job.request.identity(), sort_keys=True).encode()
    return hashlib.sha256(told + job.fit.train.tobytes()).hexdigest()[:16]


def _entry(job: Job, ranked: list[Candidate], identity: dict[str, Any]) -> dict[str, Any]:
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
        **job.induction,
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
