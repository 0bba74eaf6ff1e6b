"""The options of a long run, and the whole program with all of them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from deltaserver.cli.app import main
from deltaserver.cli.options.watching import make_watchers
from deltaserver.serve.watchers.health import HealthFile
from deltaserver.serve.watchers.metrics import Metrics
from deltaserver.serve.watchers.systemd import Notifier
from tests import logs
from tests.serve.server_double import ServerDouble, message
from tests.serve.watchers.test_metrics import scrape


def test_nothing_watches_unless_asked(monkeypatch, tmp_path):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert make_watchers(None, None, "127.0.0.1") == []
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    watchers = make_watchers(tmp_path / "health", 0, "127.0.0.1")
    assert [type(watcher) for watcher in watchers] == [HealthFile, Metrics, Notifier]
    for watcher in watchers:
        watcher.close()


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--log-max-size", "lots", "'lots' is no size"),
        ("--log-keep", "0", "0 is not in the range x>=1"),
        ("--metrics-port", "65536", "not in the range"),
        ("--reconnect-limit", "-1", "not in the range"),
        ("--health-file", "/nowhere/at/all", "--health-file /nowhere/at/all: no such file"),
    ],
)
def test_bad_options_are_one_line_and_code_2(model_directory, capsys, option, value, said):
    arguments = ["--models", str(model_directory), "--socket", "unix:/nowhere", option, value]
    assert main([*arguments, "--quiet"]) == 2
    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1


def test_the_program_with_every_option_of_a_long_run(model_directory, batch, tmp_path):
    """Metrics, health, systemd, rotation and SIGHUP in one process, as a unit would start it."""
    log, health, notify = (tmp_path / name for name in ("log", "health", "notify"))
    systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    systemd.bind(str(notify))
    systemd.settimeout(60)

    def script(peer):
        peer.introduce()
        for k in range(60):
            reply = peer.forces(batch[k % 3])
        process.send_signal(signal.SIGHUP)
        time.sleep(0.1)
        assert peer.forces(batch[2])["energy"] == reply["energy"]
        assert peer.status() == "READY"  # said when the step has been counted and written
        (address,) = (r["address"] for r in records(tmp_path) if r["event"] == "metrics")
        values = scrape(address)
        process.send_signal(signal.SIGTERM)
        assert peer.ends()
        return values

    def records(directory):
        files = sorted(directory.glob("log*"), reverse=True)
        return [record for file in files for record in logs.records(file)]

    server = ServerDouble(f"unix:{tmp_path}/s", script)
    command = [sys.executable, "-m", "deltaserver", "--models", model_directory]
    command += ["--socket", server.address, "--log-file", log, "--log-max-size", "8k"]
    command += ["--log-keep", "9", "--metrics-port", "0", "--health-file", health, "--reconnect"]
    process = subprocess.Popen(
        command,
        env={"NOTIFY_SOCKET": str(notify), "WATCHDOG_USEC": "2000000"} | dict(os.environ),
        cwd=Path(__file__).parents[3],
        stderr=subprocess.PIPE,
    )
    values = server.finish()
    assert process.wait(60) == 0
    heard = ""
    while "STOPPING=1" not in heard:
        heard += systemd.recv(4096).decode() + "\n"
    for word in ("READY=1", "WATCHDOG=1", "RELOADING=1", "STATUS=serving"):
        assert word in heard
    assert values["deltaserver_structures_total", "total"] == 61
    assert json.loads(health.read_text())["state"] == "stopped"
    assert json.loads(health.read_text())["structures"] == 61
    assert [r["seq"] for r in records(tmp_path) if r["event"] == "step"] == list(range(61))
    files = list(tmp_path.glob("log*"))
    assert 2 < len(files) < 9
    for file in files:
        assert json.loads(file.read_text().splitlines()[0])["event"] == "loaded"
    systemd.close()


def test_exit_is_still_the_end(model_directory, tmp_path):
    def script(peer):
        peer.introduce()
        peer.send(message("exit"))

    server = ServerDouble(f"unix:{tmp_path}/s", script)
    arguments = ["--models", str(model_directory), "--socket", server.address, "--quiet"]
    assert main([*arguments, "--reconnect-limit", "60"]) == 0
    server.finish()
