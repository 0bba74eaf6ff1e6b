"""Labelled scans with EMT: made once, read again, continued, refused."""

import json

import numpy as np
import pytest

from deltaserver.datasets import labelling
from deltaserver.datasets.files import read_dataset
from deltaserver.datasets.frames import FragmentSpec
from deltaserver.datasets.workspace import read_start
from deltaserver.errors import DataError
from deltaserver.evaluation.scans.curves import ScanPlan
from deltaserver.evaluation.scans.labels import label_scan, read_scan

SPECS = (FragmentSpec("copper", (0, 1, 2)), FragmentSpec("gold", (3, 4), 0))
PLAN = ScanPlan(2, 1, (-0.5, 0.0, 1.0, 20.0), 3)
EMT = "ase.calculators.emt:EMT"


@pytest.fixture
def start(cluster):
    return read_start(cluster, SPECS)


def test_binding_labels_are_the_calculators_own(start, tmp_path):
    from ase import Atoms
    from ase.calculators import emt

    scan = label_scan(tmp_path / "scan", start, SPECS, PLAN, EMT)
    curve, frames = scan.select(0)
    assert curve.values == PLAN.displacements
    for k, x in enumerate(frames.positions):
        parts = [Atoms(start.numbers[list(f.atoms)], x[list(f.atoms)]) for f in SPECS]
        whole = parts[0] + parts[1]
        for atoms in (whole, *parts):
            atoms.calc = emt.EMT()
        expected = whole.get_potential_energy() - sum(p.get_potential_energy() for p in parts)
        assert frames.binding_energy[k] == pytest.approx(expected, abs=1e-6)
    assert frames.binding_energy[-1] == pytest.approx(0.0, abs=1e-9)
    assert np.abs(frames.binding_forces[-1]).max() < 1e-9


def test_what_is_labelled_is_read_again_and_never_labelled_twice(start, tmp_path, monkeypatch):
    scan = label_scan(tmp_path / "scan", start, SPECS, PLAN, EMT)
    lines = (tmp_path / "scan" / "journal" / "labels.jsonl").read_bytes()
    monkeypatch.setattr(labelling, "run_job", lambda *_: pytest.fail("labelled twice"))
    again = label_scan(tmp_path / "scan", start, SPECS, PLAN, EMT)
    read = read_scan(tmp_path / "scan")
    for other in (again, read):
        assert other.curves == scan.curves
        assert (other.frames.energy == scan.frames.energy).all()
    assert (tmp_path / "scan" / "journal" / "labels.jsonl").read_bytes() == lines
    assert len(read_dataset(tmp_path / "scan", plausible=False)) == len(scan.frames)


def test_labelling_that_was_stopped_goes_on(start, tmp_path, monkeypatch):
    run, calls = labelling.run_job, []

    def stopped(job, calculator):
        if len(calls) == 5:
            raise KeyboardInterrupt
        calls.append(job.key)
        return run(job, calculator)

    monkeypatch.setattr(labelling, "run_job", stopped)
    with pytest.raises(KeyboardInterrupt):
        label_scan(tmp_path / "scan", start, SPECS, PLAN, EMT)
    with pytest.raises(DataError, match="no labelled scan; --calculator labels one"):
        read_scan(tmp_path / "scan")
    rest = []
    monkeypatch.setattr(labelling, "run_job", lambda job, c: (rest.append(job.key), run(job, c))[1])
    scan = label_scan(tmp_path / "scan", start, SPECS, PLAN, EMT)
    assert not set(rest) & set(calls)
    assert len(rest) + 5 == 3 * len(scan.frames)


def test_points_whose_labels_fail_are_left_out_of_their_curve(start, tmp_path, monkeypatch):
    run = labelling.run_job

    def fails(job, calculator):
        record = run(job, calculator)
        if job.key in ((0, 1, "complex"), (2, 0, "gold")):
            return {**{k: record[k] for k in ("trajectory", "step", "system")}, "reason": "SCF"}
        return record

    monkeypatch.setattr(labelling, "run_job", fails)
    scan = label_scan(tmp_path / "scan", start, SPECS, PLAN, EMT)
    (first, frames), (second, _), (third, _) = (scan.select(k) for k in range(3))
    assert first.values == (-0.5, 1.0, 20.0)
    assert second.values == PLAN.displacements
    assert third.values[0] == 15.0
    assert frames.step.tolist() == [0, 2, 3]


def test_another_scan_or_another_method_is_refused(start, tmp_path):
    directory = tmp_path / "scan"
    label_scan(directory, start, SPECS, PLAN, EMT)
    with pytest.raises(DataError, match="another scan was begun there"):
        label_scan(directory, start, SPECS, ScanPlan(3, 1, PLAN.displacements, 3), EMT)
    with pytest.raises(DataError, match="labels are from"):
        label_scan(directory, start, SPECS, PLAN, "cheap_calculators:SlowEMT")
    for file in (directory / "journal").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="without its journal"):
        label_scan(directory, start, SPECS, PLAN, EMT)


def test_a_dataset_that_is_no_scan_is_refused(start, tmp_path):
    directory = tmp_path / "scan"
    label_scan(directory, start, SPECS, PLAN, EMT)
    manifest = directory / "dataset.yaml"
    text = manifest.read_text()
    manifest.write_text(text.replace("kind: rotation", "kind: sliding"))
    with pytest.raises(DataError, match="not a scan's record"):
        read_scan(directory)
    manifest.write_text(text[: text.index("  - kind: rotation")])
    with pytest.raises(DataError, match="a frame is of curve 2"):
        read_scan(directory)
    manifest.write_text(json.dumps({}))
    with pytest.raises(DataError, match="lacks"):
        read_scan(directory)
    with pytest.raises(DataError, match="not a scan's record"):
        read_scan(directory / "frames.xyz.gz")
