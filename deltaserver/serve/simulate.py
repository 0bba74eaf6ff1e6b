"""One i-PI run from one command: start i-PI, serve it, watch it, stop both, continue it later."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

import deltaserver
from deltaserver.errors import DeltaserverError, GeometryError, GuardError, InputError
from deltaserver.model.composite import CompositeModel
from deltaserver.model.elements import SYMBOLS
from deltaserver.model.threads import one_blas_thread
from deltaserver.serve import telemetry
from deltaserver.serve.blowup import BlowUpError, DriftWatch, GeometryWatch, Limits
from deltaserver.serve.daemon import Daemon, ServeSettings
from deltaserver.serve.guard import GuardSettings
from deltaserver.serve.ipi_input import IpiInput
from deltaserver.serve.ipi_process import IPI_LOG, ipi_process
from deltaserver.serve.loading import announce
from deltaserver.serve.progress import UPDATE_EVERY_S, Progress, ProgressLine, PropertiesTail
from deltaserver.serve.restart import (
    CONTINUED_INPUT,
    RESTART_NAME,
    RestartState,
    continued_input,
    cut_log,
    cut_outputs,
    find_restart,
)
from deltaserver.serve.run_record import (
    RUN_FILE,
    Restart,
    RunRecord,
    make_directory,
    read_record,
    write_record,
    write_whole,
)

Floats = NDArray[np.float64]
INPUT_NAME = "input.xml"
LOG_NAME = "deltaserver.jsonl"
FRAME_NAME = "blow_up.xyz"
LOCK_NAME = "run.lock"
LOCK_PATIENCE_S = 60.0  # how long an i-PI whose daemon was killed may take to end
LONG_RUN_STEPS = 10_000
LONG_RUN_LOG_EVERY = 10


@dataclass(frozen=True)
class RunPlan:
    """One run, validated by whoever builds it.

    Attributes:
        ipi_input: what i-PI is to do.
        record: what ``run.json`` is to say at the start.
        directory: where it runs.
        resume: continue what is there.
        log_every: structures between two lines of the daemon's log; None: every one in short
            runs, every tenth in long ones.
        limits: beyond which the run has blown up.
        guard: what the daemon refuses.
    """

    ipi_input: IpiInput
    record: RunRecord
    directory: Path
    resume: bool
    log_every: int | None
    limits: Limits
    guard: GuardSettings


class Monitor:
    """What is looked at between two structures: their geometry, and what i-PI has written."""

    def __init__(self, plan: RunPlan, model: CompositeModel, line: ProgressLine | None) -> None:
        fragments = [fragment.atoms for fragment in model.fragments]
        self.geometry = GeometryWatch(model.numbers, fragments, plan.limits)
        names = plan.ipi_input.outputs(plan.ipi_input.properties)
        self.tails = [PropertiesTail(plan.directory / name) for name in names]
        self.drifts = [DriftWatch(model.n_atoms, plan.limits) for _ in names]
        self.progress = Progress(plan.ipi_input.total_steps)
        self.line = line
        self.last_positions: Floats | None = None
        self.n_seen = 0  # requests
        self._looked_at = 0.0

    def __call__(self, positions_ang: Floats) -> None:
        """Take in a request's structures; raise BlowUpError where the run has blown up."""
        self.last_positions = positions_ang[-1]
        self.n_seen += 1
        self.geometry.check(positions_ang)
        if time.monotonic() - self._looked_at >= UPDATE_EVERY_S:
            self.look()

    def look(self, final: bool = False) -> None:
        """Read what i-PI has written since the last look, and show it."""
        self._looked_at = time.monotonic()
        for k, (tail, drift) in enumerate(zip(self.tails, self.drifts, strict=True)):
            points = tail.read()
            if k == 0:
                self.progress.add(points)
            for point in points:
                if point.conserved_ev is not None:
                    drift.check(point.step, point.conserved_ev)
        if self.line and self.progress.point:
            self.line.show([("", self.progress)], now=final)

    @property
    def step(self) -> int:
        """The last step that i-PI has written."""
        return max((tail.last.step for tail in self.tails if tail.last), default=0)


