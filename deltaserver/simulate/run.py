"""One i-PI run from one command: start i-PI, serve it, watch it, stop both, continue it later."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import structlog

import deltaserver
from deltaserver.compute.blas import blas_threads
from deltaserver.errors import (
    ConnectionLostError,
    DeltaserverError,
    EndedEarlyError,
    GeometryError,
    GuardError,
    InputError,
    NoveltyError,
)
from deltaserver.model.engines import Backend
from deltaserver.model.force_field import ForceField
from deltaserver.serve import telemetry
from deltaserver.serve.daemon import Daemon
from deltaserver.serve.loading import announce
from deltaserver.serve.settings import EXTRAS, Extras, ServeSettings, frame_beside
from deltaserver.serve.signals import stoppable_once
from deltaserver.simulate.blowup import BlowUpError
from deltaserver.simulate.directory import (
    FRAME_NAME,
    INPUT_NAME,
    LOCK_PATIENCE_S,
    LOG_NAME,
    NEW_RUN_PATIENCE_S,
    frame_text,
    keep_old_input,
    link_files,
    lock,
    refuse_strangers,
    set_old_files_aside,
)
from deltaserver.simulate.inside import PluginTold, Watched
from deltaserver.simulate.ipi.bias import start_at
from deltaserver.simulate.ipi.input import IpiInput
from deltaserver.simulate.ipi.process import Farewell, ipi_process
from deltaserver.simulate.monitor import FirstRound, Monitor
from deltaserver.simulate.progress import ProgressLine
from deltaserver.simulate.recipe import about_step
from deltaserver.simulate.record import (
    Restart,
    RunRecord,
    check_same_model,
    how_to_go_on,
    make_directory,
    read_record,
    write_record,
    write_whole,
)
from deltaserver.simulate.request import RunOptions
from deltaserver.simulate.restart import (
    CONTINUED_INPUT,
    RESTART_NAME,
    RestartState,
    continued_input,
    cut_log,
    cut_outputs,
    find_restart,
    last_positions,
    next_seq,
)


@dataclass(frozen=True)
class RunPlan:
    """One run, validated by whoever builds it.

    Attributes:
        ipi_input: what i-PI is to do.
        record: what ``run.json`` is to say at the start.
        directory: where it runs.
        resume: continue what is there.
        options: what else the run was told.
        models: what is served, if not what the record says: learned from that on the way.
    """

    ipi_input: IpiInput
    record: RunRecord
    directory: Path
    resume: bool
    options: RunOptions
    models: Path | None = None

    @property
    def backend(self) -> Backend:
        """Return what evaluates the model: torch, where a device is named."""
        return "torch" if self.record.device else "numpy"


@dataclass(frozen=True)
class Start:
    """Where a run begins.

    Attributes:
        state: to continue from, if any.
        first_seq: its first structure's number.
        before: what ``run.json`` says of the run that is continued.
    """

    state: RestartState | None
    first_seq: int
    before: RunRecord | None


def run(plan: RunPlan, model: ForceField, notes: list[str], quiet: bool) -> RunRecord:
    """Run i-PI and the daemon to the end; return the record, which ``run.json`` holds too.

    Raises:
        GuardError: the run has blown up; the frame is written and the record says so.
        NoveltyError: the run has left what is known, and is to be continued when that is learned.
        EndedEarlyError: i-PI has ended in order, before the last step.
        KeyboardInterrupt: a signal has stopped it.
        InputError: the directory holds other files than a run's.
        DeltaserverError: anything else that ended it; the record's status is "failed".
    """
    refuse_strangers(plan.directory, plan.ipi_input)
    make_directory(plan.directory)
    patience_s = LOCK_PATIENCE_S if plan.resume else NEW_RUN_PATIENCE_S
    with stoppable_once() as ending, lock(plan.directory, patience_s) as lock_fd:
        state = find_restart(plan.directory, plan.ipi_input) if plan.resume else None
        if state is not None and state.step >= plan.ipi_input.last_step:
            return _finished_before(plan, state)
        before = None if state is None else read_record(plan.directory)
        start = Start(state, _first_seq(plan, state), before)
        plan = _identified(plan, model, start)
        if plan.ipi_input.has_plugin:
            plan = _told(plan, start)
        plan, record = _prepare(plan, start)
        line = None if quiet else ProgressLine()
        telemetry.configure(plan.directory / LOG_NAME, quiet=quiet, other_status=line)
        if not plan.ipi_input.has_plugin:  # which says so itself
            announce(model, plan.models or Path(plan.record.models), plan.backend, notes)
        _log_resumed(plan, start)
        monitor = Monitor(plan.ipi_input, plan.directory, model, plan.options.limits, line)
        if state is None and not plan.ipi_input.has_plugin:
            per_step = plan.ipi_input.structures_per_step
            monitor.first_round = FirstRound(per_step, partial(_note_missing, plan, record))
        try:
            held = lock_fd, ending
            if plan.ipi_input.has_plugin:
                farewell = _follow(plan, monitor, start, held)
            else:
                farewell = _serve(plan, model, monitor, start, held)
        except (GuardError, GeometryError) as error:
            if isinstance(error, NoveltyError) and error.way is not None:
                _conclude(plan, record, monitor, "stopped", " ".join(str(error).split()))
                raise  # to learn from it: nothing has blown up
            if monitor.n_seen <= 1:  # it never ran: the start structure is at fault
                _failed(plan, record, monitor, start, str(error))
                if isinstance(error, BlowUpError):
                    raise GuardError(
                        f"{plan.directory}: the run would end with its start structure: {error}; "
                        "give another one, or a larger --max-separation or --max-stretch"
                    ) from error
                raise
            raise _blown_up(plan, model, record, monitor, error) from error
        except KeyboardInterrupt as stop:
            step = _conclude(plan, record, monitor, "stopped", "stopped by a signal").step
            raise KeyboardInterrupt(
                f"interrupted at step {step}; {how_to_go_on(plan.directory)}"
            ) from stop
        except DeltaserverError as error:
            _failed(plan, record, monitor, start, str(error))
            raise
        return _part(plan, record, monitor, start, farewell)


def _identified(plan: RunPlan, model: ForceField, start: Start) -> RunPlan:
    """Note which models are served, or raise InputError where others would continue a run."""
    record = replace(plan.record, fingerprint=model.fingerprint())
    learned = plan.models is not None and plan.models != Path(record.models)
    if start.before is not None and not learned:
        check_same_model(plan.directory, start.before, record)
    return replace(plan, record=record)


def _finished_before(plan: RunPlan, state: RestartState) -> RunRecord:
    """Conclude a run that was killed when i-PI had done its last step, and nobody said so.

    Raises:
        InputError: it has done more than are asked for, so that this was not meant.
    """
    if state.step > plan.ipi_input.last_step:
        raise InputError(
            f"{plan.directory}: is at step {state.step} already, beyond the "
            f"{plan.ipi_input.last_step} that are asked for; --steps counts from the beginning of "
            "the run: ask for more to continue it"
        )
    record = read_record(plan.directory) or plan.record
    done = replace(record, status="finished", step=state.step, reason=None)
    write_record(done, plan.directory)
    return done


def _part(
    plan: RunPlan, record: RunRecord, monitor: Monitor, start: Start, farewell: Farewell
) -> RunRecord:
    """Conclude a run whose i-PI has ended in order: done, or not yet."""
    with contextlib.suppress(BlowUpError):
        monitor.look(final=True)
    step, last = max(monitor.step, _restart_step(plan)), plan.ipi_input.last_step
    if farewell.problem:
        _failed(plan, record, monitor, start, farewell.message)
        raise ConnectionLostError(
            f"{plan.directory}: i-PI gave up at step {step}: {farewell.message}"
        )
    if farewell.done or step >= last:
        reason = farewell.message if farewell.done and step < last else None
        return _conclude(plan, record, monitor, "finished", reason)
    _conclude(plan, record, monitor, "stopped", "i-PI ended before the last step")
    raise EndedEarlyError(
        f"{plan.directory}: i-PI ended at step {step} of {last}; continue with: "
        f"deltaserver simulate --resume --directory {plan.directory}"
    )


def _serve(
    plan: RunPlan,
    model: ForceField,
    monitor: Monitor,
    start: Start,
    held: tuple[int, threading.Event],
) -> Farewell:
    """Serve i-PI to its end; ``held`` is the lock's descriptor, and what silences signals."""
    ipi_input, record = plan.ipi_input, plan.record
    settings = ServeSettings(
        ipi_input.addresses,
        record.component,
        extras=_extras(record.extras),
        guard=replace(
            plan.options.guard,
            continues=start.state is not None,
            frame_file=frame_beside(plan.directory / LOG_NAME),
        ),
    )
    steps = telemetry.StepLog(_log_every(plan), monitor, start.first_seq)
    daemon = Daemon(model, settings, steps, inspect=monitor)
    name = INPUT_NAME if start.state is None else CONTINUED_INPUT
    lock_fd, ending = held
    threads = 1 if model.compiled else record.threads or 1
    with (
        ipi_process(plan.directory, name, ipi_input.all_addresses, (lock_fd,), ending) as ipi,
        blas_threads(threads),
    ):
        daemon.run()
        if daemon.stopped_by_signal and not ipi.ended.is_set():
            structlog.get_logger().info("stopping i-pi", pid=ipi.pid)
            raise KeyboardInterrupt  # the run is not done: no script should go on
    return ipi.farewell()


