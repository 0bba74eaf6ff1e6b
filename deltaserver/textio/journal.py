"""Files that survive a kill at any moment: append-only JSON records, and atomic replacement.

A record is finished when its line ends. What stands after the last line end is the beginning of
a record whose writer was killed: it is cut off before the next record is written, so that
nothing finished is lost and nothing half-written is believed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from deltaserver.errors import DataError

Record = dict[str, Any]
NO_SYNC = (errno.EINVAL, errno.ENOTSUP)  # of file systems that keep no directory on request


def read_journal(path: Path) -> Iterator[Record]:
    """Yield the finished records of ``path``, none if there is no such file.

    Raises:
        DataError: a finished line is not a JSON object; the journal was edited or damaged.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            if not isinstance(record, dict):
                raise DataError(
                    f"{path}:{number}: not a journal record; remove this line to redo its work"
                )
            yield record


def changed(
    before: Mapping[str, Any], now: Mapping[str, Any], keys: Iterable[str] | None = None
) -> list[str]:
    """Return which settings, of ``keys`` or all of ``now``, a work was begun with otherwise."""
    return [key for key in (now if keys is None else keys) if before.get(key) != now.get(key)]


def keep(sources: Iterable[Path], output: Path) -> None:
    """Refuse an ``output`` that is one of the files it is made of (DataError)."""
    if output.resolve() in [source.resolve() for source in sources]:
        raise DataError(f"{output}: would overwrite what is read; choose another --output")


def write_atomically(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write ``content`` to ``path`` in one step: a kill leaves the old file or the new one.

    Args:
        path: what is replaced; its name, with the process in it, is that of what is written first.
        content: all of it.
        durable: it is on the disk when this returns, whatever happens to the machine. Waiting for
            that may take long where others write much.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        fresh.replace(path)
        if durable:
            _keep_names(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from None  # a full disk names none


def _keep_names(directory: Path) -> None:
    """Put on the disk what a directory's files are called: a file's own sync does not."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(handle)


def hold(file: IO[Any]) -> bool:
    """Lock an open file, if no other process has it; the lock goes with the process."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Journal:
    """Appends records to ``path``; each one is on the disk when :meth:`append` returns."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("a+b")
        if not hold(self._file):
            self._file.close()
            raise DataError(f"{path}: another process is writing it; wait or stop it")
        _keep_names(path.parent)
        self._cut_off_unfinished()

    def append(self, record: Record) -> None:
        """Write one record. NaN and infinity are refused (ValueError), as JSON has none."""
        line = json.dumps(record, allow_nan=False, separators=(",", ":")) + "\n"
        self._file.write(line.encode())
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _cut_off_unfinished(self) -> None:
        self._file.seek(0)
        finished = sum(len(line) for line in self._file if line.endswith(b"\n"))
        self._file.truncate(finished)
