"""Candidates over σ, the best by validation, resumable.

Each finished candidate is a file; a training that is killed and run again takes them up and
computes what is missing, with the same result.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.errors import DataError
from deltaserver.textio.journal import changed, write_atomically
from deltaserver.training import native
from deltaserver.training.matrix.assembly import Progress, quiet
from deltaserver.training.matrix.solver import UnsolvableError
from deltaserver.training.request import TrainingRequest
from deltaserver.training.trainer import train_one

NO_SIGMA = 1.0  # of a model without a kernel
AUTO_START, AUTO_RANGE = 20.0, (1.25, 1280.0)
MANIFEST_NAME = "request.json"


@dataclass(frozen=True)
class Candidate:
    """A finished candidate on disk; ``error`` is infinite where it could not be trained."""

    sigma: float
    path: Path
    error: float
    record: dict[str, Any]


def train(
    request: TrainingRequest,
    checkpoints: Path,
    sigmas: Iterable[float] = (),
    progress: Progress = quiet,
) -> list[Candidate]:
    """Train every σ, or search for it where none is given; return the candidates, best first.

    The search starts from σ = 20 and goes in factors of two while the validation force error
    falls. Finished candidates in ``checkpoints`` are taken up.

    Raises:
        DataError: ``checkpoints`` belongs to another training.
        UnsolvableError: no σ could be trained.
        InputError: memory does not suffice.
    """
    if request.kernel:
        request.choice()
    else:
        sigmas = (NO_SIGMA,)
    _claim(checkpoints, request.identity())
    done: dict[float, Candidate] = {}
    failure: UnsolvableError | None = None
    wanted = iter(sigmas) if (sigmas := tuple(sigmas)) else _search(done)
    for sigma in wanted:
        path = checkpoints / f"sigma-{_exactly(sigma)}.npz"
        try:
            done[sigma] = _candidate(request, sigma, path, progress)
        except UnsolvableError as error:
            failure = error
            done[sigma] = Candidate(sigma, path, float("inf"), {"failed": str(error)})
    ranked = sorted(done.values(), key=lambda candidate: (candidate.error, candidate.sigma))
    if failure is not None and not np.isfinite(ranked[0].error):
        raise failure
    return ranked


def _exactly(sigma: float) -> str:
    """Return σ in as few digits as tell it from every other: two must not share a file."""
    short = f"{sigma:g}"
    return short if float(short) == sigma else repr(float(sigma))


def _candidate(request: TrainingRequest, sigma: float, path: Path, progress: Progress) -> Candidate:
    if not path.exists():

        def named(what: str, fraction: float) -> None:
            progress(f"σ = {sigma:g}: {what}", fraction)

        unfinished = path.with_name(f"unfinished-{path.name}")
        native.write_model(path, train_one(request, sigma, named, unfinished).native)
    record = native.read_record(path)
    return Candidate(sigma, path, float(record["valid_force_mae_kcal_mol_ang"]), record)


def _search(done: dict[float, Candidate]) -> Iterator[float]:
    """Yield the next σ to try until the best has a neighbour on either side."""
    yield AUTO_START
    while True:
        best = min(done.values(), key=lambda candidate: (candidate.error, candidate.sigma)).sigma
        beside = [best * 2.0, best / 2.0]
        missing = [s for s in beside if s not in done and AUTO_RANGE[0] <= s <= AUTO_RANGE[1]]
        if not missing:
            return
        yield missing[0]


def _claim(checkpoints: Path, identity: dict[str, Any]) -> None:
    """Make the directory this training's own, or check that it is."""
    manifest = checkpoints / MANIFEST_NAME
    if not manifest.exists():
        checkpoints.mkdir(parents=True, exist_ok=True)
        write_atomically(manifest, json.dumps(identity, indent=2).encode() + b"\n")
        return
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = {}
    if differing := changed(found, identity):
        raise DataError(
            f"{checkpoints}: checkpoints of another training ({', '.join(differing)} differ); "
            "delete the directory, or choose another --output"
        )
