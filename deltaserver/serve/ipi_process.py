"""The i-PI process of a run: started in the run's directory, ended whatever happens.

Its quirks are taken care of: a stale ``EXIT`` file that would end the run at once, and a stale
socket file that it refuses to replace.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from deltaserver.errors import ConnectionLostError, InputError, MissingExtraError
from deltaserver.serve.transport import Address, InetAddress, close_quietly

IPI_LOG = "i-pi.log"
GRACE_S = 30.0


@contextlib.contextmanager
def ipi_process(
    directory: Path, input_name: str, addresses: Sequence[Address], keep_open: Sequence[int] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """Run i-PI in ``directory`` for the time of the ``with`` block, then make sure it has ended.

    While the block runs, the end of i-PI makes itself known to the daemon by SIGTERM, in case
    it never opened its sockets. i-PI inherits the file descriptors ``keep_open``.

    Raises:
        MissingExtraError: i-PI is not installed.
        ConnectionLostError: i-PI failed; the message holds its last line.
        InputError: another i-PI listens at an address.
    """
    program = _find_ipi()
    (directory / "EXIT").unlink(missing_ok=True)
    for address in addresses:
        remove_stale_socket(address)
    log_path = directory / IPI_LOG
    with log_path.open("ab") as log:
        # A session of its own: Ctrl-C reaches us, and we end i-PI in order.
        process = subprocess.Popen(
            [*program, input_name],
            cwd=directory,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=tuple(keep_open),
            preexec_fn=end_with_parent if sys.platform == "linux" else None,
        )
    structlog.get_logger().info("i-pi", pid=process.pid, log=str(log_path))
    done = threading.Event()
    threading.Thread(target=_report_end, args=(process, done), daemon=True).start()
    try:
        yield process
    except BaseException:
        # Once: it writes its RESTART file and ends. A second SIGTERM would not let it.
        process.terminate()
        raise
    finally:
        done.set()
        with _deaf_to_interrupts():
            _end(process)
    if process.returncode not in (0, -signal.SIGTERM):
        raise ConnectionLostError(
            f"i-PI ended with code {process.returncode}: {_last_line(log_path)} (see {log_path})"
        )


def end_with_parent() -> None:
    """In the child: have the kernel end it if we are killed."""
    pr_set_pdeathsig = 1  # linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let no second Ctrl-C leave i-PI behind."""
    old = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, old)


def _find_ipi() -> list[str]:
    beside = Path(sys.executable).with_name("i-pi")
    program = str(beside) if beside.is_file() else shutil.which("i-pi")
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


def _report_end(process: subprocess.Popen[bytes], done: threading.Event) -> None:
    """Wake the daemon if i-PI ends and its sockets do not tell."""
    process.wait()
    if not done.wait(timeout=2.0):
        os.kill(os.getpid(), signal.SIGTERM)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for i-PI to end; after a while ask it to, then make it."""
    for ask in (None, process.terminate, process.kill):
        if ask:
            ask()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE_S)
            return


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip()[:200] if lines else "no output"
