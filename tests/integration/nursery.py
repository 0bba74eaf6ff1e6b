"""Real i-PIs and real daemons without the two seconds that each takes to import its libraries.

One process, started once, imports what both need; every i-PI and every daemon is a fork of it, and
from there on a process like any other: a pid, signals, an exit code, its own files. That a daemon
starts from nothing is what tests/serve is about; that `simulate` starts i-PI from nothing, what
tests/simulate/ipi/test_process.py is, and every test here that starts `simulate` as a process.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from deltaserver.simulate.ipi.process import IpiProcess

ROOT = Path(__file__).parents[2]
I_PI = Path(sys.executable).with_name("i-pi")
NUMBER = struct.Struct("=i")


class Process:
    """What tests use of ``subprocess.Popen``, for a process that the nursery has forked."""

    def __init__(self, program: str, arguments: Sequence[str | Path], **options: object) -> None:
        self.args = [program, *map(str, arguments)]
        self.returncode: int | None = None
        self._told = ask(self.args, **options)
        self.pid = NUMBER.unpack(self._told.recv(NUMBER.size))[0]

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; return its code, or the signal that ended it as a negative number."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
            self.returncode = NUMBER.unpack(self._told.recv(NUMBER.size))[0]
            self._told.close()
        return self.returncode

    def poll(self) -> int | None:
        """Return its code if it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # since then
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without mercy."""
        self.send_signal(signal.SIGKILL)


class IpiOfSimulate(Process):
    """What :class:`deltaserver.simulate.ipi.process.IpiProcess` is to `simulate` in this process.

    It inherits no descriptors: nobody here kills `simulate` and leaves i-PI alone.
    """

    farewell = IpiProcess.farewell

    def __init__(self, command: Sequence[str], log: Path, keep_open: Sequence[int]) -> None:
        self.log = log
        self.ended = threading.Event()
        self._one_waits = threading.Lock()
        with log.open("ab") as file:
            self.log_start = file.tell()
            super().__init__(command[0], command[1:], cwd=log.parent, output=file.fileno())

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, as the thread that watches it also does."""
        if not self._one_waits.acquire(timeout=-1 if timeout is None else timeout):
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
        try:
            return super().wait(timeout)
        finally:
            self._one_waits.release()

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)


def ask(arguments: list[str], cwd: Path | None = None, output: int | None = None) -> socket.socket:
    """Have a process made; return where its pid and, at its end, its code are told."""
    ours, theirs = socket.socketpair()
    here = str(Path.cwd() / (cwd or ""))
    order = {"arguments": arguments, "cwd": here, "environment": dict(os.environ)}
    handles = [theirs.fileno(), *([] if output is None else [output])]
    with theirs:
        socket.send_fds(nursery(), [json.dumps(order).encode()], handles)
    return ours


@functools.cache
def nursery() -> socket.socket:
    """Start it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, "-m", __name__, str(theirs.fileno())]
        process = subprocess.Popen(command, cwd=ROOT, pass_fds=[theirs.fileno()])
    atexit.register(lambda: (ours.close(), process.wait()))
    return ours


# -- in the nursery -------------------------------------------------------------------------------


def take_orders(orders: socket.socket) -> dict | None:
    """Return None at the end, and in each process made what it is to do."""
    while True:
        data, handles, _, _ = socket.recv_fds(orders, 1 << 18, 2)
        with contextlib.suppress(ChildProcessError):  # their CPU time counts as ours then
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not data:
            return None
        if os.fork() == 0:
            orders.close()
            return born(json.loads(data), *handles)
        for handle in handles:
            os.close(handle)


def born(order: dict, told: int, output: int | None = None) -> dict:
    """Return in a process of its own, whose end another process waits for and tells."""
    if pid := os.fork():
        tell_of_the_end(pid, told)
    os.close(told)
    if output is not None:
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["cwd"])
    return order


def tell_of_the_end(pid: int, told: int) -> NoReturn:
    """Say which process it is, and how it ended; who asked may be gone by then."""
    with contextlib.suppress(OSError):
        os.write(told, NUMBER.pack(pid))
        os.write(told, NUMBER.pack(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    os._exit(0)


def prepare() -> None:
    """Import what is imported late too: by a model's first evaluation, and by i-PI's start."""
    from deltaserver.cli import app, serve, simulate  # noqa: F401
    from deltaserver.serve.loading import load_model
    from tests import builders

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ipi.engine.simulation
    ipi.utils.softexit.SOFTEXITLATENCY = 0.1  # every end of a run waits for so long; a second else
    builders.remember_representations(setattr)
    load_model(ROOT / "models" / "benzene_dimer", "total", threads=1, quiet=True)


def main() -> None:
    """Prepare, then fork; a process made ends here as the program would that it is."""
    prepare()
    order = take_orders(socket.socket(fileno=int(sys.argv[1])))
    if order is None:
        return
    sys.argv = order["arguments"]
    if sys.argv[:2] == [sys.executable, "-c"]:
        code, sys.argv = sys.argv[2], ["-c", *sys.argv[3:]]
        exec(code, {"__name__": "__main__"})
        return
    if sys.argv[0] == "deltaserver":
        from deltaserver.cli import app

        sys.exit(app.main())
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
