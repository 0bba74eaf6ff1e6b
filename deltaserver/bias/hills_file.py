"""The file that hills are kept in: a line each, whole or not there, whatever kills the run.

A hill is written before it counts. A run that is continued from step n has the hills up to n:
those beyond are cut off, since they will be left again, and none below can lack.
"""

from __future__ import annotations

from pathlib import Path

from deltaserver.bias.terms import Hill
from deltaserver.errors import InputError

HEADER = "step,centre_ang,height_ev\n"


def read_hills(path: Path) -> list[Hill]:
    """Read the hills of a file; none if there is no such file. A line without its end counts not.

    Raises:
        InputError: a line is no hill, or their steps do not ascend.
    """
    hills: list[Hill] = []
    for _, number, hill in _lines(path):
        if hills and hill.step <= hills[-1].step:
            raise InputError(f"{path}:{number}: a hill of an earlier step than the one before it")
        hills.append(hill)
    return hills


def cut_hills(path: Path, last_step: int) -> None:
    """Cut off the hills beyond a step, and a line that a kill has cut short."""
    if not path.is_file():
        return
    end = len(HEADER)
    for after, _, hill in _lines(path):
        if hill.step > last_step:
            break
        end = after
    with path.open("r+b") as file:
        file.truncate(min(end, file.seek(0, 2)))


class HillsFile:
    """Appends hills to a file, each by one write."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("ab", buffering=0)
            if not self._file.tell():
                self._file.write(HEADER.encode())
        except OSError as error:
            raise InputError(
                f"{path}: hills cannot be kept there ({(error.strerror or str(error)).lower()})"
            ) from error

    def keep(self, hill: Hill) -> None:
        """Write one hill; with as many digits as it has, so that the sum is the same again."""
        self._file.write(f"{hill.step},{hill.centre_ang!r},{hill.height_ev!r}\n".encode())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _lines(path: Path) -> list[tuple[int, int, Hill]]:
    """Return where each hill's line ends, its number, and the hill."""
    if not path.is_file():
        return []
    found, end = [], 0
    for number, line in enumerate(path.read_bytes().splitlines(keepends=True), start=1):
        end += len(line)
        if not line.endswith(b"\n") or (number == 1 and line == HEADER.encode()):
            continue
        try:
            step, centre, height = line.decode().split(",")
            found.append((end, number, Hill(int(step), float(centre), float(height))))
        except ValueError:
            raise InputError(f"{path}:{number}: no hill; expected step,centre,height") from None
    return found
