"""What each fragment and the binding contributed along a run, from the daemon's log."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver import plots
from deltaserver.arrays import Floats
from deltaserver.errors import DataError
from deltaserver.model.manifest import WHOLE_MODEL_PARTS

TOTAL = "total"


@dataclass(frozen=True)
class Series:
    """One part along the logged structures: energies in eV, force RMS in eV/Å, shape (T,)."""

    seq: NDArray[np.int64]
    energy: Floats
    force_rms: Floats

    def before(self, seq: int) -> Series:
        """Return the structures whose number is below ``seq``."""
        kept = self.seq < seq
        return Series(self.seq[kept], self.energy[kept], self.force_rms[kept])


def read_log(path: Path) -> dict[str, Series]:
    """Read every part's series, and ``"total"``, from a daemon's JSON-lines log.

    A last line that a kill cut short is passed over.

    Raises:
        DataError: no such file, no ``step`` events in it, or a line that is no JSON.
    """
    rows: dict[str, list[tuple[int, float, float]]] = {}
    for number, record in _steps(path):
        try:
            seq = int(record["seq"])
            rows.setdefault(TOTAL, []).append((seq, float(record["energy_ev"]), np.nan))
            for name, part in _parts(record).items():
                row = (seq, float(part["energy_ev"]), float(part["force_rms_ev_per_ang"]))
                rows.setdefault(name, []).append(row)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: line {number} is a step that lacks {error}") from error
    if not rows:
        raise DataError(f"{path}: no step events; expected a log written with --log-file")
    return {
        name: Series(np.array([s for s, _, _ in r]), *np.array([(e, f) for _, e, f in r]).T)
        for name, r in rows.items()
    }


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
    """Format mean, standard deviation and range of every part as a text table."""
    width = max(len(name) for name in series)
    lines = [
        f"{'part':<{width}}  {'mean E / eV':>14}  {'std / eV':>9}  {'min / eV':>14}  "
        f"{'max / eV':>14}  {'force RMS / eV/Å':>16}  {'steps':>8}"
    ]
    for name, part in series.items():
        rms = "" if np.isnan(part.force_rms).all() else f"{np.mean(part.force_rms):.4f}"
        lines.append(
            f"{name:<{width}}  {part.energy.mean():>14.5f}  {part.energy.std():>9.5f}  "
            f"{part.energy.min():>14.5f}  {part.energy.max():>14.5f}  {rms:>16}  "
            f"{len(part.energy):>8}"
        )
    return "\n".join(lines)


def write_csv(series: Mapping[str, Series], path: Path) -> None:
    """Write every logged number as ``part,seq,energy_ev,force_rms_ev_per_ang``."""
    try:
        _write_rows(series, path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def _write_rows(series: Mapping[str, Series], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("part", "seq", "energy_ev", "force_rms_ev_per_ang"))
        for name, part in series.items():
            for row in zip(part.seq, part.energy, part.force_rms, strict=True):
                writer.writerow((name, *row))


def plot(series: Mapping[str, Series], path: Path) -> None:
    """Draw energies (each about its mean) and force RMS of every part along the run.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: the figure cannot be written there.
    """

    def draw(figure: Any) -> None:
        above, below = figure.subplots(2, 1, sharex=True)
        for name, part in series.items():
            style = {"color": "black", "linewidth": 0.8} if name == TOTAL else {"linewidth": 1.2}
            mean = float(part.energy.mean())
            above.plot(part.seq, part.energy - mean, label=f"{name} ({mean:.3f} eV)", **style)
            if not np.isnan(part.force_rms).all():
                below.plot(part.seq, part.force_rms, label=name)
        above.set_ylabel("energy − mean / eV")
        above.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
        below.set_ylabel("force RMS / eV Å⁻¹")
        below.set_xlabel("structures served")
        below.set_yscale("log")
        below.legend()

    plots.write(draw, [path], (7.0, 5.0))
