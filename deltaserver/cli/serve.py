"""``deltaserver --models DIR --socket ADDRESS``: serve a model directory to i-PI."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from deltaserver.cli.options.learning import (
    LearningOptions,
    learning_beside,
    make_production,
    taught,
)
from deltaserver.cli.options.watching import make_watchers
from deltaserver.compute.blas import blas_threads
from deltaserver.errors import EXIT_OK, InputError
from deltaserver.model.engines import Backend, Precision, Storage
from deltaserver.model.force_field import ForceField
from deltaserver.model.trust import methods
from deltaserver.serve import telemetry
from deltaserver.serve.daemon import Daemon
from deltaserver.serve.loading import announce, load_model
from deltaserver.serve.logfile import Rotation
from deltaserver.serve.settings import (
    RECONNECT_LIMIT_S,
    Extras,
    GuardSettings,
    ServeSettings,
    frame_beside,
)
from deltaserver.serve.signals import Stopped
from deltaserver.serve.telemetry import StepLine
from deltaserver.serve.transport import Address, parse_address


@dataclass(frozen=True)
class ServeRequest:
    """What was asked of the daemon, before anything is read; see ``deltaserver --help``."""

    models: Path | None
    sockets: tuple[str, ...]
    sockets_prefix: str
    component: str
    backend: Backend
    device: str | None
    precision: Precision
    threads: int | None
    storage: Storage
    connect_timeout: float
    reconnect: bool
    reconnect_limit: float | None
    batch_window: float
    extras: Extras
    guard: GuardSettings
    log_file: Path | None
    log_every: int
    log_max_size: int | None
    log_keep: int
    health_file: Path | None
    metrics_port: int | None
    metrics_host: str
    quiet: bool
    learning: LearningOptions
    committee: tuple[Path, ...] = ()


def serve(asked: ServeRequest) -> None:
    """Load the models, then connect and serve until i-PI is done.

    Raises:
        InputError: what was asked for cannot be served, or does not go together.
    """
    if asked.models is None:
        raise InputError("--models is missing; expected a directory with a model.yaml")
    if not asked.sockets:
        raise InputError("--socket is missing; expected unix:NAME or inet:HOST:PORT")
    addresses = tuple(parse_address(text, asked.sockets_prefix) for text in asked.sockets)
    if asked.device and asked.backend == "sgdml":
        raise InputError("--device is for the torch backend; --backend sgdml runs on the CPU")
    backend = asked.backend
    if backend == "numpy" and (asked.device or asked.precision != "float64"):
        backend = "torch"  # what only torch can do was asked for
    learning = asked.learning.checked(asked.guard)
    if learning is None:
        model, notes = _load(asked, asked.models, backend)
        status = _configure(asked)
        announce(model, asked.models, backend, notes)
        members = [model]
        for path in asked.committee:
            members.append(_load_member(asked, path, backend, members))
        _serve(asked, model, addresses, status, asked.guard, members[1:])
        return
    _serve_taught(asked, asked.models, addresses, backend, learning)


def _serve_taught(
    asked: ServeRequest,
    first: Path,
    addresses: tuple[Address, ...],
    backend: Backend,
    learning: LearningOptions,
) -> None:
    """Serve, and wherever i-PI leaves what is known have the model taught, and go on."""
    if asked.committee:
        raise InputError(
            "--committee and --on-extrapolation label: only one model can be taught; leave one out"
        )
    directory = learning_beside(asked.log_file)
    production = make_production(
        learning, asked.guard, first, directory, asked.threads, asked.quiet
    )
    status = _configure(asked)

    def serve_again(models: Path) -> None:
        model, notes = _load(asked, models, backend)
        announce(model, models, backend, notes)
        # What i-PI waits for after that is what was not known, not the start of a run.
        continues = production.n_done > 0
        _serve(asked, model, addresses, status, replace(asked.guard, continues=continues))

    taught(production, serve_again)


def _configure(asked: ServeRequest) -> StepLine | None:
    rotation = Rotation(asked.log_max_size, asked.log_keep) if asked.log_max_size else None
    return telemetry.configure(asked.log_file, quiet=asked.quiet, rotation=rotation)


def _load_member(
    asked: ServeRequest, models: Path, backend: Backend, members: Sequence[ForceField]
) -> ForceField:
    """Load another member of a committee: of the first's atoms, parts and method, not any again."""
    model, notes = _load(asked, models, backend)
    first = members[0]
    parts = [list(one.facts()) for one in (model, first)]
    if not np.array_equal(model.numbers, first.numbers) or parts[0] != parts[1]:
        raise InputError(
            f"--committee {models}: its atoms or parts ({', '.join(parts[0])}) are not those of "
            f"{asked.models} ({', '.join(parts[1])}); all members are models of one molecule, "
            "made of the same parts"
        )
    if methods.differ(model.reference, first.reference):
        raise InputError(
            f"--committee {models}: its labels are of {model.reference}, those of {asked.models} "
            f"of {first.reference}; a mean of two methods is neither: if they are one, give "
            "model.yaml the same reference"
        )
    if model.fingerprint() in [member.fingerprint() for member in members]:
        raise InputError(
            f"--committee {models}: is a member already, by its fingerprint; a model and itself "
            "never disagree: give each once"
        )
    announce(model, models, backend, notes)
    return model


def _load(asked: ServeRequest, models: Path, backend: Backend) -> tuple[ForceField, list[str]]:
    try:
        return load_model(
            models,
            asked.component,
            backend,
            asked.device or "auto",
            asked.precision,
            asked.threads,
            asked.quiet,
            asked.storage,
        )
    except Stopped:  # for other commands no end in order, but for the daemon it is
        sys.exit(EXIT_OK)


def _serve(
    asked: ServeRequest,
    model: ForceField,
    addresses: tuple[Address, ...],
    status: StepLine | None,
    guard: GuardSettings,
    others: Sequence[ForceField] = (),
) -> None:
    reconnect_limit = asked.reconnect_limit
    if asked.reconnect and reconnect_limit is None:
        reconnect_limit = RECONNECT_LIMIT_S
    guard = replace(
        guard,
        frame_file=frame_beside(asked.log_file),
        single_precision=asked.precision == "float32",
    )
    settings = ServeSettings(
        addresses,
        asked.component,
        asked.extras,
        asked.connect_timeout,
        1e-3 * asked.batch_window,
        reconnect_limit,
        guard,
        keeper=True,
    )
    watchers = make_watchers(asked.health_file, asked.metrics_port, asked.metrics_host)
    with blas_threads(1 if model.compiled else asked.threads or 1):
        steps = telemetry.StepLog(asked.log_every, status)
        Daemon(model, settings, steps, watchers, others=others).run()
