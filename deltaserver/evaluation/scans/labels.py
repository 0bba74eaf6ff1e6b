"""Labelled scans on disk: a dataset whose ``dataset.yaml`` also says which curves it has.

Trajectory k is curve k, step s its s-th value. Labels are made as ``dataset label`` makes them,
with the same journal: stopped, they go on; complete, nothing is labelled again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.datasets import labelling
from deltaserver.datasets.files import (
    JOURNAL,
    MANIFEST_NAME,
    read_dataset,
    read_manifest,
    rounded,
    write_frames,
)
from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
from deltaserver.datasets.labelling import LOCAL, LabelProgress
from deltaserver.datasets.sampling.dynamics import Start
from deltaserver.datasets.workflow import frames_of, provenance_of, run_labelling
from deltaserver.datasets.workspace import SETTINGS_NAME, Workspace, open_frames, reopen
from deltaserver.errors import DataError
from deltaserver.evaluation.scans.curves import (
    DISSOCIATION,
    ROTATION,
    Curve,
    RigidPair,
    ScanPlan,
    scan_curves,
)

RECORD = "scan"  # in the provenance of dataset.yaml


@dataclass(frozen=True)
class LabelledScan:
    """A scan with its labels: frames, and the curves that their trajectories are."""

    path: Path
    frames: LabelledFrames
    curves: tuple[Curve, ...]

    def select(self, k: int) -> tuple[Curve, LabelledFrames]:
        """Return curve k with the values that have labels, and its frames."""
        curve, frames = self.curves[k], self.frames
        frames = frames.select(np.flatnonzero(frames.trajectory == k))
        values = tuple(curve.values[step] for step in frames.step)
        return Curve(curve.kind, curve.number, curve.start_ang, values), frames


def label_scan(
    directory: Path,
    start: Start,
    fragments: tuple[FragmentSpec, ...],
    plan: ScanPlan,
    calculator: str,
    workers: int = 1,
    on_progress: Callable[[LabelProgress], None] = lambda progress: None,
) -> LabelledScan:
    """Label what is missing of a scan in ``directory``, and write it as a dataset.

    Raises:
        InputError: not two fragments, a calculator that is not there, or a directory with
            another scan.
    """
    pair = RigidPair.of(start.numbers, start.positions, fragments, start.source)
    curves, positions = zip(*scan_curves(pair, plan), strict=True)
    steps = [[k, s] for k, some in enumerate(positions) for s in range(len(some))]
    starts = tuple(Start(start.numbers, x, start.source) for some in positions for x in some)
    workspace = Workspace(directory, starts, fragments, None)
    _check_same(workspace, calculator)
    open_frames(directory, starts, fragments, steps)
    run_labelling(workspace, calculator, LOCAL, workers, on_progress)
    labelled = labelling.assemble(
        frames_of(workspace),
        workspace.numbers,
        fragments,
        workspace.labels,
        f"scan of {fragments[0].name} and {fragments[1].name}",
        calculator,
    )
    provenance = provenance_of(workspace, labelled, calculator)
    provenance[RECORD] = {"seed": plan.seed, "curves": [_entry(curve) for curve in curves]}
    write_frames(rounded(labelled), directory, provenance)
    return read_scan(directory)


def _check_same(workspace: Workspace, calculator: str) -> None:
    """Refuse to go on with another scan than was begun (DataError)."""
    directory = workspace.directory
    if not (directory / JOURNAL / SETTINGS_NAME).is_file():
        if (directory / MANIFEST_NAME).exists():
            raise DataError(
                f"{directory}: a scan without its journal; leave --calculator out to read it, or "
                "name another directory"
            )
        return
    before = reopen(directory)
    ours, theirs = ([start.positions for start in w.starts] for w in (workspace, before))
    if np.shape(ours) != np.shape(theirs) or not np.allclose(ours, theirs, atol=1e-7):
        raise DataError(
            f"{directory}: another scan was begun there; leave --calculator out to read it, or "
            "name another directory"
        )


def read_scan(directory: Path) -> LabelledScan:
    """Read a labelled scan.

    Raises:
        DataError: there is none, or it is damaged.
    """
    path = directory / MANIFEST_NAME if directory.is_dir() else directory
    if not path.is_file():
        raise DataError(f"{directory}: no labelled scan; --calculator labels one")
    provenance = read_manifest(path).get("provenance") if path.name == MANIFEST_NAME else None
    try:
        curves = tuple(map(_parse, (provenance or {})[RECORD]["curves"]))
    except (KeyError, TypeError, ValueError):
        raise DataError(
            f"{directory}: not a scan's record; expected a directory that evaluate --scan has "
            "labelled"
        ) from None
    # What a scan does to molecules, no dataset of dynamics looks like.
    scan = LabelledScan(directory, read_dataset(path, plausible=False), curves)
    for trajectory, step in zip(scan.frames.trajectory, scan.frames.step, strict=True):
        if not (0 <= trajectory < len(curves) and 0 <= step < len(curves[trajectory].values)):
            raise DataError(
                f"{directory}: a frame is of curve {trajectory}, point {step}, which "
                "its record has not"
            )
    return scan


def _entry(curve: Curve) -> dict[str, Any]:
    return {**asdict(curve), "values": list(curve.values)}


def _parse(entry: Any) -> Curve:
    kind = entry["kind"]
    if kind not in (DISSOCIATION, ROTATION):
        raise ValueError(kind)
    values = tuple(float(value) for value in entry["values"])
    return Curve(kind, int(entry["number"]), float(entry["start_ang"]), values)