def run(plan: RunPlan, model: CompositeModel, notes: list[str], quiet: bool) -> RunRecord:
    """Run i-PI and the daemon to the end; return the record, which ``run.json`` holds too.

    Raises:
        GuardError: the run has blown up; the frame is written and the record says so.
        KeyboardInterrupt: a signal has stopped it.
        DeltaserverError: anything else that ended it; the record's status is "failed".
    """
    make_directory(plan.directory)
    with lock(plan.directory) as lock_fd:
        state = find_restart(plan.directory, plan.ipi_input) if plan.resume else None
        record = _prepare(plan, state)
        line = None if quiet else ProgressLine()
        telemetry.configure(plan.directory / LOG_NAME, quiet=quiet, other_status=line)
        announce(model, Path(plan.record.models), "numpy", notes)
        _tell_resumed(plan, state)
        monitor = Monitor(plan, model, line)
        try:
            _serve(plan, model, monitor, state, lock_fd)
        except (GuardError, GeometryError) as error:
            if monitor.n_seen <= 1:  # it never ran: the start structure is at fault
                _conclude(plan, record, monitor, "failed", " ".join(str(error).split()))
                raise
            raise _blown_up(plan, model, record, monitor, error) from error
        except KeyboardInterrupt:
            _conclude(plan, record, monitor, "stopped", "stopped by a signal")
            raise
        except DeltaserverError as error:
            _conclude(plan, record, monitor, "failed", " ".join(str(error).split()))
            raise
        with contextlib.suppress(BlowUpError):
            monitor.look(final=True)
        if max(monitor.step, _restart_step(plan)) < (plan.ipi_input.total_steps or 0):
            return _conclude(plan, record, monitor, "stopped", "i-PI ended before the last step")
        return _conclude(plan, record, monitor, "finished", None)


def _serve(
    plan: RunPlan,
    model: CompositeModel,
    monitor: Monitor,
    state: RestartState | None,
    lock_fd: int,
) -> None:
    total = (plan.ipi_input.total_steps or 0) * plan.ipi_input.structures_per_step
    log_every = plan.log_every or (LONG_RUN_LOG_EVERY if total > LONG_RUN_STEPS else 1)
    # What is continued was compared with the model's molecule when it began.
    check = plan.guard.structure_check and state is None
    settings = ServeSettings(
        plan.ipi_input.addresses,
        plan.record.component,
        guard=replace(plan.guard, structure_check=check),
    )
    steps = telemetry.StepLog(log_every, None, _first_seq(plan, state))
    daemon = Daemon(model, settings, steps, inspect=monitor)
    name = INPUT_NAME if state is None else CONTINUED_INPUT
    addresses = plan.ipi_input.addresses
    with ipi_process(plan.directory, name, addresses, (lock_fd,)) as ipi, one_blas_thread():
        daemon.run()
        if daemon.stopped_by_signal and ipi.poll() is None:
            structlog.get_logger().info("stopping i-pi", pid=ipi.pid)
            raise KeyboardInterrupt  # the run is not done: no script should go on


def _first_seq(plan: RunPlan, state: RestartState | None) -> int:
    """Number of the first structure: that of a run which had gone straight through."""
    return state.step * plan.ipi_input.structures_per_step if state else 0


def _prepare(plan: RunPlan, state: RestartState | None) -> RunRecord:
    """Make the directory ready for i-PI, and write the record."""
    record = replace(plan.record, status="running", version=deltaserver.__version__)
    if state is None:
        _set_old_files_aside(plan)
        record = replace(record, restarts=(), step=0, reason=None, frame=None)
    else:
        text = continued_input(state, plan.ipi_input)
        cut_outputs(plan.directory, plan.ipi_input, state.step)
        cut_log(plan.directory / LOG_NAME, _first_seq(plan, state))
        write_whole(plan.directory / CONTINUED_INPUT, text)
        old = read_record(plan.directory)
        restarts = (*(old.restarts if old else ()), Restart(state.step, state.path.name))
        record = replace(record, step=state.step, restarts=restarts, reason=None, frame=None)
    write_whole(plan.directory / INPUT_NAME, plan.ipi_input.text)
    write_record(record, plan.directory)
    return record