def _follow(
    plan: RunPlan, monitor: Monitor, start: Start, held: tuple[int, threading.Event]
) -> Farewell:
    """Watch an i-PI that evaluates the model itself; ``held`` as in :func:`_serve`."""
    name = INPUT_NAME if start.state is None else CONTINUED_INPUT
    lock_fd, ending = held
    watched = Watched(plan.directory / LOG_NAME, start.first_seq)
    addresses = plan.ipi_input.all_addresses
    with ipi_process(plan.directory, name, addresses, (lock_fd,), ending) as ipi:
        watched.follow(ipi, monitor)
    return ipi.farewell()


def _told(plan: RunPlan, start: Start) -> RunPlan:
    """Tell the plug-in what the daemon would be told."""
    plugin = PluginTold(
        plan.record,
        plan.options,
        plan.directory / LOG_NAME,
        _log_every(plan),
        start.first_seq,
        resumed=start.state is not None,
    )
    return replace(plan, ipi_input=plugin.tell(plan.ipi_input))


def _log_every(plan: RunPlan) -> int:
    return plan.options.stride(plan.ipi_input.last_step, plan.ipi_input.structures_per_step)


def _extras(name: str) -> Extras:
    return next((known for known in EXTRAS if known == name), "summary")


def _first_seq(plan: RunPlan, state: RestartState | None) -> int:
    """Number of the first structure: that of a run which had gone straight through.

    Where steps differ in their structures, what comes is numbered behind what is there.
    """
    if state is None:
        return 0
    if not plan.ipi_input.even:
        return next_seq(plan.directory / LOG_NAME)
    n_steps = state.step - plan.ipi_input.first_step
    old = read_record(plan.directory)
    missing = old.first_missing if old and n_steps else 0
    return max(0, n_steps * plan.ipi_input.structures_per_step - missing)


