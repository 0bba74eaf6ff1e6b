import socket
import sys
import time

import pytest

from deltaserver.errors import ConnectionLostError, InputError, MissingExtraError
from deltaserver.serve import ipi_process as module
from deltaserver.serve.ipi_process import ipi_process, remove_stale_socket
from deltaserver.serve.transport import InetAddress, UnixAddress


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


def test_a_stale_exit_file_is_removed_and_an_error_ends_it(tmp_path, monkeypatch):
    (tmp_path / "EXIT").write_text("")
    program(monkeypatch, "import time; time.sleep(600)")
    began = time.monotonic()
    running = ipi_process(tmp_path, "x", ())
    ipi = running.__enter__()
    assert not (tmp_path / "EXIT").exists()
    assert not running.__exit__(KeyError, KeyError(), None)
    assert ipi.returncode == -15
    assert time.monotonic() - began < 20.0


def test_without_i_pi(tmp_path, monkeypatch):
    monkeypatch.setattr(module.sys, "executable", "/nowhere/python")
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    with (
        pytest.raises(MissingExtraError, match="i-PI is not installed"),
        ipi_process(tmp_path, "x", ()),
    ):
        pass
