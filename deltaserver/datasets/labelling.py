"""Labels: energy and forces of the complex and of every isolated fragment of each frame.

A label is one record of an append-only journal, written as soon as it is known. What fails is
written to another journal with its reason, and its frame is left out of the dataset.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations, islice
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.compute.cores import usable_cores
from deltaserver.datasets.calculators import (
    calculator_factory,
    evaluate,
    nominal_charges,
    nominal_spins,
    reason_of,
)
from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
from deltaserver.datasets.sampling.dynamics import Frame
from deltaserver.errors import DataError, DeltaserverError, MissingExtraError, NoServerError
from deltaserver.textio.journal import Journal, Record, read_journal

COMPLEX = "complex"
LOCAL = "local"
REJECTED_NAME = "rejected.jsonl"  # beside the labels
# A lone atom has one label, at no frame in particular: its energy does not depend on where it is.
NO_FRAME = (-1, -1)
# Dask keeps what it is given in memory: feed it a few labels per core at a time.
JOBS_PER_WORKER = 4
CONNECT_TIMEOUT = "10s"
DASHBOARD = "127.0.0.1:0"  # any free port, from this machine only

Key = tuple[int, int, str]


@dataclass(frozen=True)
class LabelJob:
    """One molecule to label: positions in Å, charges in e, unpaired electrons, per atom."""

    key: Key
    numbers: Ints
    positions: Floats
    charges: Ints
    spins: Ints


@dataclass(frozen=True)
class LabelProgress:
    """How many of the wanted labels are in the journal, and how many were set aside."""

    done: int
    rejected: int
    total: int


def label_jobs(
    frames: Iterable[Frame],
    numbers: Ints,
    fragments: tuple[FragmentSpec, ...],
    spin: int | None = None,
    order: int = 2,
) -> list[LabelJob]:
    """Return one job for the complex and one per fragment of every frame, lone atoms once.

    ``spin``: unpaired electrons of the complex, if not those of all fragments. Frames of
    ``order`` 3 have one for every two fragments as well.
    """
    charges = nominal_charges(len(numbers), fragments)
    spins = nominal_spins(len(numbers), fragments)
    together = nominal_spins(len(numbers), fragments, spin)
    jobs: dict[Key, LabelJob] = {}
    # By step, not by trajectory: what is labelled early then comes from every trajectory.
    for frame in sorted(frames, key=lambda frame: (frame.step, frame.trajectory)):
        where = (frame.trajectory, frame.step)
        key: Key = (*where, COMPLEX)
        jobs[key] = LabelJob(key, numbers, frame.positions, charges, together)
        for fragment in fragments:
            atoms = np.array(fragment.atoms)
            key = (*(NO_FRAME if len(atoms) == 1 else where), fragment.name)
            if key not in jobs:
                jobs[key] = LabelJob(
                    key, numbers[atoms], frame.positions[atoms], charges[atoms], spins[atoms]
                )
        for name, atoms in _twos(fragments, order):
            jobs[(*where, name)] = LabelJob(
                (*where, name), numbers[atoms], frame.positions[atoms], charges[atoms], spins[atoms]
            )
    return list(jobs.values())


def _twos(fragments: tuple[FragmentSpec, ...], order: int) -> list[tuple[str, Ints]]:
    """Return name and atoms of every two fragments, of frames of order 3: no name has a blank."""
    if order < 3:
        return []
    return [
        (f"{a.name} {b.name}", np.array([*a.atoms, *b.atoms]))
        for a, b in combinations(fragments, 2)
    ]


def label(
    jobs: list[LabelJob],
    calculator: str,
    labels_path: Path,
    rejected_path: Path,
    scheduler: str = LOCAL,
    workers: int = 1,
    on_progress: Callable[[LabelProgress], None] = lambda progress: None,
) -> None:
    """Label every job that neither journal knows, on one core or through Dask.

    One local worker needs no Dask: it labels in this process.
    """
    calculator_factory(calculator)  # refuse a bad name here, not once per worker
    done = {_key(record) for record in read_journal(labels_path)}
    failed = {_key(record) for record in read_journal(rejected_path)}
    wanted = {job.key for job in jobs}
    waiting = [job for job in jobs if job.key not in done | failed]
    n_done, n_failed = len(done & wanted), len(failed & wanted)
    in_process = scheduler == LOCAL and workers == 1
    results = (
        (run_job(job, calculator) for job in waiting)
        if in_process
        else _through_dask(waiting, calculator, scheduler, workers)
    )
    with Journal(labels_path) as labels, Journal(rejected_path) as rejected:
        on_progress(LabelProgress(n_done, n_failed, len(jobs)))
        for record in results:
            if "reason" in record:
                rejected.append(record)
                n_failed += 1
            else:
                labels.append(record)
                n_done += 1
            on_progress(LabelProgress(n_done, n_failed, len(jobs)))


def default_workers() -> int:
    """Return the number of cores this process may use, or 1 if Dask is not installed."""
    if importlib.util.find_spec("distributed") is None:
        return 1
    return usable_cores()


def run_job(job: LabelJob, calculator: str) -> Record:
    """Return the label's journal record, or one with a ``reason`` if the calculator failed."""
    try:
        energy, forces = evaluate(
            calculator_factory(calculator), job.numbers, job.positions, job.charges, job.spins
        )
    except DeltaserverError:
        raise
    except Exception as error:  # calculators raise what they like when an SCF fails
        return {**_begin(job), "reason": reason_of(error)}
    return {**_begin(job), "energy": energy, "forces": forces.tolist()}


