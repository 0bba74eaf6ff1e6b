"""Sampling and labelling continue after a kill as if nothing had happened."""

import errno
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deltaserver.datasets import labelling
from deltaserver.datasets.frames import FragmentSpec
from deltaserver.datasets.labelling import assemble, label, label_jobs
from deltaserver.datasets.sampling.dynamics import (
    SamplingPlan,
    Start,
    given_up,
    read_frames,
    sample,
)
from deltaserver.datasets.sampling.separations import SeparationPlan
from deltaserver.errors import DataError, InputError, MissingExtraError, NoServerError
from deltaserver.textio.journal import Journal, read_journal, write_atomically
from tests.datasets.killing import kill_when

pytest.importorskip("ase")

FRAGMENTS = (FragmentSpec("copper", (0, 1, 2)), FragmentSpec("gold", (3, 4)))
START = Start(
    np.array([29, 29, 29, 79, 79]),
    np.array([[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0], [0, 0.5, 3.2], [2.5, 0.5, 3.2]]),
    "made for this test",
)
PLAN = SamplingPlan(
    calculator="cheap_calculators:SlowEMT",
    temperatures=(200.0, 400.0),
    trajectories=1,
    frames_per_trajectory=4,
    interval=3,
    equilibrate_steps=5,
    wall_distance=4.0,
)
PICKY = "cheap_calculators:PickyEMT"
IN_A_PROCESS = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from {module} import *
{what}
"""


def run_and_kill(what, journal, records, tmp_path):
    """Run ``what`` in a process of its own; kill -9 it when ``journal`` has so many records."""
    here = str(Path(__file__).resolve().parents[2])
    code = IN_A_PROCESS.format(here=here, module=__name__, what=what)
    environment = {**os.environ, "SLOW": "0.02", "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=tmp_path)
    kill_when(process, journal, records)


def test_sampling_killed_twice_gives_the_same_trajectory(cheap, tmp_path):
    whole = sample(PLAN, [START], FRAGMENTS, tmp_path / "whole.jsonl")
    broken = tmp_path / "broken.jsonl"
    for records in (3, 11):
        run_and_kill(
            f"sample(PLAN, [START], FRAGMENTS, Path({str(broken)!r}))", broken, records, tmp_path
        )
        with broken.open("ab") as file:
            file.write(b'{"trajectory": 0, "st')  # as if the kill had come while it wrote
    resumed = sample(PLAN, [START], FRAGMENTS, broken)
    assert broken.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert len(resumed) == len(whole) == PLAN.n_frames
    assert [(f.trajectory, f.step) for f in whole][:2] == [(0, 8), (0, 11)]


def test_more_frames_continue_a_finished_run(cheap, tmp_path):
    long = sample(replace(PLAN, frames_per_trajectory=6), [START], FRAGMENTS, tmp_path / "a.jsonl")
    sample(PLAN, [START], FRAGMENTS, tmp_path / "b.jsonl")
    grown = sample(replace(PLAN, frames_per_trajectory=6), [START], FRAGMENTS, tmp_path / "b.jsonl")
    for one, other in zip(long, grown, strict=True):
        assert (one.trajectory, one.step) == (other.trajectory, other.step)
        np.testing.assert_array_equal(one.positions, other.positions)


def test_a_calculator_that_fails_while_sampling_says_so_in_one_line(cheap, tmp_path):
    plan = replace(PLAN, calculator=PICKY, relax=False)
    with pytest.raises(DataError, match=r"trajectory 0, after step \d+: CalculationFailed") as info:
        sample(plan, [START], FRAGMENTS, tmp_path / "a.jsonl")
    assert "SCF: 250 cycles; a shorter --time-step" in str(info.value)
    assert "\n" not in str(info.value)


APART = replace(
    PLAN, calculator="cheap_calculators:ShyEMT", relax=False, frames_per_trajectory=0,
    separations=SeparationPlan(2.0, 9.0, orientations=4, windows=2, frames_per_window=2),
)  # fmt: skip


def test_a_window_in_which_the_calculator_fails_ends_there(cheap, tmp_path, monkeypatch):
    monkeypatch.setenv("SHY", "2.6")  # the two nearest of eight windows begin below
    journal = tmp_path / "a.jsonl"
    frames = sample(APART, [START], FRAGMENTS, journal)
    failed = given_up(journal)
    assert 1 <= len(failed) <= 3
    assert all("no convergence; a shorter --time-step" in why for why in failed.values())
    assert {f.trajectory for f in frames} == {*range(2, 10)} - {*failed}
    monkeypatch.setenv("SHY", "0")
    before = journal.read_bytes()
    again = sample(APART, [START], FRAGMENTS, journal)  # nothing is tried again
    assert journal.read_bytes() == before
    assert len(again) == len(frames)


def test_a_calculator_that_fails_in_most_windows_is_an_error(cheap, tmp_path, monkeypatch):
    monkeypatch.setenv("SHY", "20")
    journal = tmp_path / "a.jsonl"
    with pytest.raises(DataError, match="no convergence; a shorter --time-step"):
        sample(APART, [START], FRAGMENTS, journal)
    assert len(given_up(journal)) == 3  # and the fourth is the error


def test_trajectories_and_seeds_differ(cheap, tmp_path):
    plan = replace(PLAN, temperatures=(300.0,), trajectories=2, frames_per_trajectory=2)
    first = sample(plan, [START], FRAGMENTS, tmp_path / "a.jsonl")
    other = sample(replace(plan, seed=1), [START], FRAGMENTS, tmp_path / "b.jsonl")
    assert abs(first[0].positions - first[2].positions).max() > 1e-3
    assert abs(first[0].positions - other[0].positions).max() > 1e-3


def test_temperature_is_the_thermostats(cheap, tmp_path):
    plan = SamplingPlan(
        "cheap_calculators:SlowEMT", (300.0,), 1, 40, 5, 60, time_step=3.0, friction=0.05,
        wall_distance=4.0,
    )  # fmt: skip
    frames = sample(plan, [START], FRAGMENTS, tmp_path / "t.jsonl")
    assert np.mean([frame.temperature for frame in frames]) == pytest.approx(300.0, rel=0.3)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"temperatures": (0.0,)}, "temperatures are"),
        ({"interval": 0}, "interval is 0"),
        ({"time_step": -1.0}, "time step is -1"),
        ({"equilibrate_steps": -1}, "must not be negative"),
        ({"wall_distance": 0.0}, "wall's distance"),
    ],
)
def test_plans_that_cannot_be_run(changes, expected):
    with pytest.raises(InputError, match=expected):
        replace(PLAN, **changes)


@pytest.fixture(scope="module")
def journal(tmp_path_factory):
    return tmp_path_factory.mktemp("sampled") / "sampling.jsonl"


@pytest.fixture(scope="module")
def sampled(cheap, journal):
    """Frames to label, and the journal of their sampling; read only."""
    return sample(PLAN, [START], FRAGMENTS, journal)


def label_all(frames, directory, calculator="cheap_calculators:SlowEMT", **options):
    directory.mkdir(exist_ok=True)
    jobs = label_jobs(frames, START.numbers, FRAGMENTS)
    label(jobs, calculator, directory / "labels.jsonl", directory / "rejected.jsonl", **options)
    return directory / "labels.jsonl"


def test_labelling_killed_gives_the_same_labels_once(sampled, journal, tmp_path):
    whole = label_all(sampled, tmp_path / "whole")
    broken = tmp_path / "broken" / "labels.jsonl"
    run_and_kill(
        f"label_all(read_frames(Path({str(journal)!r})), Path({str(broken.parent)!r}))",
        broken,
        7,
        tmp_path,
    )
    finished = broken.read_bytes()
    with broken.open("ab") as file:
        file.write(b'{"trajectory": 1, "step": 30, "system": "complex", "energy": -1')
    label_all(sampled, broken.parent)
    assert broken.read_bytes() == whole.read_bytes()
    assert broken.read_bytes().startswith(finished)
    records = list(read_journal(broken))
    assert len(records) == 3 * PLAN.n_frames  # the complex and two fragments, nothing twice
    assert len({(r["trajectory"], r["step"], r["system"]) for r in records}) == len(records)


def test_labels_are_those_of_the_calculator(sampled, tmp_path):
    from ase import Atoms
    from ase.calculators.emt import EMT

    path = label_all(sampled, tmp_path / "labels")
    frames = assemble(sampled, START.numbers, FRAGMENTS, path, "cluster", "EMT")
    for atoms, energy, forces in (
        (slice(0, 5), frames.energy[3], frames.forces[3]),
        (slice(3, 5), frames.fragment_energies[3, 1], frames.fragment_forces[3, 3:]),
    ):
        molecule = Atoms(START.numbers[atoms], frames.positions[3, atoms], calculator=EMT())
        assert energy == pytest.approx(molecule.get_potential_energy(), abs=1e-10)
        np.testing.assert_allclose(forces, molecule.get_forces(), atol=1e-10)
    np.testing.assert_allclose(
        frames.energy, frames.fragment_energies.sum(axis=1) + frames.binding_energy, rtol=1e-12
    )
    np.testing.assert_allclose(
        frames.forces, frames.fragment_forces + frames.binding_forces, atol=1e-12
    )


def test_what_does_not_converge_is_set_aside_with_its_reason(sampled, tmp_path):
    states = []
    path = label_all(sampled, tmp_path / "l", PICKY, on_progress=states.append)
    rejected = list(read_journal(tmp_path / "l" / "rejected.jsonl"))
    assert rejected
    assert "no convergence; ArithmeticError: SCF: 250 cycles" in rejected[0]["reason"]
    assert states[-1].rejected == len(rejected)
    assert states[-1].done + states[-1].rejected == states[-1].total == 3 * PLAN.n_frames
    frames = assemble(sampled, START.numbers, FRAGMENTS, path, "cluster", "EMT")
    failed = {(r["trajectory"], r["step"]) for r in rejected}
    kept = set(zip(frames.trajectory.tolist(), frames.step.tolist(), strict=True))
    assert kept == {(f.trajectory, f.step) for f in sampled} - failed
    before = path.read_bytes()
    label_all(sampled, tmp_path / "l", PICKY)  # neither is tried again
    assert path.read_bytes() == before
    assert len(list(read_journal(tmp_path / "l" / "rejected.jsonl"))) == len(rejected)


def test_nan_is_never_a_label(sampled, tmp_path):
    path = label_all(sampled[:1], tmp_path / "l", "cheap_calculators:NotFinite")
    assert list(read_journal(path)) == []
    (record, *_) = read_journal(tmp_path / "l" / "rejected.jsonl")
    assert "not finite" in record["reason"]
    said = r"rejected.jsonl: no frame has all its labels; the first: .* not finite"
    with pytest.raises(DataError, match=said):
        assemble(sampled, START.numbers, FRAGMENTS, path, "cluster", "EMT")


def test_a_lone_atom_is_labelled_once(sampled):
    fragments = (FragmentSpec("rest", (0, 1, 2, 3)), FragmentSpec("atom", (4,), 1))
    jobs = label_jobs(sampled, START.numbers, fragments)
    lone = [job for job in jobs if job.key[2] == "atom"]
    assert len(lone) == 1
    assert lone[0].charges.tolist() == [1]
    assert len(jobs) == 2 * len(sampled) + 1


def test_labels_in_parallel_are_the_same(sampled, tmp_path):
    pytest.importorskip("distributed")
    alone = label_all(sampled[:4], tmp_path / "alone")
    together = label_all(sampled[:4], tmp_path / "together", workers=2)
    order = lambda record: (record["trajectory"], record["step"], record["system"])  # noqa: E731
    assert sorted(read_journal(together), key=order) == sorted(read_journal(alone), key=order)


def test_labels_on_a_scheduler_that_is_not_there(sampled, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(labelling, "CONNECT_TIMEOUT", "1s")
    with pytest.raises(NoServerError, match="no Dask scheduler at tcp://127"):
        label_all(sampled, tmp_path / "l", scheduler="tcp://127.0.0.1:9")


def test_labels_through_a_scheduler_set_aside_what_fails(sampled, tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with distributed.LocalCluster(processes=False, protocol="tcp", **options) as cluster:
        address = cluster.scheduler_address
        path = label_all(sampled[:3], tmp_path / "l", PICKY, scheduler=address)
    alone = label_all(sampled[:3], tmp_path / "alone", PICKY)
    for name in ("labels.jsonl", "rejected.jsonl"):
        records = [list(read_journal(p.parent / name)) for p in (path, alone)]
        assert sorted(records[0], key=str) == sorted(records[1], key=str)
    assert records[0]


def test_without_dask_the_error_says_what_to_install(sampled, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(MissingExtraError, match=r"deltaserver\[dask\]"):
        label_all(sampled, tmp_path / "l", workers=2)
    monkeypatch.setattr(labelling.importlib.util, "find_spec", lambda name: None)
    assert labelling.default_workers() == 1


def test_journal_is_one_process_at_a_time_and_refuses_damage(tmp_path):
    path = tmp_path / "j.jsonl"
    with Journal(path) as journal:
        journal.append({"a": 1})
        with pytest.raises(DataError, match="another process is writing it"):
            Journal(path)
        with pytest.raises(ValueError, match="not JSON compliant"):
            journal.append({"a": float("nan")})
    path.write_bytes(path.read_bytes() + b'[1, 2]\n{"a": 2}\n')
    with pytest.raises(DataError, match=r"j\.jsonl:2: not a journal record"):
        list(read_journal(path))


def test_atomic_write_leaves_no_trace(tmp_path):
    write_atomically(tmp_path / "f", b"one")
    write_atomically(tmp_path / "f", b"two")
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("f", b"two")]


def test_what_is_durable_has_its_name_on_the_disk_too(tmp_path, monkeypatch):
    """Content first, then the directory that it was renamed in; a journal's when it is made."""
    kept, refused = [], errno.EINVAL

    def fsync(handle):
        is_directory = stat.S_ISDIR(os.fstat(handle).st_mode)
        kept.append([p.name for p in tmp_path.iterdir()] if is_directory else "content")
        if is_directory:
            raise OSError(refused, "directories are not kept")

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "f", b"one", durable=False)
    assert kept == []
    write_atomically(tmp_path / "f", b"two")
    assert kept == ["content", ["f"]]
    (tmp_path / "f").unlink()
    Journal(tmp_path / "j").close()
    assert kept[2:] == [["j"]]
    refused = errno.EIO
    with pytest.raises(OSError, match="directories are not kept"):
        write_atomically(tmp_path / "f", b"three")


def test_records_are_exact(tmp_path):
    value = [0.1 + 0.2, 1e-17, -np.pi]
    with Journal(tmp_path / "j") as journal:
        journal.append({"v": value})
    assert next(read_journal(tmp_path / "j"))["v"] == value
    assert json.loads((tmp_path / "j").read_text())["v"] == value


def test_frames_of_equilibration_are_left_out(sampled, journal):
    records = list(read_journal(journal))
    assert {r["phase"] for r in records} == {"prepare", "equilibrate", "frame"}
    assert len(read_frames(journal)) == 8
