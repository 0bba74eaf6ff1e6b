"""Load a model directory for serving, and tell what was loaded."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import structlog

import deltaserver
from deltaserver.compute import jit
from deltaserver.compute.cores import usable_cores
from deltaserver.errors import GuardError, InputError
from deltaserver.model.composite import CompositeModel
from deltaserver.model.descriptor import spread
from deltaserver.model.force_field import ForceField, load
from deltaserver.serve.signals import STOPPING, Stopped

# Forces of exactly trained models are small sums of large terms: float32 may keep none of them.
MAX_FORCE_LOSS = 0.05
MOST_THREADS = 4  # that are tried where nothing is said of them
MOST_TURNS, PATIENCE_S = 15, 0.5  # of the trial
WORTH_IT = 0.9


def load_model(
    models: Path,
    component: str,
    backend: Any = "numpy",
    device: str = "auto",
    precision: Any = "float64",
    threads: int | None = None,
    quiet: bool = False,
    storage: Any = "double",
) -> tuple[ForceField, list[str]]:
    """Load a model directory; return it with the warnings that came up.

    ``storage``: of training points, see
    :func:`deltaserver.model.force_field.load`. How many threads are used is
    measured where neither ``threads`` nor OMP_NUM_THREADS says it.

    ``quiet``: say nothing where loops must be compiled first, which takes many seconds once.

    Raises:
        GuardError: single precision would lose more of the forces than is left of them.
        InputError: see :func:`deltaserver.model.force_field.load`.
        Stopped: a signal has stopped it.
    """
    with _stoppable(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        # Files of our own types are read with compiled loops already.
        with jit.before_compilation(_quiet if quiet else _say_compiling):
            model = load(models, backend, device, precision, threads or default_threads(), storage)
            model.warm_up()
    # Many molecules keep all threads busy: their pairs are shared out.
    if threads is None and not threads_told() and isinstance(model, CompositeModel):
        model.thread_times_ms = settle_threads(model)
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


@functools.cache  # who loads a model twice, as `simulate` does, is told once
def _say_compiling() -> None:
    print(
        "deltaserver: compiling for this processor, some 20 s; later starts find it done",
        file=sys.stderr,
        flush=True,
    )


def _quiet() -> None:
    """Say nothing."""


def threads_told() -> int:
    """Return what OMP_NUM_THREADS says; 0 where it says nothing."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(told) if told.isdecimal() else 0


def default_threads() -> int:
    """OMP_NUM_THREADS; without it as many as are worth a try: memory keeps few more busy."""
    return threads_told() or min(MOST_THREADS, usable_cores())


def settle_threads(model: CompositeModel) -> dict[int, float]:
    """Let a model use as many of its threads as are worth it; return ms a step by their number.

    Numbers of threads take turns, so that a busy moment is every one's; of each its best time
    counts. More threads than fewer are taken where they save a tenth of the time: they keep cores
    from i-PI and others.
    """
    numbers = range(1, model.n_threads + 1)
    if len(numbers) < 2:
        return {}
    positions = spread(model.n_atoms, model.lattices)
    times: dict[int, float] = dict.fromkeys(numbers, math.inf)
    began = time.perf_counter()
    for turn in range(MOST_TURNS):
        for number in numbers:
            model.use_threads(number)
            start = time.perf_counter()
            model.evaluate(positions)
            times[number] = min(times[number], 1e3 * (time.perf_counter() - start))
        if turn >= 2 and time.perf_counter() - began > PATIENCE_S:
            break
    best = 1
    for number in numbers:
        if times[number] < WORTH_IT * times[best]:
            best = number
    model.use_threads(best)
    return {number: round(ms, 3) for number, ms in times.items()}


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Raise Stopped on SIGTERM and SIGINT while nothing is connected yet.

    What is raised within a call from C, as the compiler makes them, is printed and lost there, and
    the compiler then fails for another reason: the signal is raised again.
    """
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        raise Stopped

    def tell(lost: Any) -> None:
        if not (stopped and issubclass(lost.exc_type, Stopped)):
            old_hook(lost)

    old = [signal.signal(number, stop) for number in STOPPING]
    old_hook, sys.unraisablehook = sys.unraisablehook, tell
    try:
        yield
    except Exception:
        if not stopped:
            raise
    finally:
        sys.unraisablehook = old_hook
        for number, handler in zip(STOPPING, old, strict=True):
            signal.signal(number, handler)
    if stopped:
        raise Stopped


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
    for file, stored in model.stored.items():
        if stored.loss is not None:
            loss = float(f"{stored.loss:.2g}")
            log.info("storage", file=file, precision=stored.precision, float32_costs=loss)
    if model.thread_times_ms:
        times = {str(number): ms for number, ms in model.thread_times_ms.items()}
        log.info("threads", chosen=model.n_threads, ms_a_step=times)
