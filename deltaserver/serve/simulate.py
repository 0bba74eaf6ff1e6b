"""One i-PI run from one command: start i-PI, serve it, stop both.

i-PI runs in a directory of its own, on a copy of the input whose file names are absolute. Its
quirks are taken care of: a stale ``EXIT`` file that would end the run at once, and a stale
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
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import structlog

from deltaserver.errors import ConnectionLostError, InputError, MissingExtraError
from deltaserver.serve.transport import (
    DEFAULT_PREFIX,
    Address,
    InetAddress,
    close_quietly,
    parse_address,
)

IPI_LOG = "i-pi.log"
INPUT_COPY = "input.xml"
GRACE_S = 10.0


@dataclass(frozen=True)
class IpiInput:
    """What we need to know of an i-PI input, and its text with absolute file names."""

    path: Path
    addresses: tuple[Address, ...]
    total_steps: int | None
    n_beads: int
    text: str


def read_input(path: Path, prefix: str = DEFAULT_PREFIX) -> IpiInput:
    """Read an i-PI input file.

    Raises:
        InputError: no such file, not XML, no ffsocket, or a structure file that is not there.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected an i-PI input")
    try:
        root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
    except (ElementTree.ParseError, UnicodeError, OSError) as error:
        raise InputError(f"{path}: not readable as XML ({error})") from error
    if root.tag != "simulation":
        raise InputError(f"{path}: the root is <{root.tag}>; expected <simulation>")
    addresses = tuple(dict.fromkeys(_address(node, prefix) for node in root.iter("ffsocket")))
    if not addresses:
        raise InputError(f"{path}: no <ffsocket>; expected at least one for the daemon to serve")
    for node in root.iter("file"):
        node.text = str(_existing(path, (node.text or "").strip()))
    steps = root.findtext("total_steps")
    beads = [_count(path, "nbeads", node.get("nbeads", "1")) for node in root.iter("initialize")]
    return IpiInput(
        path=path,
        addresses=addresses,
        total_steps=_count(path, "total_steps", steps) if steps else None,
        n_beads=max(beads, default=1),
        text=ElementTree.tostring(root, encoding="unicode"),
    )


def _count(path: Path, what: str, text: str) -> int:
    if not text.strip().isdecimal():
        raise InputError(f"{path}: {what} is {text.strip()!r}; expected a whole number")
    return int(text)


def _address(node: ElementTree.Element, prefix: str) -> Address:
    name = (node.findtext("address") or "localhost").strip()
    if node.get("mode", "inet") == "unix":
        return parse_address(f"unix:{name}", prefix)
    port = (node.findtext("port") or "65535").strip()
    # A server that listens on every interface is reached on this machine's own.
    return parse_address(f"inet:{'localhost' if name == '0.0.0.0' else name}:{port}")


def _existing(input_path: Path, name: str) -> Path:
    """Find a file named in the input.

    i-PI looks from where it is started; we look there, then beside the input and above it, where
    the input's author will have stood.
    """
    here = input_path.resolve().parent
    for base in (Path.cwd(), here, here.parent):
        if (base / name).is_file():
            return (base / name).resolve()
    raise InputError(f"{input_path}: the structure file {name!r} is not there")


@contextlib.contextmanager
def ipi_process(ipi_input: IpiInput, directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run i-PI in ``directory`` for the time of the ``with`` block, then make sure it has ended.

    While the block runs, the end of i-PI makes itself known to the daemon by SIGTERM, in case
    it never opened its sockets.

    Raises:
        MissingExtraError: i-PI is not installed.
        ConnectionLostError: i-PI failed; the message holds its last line.
    """
    program = _find_ipi()
    _prepare(ipi_input, directory)
    log_path = directory / IPI_LOG
    with log_path.open("wb") as log:
        # A session of its own: Ctrl-C reaches us, and we end i-PI in order.
        process = subprocess.Popen(
            [*program, INPUT_COPY],
            cwd=directory,
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )
    structlog.get_logger().info("i-pi", pid=process.pid, log=str(log_path))
    done = threading.Event()
    threading.Thread(target=_report_end, args=(process, done), daemon=True).start()
    try:
        yield process
    except BaseException:
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


def _end_with_parent() -> None:
    """In the child: have the kernel end i-PI if we are killed."""
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


def make_directory(directory: Path) -> None:
    """Make the directory of a run, or raise InputError."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--directory {directory}: {(error.strerror or '').lower()}") from error


def _prepare(ipi_input: IpiInput, directory: Path) -> None:
    make_directory(directory)
    (directory / "EXIT").unlink(missing_ok=True)
    (directory / INPUT_COPY).write_text(ipi_input.text, encoding="utf-8")
    for address in ipi_input.addresses:
        remove_stale_socket(address)


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
