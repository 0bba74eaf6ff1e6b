import socket
import sys
import threading
import time

import pytest

from deltaserver.errors import ConnectionLostError, InputError, MissingExtraError
from deltaserver.serve.transport import InetAddress, UnixAddress
from deltaserver.simulate.ipi import process as module
from deltaserver.simulate.ipi.process import ipi_process, remove_stale_socket


@pytest.fixture
def address(tmp_path):
    return UnixAddress(str(tmp_path / "socket"))


def test_a_socket_that_nobody_listens_on_is_removed(address, tmp_path):
    remove_stale_socket(address)
    remove_stale_socket(InetAddress("localhost", 1))
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(address.path)
        sock.listen()
        with pytest.raises(InputError, match="another i-PI listens there"):
            remove_stale_socket(address)
        assert (tmp_path / "socket").exists()
    remove_stale_socket(address)
    assert not (tmp_path / "socket").exists()


def program(monkeypatch, code):
    """Let a Python program stand where i-PI is started, to see what becomes of its end."""
    monkeypatch.setattr(module, "_find_ipi", lambda: [sys.executable, "-c", code])


def test_how_it_ended_is_told_with_its_last_line(tmp_path, monkeypatch):
    program(monkeypatch, "import sys; sys.exit('ValueError: no such thermostat')")
    message = r"i-PI ended with code 1: ValueError: no such thermostat \(see .*i-pi.log\)"
    with pytest.raises(ConnectionLostError, match=message), ipi_process(tmp_path, "x", ()) as ipi:
        ipi.wait()


def test_one_that_was_killed_leaves_no_socket(tmp_path, address, monkeypatch):
    bound = f"import os, socket; socket.socket(socket.AF_UNIX).bind({address.path!r})"
    program(monkeypatch, f"{bound}; os.kill(os.getpid(), 9)")
    running = ipi_process(tmp_path, "x", (address,))
    running.__enter__().wait()
    assert (tmp_path / "socket").exists()
    with pytest.raises(ConnectionLostError, match="code -9"):
        running.__exit__(None, None, None)
    assert not (tmp_path / "socket").exists()


def test_a_stale_exit_file_is_removed_and_an_error_ends_it(tmp_path, monkeypatch):
    (tmp_path / "EXIT").write_text("")
    program(monkeypatch, "import time; time.sleep(600)")
    monkeypatch.setattr(module, "ASKED_S", 0.5)
    began = time.monotonic()
    running = ipi_process(tmp_path, "x", ())
    ipi = running.__enter__()
    assert not (tmp_path / "EXIT").exists()
    assert not running.__exit__(KeyError, KeyError(), None)
    assert ipi.returncode == -15
    assert time.monotonic() - began < 60.0


def test_without_i_pi(tmp_path, monkeypatch):
    monkeypatch.setattr(module.sys, "executable", "/nowhere/python")
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with (
        pytest.raises(MissingExtraError, match="i-PI is not installed"),
        ipi_process(tmp_path, "x", ()),
    ):
        pass


THREAD = " @softexit.trigger:  SOFTEXIT CALLED FROM THREAD <_MainThread(MainThread, started 14)> "
WARNING = " !W! Soft exit has been requested with message: '{}. {}'. Cleaning up.\n"


@pytest.mark.parametrize(
    ("message", "verdict", "expected"),
    [
        ("Geometry optimization converged. Exiting simulation", "I-PI reports success.", "done"),
        ("NEB finished successfully at STEP 12.", "I-PI reports success.", "done"),
        ("Dynamic matrix is calculated. Exiting simulation", "", "done"),  # verbosity "quiet"
        (" # Finished reading re-run trajectory", "I-PI reports success.", "done"),
        (" @ SIMULATION: Exiting cleanly.", "I-PI reports success.", ""),
        (" @SOFTEXIT: Kill signal received", "Restartable as is: YES.", ""),
        (" @SOFTEXIT: Maximum wallclock time elapsed.", "Restartable as is: YES.", ""),
        ("ERROR: climbing bead is the endpoint.", "I-PI reports a problem.", "problem"),
    ],
)
def test_what_i_pi_says_at_its_end(message, verdict, expected):
    text = f"step 3\n{THREAD}{message}\n" + (WARNING.format(message, verdict) if verdict else "")
    found = module.read_farewell(text)
    assert found.message == message.strip()
    assert (found.done, found.problem) == (expected == "done", expected == "problem")


def test_an_i_pi_that_says_nothing():
    assert module.read_farewell("Killed\n") == module.Farewell()


def test_only_what_this_i_pi_has_said_counts(tmp_path, monkeypatch):
    (tmp_path / "i-pi.log").write_text(f"{THREAD}Geometry optimization converged.\n")
    program(monkeypatch, "print('hello')")
    with ipi_process(tmp_path, "x", ()) as ipi:
        ipi.wait()
    assert ipi.farewell() == module.Farewell()


def test_it_is_asked_by_a_file_and_not_by_a_second_signal(tmp_path, monkeypatch):
    """As i-PI: SIGTERM is heeded at the next look a second later, and a second one kills."""
    code = (
        "import os, signal, sys, time, pathlib\n"
        "killed = []\n"
        "def note(*a):\n"
        "    killed.append(1)\n"
        "    len(killed) > 1 and os._exit(9)\n"
        "signal.signal(signal.SIGTERM, note)\n"
        "pathlib.Path('ready').touch()\n"
        "while not killed and not os.path.exists('EXIT'): time.sleep(0.05)\n"
        "time.sleep(1.0)\n"
        "pathlib.Path('RESTART').touch()\n"
    )
    program(monkeypatch, code)
    ending = threading.Event()
    running = ipi_process(tmp_path, "x", (), ending=ending)
    ipi = running.__enter__()
    while not (tmp_path / "ready").exists():
        time.sleep(0.02)
    ipi.terminate()  # as a batch system does
    assert not running.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert (ipi.returncode, (tmp_path / "RESTART").exists()) == (0, True)
    assert ending.is_set()
    assert not (tmp_path / "EXIT").exists()
