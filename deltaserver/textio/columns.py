"""The header of i-PI's property files: which column holds what, in which unit.

i-PI writes one line for each property, as it was asked for::

    # column   1     --> step : The current simulation time step.
    # column   3     --> conserved{kilocal/mol} : The conserved quantity.
    # cols.    4-6   --> atom_x{angstrom}(0) : The position of an atom.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from deltaserver.errors import UnitError
from deltaserver.units import from_ipi

LINE = re.compile(
    r"\s*#\s*(?:column\s+(?P<one>\d+)|cols\.\s*(?P<first>\d+)\s*-\s*(?P<last>\d+))\s*-->"
    r"\s*(?P<what>[^:]*)"
)
NAME = re.compile(r"[^\s{(]+")
UNIT = re.compile(r"\{([^}]*)\}")
ARGUMENTS = re.compile(r"\(([^)]*)\)")


@dataclass(frozen=True)
class Column:
    """One property of a file.

    Attributes:
        name: of the property, without unit and arguments.
        index: its first column, from 0.
        unit: as i-PI spells it; empty for atomic units, or where there is no unit.
        arguments: what stands in brackets, such as ``nm=1`` or ``O``; mostly empty.
        width: number of columns.
    """

    name: str
    index: int
    unit: str = ""
    arguments: str = ""
    width: int = 1

    def factor(self, kind: str) -> float:
        """Return what to multiply by: to eV, fs, K or Å by ``kind`` (see ``units.from_ipi``).

        Raises:
            UnitError: the unit is none of that kind.
        """
        try:
            return from_ipi(kind, self.unit)
        except UnitError as error:
            raise UnitError(f"{self.name}: {error}") from None


def parse_column(line: str) -> Column | None:
    """Read one line of a header; None if it is something else."""
    match = LINE.match(line)
    if match is None or (name := NAME.match(match["what"])) is None:
        return None
    first = int(match["one"] or match["first"])
    unit, arguments = UNIT.search(match["what"]), ARGUMENTS.search(match["what"])
    return Column(
        name=name[0],
        index=first - 1,
        unit=unit[1].strip() if unit else "",
        arguments=arguments[1].strip() if arguments else "",
        width=int(match["last"] or first) - first + 1,
    )


def columns_by_name(lines: Iterable[str]) -> dict[str, Column]:
    """Read a header; of several columns of one name, that of the whole system counts."""
    found: dict[str, Column] = {}
    for line in lines:
        column = parse_column(line)
        if column is not None:
            take(found, column)
    return found


def take(found: dict[str, Column], column: Column) -> None:
    """Add a column; ``temperature(O)`` does not stand for ``temperature`` where both are there."""
    other = found.get(column.name)
    if other is None or (other.arguments and not column.arguments):
        found[column.name] = column