def _begin(job: LabelJob) -> Record:
    trajectory, step, system = job.key
    return {"trajectory": trajectory, "step": step, "system": system}


def assemble(
    frames: Iterable[Frame],
    numbers: Ints,
    fragments: tuple[FragmentSpec, ...],
    labels_path: Path,
    name: str,
    reference: str,
    order: int = 2,
) -> LabelledFrames:
    """Put the frames whose labels are all there together; energies in eV, forces in eV/Å.

    Raises:
        DataError: not one frame has all its labels.
    """
    labels = {_key(record): record for record in read_journal(labels_path)}
    complete = [f for f in frames if all(k in labels for k in _keys(f, fragments, order))]
    if not complete:
        failed = labels_path.with_name(REJECTED_NAME)
        first = next(read_journal(failed), None)
        if first is None:
            raise DataError(f"{labels_path}: no frame has all its labels")
        raise DataError(f"{failed}: no frame has all its labels; the first: {first['reason']}")
    shape = (len(complete), len(numbers), 3)
    forces, fragment_forces = np.empty(shape), np.empty(shape)
    energy, fragment_energies = np.empty(shape[0]), np.empty((shape[0], len(fragments)))
    for m, frame in enumerate(complete):
        keys = _keys(frame, fragments)  # not those of pairs
        energy[m], forces[m] = labels[keys[0]]["energy"], labels[keys[0]]["forces"]
        for j, (fragment, key) in enumerate(zip(fragments, keys[1:], strict=True)):
            fragment_energies[m, j] = labels[key]["energy"]
            fragment_forces[m, fragment.atoms] = labels[key]["forces"]
    two_body: tuple[Floats | None, Floats | None] = (None, None)
    if order == 3:
        two_body = _of_pairs(complete, labels, fragments, fragment_energies, fragment_forces)
    return LabelledFrames(
        name=name,
        reference=reference,
        numbers=numbers,
        fragments=fragments,
        positions=np.array([frame.positions for frame in complete]),
        energy=energy,
        forces=forces,
        fragment_energies=fragment_energies,
        fragment_forces=fragment_forces,
        trajectory=np.array([frame.trajectory for frame in complete]),
        step=np.array([frame.step for frame in complete]),
        two_body_energy=two_body[0],
        two_body_forces=two_body[1],
    )


def _of_pairs(
    frames: list[Frame],
    labels: dict[Key, Record],
    fragments: tuple[FragmentSpec, ...],
    energies: Floats,
    forces: Floats,
) -> tuple[Floats, Floats]:
    """Return Σ (E_ij − E_i − E_j), (M,), and its forces, (M, N, 3), of frames of order 3."""
    n = len(fragments) - 1  # every molecule is in so many pairs
    energy, force = -n * energies.sum(axis=1), -n * forces
    for m, frame in enumerate(frames):
        for name, atoms in _twos(fragments, 3):
            record = labels[(frame.trajectory, frame.step, name)]
            energy[m] += record["energy"]
            force[m, atoms] += np.array(record["forces"])
    return energy, force


def _keys(frame: Frame, fragments: tuple[FragmentSpec, ...], order: int = 2) -> list[Key]:
    where = (frame.trajectory, frame.step)
    keys = [(*where, COMPLEX)]
    for fragment in fragments:
        keys.append((*(NO_FRAME if len(fragment.atoms) == 1 else where), fragment.name))
    return keys + [(*where, name) for name, _ in _twos(fragments, order)]


def _key(record: Record) -> Key:
    return (record["trajectory"], record["step"], record["system"])


def _through_dask(
    jobs: list[LabelJob], calculator: str, scheduler: str, workers: int
) -> Iterator[Record]:
    try:
        from dask.distributed import Client, LocalCluster, as_completed
    except ImportError:
        raise MissingExtraError("Dask", "dask") from None
    with cluster(Client, LocalCluster, scheduler, workers) as client:

        def submit(job: LabelJob) -> Any:
            future = client.submit(run_job, job, calculator, pure=False)
            jobs_of[future.key] = job
            return future

        jobs_of: dict[str, LabelJob] = {}
        waiting = iter(jobs)
        at_once = JOBS_PER_WORKER * max(workers, len(client.scheduler_info()["workers"]))
        running = as_completed([submit(job) for job in islice(waiting, at_once)])
        for future in running:
            job = jobs_of.pop(future.key)
            error = future.exception()
            if isinstance(error, DeltaserverError):
                raise error
            # Any other error is that of the worker: a label too large for its memory, say.
            yield {**_begin(job), "reason": reason_of(error)} if error else future.result()
            if (following := next(waiting, None)) is not None:
                running.add(submit(following))


@contextmanager
def cluster(client: Any, local_cluster: Any, scheduler: str, workers: int) -> Iterator[Any]:
    """Connect to a scheduler, or to workers of our own, which end with the work."""
    if scheduler != LOCAL:
        try:
            connected = client(scheduler, timeout=CONNECT_TIMEOUT)
        except (OSError, ValueError) as error:
            raise NoServerError(
                f"no Dask scheduler at {scheduler}: {' '.join(str(error).split())[:160]}"
            ) from None
        with connected:
            yield connected
        return
    # One thread each: the jobs are what runs in parallel.
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(variable, "1")
    own = local_cluster(
        n_workers=workers,
        threads_per_worker=1,
        dashboard_address=DASHBOARD,
        silence_logs=logging.ERROR,  # a worker that is slow to end is nobody's concern
    )
    with own, client(own) as connected:  # a client closes no cluster that it was given
        yield connected
