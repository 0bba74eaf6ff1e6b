"""``deltaserver --models DIR --socket ADDRESS``: serve a model directory to i-PI."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from deltaserver.cli.options.watching import make_watchers
from deltaserver.compute.blas import blas_threads
from deltaserver.errors import InputError
from deltaserver.model.engines import Backend, Precision, Storage
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
from deltaserver.serve.transport import parse_address


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


def serve(asked: ServeRequest) -> None:
    """Load the models, then connect and serve until i-PI is done."""
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
    model, notes = load_model(
        asked.models,
        asked.component,
        backend,
        asked.device or "auto",
        asked.precision,
        asked.threads,
        asked.quiet,
        asked.storage,
    )
    rotation = Rotation(asked.log_max_size, asked.log_keep) if asked.log_max_size else None
    status = telemetry.configure(asked.log_file, quiet=asked.quiet, rotation=rotation)
    announce(model, asked.models, backend, notes)
    reconnect_limit = asked.reconnect_limit
    if asked.reconnect and reconnect_limit is None:
        reconnect_limit = RECONNECT_LIMIT_S
    guard = replace(
        asked.guard,
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
        Daemon(model, settings, telemetry.StepLog(asked.log_every, status), watchers).run()
