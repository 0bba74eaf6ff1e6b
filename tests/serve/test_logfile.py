"""The log outlives rotation, SIGHUP and a full disk; every line in it stays whole."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from deltaserver.errors import InputError
from deltaserver.serve import logfile
from deltaserver.serve.logfile import LogFile, Rotation


def records(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def numbers(path):
    return [record["n"] for record in records(path) if "n" in record]


def event(n):
    return {"event": "step", "n": n, "filling": "x" * 60}


class Disk:
    """A disk with ``room`` bytes left: what os.write does on it."""

    def __init__(self, monkeypatch, room):
        self.room = room
        self._write = os.write
        monkeypatch.setattr(logfile.os, "write", self.write)

    def write(self, fd, data):
        n_bytes = min(self.room, len(data))
        if data and not n_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= n_bytes
        return self._write(fd, bytes(data)[:n_bytes])


LENGTH = len(json.dumps(event(0))) + 1


@pytest.mark.parametrize("room", range(0, 3 * LENGTH + 1, 7))
@pytest.mark.parametrize("relief", [20, LENGTH, 10_000])
def test_a_disk_that_is_full_at_any_byte(tmp_path, monkeypatch, room, relief):
    """Whole lines only, in order; those that are missing are counted where they are missing."""
    disk = Disk(monkeypatch, room)
    path = tmp_path / "log"
    log = LogFile(path)
    for n in range(6):
        log.write(event(n))
    for n in range(6, 9):
        disk.room = relief
        log.write(event(n))
    disk.room = 10**6
    log.write(event(9))
    log.write(event(10))
    assert log.problem is None
    kept = records(path)
    lost = [record["lines"] for record in kept if record["event"] == "log lines lost"]
    assert numbers(path) == sorted(numbers(path))
    assert numbers(path)[-1] == 10
    assert len(numbers(path)) + sum(lost) == 11
    assert sum(lost) == log.n_lost
    assert all(record["reason"] for record in kept if "lines" in record)
    log.close()


def test_gaps_are_told_where_they_are(tmp_path, monkeypatch):
    disk = Disk(monkeypatch, 2 * LENGTH)
    log = LogFile(tmp_path / "log")
    for n in range(5):
        log.write(event(n))
    assert log.problem == "no space left on device"
    disk.room = 10**6
    log.write(event(5))
    found = records(tmp_path / "log")
    assert [record.get("n") for record in found] == [0, 1, None, 5]
    assert found[2]["lines"] == 3
    assert found[2]["reason"] == "no space left on device"


def test_a_file_size_limit_is_a_full_disk_too(tmp_path):
    """With a real limit of the system, in a process of its own."""
    code = f"""
import resource
from pathlib import Path
from deltaserver.serve.logfile import LogFile
log = LogFile(Path({str(tmp_path / "log")!r}))
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (250, hard))
for n in range(9):
    log.write({{"event": "step", "n": n, "filling": "x" * 60}})
print(log.problem)
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
log.write({{"event": "step", "n": 9}})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "file too large\n"
    assert numbers(tmp_path / "log") == [0, 1, 2, 9]


def test_dev_full_is_no_end(monkeypatch):
    log = LogFile(logfile.Path("/dev/full"))
    for n in range(3):
        log.write(event(n))
    assert log.problem == "no space left on device"
    assert log.n_lost == 3


HALF = json.dumps(event(1))[:40]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", ""),
        ('{"event": "old", "n": 7}\n', '{"event": "old", "n": 7}\n'),
        ('{"event": "old", "n": 7}\n' + HALF, '{"event": "old", "n": 7}\n'),
        (HALF, ""),
        ("what somebody else wrote", "what somebody else wrote\n"),
        ("a\nb", "a\nb\n"),
    ],
)
def test_the_half_line_of_a_killed_daemon_is_removed_and_nothing_else(tmp_path, before, after):
    path = tmp_path / "log"
    path.write_text(before)
    LogFile(path).write({"event": "new"})
    assert path.read_text() == after + '{"event": "new"}\n'


# -- rotation ---------------------------------------------------------------------------------


def test_rotation_keeps_so_many_files_and_every_line_in_them(tmp_path):
    path = tmp_path / "log"
    log = LogFile(path, Rotation(max_bytes=4 * LENGTH, keep=2))
    log.write({"event": "loaded", "model": "m"}, header=True)
    for n in range(30):
        log.write(event(n))
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["log", "log.1", "log.2"]
    files = [tmp_path / name for name in ("log.2", "log.1", "log")]
    found = [n for file in files for n in numbers(file)]
    assert found == list(range(found[0], 30))
    for file in files:
        assert records(file)[0] == {"event": "loaded", "model": "m"}
        assert file.stat().st_size < 5 * LENGTH


def test_a_log_that_cannot_be_rotated_is_written_on(tmp_path, monkeypatch):
    log = LogFile(tmp_path / "log", Rotation(max_bytes=2 * LENGTH))

    def refuse(self, target):
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(logfile.Path, "replace", refuse)
    for n in range(20):
        log.write(event(n))
    assert numbers(tmp_path / "log") == list(range(20))


def test_what_is_no_file_is_not_moved_away(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    log = LogFile(path, Rotation(max_bytes=1))
    log.write(event(0))
    log.write(event(1))
    assert os.read(reader, 1000).count(b"\n") == 2
    assert path.is_fifo()
    os.close(reader)


def test_reopen_after_somebody_moved_it(tmp_path):
    path = tmp_path / "log"
    log = LogFile(path)
    log.write({"event": "loaded"}, header=True)
    log.write(event(0))
    path.rename(tmp_path / "moved")
    log.write(event(1))  # where it went
    assert log.reopen() is None
    log.write(event(2))
    assert numbers(tmp_path / "moved") == [0, 1]
    assert [record["event"] for record in records(path)] == ["loaded", "step"]
    assert log.reopen() is None  # nobody has moved it: no second header
    log.write(event(3))
    assert numbers(path) == [2, 3]
    assert len(records(path)) == 3


def test_reopen_completes_the_line_that_is_half_written(tmp_path, monkeypatch):
    disk = Disk(monkeypatch, LENGTH + 30)
    path = tmp_path / "log"
    log = LogFile(path)
    log.write(event(0))
    log.write(event(1))
    disk.room = 10**6
    path.rename(tmp_path / "moved")
    log.reopen()
    log.write(event(2))
    assert numbers(tmp_path / "moved") == [0, 1]
    assert numbers(path) == [2]


def test_a_log_that_cannot_be_reopened_is_written_on(tmp_path):
    directory = tmp_path / "logs"
    directory.mkdir()
    log = LogFile(directory / "log")
    directory.rename(tmp_path / "gone")
    assert log.reopen() == "no such file or directory"
    log.write(event(0))
    assert numbers(tmp_path / "gone" / "log") == [0]


@pytest.mark.parametrize("name", ["missing/log", ""])
def test_a_log_that_cannot_be_written_at_all(tmp_path, name):
    with pytest.raises(InputError, match=r"--log-file .*: (no such file|is a directory)"):
        LogFile(tmp_path / name)


def test_python_ignores_the_signal_of_a_size_limit():
    # Else RLIMIT_FSIZE would end the daemon before any error is seen.
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN
