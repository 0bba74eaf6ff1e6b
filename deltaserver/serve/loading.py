"""Load a model directory for serving, and tell what was loaded."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import structlog

import deltaserver
from deltaserver.compute import jit
from deltaserver.errors import EXIT_OK, GuardError, InputError
from deltaserver.model.force_field import ForceField, load

# Forces of exactly trained models are small sums of large terms: float32 may keep none of them.
MAX_FORCE_LOSS = 0.05


def load_model(
    models: Path,
    component: str,
    backend: Any = "numpy",
    device: str = "auto",
    precision: Any = "float64",
    threads: int | None = None,
    quiet: bool = False,
) -> tuple[ForceField, list[str]]:
    """Load a model directory; return it with the warnings that came up.

    ``quiet``: say nothing where loops must be compiled first, which takes many seconds once.

    Raises:
        GuardError: single precision would lose more of the forces than is left of them.
        InputError: see :func:`deltaserver.model.force_field.load`.
    """
    with _stoppable(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        # Files of our own types are read with compiled loops already.
        with jit.before_compilation(_quiet if quiet else _say_compiling):
            model = load(models, backend, device, precision, threads or default_threads())
            model.warm_up()
    model.check_component(component)
    loss = float(str(model.device_facts().get("relative_force_error", 0.0)))
    if not loss <= MAX_FORCE_LOSS:
        raise GuardError(
            f"--precision {precision} loses {100 * loss:.2g} % of this model's forces, at its own "
            f"training points; more than {100 * MAX_FORCE_LOSS:g} % is not served: use float64"
        )
    if backend == "sgdml" and model.periodic:
        raise InputError(
            "--backend sgdml knows neither the virial nor a changing cell of periodic models; "
            "use --backend numpy"
        )
    return model, [str(warning.message) for warning in caught]


def _say_compiling() -> None:
    print(
        "deltaserver: compiling for this processor, some 20 s; later starts find it done",
        file=sys.stderr,
        flush=True,
    )


def _quiet() -> None:
    """Say nothing."""


def default_threads() -> int:
    """OMP_NUM_THREADS; without it two where two cores may be used: memory keeps few more busy."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if told.isdecimal() and int(told):
        return int(told)
    return min(2, len(os.sched_getaffinity(0)))


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """End cleanly on SIGTERM and SIGINT while nothing is connected yet."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    old = [signal.signal(number, lambda number, frame: sys.exit(EXIT_OK)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, old, strict=True):
            signal.signal(number, handler)


def announce(model: ForceField, models: Path, backend: str, notes: list[str]) -> None:
    """Log what was loaded."""
    log = structlog.get_logger()
    for note in notes:
        log.warning("warning", message=note)
    log.info(
        "loaded",
        model=model.name,
        directory=str(models),
        atoms=model.n_atoms,
        components=list(model.components),
        backend=backend,
        **model.device_facts(),
        fingerprint=model.fingerprint(),
        version=deltaserver.__version__,
    )
