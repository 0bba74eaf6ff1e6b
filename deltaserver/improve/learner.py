"""What every way of learning shares: a dataset, its labels, and training on more of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Bools, Floats
from deltaserver.datasets.files import read_dataset, stored_provenance, write_frames
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.datasets.geometries import unreacted
from deltaserver.datasets.labelling import LabelProgress, assemble
from deltaserver.datasets.plausibility import FORCES_EV_PER_ANG
from deltaserver.datasets.sampling.dynamics import Start
from deltaserver.datasets.workflow import frames_of, run_labelling
from deltaserver.datasets.workspace import Workspace, open_frames
from deltaserver.errors import DataError
from deltaserver.improve.retrain import joined, retrain
from deltaserver.improve.seen import positions_of
from deltaserver.improve.settings import DATASET_NAME, Settings, keep_settings, round_paths
from deltaserver.improve.subjects import subject_of
from deltaserver.textio.journal import write_atomically

Say = Callable[[str], None]

SAME_LABEL_EV_ANG = 0.02  # between programs, versions and machines of one method


class Learner:
    """A model directory that can be taught more, and the dataset that it was trained on.

    Args:
        settings: what was asked for.
        say: takes one line for every step.

    Raises:
        InputError: models, dataset or calculator do not fit each other.
    """

    def __init__(self, settings: Settings, say: Say = lambda line: None) -> None:
        self.settings, self.say = settings, say
        self.base = read_dataset(settings.dataset, say)
        self.subject = subject_of(settings, self.base, say)
        keep_settings(settings)  # once nothing of them is refused: others may be given then
        self.subject.begin()
        self.symmetry = self.subject.permutations()
        self._check_calculator()

    def _check_calculator(self) -> None:
        """Refuse a calculator that labels the dataset's first frame otherwise than it is.

        Raises:
            DataError: forces differ by more than another version of the same program's would.
        """
        found = self.label(self.settings.output / "check", self.base.positions[:1], 0)
        off = float(np.abs(found.forces - self.base.forces[:1]).max()) if len(found) else np.inf
        if not off <= SAME_LABEL_EV_ANG:
            raise DataError(
                f"{self.settings.calculator}: its forces on the first frame of {self.base.name} "
                f"differ by {off:.2g} eV/Å from that dataset's ({self.base.reference}); use the "
                "method that labelled it"
            )

    def unreacted(self, positions: Floats) -> Bools:
        """Tell which frames (K, N, 3) are neither torn nor have reacted."""
        base = self.base
        if not len(positions):
            return np.zeros(0, dtype=np.bool_)
        return unreacted(base.numbers, positions, base.fragments, base.positions[0])

    def label(self, directory: Path, positions: Floats, number: int) -> LabelledFrames:
        """Label frames (K, N, 3), those that are labelled already not again; return them."""
        base = self.base
        starts = tuple(Start(base.numbers, x, f"round {number}") for x in positions)
        steps = [[number, k] for k in range(len(positions))]
        workspace = open_frames(directory, starts, base.fragments, steps, order=base.order)
        self._run_labels(workspace)
        frames = assemble(
            frames_of(workspace),
            base.numbers,
            base.fragments,
            workspace.labels,
            base.name,
            base.reference,
            base.order,
        )
        # Forces that no molecule has, of a frame that has reacted, would spoil the training.
        sound = np.abs(frames.forces).max(axis=(1, 2)) < FORCES_EV_PER_ANG
        return frames.select(np.flatnonzero(sound))

    def chosen(self, number: int) -> LabelledFrames:
        """Return what round ``number`` has chosen, with its labels; label what is missing."""
        paths = round_paths(self.settings.output, number)
        return self.label(paths.labels, positions_of(paths.dynamics, paths.chosen), number)

    def _run_labels(self, workspace: Workspace) -> None:
        def told(progress: LabelProgress) -> None:
            if progress.rejected and progress.done + progress.rejected == progress.total:
                self.say(f"{workspace.rejected}: {progress.rejected} labels were set aside")

        asked = self.settings
        run_labelling(workspace, asked.calculator, asked.scheduler, asked.workers, told)

    def train_on(self, added: Sequence[LabelledFrames], number: int) -> int:
        """Train the models of round ``number`` on what all rounds have added; return its frames."""
        frames = joined(self.base, list(added))
        n_added = sum(len(part) for part in added)
        self.say(f"round {number}: training on {n_added} frames more than the first model")
        plans = self.subject.plans(number, n_added)
        self.subject.prepare(number)
        retrain(plans, self.subject.trained(number), frames, n_added, self.symmetry, self.say)
        self.subject.serve(number)
        provenance = {"improved": self.settings.deciding(), "rounds": number}
        # The dataset's trajectories keep their numbers, and so what frames count by.
        merged = (stored_provenance(self.settings.dataset) or {}).get("merged")
        provenance |= {"merged": merged} if merged else {}
        write_frames(frames, self.settings.output / DATASET_NAME, provenance)
        return n_added


def read_json(path: Path) -> dict[str, Any]:
    """Return what :func:`write_json` has written."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file of ours, whole or not at all."""
    write_atomically(path, f"{json.dumps(content, indent=1)}\n".encode())
