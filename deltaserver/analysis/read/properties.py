"""i-PI's property files: columns with units, joined over the pieces of a resumed run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError, UnitError
from deltaserver.statistics.correlation import later_wins
from deltaserver.textio.columns import Column, columns_by_name
from deltaserver.textio.compressed import open_file
from deltaserver.units import PS_FS


@dataclass(frozen=True)
class Properties:
    """Rows (T, C) of a property file, later pieces having replaced earlier ones."""

    columns: dict[str, Column]
    rows: Floats
    n_overwritten: int

    def raw(self, name: str) -> Floats | None:
        """Return a column as it is written, None if there is none."""
        column = self.columns.get(name)
        return None if column is None else self.rows[:, column.index]

    @property
    def steps(self) -> Ints | None:
        """The steps, None if they are not written."""
        steps = self.raw("step")
        return None if steps is None else steps.astype(np.int64)

    def time_ps(self) -> Floats | None:
        """Return the elapsed time in ps."""
        return self._in("time", "time", 1.0 / PS_FS)

    def temperature_k(self, name: str = "temperature") -> Floats | None:
        """Return the kinetic temperature in K."""
        return self._in(name, "temperature")

    def energy_ev(self, name: str) -> Floats | None:
        """Return an energy (``conserved``, ``potential``, …) in eV."""
        return self._in(name, "energy")

    def _in(self, name: str, kind: str, factor: float = 1.0) -> Floats | None:
        values = self.raw(name)
        if values is None:
            return None
        try:
            return values * (self.columns[name].factor(kind) * factor)
        except UnitError as error:
            raise DataError(str(error)) from None


def read_properties(pieces: Sequence[Path], note: Callable[[str], None]) -> Properties:
    """Read the pieces of a property file in the order of writing.

    Rows that a kill cut short are left out, which is told.

    Raises:
        DataError: not there, no header, or no row of numbers.
    """
    columns: dict[str, Column] = {}
    tables = []
    for path in pieces:
        header, rows = _read(path, note)
        columns = columns or header
        if header and header != columns:
            raise DataError(f"{path}: its columns differ from those of {pieces[0]}")
        tables.append(rows)
    if not columns:
        raise DataError(f"{pieces[0]}: no header with columns; expected an i-PI property file")
    width = max(table.shape[1] for table in tables)
    rows = np.concatenate([table for table in tables if table.shape[1] == width])
    step = columns.get("step")
    kept = later_wins(rows[:, step.index]) if step else np.ones(len(rows), bool)
    return Properties(columns, rows[kept], int((~kept).sum()))


def _read(path: Path, note: Callable[[str], None]) -> tuple[dict[str, Column], Floats]:
    with open_file(path) as file:
        try:
            lines = file.read().decode("utf-8", "replace").splitlines()
        except (OSError, EOFError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
    columns = columns_by_name(lines)
    body = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not body:
        raise DataError(f"{path}: no rows; expected an i-PI property file")
    try:
        rows = np.loadtxt(body, ndmin=2)
    except ValueError:
        rows = _by_line(path, body, note)
    return columns, rows


def _by_line(path: Path, body: list[str], note: Callable[[str], None]) -> Floats:
    """Read the rows that have as many numbers as most, and say how many have not."""
    rows = []
    for line in body:
        try:
            rows.append([float(word) for word in line.split()])
        except ValueError:
            continue
    widths = [len(row) for row in rows]
    if not rows:
        raise DataError(f"{path}: no rows of numbers; expected an i-PI property file")
    width = max(set(widths), key=widths.count)
    good = [row for row in rows if len(row) == width]
    note(f"{path}: {len(body) - len(good)} cut or damaged row(s) left out")
    return np.array(good)
