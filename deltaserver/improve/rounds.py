"""One round after another: run, choose, label, train, test.

Every step writes one file when it is done, whole, before the next begins, and does nothing where
that file is there. Whatever is drawn has a seed from the round's number and the step. A process
that is killed at any moment therefore goes on, when it is started again, to the same result.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.errors import DataError
from deltaserver.improve.choose import MOST_CANDIDATES, choose, choose_at_random
from deltaserver.improve.doubt import Compared
from deltaserver.improve.learner import Learner, read_json, write_json
from deltaserver.improve.seen import read_seen, told_of, write_seen
from deltaserver.improve.settings import RoundPaths, Settings, round_paths
from deltaserver.training.uncertainty.directory import spread_evenly
from deltaserver.units import KCAL_PER_MOL_EV

Say = Callable[[str], None]

LEARN, TEST, RANDOM = 0, 1, 2  # what a seed is for
NORMAL_MAE = 0.798  # of one standard deviation, of a normal distribution: √(2/π)


class Improvement(Learner):
    """The work of one ``deltaserver improve``; :meth:`round` does the next of it.

    Args:
        settings: what was asked for.
        target: the force MAE that is wanted, kcal/mol/Å.
        say: takes one line for every step.

    Raises:
        InputError: models, dataset or calculator do not fit each other.
    """

    def __init__(self, settings: Settings, target: float, say: Say = lambda line: None) -> None:
        super().__init__(settings, say)
        self.target = target

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
        if not paths.chosen.exists():
            self._choose(paths, number, max_labels)
        added = [self.chosen(k) for k in range(1, number + 1)]
        n_added = self.train_on(added, number)
        return {**read_json(paths.chosen), "n_added": n_added, "n_labelled": len(added[-1])}

    def _choose(self, paths: RoundPaths, number: int, max_labels: int | None) -> None:
        settings = self.settings
        doubt = self.subject.doubt(number - 1)
        if not paths.dynamics.exists():
            seed = (settings.seed, number, LEARN)
            self._dynamics(paths.dynamics, doubt, number - 1, seed, returning=True)
        seen = read_seen(paths.dynamics)
        fine = self.unreacted(seen["positions"])
        count = min(settings.labels_per_round, max_labels or settings.labels_per_round)
        if settings.selection == "random":
            usable = np.flatnonzero(fine & seen["sure"])
            found = choose_at_random(count, len(usable), (settings.seed, number, RANDOM))
        else:
            usable = np.flatnonzero(fine)
            usable = usable[spread_evenly(len(usable), MOST_CANDIDATES)]
            found = choose(doubt, seen["positions"][usable], seen["uncertainty"][usable], count)
        told = told_of(paths.dynamics, seen, fine, (usable, found))
        write_json(paths.chosen, told)

    def _dynamics(
        self, path: Path, doubt: Compared, number: int, seed: tuple[int, ...], *, returning: bool
    ) -> None:
        """Run the models of round ``number`` and write what was seen."""
        plan = self.settings.dynamics
        wanted = self.target * KCAL_PER_MOL_EV / NORMAL_MAE
        self.say(f"{path.parent.name}: {plan.runs} runs of {plan.steps} steps")
        seen = self.subject.see(doubt, number, seed, wanted, returning=returning)
        write_seen(path, seen)

    def _test(self, paths: RoundPaths, number: int) -> dict[str, Any]:
        """Run the new model anew, label what it sees, and tell how wrong it is there."""
        settings = self.settings
        doubt = self.subject.doubt(number)
        if not paths.test_dynamics.exists():
            seed = (settings.seed, number, TEST)
            self._dynamics(paths.test_dynamics, doubt, number, seed, returning=False)
        seen = read_seen(paths.test_dynamics)
        fine = np.flatnonzero(self.unreacted(seen["positions"]))
        if not len(fine):
            raise DataError(
                f"{paths.test_dynamics}: every run of the model is torn at once; begin with a "
                "better model, or at a lower --temperature"
            )
        places = fine[spread_evenly(len(fine), settings.test_frames)]
        frames = self.label(paths.test_labels, seen["positions"][places], number)
        found = self.subject.errors(number, frames)
        mae = found["parts"]["total"]["force_mae_kcal_mol_ang"]
        self.say(f"round {number}: force MAE {mae:.4f} kcal/mol/Å on {len(frames)} fresh frames")
        return {
            "test": found,
            "n_test": len(frames),
            "survival": float(1.0 - np.mean(seen["lost"])),
            "sure": float(np.mean(seen["sure"])),
        }
