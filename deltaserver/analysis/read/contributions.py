"""What each fragment and the binding contributed along a run, from the daemon's log."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Floats
from deltaserver.errors import DataError
from deltaserver.model.manifest import BINDING, BOUND_PARTS, WHOLE_MODEL_PARTS

TOTAL = "total"
E_BINDING = "E_b"  # in tables and figures: what binds, summed
MAX_SHIFT = 6  # restarts by which a log's count may be ahead
MIN_OF_SYSTEM = 0.3  # of the structures that a system should have
UNCERTAINTY = "uncertainty_ev_per_ang"  # as the log names it


@dataclass(frozen=True)
class Series:
    """One part along the logged structures, each array of shape (T,).

    Attributes:
        seq: number of the structure.
        energy: eV.
        force_rms: eV/Å; NaN of the total.
        novelty: see :mod:`deltaserver.model.trust.novelty`; NaN where the log has none.
        uncertainty: of the forces, eV/Å; NaN where the model is not calibrated.
    """

    seq: NDArray[np.int64]
    energy: Floats
    force_rms: Floats
    novelty: Floats
    uncertainty: Floats

    def before(self, seq: int) -> Series:
        """Return the structures whose number is below ``seq``."""
        return self.some(self.seq < seq)

    def some(self, kept: NDArray[np.bool_]) -> Series:
        """Return some of the structures."""
        return Series(*(getattr(self, field.name)[kept] for field in fields(self)))


def known(values: Floats) -> bool:
    """Tell whether a series has any value of a quantity."""
    return bool(np.isfinite(values).any())


def read_log(path: Path) -> dict[str, Series]:
    """Read every part's series, and ``"total"``, from a daemon's JSON-lines log.

    A last line that a kill cut short is passed over. There is no total where components are served
    apart, as with multiple time steps: one record is of the fragments, the next of the binding.

    Raises:
        DataError: no such file, no ``step`` events in it, or a line that is no JSON.
    """
    rows: dict[str, list[tuple[float, ...]]] = {}
    components = set()
    for number, record in _steps(path):
        try:
            components.add(record.get("component"))
            seq, novelty = int(record["seq"]), record.get("novelty", {})
            uncertainty = record.get(UNCERTAINTY, {})
            parts = {TOTAL: {**record, "force_rms_ev_per_ang": np.nan}, **_parts(record)}
            for name, part in parts.items():
                values = (part["energy_ev"], part["force_rms_ev_per_ang"])
                trust = (novelty.get(name, np.nan), uncertainty.get(name, np.nan))
                rows.setdefault(name, []).append((seq, *map(float, (*values, *trust))))
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: line {number} is a step that lacks {error}") from error
    if not rows:
        raise DataError(f"{path}: no step events; expected a log written with --log-file")
    if len(components) > 1:
        del rows[TOTAL]
    columns = {name: np.array(values).T for name, values in rows.items()}
    return {name: Series(c[0].astype(np.int64), *c[1:]) for name, c in columns.items()}


def binding_energy(series: Mapping[str, Series]) -> Series | None:
    """Return E_b, the prior, what the binding model adds to it, and triples; None without any.

    Its force RMS is not known: those of several do not add. Its novelty and uncertainty are the
    binding model's.
    """
    parts = [series[name] for name in BOUND_PARTS if name in series]
    if not parts or len({len(part.seq) for part in parts}) > 1:
        return None
    model = series.get(BINDING, parts[-1])
    energy = np.sum([part.energy for part in parts], axis=0)
    force_rms = model.force_rms if len(parts) == 1 else np.full(len(energy), np.nan)
    return Series(model.seq, energy, force_rms, model.novelty, model.uncertainty)


def near_ev(potential_ev: Floats) -> float:
    """Return how near energies are that are the same, eV.

    i-PI's electronvolt is 1e-7 off, and it writes nine digits.
    """
    return 2e-7 * float(np.abs(potential_ev).max(initial=0.0)) + 2e-5


def of_system(
    series: Mapping[str, Series], n_systems: int, steps: NDArray[np.int64], potential_ev: Floats
) -> dict[str, Series]:
    """Return the structures of one of several systems; none where too few are found.

    A step has one structure of each system, in any order: a system's are those with its potential
    energy at that step. The first step may have fewer, where all stand at one place, and a restart
    more. Every part has the same structures.

    Args:
        series: of all systems.
        n_systems: how many there are.
        steps: rising, at which the energy of this one is known.
        potential_ev: that energy.
    """
    total = series[TOTAL]
    if not len(steps) or not len(total.seq):
        return {}
    best, most = np.zeros(len(total.seq), dtype=np.bool_), 0.0
    for missing in range(-MAX_SHIFT * n_systems, n_systems):
        step = (total.seq + missing) // n_systems
        row = np.minimum(np.searchsorted(steps, step), len(steps) - 1)
        known = steps[row] == step
        same = known & (np.abs(total.energy - potential_ev[row]) < near_ev(potential_ev))
        share = n_systems * float(same.sum()) / max(1.0, float(known.sum()))
        if share > most:
            best, most = same, share
    if most < MIN_OF_SYSTEM:
        return {}
    return {name: part.some(best) for name, part in series.items()}


def _steps(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                try:
                    record = json.loads(line)
                except ValueError:
                    if line.endswith("\n"):
                        raise DataError(
                            f"{path}: line {number} is not JSON; expected the daemon's log, "
                            "deltaserver.jsonl"
                        ) from None
                    return
                if isinstance(record, dict) and record.get("event") == "step":
                    yield number, record
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path}: cannot be read as a log ({reason.lower()})") from error


def _parts(record: Mapping[str, Any]) -> dict[str, Any]:
    parts = dict(record["fragments"])
    parts.update({name: record[name] for name in WHOLE_MODEL_PARTS if name in record})
    return parts


def table(series: Mapping[str, Series]) -> str:
    """Format every part's mean, standard deviation and range as a text table.

    Where several parts bind, their sum is a row of its own; largest novelty and mean
    uncertainty are columns where the log has them.
    """
    shown = dict(series)
    if len(set(BOUND_PARTS) & set(series)) > 1 and (bound := binding_energy(series)):
        shown[E_BINDING] = bound
    columns = [_Column("mean E / eV", 14, lambda s: f"{s.energy.mean():.5f}"),
               _Column("std / eV", 9, lambda s: f"{s.energy.std():.5f}"),
               _Column("min / eV", 14, lambda s: f"{s.energy.min():.5f}"),
               _Column("max / eV", 14, lambda s: f"{s.energy.max():.5f}"),
               _Column("force RMS / eV/Å", 16, lambda s: _number(s.force_rms, np.mean, 4)),
               _Column("steps", 8, lambda s: str(len(s.energy)))]  # fmt: skip
    if any(known(part.novelty) for part in shown.values()):
        columns.append(_Column("novelty, max", 12, lambda s: _number(s.novelty, np.nanmax, 2)))
    if any(known(part.uncertainty) for part in shown.values()):
        columns.append(_Column("± eV/Å, mean", 12, lambda s: _number(s.uncertainty, np.nanmean, 4)))
    width = max(len(name) for name in shown)
    head = "  ".join([f"{'part':<{width}}", *(f"{c.title:>{c.width}}" for c in columns)])
    rows = [
        "  ".join([f"{name:<{width}}", *(f"{c.text(part):>{c.width}}" for c in columns)]).rstrip()
        for name, part in shown.items()
    ]
    return "\n".join([head, *rows])


@dataclass(frozen=True)
class _Column:
    title: str
    width: int
    text: Callable[[Series], str]


def _number(values: Floats, reduced: Callable[[Floats], Any], digits: int) -> str:
    return f"{reduced(values):.{digits}f}" if known(values) else ""


def write_csv(series: Mapping[str, Series], path: Path) -> None:
    """Write every logged number, a row a part and structure; what is not known is ``nan``."""
    try:
        _write_rows(series, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def _write_rows(series: Mapping[str, Series], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        named = ("energy_ev", "force_rms_ev_per_ang", "novelty", UNCERTAINTY)
        writer.writerow(("part", "seq", *named))
        for name, part in series.items():
            for row in zip(*(getattr(part, field.name) for field in fields(part)), strict=True):
                writer.writerow((name, *row))
