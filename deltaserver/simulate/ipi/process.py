"""The i-PI process of a run: started in the run's directory, ended whatever happens.

Its quirks are taken care of: a stale ``EXIT`` file that would end the run at once, and a stale
socket file that it refuses to replace.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from deltaserver.errors import ConnectionLostError, InputError, MissingExtraError
from deltaserver.serve.transport import Address, InetAddress, close_quietly

IPI_LOG = "i-pi.log"
EXIT_FILE = "EXIT"  # where it is, i-PI ends in order within a second
GRACE_S = 30.0
ASKED_S = 10.0  # how long it may take to end once asked to


# i-PI heeds SIGTERM up to a second later; another one until then ends it without RESTART. A batch
# system may signal every process of a job more than once: here only the first counts.
DEAF_TO_REPEATS = """
import runpy, sys
try:
    from ipi.utils.softexit import softexit
    heed = softexit._kill_handler
    softexit._kill_handler = lambda *signal: None if softexit._killed else heed(*signal)
except (ImportError, AttributeError):
    pass
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# What i-PI says when it has done what it was to do, in any number of steps, and says no more.
DONE = re.compile(r"converged|finished successfully|is calculated|Finished reading|Read single")
SOFT_EXIT = re.compile(r"SOFTEXIT CALLED FROM THREAD <[^>]*> *([^\n]*)")


@dataclass(frozen=True)
class Farewell:
    """How i-PI ended, in its own words.

    Attributes:
        message: one line; empty if it said nothing.
        done: it has done what it was to do, in fewer steps than it had.
        problem: it could not.
    """

    message: str = ""
    done: bool = False
    problem: bool = False


class IpiProcess(subprocess.Popen[bytes]):
    """A running i-PI; ``log`` is where its output goes, from the byte ``log_start`` on.

    ``ended`` is set when it has ended and the daemon was told so by a signal.
    """

    def __init__(self, command: Sequence[str], log: Path, keep_open: Sequence[int]) -> None:
        self.log = log
        self.ended = threading.Event()
        with log.open("ab") as file:
            self.log_start = file.tell()
            # A session of its own: Ctrl-C reaches us, and we end i-PI in order.
            super().__init__(
                command,
                cwd=log.parent,
                stdout=file,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=tuple(keep_open),
                preexec_fn=end_with_parent if sys.platform == "linux" else None,
            )

    def farewell(self) -> Farewell:
        """Return how it ended."""
        with self.log.open("rb") as file:
            file.seek(self.log_start)
            return read_farewell(file.read().decode("utf-8", "replace"))


def read_farewell(text: str) -> Farewell:
    """Read i-PI's output; how much it says at its end depends on its verbosity."""
    match = SOFT_EXIT.search(text)
    if match is None:
        return Farewell()
    message, rest = match[1].strip(), text[match.start() :]
    if "I-PI reports a problem" in rest:
        return Farewell(message, problem=True)
    return Farewell(message, done=bool(DONE.search(message)))


@contextlib.contextmanager
def ipi_process(
    directory: Path,
    input_name: str,
    addresses: Sequence[Address],
    keep_open: Sequence[int] = (),
    ending: threading.Event | None = None,
) -> Iterator[IpiProcess]:
    """Run i-PI in ``directory`` for the time of the ``with`` block, then make sure it has ended.

    While the block runs, the end of i-PI makes itself known to the daemon by SIGTERM, in case
    it never opened its sockets. i-PI inherits the file descriptors ``keep_open``. ``ending`` is
    set when the block is left: from there on no signal may come between.

    Raises:
        MissingExtraError: i-PI is not installed.
        ConnectionLostError: i-PI failed; the message holds its last line.
        InputError: another i-PI listens at an address.
    """
    program = _find_ipi()
    (directory / EXIT_FILE).unlink(missing_ok=True)
    for address in addresses:
        remove_stale_socket(address)
    ipi = IpiProcess([*program, input_name], directory / IPI_LOG, keep_open)
    structlog.get_logger().info("i-pi", pid=ipi.pid, log=str(ipi.log))
    done, patience_s = threading.Event(), GRACE_S
    threading.Thread(target=_report_end, args=(ipi, done), daemon=True).start()
    try:
        yield ipi
    except BaseException:
        # Not by SIGTERM: it may have had one from a batch system, and a second one would end it
        # before it has written its RESTART file.
        (directory / EXIT_FILE).touch()
        patience_s = ASKED_S
        raise
    finally:
        if ending:
            ending.set()
        done.set()
        _end(ipi, patience_s)
        (directory / EXIT_FILE).unlink(missing_ok=True)
        for address in addresses:  # one that crashed or was killed leaves its own
            with contextlib.suppress(InputError):  # somebody else's by now
                remove_stale_socket(address)
    if ipi.returncode not in (0, -signal.SIGTERM):
        raise ConnectionLostError(
            f"i-PI ended with code {ipi.returncode}: {_last_line(ipi.log)} (see {ipi.log})"
        )


def end_with_parent() -> None:
    """In the child: have the kernel end it if we are killed."""
    pr_set_pdeathsig = 1  # linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _find_ipi() -> list[str]:
    beside = Path(sys.executable).with_name("i-pi")
    if beside.is_file():
        return [sys.executable, "-c", DEAF_TO_REPEATS, str(beside)]
    program = shutil.which("i-pi")  # of another environment: as it is
    if program is None:
        raise MissingExtraError("i-PI", "ipi")
    return [program]


def remove_stale_socket(address: Address) -> None:
    """Remove a unix socket file that nobody listens on.

    Raises:
        InputError: somebody does: another i-PI runs under this name.
    """
    if isinstance(address, InetAddress) or not Path(address.path).exists():
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(address.path)
        except ConnectionRefusedError:
            Path(address.path).unlink(missing_ok=True)
            return
        except OSError as error:
            raise InputError(f"{address.path}: {(error.strerror or str(error)).lower()}") from error
        close_quietly(probe)
    raise InputError(
        f"{address}: another i-PI listens there; end it, or give the input another <address>"
    )


def _report_end(ipi: IpiProcess, done: threading.Event) -> None:
    """Wake the daemon if i-PI ends and its sockets do not tell."""
    ipi.wait()
    if not done.wait(timeout=2.0):
        ipi.ended.set()
        os.kill(os.getpid(), signal.SIGTERM)


def _end(process: subprocess.Popen[bytes], patience_s: float) -> None:
    """Wait for i-PI to end; after a while make it."""
    for force, wait_s in ((None, patience_s), (process.terminate, GRACE_S), (process.kill, None)):
        if force:
            force()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=wait_s)
            return


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip()[:200] if lines else "no output"