def _tell_resumed(plan: RunPlan, state: RestartState | None) -> None:
    log = structlog.get_logger()
    if state is not None:
        log.info("resumed", step=state.step, state=state.path.name, seq=_first_seq(plan, state))
    elif plan.resume:
        log.info("nothing to resume", message="no state was written yet; starting anew")


def _set_old_files_aside(plan: RunPlan) -> None:
    """Let nothing of an earlier run be taken for this one's: i-PI's states, logs, outputs."""
    ours = (LOG_NAME, IPI_LOG, RESTART_NAME, CONTINUED_INPUT, FRAME_NAME, RUN_FILE)
    for name in (*ours, *plan.ipi_input.checkpoints):
        set_aside(plan.directory / name)
    for name in plan.ipi_input.outputs(""):
        for old in sorted(plan.directory.glob(f"{name}*")):
            set_aside(old)


def set_aside(path: Path) -> None:
    """Rename a file of an earlier run the way i-PI does: ``#NAME#0#``."""
    if not path.is_file():
        return
    k = 0
    while (aside := path.with_name(f"#{path.name}#{k}#")).exists():
        k += 1
    path.rename(aside)


def _conclude(
    plan: RunPlan, record: RunRecord, monitor: Monitor, status: str, reason: str | None
) -> RunRecord:
    step = max(monitor.step, _restart_step(plan))
    done = replace(record, status=status, step=step, reason=reason)  # type: ignore[arg-type]
    write_record(done, plan.directory)
    return done


def _restart_step(plan: RunPlan) -> int:
    state = find_restart(plan.directory, plan.ipi_input)
    return state.step if state else 0


def _blown_up(
    plan: RunPlan,
    model: CompositeModel,
    record: RunRecord,
    monitor: Monitor,
    error: DeltaserverError,
) -> GuardError:
    """Write the frame and the record; return the error to be raised."""
    with contextlib.suppress(BlowUpError):
        monitor.look(final=True)
    found = error.positions_ang if isinstance(error, BlowUpError) else None
    positions = monitor.last_positions if found is None else found
    reason = " ".join(str(error).split())
    frame = None
    if positions is not None:
        frame = FRAME_NAME
        text = extended_xyz(model, positions, monitor.step, reason)
        (plan.directory / frame).write_text(text, encoding="utf-8")
    done = replace(record, status="blown up", step=monitor.step, reason=reason, frame=frame)
    write_record(done, plan.directory)
    where = f"; the structure is in {plan.directory / frame}" if frame else ""
    return GuardError(f"{plan.directory}: blown up after step {monitor.step}: {reason}{where}")


def extended_xyz(model: CompositeModel, positions: Floats, step: int, reason: str) -> str:
    """Format a structure as one extended-XYZ frame, Å."""
    quoted = reason.replace('"', "'")
    lines = [
        str(model.n_atoms),
        f'Properties=species:S:1:pos:R:3 step={step} reason="{quoted}" pbc="F F F"',
    ]
    for number, (x, y, z) in zip(model.numbers, positions, strict=True):
        lines.append(f"{SYMBOLS[number]:<2} {x:16.8f} {y:16.8f} {z:16.8f}")
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def lock(directory: Path) -> Iterator[int]:
    """Hold a run directory; yield the file descriptor, which i-PI inherits.

    As long as an i-PI of an earlier command lives, the directory is still held by it.

    Raises:
        InputError: another run goes on there.
    """
    with (directory / LOCK_NAME).open("a") as file:
        deadline = time.monotonic() + LOCK_PATIENCE_S
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise InputError(
                        f"{directory}: another run goes on there; wait, or choose another "
                        "--directory"
                    ) from None
                time.sleep(0.2)
        yield file.fileno()