def _prepare(plan: RunPlan, start: Start) -> tuple[RunPlan, RunRecord]:
    """Make the directory ready for i-PI, and write the record; tell a bias where it begins."""
    record = replace(plan.record, status="running", version=deltaserver.__version__)
    directory, state = plan.directory, start.state
    if state is None:
        set_old_files_aside(directory, plan.ipi_input)
        record = replace(record, restarts=(), step=0, reason=None, frame=None, first_missing=0)
        plan = replace(plan, ipi_input=start_at(plan.ipi_input, directory, 0))
    else:
        plan = replace(plan, ipi_input=start_at(plan.ipi_input, directory, state.step))
        text = continued_input(state, plan.ipi_input)
        cut_outputs(directory, plan.ipi_input, state.step)
        cut_log(directory / LOG_NAME, start.first_seq)
        write_whole(directory / CONTINUED_INPUT, text)
        old = read_record(directory)
        restarts = (*(old.restarts if old else ()), Restart(state.step, state.path.name))
        record = replace(
            record,
            step=state.step,
            restarts=restarts,
            reason=None,
            frame=None,
            first_missing=old.first_missing if old else 0,
        )
    write_record(record, directory)  # first: what else is here is a run's from now on
    if state is None or plan.ipi_input.path.resolve() != (directory / INPUT_NAME).resolve():
        keep_old_input(directory, plan.ipi_input.text)
    write_whole(directory / INPUT_NAME, plan.ipi_input.text)
    link_files(directory, plan.ipi_input)
    return plan, record


