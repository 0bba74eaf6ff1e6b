"""One round after another: run, choose, label, train, test.

Every step writes one file when it is done, whole, before the next begins, and does nothing where
that file is there. Whatever is drawn has a seed from the round's number and the step. A process
that is killed at any moment therefore goes on, when it is started again, to the same result.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Bools, Floats
from deltaserver.datasets.files import read_dataset, write_frames
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.datasets.geometries import unreacted
from deltaserver.datasets.labelling import LabelProgress, assemble
from deltaserver.datasets.plausibility import FORCES_EV_PER_ANG
from deltaserver.datasets.sampling.dynamics import Start
from deltaserver.datasets.workflow import frames_of, run_labelling
from deltaserver.datasets.workspace import Workspace, open_frames
from deltaserver.errors import DataError
from deltaserver.improve.choose import MOST_CANDIDATES, choose, choose_at_random
from deltaserver.improve.doubt import SURE_NOVELTY, Doubt
from deltaserver.improve.dynamics import Limits, Runs
from deltaserver.improve.measure import errors_by_part
from deltaserver.improve.retrain import (
    joined,
    retrain,
    trained_parts,
    write_symmetry,
)
from deltaserver.improve.settings import DATASET_NAME, RoundPaths, Settings, round_paths
from deltaserver.improve.starts import draw_starts, longest_centre_distance
from deltaserver.model.composite import CompositeModel
from deltaserver.model.files.archive import read_arrays
from deltaserver.textio.journal import write_atomically
from deltaserver.training.directory_files import read_report, split_settings
from deltaserver.training.selection import split_in_time
from deltaserver.training.uncertainty.directory import calibrate_directory, spread_evenly
from deltaserver.units import KCAL_PER_MOL_EV

Say = Callable[[str], None]

LEARN, TEST, RANDOM = 0, 1, 2  # what a seed is for
STARTS = 1 << 20  # beyond the number of any run
DOUBTED = 3.0  # times the uncertainty that is wanted, or that is usual: not known any more
WALL_BEYOND_ANG = 1.0
NORMAL_MAE = 0.798  # of one standard deviation, of a normal distribution: √(2/π)
SAME_LABEL_EV_ANG = 0.02  # between programs, versions and machines of one method


class Improvement:
    """The work of one ``deltaserver improve``; :meth:`round` does the next of it.

    Args:
        settings: what was asked for.
        target: the force MAE that is wanted, kcal/mol/Å.
        say: takes one line for every step.

    Raises:
        InputError: models, dataset or calculator do not fit each other.
    """

    def __init__(self, settings: Settings, target: float, say: Say = lambda line: None) -> None:
        self.settings, self.target, self.say = settings, target, say
        self.base = read_dataset(settings.dataset, say)
        self.parts = trained_parts(settings.models, self.base)
        split = split_settings(read_report(settings.models), self.parts[-1].name)
        self.train = split_in_time(self.base.trajectory, self.base.step, **split).train
        self._copy_first()
        self.symmetry = write_symmetry(self.first, self.parts, settings.output)
        self.wall = longest_centre_distance(self.base, self.train) + WALL_BEYOND_ANG
        self._check_calculator()

    @property
    def first(self) -> Path:
        """The directory of the models that it begins with, calibrated."""
        return round_paths(self.settings.output, 0).models

    def _copy_first(self) -> None:
        """Copy the models, and calibrate them if they are not: what was given stays as it is."""
        marker = self.first / "model.yaml"
        if not marker.exists():
            self.first.mkdir(parents=True, exist_ok=True)
            for path in sorted(self.settings.models.iterdir()):
                if path.is_file() and path.name != marker.name:
                    write_atomically(self.first / path.name, path.read_bytes())
            write_atomically(marker, (self.settings.models / marker.name).read_bytes())
        models = CompositeModel.load(self.first).models
        if any(model.parameters.uncertainty is None for model in models):
            calibrate_directory(self.first, self.base, self.say)

    def _check_calculator(self) -> None:
        """Refuse a calculator that labels the dataset's first frame otherwise than it is.

        Raises:
            DataError: forces differ by more than another version of the same program's would.
        """
        found = self._label(self.settings.output / "check", self.base.positions[:1], 0)
        off = float(np.abs(found.forces - self.base.forces[:1]).max()) if len(found) else np.inf
        if not off <= SAME_LABEL_EV_ANG:
            raise DataError(
                f"{self.settings.calculator}: its forces on the first frame of {self.base.name} "
                f"differ by {off:.2g} eV/Å from that dataset's ({self.base.reference}); use the "
                "method that labelled it"
            )

    def round(self, number: int, max_labels: int | None = None) -> dict[str, Any]:
        """Do what is missing of round ``number``, the last one's being there; return its record.

        ``max_labels`` frames may be labelled to train on; None is as many as were asked for.
        """
        paths = round_paths(self.settings.output, number)
        if paths.record.exists():
            return read_json(paths.record)
        began = time.monotonic()
        paths.directory.mkdir(parents=True, exist_ok=True)
        learned: dict[str, Any] = {"n_added": 0, "n_labelled": 0, "chosen": [], "set_aside": 0}
        if number:
            learned = self._learn(paths, number, max_labels)
        record = {"round": number, **learned, **self._test(paths, number)}
        record["hours"] = (time.monotonic() - began) / 3600.0
        write_json(paths.record, record)
        return record

    def _learn(self, paths: RoundPaths, number: int, max_labels: int | None) -> dict[str, Any]:
        before = round_paths(self.settings.output, number - 1).models
        if not paths.chosen.exists():
            self._choose(paths, number, before, max_labels)
        added = [self._chosen(k) for k in range(1, number + 1)]
        frames = joined(self.base, added)
        n_added = sum(len(part) for part in added)
        self.say(f"round {number}: training on {n_added} frames more than the first model")
        retrain(
            self.first,
            before,
            paths.models,
            frames,
            n_added,
            self.symmetry,
            self.settings.threads,
            self.say,
        )
        provenance = {"improved": self.settings.deciding(), "rounds": number}
        write_frames(frames, self.settings.output / DATASET_NAME, provenance)
        return {**read_json(paths.chosen), "n_added": n_added, "n_labelled": len(added[-1])}

    def _chosen(self, number: int) -> LabelledFrames:
        """Return what round ``number`` has chosen, with its labels; label what is missing."""
        paths = round_paths(self.settings.output, number)
        places = [entry["place"] for entry in read_json(paths.chosen)["chosen"]]
        return self._label(paths.labels, read_arrays(paths.dynamics)["positions"][places], number)

    def _choose(self, paths: RoundPaths, number: int, before: Path, max_labels: int | None) -> None:
        settings = self.settings
        doubt = Doubt(CompositeModel.load(before, threads=settings.threads))
        if not paths.dynamics.exists():
            self._dynamics(paths.dynamics, doubt, (settings.seed, number, LEARN), returning=True)
        seen = read_arrays(paths.dynamics)
        fine = self._unreacted(seen["positions"])
        count = min(settings.labels_per_round, max_labels or settings.labels_per_round)
        if settings.selection == "random":
            usable = np.flatnonzero(fine & seen["sure"])
            found = choose_at_random(count, len(usable), (settings.seed, number, RANDOM))
        else:
            usable = np.flatnonzero(fine)
            usable = usable[spread_evenly(len(usable), MOST_CANDIDATES)]
            u = seen["uncertainty"][usable]
            found = choose(doubt, seen["positions"][usable], u, count)
        if not len(found.places):
            raise DataError(
                f"{paths.dynamics}: no frame is worth a label of {len(fine)}, of which "
                f"{int((~fine).sum())} are torn; run longer (--steps), or at another --temperature"
            )
        pairs = zip(usable[found.places], found.distance, strict=True)
        told = {
            "chosen": [_why(seen, int(place), float(d)) for place, d in pairs],
            "set_aside": int((~fine).sum()),
            "n_seen": len(fine),
            "returns": seen["returns"].tolist(),
        }
        write_json(paths.chosen, told)

    def _unreacted(self, positions: Floats) -> Bools:
        base = self.base
        return unreacted(base.numbers, positions, base.fragments, base.positions[0])

    def _dynamics(
        self, path: Path, doubt: Doubt, seed: tuple[int, ...], *, returning: bool
    ) -> None:
        """Run the model and write what was seen."""
        plan = self.settings.dynamics
        rng = np.random.default_rng([*seed, STARTS])
        starts = draw_starts(self.base, self.train, plan.runs, rng)
        usual = doubt(starts, doubt.model.evaluate(starts)).uncertainty
        known = usual[np.isfinite(usual)]
        wanted = self.target * KCAL_PER_MOL_EV / NORMAL_MAE
        limit = DOUBTED * max(wanted, float(np.median(known)) if len(known) else 0.0)
        limits = Limits(SURE_NOVELTY, limit, self.wall)
        self.say(f"{path.parent.name}: {plan.runs} runs of {plan.steps} steps")
        arrays: dict[str, Any] = Runs(doubt, plan, limits, seed, returning).run(starts).arrays()
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        write_atomically(path, buffer.getvalue())

    def _test(self, paths: RoundPaths, number: int) -> dict[str, Any]:
        """Run the new model anew, label what it sees, and tell how wrong it is there."""
        settings = self.settings
        doubt = Doubt(CompositeModel.load(paths.models, threads=settings.threads))
        if not paths.test_dynamics.exists():
            seed = (settings.seed, number, TEST)
            self._dynamics(paths.test_dynamics, doubt, seed, returning=False)
        seen = read_arrays(paths.test_dynamics)
        fine = np.flatnonzero(self._unreacted(seen["positions"]))
        if not len(fine):
            raise DataError(
                f"{paths.test_dynamics}: every run of the model is torn at once; begin with a "
                "better model, or at a lower --temperature"
            )
        places = fine[spread_evenly(len(fine), settings.test_frames)]
        frames = self._label(paths.test_labels, seen["positions"][places], number)
        found = errors_by_part(doubt.model, frames)
        mae = found["parts"]["total"]["force_mae_kcal_mol_ang"]
        self.say(f"round {number}: force MAE {mae:.4f} kcal/mol/Å on {len(frames)} fresh frames")
        return {
            "test": found,
            "n_test": len(frames),
            "survival": float(1.0 - np.mean(seen["lost"])),
            "sure": float(np.mean(seen["sure"])),
        }

    def _label(self, directory: Path, positions: Floats, number: int) -> LabelledFrames:
        """Label frames (K, N, 3), those that are labelled already not again; return them."""
        base = self.base
        starts = tuple(Start(base.numbers, x, f"round {number}") for x in positions)
        steps = [[number, k] for k in range(len(positions))]
        workspace = open_frames(directory, starts, base.fragments, steps)
        self._run_labels(workspace)
        frames = assemble(
            frames_of(workspace),
            base.numbers,
            base.fragments,
            workspace.labels,
            base.name,
            base.reference,
        )
        # Forces that no molecule has, of a frame that has reacted, would spoil the training.
        sound = np.abs(frames.forces).max(axis=(1, 2)) < FORCES_EV_PER_ANG
        return frames.select(np.flatnonzero(sound))

    def _run_labels(self, workspace: Workspace) -> None:
        def told(progress: LabelProgress) -> None:
            if progress.rejected and progress.done + progress.rejected == progress.total:
                self.say(f"{workspace.rejected}: {progress.rejected} labels were set aside")

        asked = self.settings
        run_labelling(workspace, asked.calculator, asked.scheduler, asked.workers, told)


def _why(seen: dict[str, Any], place: int, distance: float) -> dict[str, Any]:
    """Return one chosen frame as the report tells of it."""
    uncertainty = float(seen["uncertainty"][place])
    return {
        "place": place,
        "run": int(seen["run"][place]),
        "step": int(seen["step"][place]),
        "temperature_k": float(seen["temperature"][place]),
        "novelty": float(seen["novelty"][place]),
        "uncertainty_ev_per_ang": uncertainty if np.isfinite(uncertainty) else None,
        "distance": distance if np.isfinite(distance) else None,
        "sure": bool(seen["sure"][place]),
    }


def read_json(path: Path) -> dict[str, Any]:
    """Return what :func:`write_json` has written."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file of ours, whole or not at all."""
    write_atomically(path, f"{json.dumps(content, indent=1)}\n".encode())
