"""A file of JSON lines that outlives rotation and a full disk.

A line is written whole or, where the disk fills in the middle of one, completed before the next.
Nothing is held back: what was logged survives a kill. While nothing can be written, lines are
counted instead of kept, and the count is the first thing written when there is space again.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from deltaserver.errors import InputError

KEEP = 5
LINE_BEGINS = b'{"event": '  # every line of ours
MAX_LINE_BYTES = 1 << 20  # how far back the beginning of a line is looked for


@dataclass(frozen=True)
class Rotation:
    """When a file holds ``max_bytes`` it becomes ``NAME.1``, and so on up to ``NAME.<keep>``."""

    max_bytes: int
    keep: int = KEEP


class LogFile:
    """Append JSON lines to a file, made anew when it is large enough.

    :attr:`problem` says why nothing can be written now, :attr:`n_lost` how many lines are missing.

    Raises:
        InputError: the file cannot be opened.
    """

    def __init__(self, path: Path, rotation: Rotation | None = None) -> None:
        self.path = path
        self.rotation = rotation
        self.problem: str | None = None
        self.n_lost = 0
        self._untold = 0  # of the lost lines, those that the file does not yet tell of
        self._header = b""
        self._rest = b""  # of a line that the disk had no room for
        self._n_bytes = 0
        try:
            self._fd = self._open()
        except OSError as error:
            raise InputError(f"--log-file {path}: {reason(error)}") from error

    def write(self, record: Mapping[str, Any], header: bool = False) -> None:
        """Write one line; a ``header`` also stands at the top of every later file."""
        line = _line(record)
        if header:
            self._header = line
        if (self._rest and not self._put(self._rest)) or (self._untold and not self._tell_lost()):
            self._lose()
            return
        if self._put(line):
            self.problem = None
            if self.rotation and self._n_bytes >= self.rotation.max_bytes:
                self._rotate(self.rotation.keep)
        elif not self._rest:
            self._lose()

    def reopen(self) -> str | None:
        """Open the path anew, after somebody moved the file; return what went wrong, if it did."""
        try:
            fd = self._open()
        except OSError as error:
            return reason(error)  # the old file is written on
        if self._rest:  # complete the line where it began, if that can be done
            with contextlib.suppress(OSError):
                os.write(self._fd, self._rest)
            self._rest = b""
        os.close(self._fd)
        self._fd = fd
        if self._header and self._n_bytes == 0:
            self._put(self._header)
        return None

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _open(self) -> int:
        _end_last_line(self.path)
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._n_bytes = os.fstat(fd).st_size
        return fd

    def _put(self, data: bytes) -> bool:
        """Write bytes; return whether all of them are there, else keep the rest of a line."""
        try:
            n_written = os.write(self._fd, data)
        except OSError as error:
            n_written, self.problem = 0, reason(error)
        self._n_bytes += n_written
        if n_written == len(data):
            self._rest = b""
            return True
        if n_written or self._rest:
            self._rest = data[n_written:]
        self.problem = self.problem or "only part of a line was written"
        return False

    def _lose(self) -> None:
        self.n_lost += 1
        self._untold += 1

    def _tell_lost(self) -> bool:
        """Write how many lines are missing here; return whether that is done."""
        told = {
            "event": "log lines lost",
            "level": "warning",
            "timestamp": now(),
            "lines": self._untold,
            "reason": self.problem,
        }
        done = self._put(_line(told))
        if done or self._rest:  # a note of which the rest follows counts these lines too
            self._untold = 0
        return done

    def _rotate(self, keep: int) -> None:
        names = [self.path, *(Path(f"{self.path}.{k}") for k in range(1, keep + 1))]
        self._n_bytes = 0  # if this fails, the next attempt is a whole file later
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(os.fstat(self._fd).st_mode):
                return  # a pipe or a device
            for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
                if newer.exists():
                    newer.replace(older)
            self.reopen()


def now() -> str:
    """Return the time in UTC, ISO 8601 with milliseconds."""
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


def reason(error: OSError) -> str:
    """Say in a few words what the system says."""
    return (error.strerror or str(error)).lower()


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, default=str).encode("ascii") + b"\n"


def _end_last_line(path: Path) -> None:
    """Cut off half a line that a daemon left which was killed while its disk was full.

    Anything else that does not end in a newline is not ours: it gets one.
    """
    if not path.is_file() or not os.access(path, os.R_OK | os.W_OK):
        return
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - MAX_LINE_BYTES))
        tail = file.read()
        begin = tail.rfind(b"\n") + 1
        if begin == len(tail):
            return
        if tail[begin:].startswith(LINE_BEGINS):
            file.truncate(size - len(tail) + begin)
        else:
            file.write(b"\n")
