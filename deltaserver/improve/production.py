"""A long run that meets what its model does not know, and has it taught on the way.

Whoever serves the model hands over the structures that led to the one that is not known
(:meth:`Production.note`). :meth:`Production.learn` labels some of them, and of what short runs see
that begin at the last known ones; trains again; and returns the models that the run goes on with.
As in :mod:`deltaserver.improve.rounds` every step writes one file when it is done, and what a kill
has interrupted is taken up where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError, EndedEarlyError
from deltaserver.evaluation.held_out_errors import evaluate_batches
from deltaserver.improve.choose import MOST_CANDIDATES, choose
from deltaserver.improve.doubt import Doubt
from deltaserver.improve.dynamics import Limits, Runs
from deltaserver.improve.learner import Learner, read_json, write_json
from deltaserver.improve.measure import errors_by_part
from deltaserver.improve.report import write_learned
from deltaserver.improve.seen import Seen, read_seen, told_of, write_seen
from deltaserver.improve.settings import RoundPaths, Settings, alone, round_paths
from deltaserver.model.composite import CompositeModel
from deltaserver.model.files.archive import read_arrays, write_arrays
from deltaserver.model.many.manifest import is_of_many
from deltaserver.training.uncertainty.directory import spread_evenly

Say = Callable[[str], None]

ON_THE_WAY = -1  # the run's own structures, among those of short runs that are numbered from 0
MOST_OF_THE_WAY = 200  # of its structures are candidates
PATIENCE = 3  # times that a run may leave what is known at once after it has gone on
AT_ONCE = 20  # structures


class Production:
    """What a run has been taught so far, in ``settings.output``; the models given stay as they are.

    Args:
        settings: as of ``deltaserver improve``; its dynamics are the short runs.
        limits: what the run counts as known, by novelty and uncertainty.
        max_labels: frames that may be labelled altogether; None is no limit.
        say: takes one line for every step.

    Raises:
        InputError: models, dataset or calculator do not fit each other.
    """

    def __init__(
        self,
        settings: Settings,
        limits: Limits,
        max_labels: int | None = None,
        say: Say = lambda line: None,
    ) -> None:
        if is_of_many(settings.models) or CompositeModel.load(settings.models).periodic:
            raise DataError(
                f"{settings.models}: models of many molecules and periodic models cannot be taught "
                "by their own dynamics yet; use --on-extrapolation stop"
            )
        self._learner = Learner(settings, say)
        self._settings, self._max_labels, self._say = settings, max_labels, say
        self._limits = Limits(
            limits.novelty, limits.uncertainty, max(limits.wall, self._learner.subject.wall)
        )

    @property
    def n_done(self) -> int:
        """How often the run has been taught."""
        number = 1
        while self._paths(number).record.exists():
            number += 1
        return number - 1

    @property
    def models(self) -> Path:
        """The models to go on with: those given, or the last that were trained."""
        return self._paths(self.n_done).models if self.n_done else self._settings.models

    def note(self, way: Floats, reason: str) -> None:
        """Keep the structures (n, N, 3), Å, that led to the last of them, which is not known."""
        paths = self._paths(self.n_done + 1)
        paths.directory.mkdir(parents=True, exist_ok=True)
        write_arrays(paths.way, {"positions": way, "reason": np.array(reason)})

    def learn(self) -> Path:
        """Do what is missing of what was noted, if anything; return the models to go on with.

        Raises:
            EndedEarlyError: the budget of labels is spent, or teaching does not help.
        """
        with alone(self._settings.output):
            number = self.n_done + 1
            if self._paths(number).way.exists():
                self._refuse_more(number)
                self._round(number)
            return self.models

    def _round(self, number: int) -> None:
        paths, began = self._paths(number), time.monotonic()
        record = {"round": number, **self._teach(paths, number)}
        record["hours"] = (time.monotonic() - began) / 3600.0
        write_json(paths.record, record)
        records = [read_json(self._paths(k).record) for k in range(1, number + 1)]
        write_learned(self._settings, records)
        self._say(f"goes on with {paths.models}")

    def _paths(self, number: int) -> RoundPaths:
        return round_paths(self._settings.output, number)

    def _refuse_more(self, number: int) -> None:
        """Raise EndedEarlyError where another time would be too many."""
        output = self._settings.output
        if self._labels_left(number) < 1:
            raise EndedEarlyError(
                f"{output}: the budget of {self._max_labels} labelled frames is spent, and the run "
                "has left what is known again; continue it with a larger --max-labels"
            )
        last = range(max(1, number - PATIENCE + 1), number + 1)
        ways = [len(read_arrays(self._paths(k).way)["positions"]) for k in last]
        if len(ways) == PATIENCE and max(ways) <= AT_ONCE:
            raise EndedEarlyError(
                f"{output}: {PATIENCE} times in a row the run has left what is known within "
                f"{AT_ONCE} structures; look at report.html there, and begin with a better model "
                "(deltaserver improve)"
            )

    def _labels_left(self, number: int) -> int:
        """Return how many frames may be labelled in round ``number``: of the budget the rest."""
        most = self._settings.labels_per_round
        if self._max_labels is None:
            return most
        spent = sum(int(read_json(self._paths(k).record)["n_labelled"]) for k in range(1, number))
        return min(most, self._max_labels - spent)

    def _teach(self, paths: RoundPaths, number: int) -> dict[str, Any]:
        if not paths.chosen.exists():
            self._choose(paths, number)
        chosen = read_json(paths.chosen)
        self._say(f"round {number}: labels of {len(chosen['chosen'])} frames")
        added = [self._learner.chosen(k) for k in range(1, number + 1)]
        before = errors_by_part(self._learner.subject.model(number - 1), added[-1])
        n_added = self._learner.train_on(added, number)
        return {
            **chosen,
            "before": before,
            "n_added": n_added,
            "n_labelled": len(added[-1]),
        }

    def _choose(self, paths: RoundPaths, number: int) -> None:
        """Choose the structure that is not known, if it is sound, and what tells most besides."""
        doubt = Doubt(self._learner.subject.model(number - 1))
        noted = read_arrays(paths.way)
        if not paths.dynamics.exists():
            self._look_around(paths.dynamics, doubt, noted["positions"], number)
        seen = read_seen(paths.dynamics)
        fine = self._learner.unreacted(seen["positions"])
        unknown = np.flatnonzero(seen["run"] == ON_THE_WAY)[-1]
        others = np.flatnonzero(fine & (np.arange(len(fine)) != unknown))
        others = others[spread_evenly(len(others), MOST_CANDIDATES)]
        usable = np.concatenate([[unknown], others]) if fine[unknown] else others
        found = choose(
            doubt,
            seen["positions"][usable],
            seen["uncertainty"][usable],
            self._labels_left(number),
            first=0 if fine[unknown] else None,
        )
        told = told_of(paths.dynamics, seen, fine, (usable, found))
        told |= {"reason": str(noted["reason"]), "n_way": len(noted["positions"])}
        write_json(paths.chosen, told)

    def _look_around(self, path: Path, doubt: Doubt, way: Floats, number: int) -> None:
        """Write what the run has seen last, and what short runs see from there."""
        plan = self._settings.dynamics
        seen = self._seen(doubt, way, spread_evenly(len(way), MOST_OF_THE_WAY))
        starts = (
            way[:-1] if len(way) > 1 else self._learner.base.positions[self._learner.subject.train]
        )
        starts = starts[np.linspace(0, len(starts) - 1, plan.runs).round().astype(int)]
        self._say(f"round {number}: {plan.runs} runs of {plan.steps} steps from where it was known")
        seed = (self._settings.seed, number)
        around = Runs(doubt, plan, self._limits, seed, returning=True).run(starts)
        for name, values in vars(around).items():
            getattr(seen, name).extend(values)
        write_seen(path, seen)

    def _seen(self, doubt: Doubt, way: Floats, places: Ints) -> Seen:
        """Look at some of the way; their steps count back from the last, which is 0."""
        some, n = way[places], len(places)
        look = doubt(some, evaluate_batches(doubt.model, some, "total"))
        return Seen(
            list(some),
            [ON_THE_WAY] * n,
            (places - (len(way) - 1)).tolist(),
            [float("nan")] * n,
            look.novelty.tolist(),
            look.uncertainty.tolist(),
            self._limits.sure(look).tolist(),
        )