def _note_missing(plan: RunPlan, record: RunRecord, missing: int) -> None:
    """Write at once what a resumed run must know, however this one ends."""
    write_record(replace(record, first_missing=missing), plan.directory)


def _log_resumed(plan: RunPlan, start: Start) -> None:
    log, state = structlog.get_logger(), start.state
    if state is not None:
        log.info("resumed", step=state.step, state=state.path.name, seq=start.first_seq)
    elif plan.resume:
        log.info("nothing to resume", message="no state was written yet; starting anew")


def _conclude(
    plan: RunPlan, record: RunRecord, monitor: Monitor, status: str, reason: str | None
) -> RunRecord:
    step = max(monitor.step, _restart_step(plan))
    record = read_record(plan.directory) or record  # what was noted on the way
    done = replace(record, status=status, step=step, reason=reason)  # type: ignore[arg-type]
    write_record(done, plan.directory)
    return done


def _failed(plan: RunPlan, record: RunRecord, monitor: Monitor, start: Start, reason: str) -> None:
    """Conclude a run that has failed; one that was continued for no step is what it was before."""
    done = _conclude(plan, record, monitor, "failed", " ".join(reason.split()))
    if start.before is not None and start.state is not None and done.step <= start.state.step:
        write_record(start.before, plan.directory)


def _restart_step(plan: RunPlan) -> int:
    state = find_restart(plan.directory, plan.ipi_input)
    return state.step if state else 0


def _blown_up(
    plan: RunPlan,
    model: ForceField,
    record: RunRecord,
    monitor: Monitor,
    error: DeltaserverError,
) -> GuardError:
    """Write the frame and the record; return the error to be raised."""
    with contextlib.suppress(BlowUpError):
        monitor.look(final=True)
    found = error.positions_ang if isinstance(error, BlowUpError) else None
    positions = monitor.last_positions if found is None else found
    if positions is None:  # seen by a plug-in, which has not refused them
        positions = last_positions(plan.directory / RESTART_NAME, model.n_atoms)
    reason = " ".join(str(error).split())
    if told := about_step(plan.ipi_input.step_fs, model.numbers.tolist()):
        reason = f"{reason}; {told}"
    frame = None
    if positions is not None:
        frame = FRAME_NAME
        cell = monitor.last_cell if model.periodic else None
        text = frame_text(model.numbers, positions, monitor.step, reason, cell)
        (plan.directory / frame).write_text(text, encoding="utf-8")
    done = replace(record, status="blown up", step=monitor.step, reason=reason, frame=frame)
    write_record(done, plan.directory)
    where = f"; the structure is in {plan.directory / frame}" if frame else ""
    return GuardError(f"{plan.directory}: blown up after step {monitor.step}: {reason}{where}")
