"""The rounds of ``deltaserver improve``, and when they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from deltaserver.errors import EndedEarlyError
from deltaserver.improve.report import write_report
from deltaserver.improve.rounds import Improvement
from deltaserver.improve.settings import Settings, Stop, alone, round_paths
from deltaserver.model.manifest import manifest_path

Record = dict[str, Any]
Say = Callable[[str], None]

PROGRESS = 0.98  # of the best error so far: less is progress


def improve(settings: Settings, stop: Stop, say: Say = lambda line: None) -> Path:
    """Improve a model until its error is what was asked for; return the directory of the last.

    Started again with the same settings it goes on where it was, whatever ended it.

    Raises:
        InputError: anything wrong with models, dataset, calculator or settings.
        EndedEarlyError: no progress, or a budget is spent, and the error is still larger.
    """
    manifest_path(settings.models)  # nothing is made where there are no models
    with alone(settings.output):
        work = Improvement(settings, stop.force_mae, say)
        records: list[Record] = []
        while True:
            records.append(work.round(len(records), labels_left(records, stop)))
            write_report(settings, stop, records)
            last = round_paths(settings.output, len(records) - 1).models
            if error_of(records[-1]) <= stop.force_mae:
                say(f"reached: {last}")
                return last
            if why := ended(records, stop):
                raise EndedEarlyError(
                    f"{settings.output}: {why}; the best force MAE is "
                    f"{min(map(error_of, records)):.4f} kcal/mol/Å, of {best(settings, records)}"
                )


def error_of(record: Record) -> float:
    """Return a round's force MAE on fresh dynamics, kcal/mol/Å."""
    return float(record["test"]["parts"]["total"]["force_mae_kcal_mol_ang"])


def labelled(records: Sequence[Record]) -> int:
    """Return how many frames have been labelled, to train on and to test with."""
    return sum(len(record["chosen"]) + int(record["n_test"]) for record in records)


def labels_left(records: Sequence[Record], stop: Stop) -> int | None:
    """Return how many frames the next round may label to train on; None is no limit.

    Every round labels as many to test with as the last one did.
    """
    if stop.max_labels is None or not records:
        return None
    return stop.max_labels - labelled(records) - int(records[-1]["n_test"])


def ended(records: Sequence[Record], stop: Stop) -> str:
    """Return why no other round is begun; empty if one is."""
    if stop.max_rounds is not None and len(records) > stop.max_rounds:  # the first is no round
        return f"the budget of {stop.max_rounds} rounds is spent"
    left = labels_left(records, stop)
    if left is not None and left < 1:
        return f"the budget of {stop.max_labels} labelled frames is spent"
    hours = sum(float(record["hours"]) for record in records)
    if stop.max_hours is not None and hours >= stop.max_hours:
        return f"the budget of {stop.max_hours:g} hours is spent"
    errors = [error_of(record) for record in records]
    if len(errors) > stop.patience:
        before, since = errors[: -stop.patience], errors[-stop.patience :]
        if min(since) > PROGRESS * min(before):
            return f"no progress in {stop.patience} rounds"
    return ""


def best(settings: Settings, records: Sequence[Record]) -> Path:
    """Return the models of the round with the least error."""
    number = min(range(len(records)), key=lambda k: error_of(records[k]))
    return round_paths(settings.output, number).models
