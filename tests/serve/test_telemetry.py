"""What is told: one JSON line an event, one status line on the terminal."""

import io
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from deltaserver.errors import InputError
from deltaserver.serve import telemetry
from deltaserver.serve.answer import Contribution, Structure
from deltaserver.serve.telemetry import Origin, StepLine, StepLog, StepTimes

TIMES = StepTimes(receive_ms=0.5, evaluate_ms=2.25, send_ms=0.125)
ORIGIN = Origin("unix:/tmp/ipi_x", "total")


def structure(energy=-1.5):
    parts = {"water": -2.0, "sodium": 0.25, "binding": energy + 1.75}
    return Structure(energy, {name: Contribution(e, abs(e) / 2) for name, e in parts.items()})


@pytest.fixture(autouse=True)
def _reset():
    yield
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_step_s_fields():
    with structlog.testing.capture_logs() as events:
        StepLog(1, None).record((structure(),), TIMES, ORIGIN)
    (event,) = events
    assert event["event"] == "step"
    assert event["seq"] == 0
    assert event["energy_ev"] == -1.5
    assert event["fragments"] == {
        "water": {"energy_ev": -2.0, "force_rms_ev_per_ang": 1.0},
        "sodium": {"energy_ev": 0.25, "force_rms_ev_per_ang": 0.125},
    }
    assert event["binding"] == {"energy_ev": 0.25, "force_rms_ev_per_ang": 0.125}
    assert (event["component"], event["connection"]) == ("total", ORIGIN.address)
    assert event["wall_ms"] == event["receive_ms"] + event["evaluate_ms"] + event["send_ms"]
    assert event["evaluate_ms"] == 2.25


def test_the_whole_model_is_no_fragment():
    with structlog.testing.capture_logs() as events:
        one = Structure(-1.0, {"full": Contribution(-1.0, 0.5)})
        StepLog(1, None).record((one,), TIMES, ORIGIN)
    assert events[0]["fragments"] == {}
    assert events[0]["full"]["energy_ev"] == -1.0


@pytest.mark.parametrize(("every", "logged"), [(1, list(range(7))), (3, [0, 3, 6]), (100, [0])])
def test_every_so_many_structures_are_logged_but_all_are_counted(every, logged):
    log = StepLog(every, None)
    with structlog.testing.capture_logs() as events:
        for n in (1, 4, 2):
            log.record(tuple(structure() for _ in range(n)), TIMES, ORIGIN)
    assert [event["seq"] for event in events] == logged
    assert log.n_structures == 7


def test_parts_served_in_turn_are_all_logged():
    """Three fragments' structures to one of the binding: every tenth of all is always fragments."""
    log = StepLog(10, None)
    origins = {name: Origin(f"unix:/tmp/{name}", name) for name in ("fragments", "binding")}
    with structlog.testing.capture_logs() as events:
        for _ in range(20):
            for name in ("fragments", "fragments", "fragments", "binding"):
                log.record((structure(),), TIMES, origins[name])
    logged = [event["component"] for event in events]
    assert {name: logged.count(name) for name in origins} == {"fragments": 6, "binding": 2}
    seqs = [event["seq"] for event in events]
    assert seqs == sorted(set(seqs))


def test_the_log_file_holds_json_lines(tmp_path):
    path = tmp_path / "run.jsonl"
    path.write_text('{"event": "earlier"}\n')
    telemetry.configure(path, quiet=True)
    structlog.get_logger().info("hello", path=tmp_path, number=1.5)
    StepLog(1, None).record((structure(),), TIMES, ORIGIN)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["earlier", "hello", "step"]
    assert lines[1]["path"] == str(tmp_path)
    assert lines[1]["level"] == "info"
    assert lines[1]["timestamp"].endswith("+00:00")
    assert lines[2]["energy_ev"] == -1.5


def test_steps_stay_off_the_terminal_and_other_events_are_one_line():
    terminal = io.StringIO()
    telemetry.configure(None, terminal=terminal)
    log = structlog.get_logger()
    log.info("connected", address="unix:/x")
    StepLog(1, None).record((structure(),), TIMES, ORIGIN)
    assert terminal.getvalue().count("\n") == 1
    assert "connected" in terminal.getvalue()
    assert "address=unix:/x" in terminal.getvalue()


def test_quiet_is_quiet():
    terminal = io.StringIO()
    assert telemetry.configure(None, quiet=True, terminal=terminal) is None
    structlog.get_logger().warning("anything")
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("name", ["missing/run.jsonl", ""])
def test_a_log_file_that_cannot_be_written(tmp_path, name):
    with pytest.raises(InputError, match=r"--log-file .*: (no such file|is a directory)"):
        telemetry.configure(tmp_path / name)


def status(stream):
    now = [0.0]
    line = StepLine(stream, clock=lambda: now[0])
    return line, now


def test_the_status_line_is_rewritten_in_place_and_padded():
    terminal = Terminal()
    line, now = status(terminal)
    line.expected = 4000
    now[0] = 2.0
    line.update(1000, structure(-123456.75), TIMES)
    line.expected = None
    now[0] = 4.0
    line.update(1100, structure(), TIMES)
    first, second = terminal.getvalue().split("\r")[1:]
    assert first.startswith(
        "step 1000/4000  500.0 steps/s  2.25 ms evaluation  E = -123456.7500 eV"
    )
    assert second.startswith("step 1100  50.0 steps/s")
    assert "binding +0.2500 eV" in second
    assert len(second) == len(first)  # the rest of the longer line is wiped out
    assert "\n" not in terminal.getvalue()


def test_the_status_line_tells_how_far_the_forces_can_be_trusted():
    terminal = Terminal()
    line, now = status(terminal)
    now[0] = 2.0
    trust = {"novelty": {"water": 0.5, "binding": 1.25}, "uncertainty_ev_per_ang": {"total": 0.02}}
    line.update(10, replace(structure(), **trust), TIMES)
    told = "binding +0.2500 eV  novelty 1.25 (binding)  forces ± 20.0 meV/Å"
    assert terminal.getvalue().endswith(told)


def test_the_binding_energy_is_prior_and_binding():
    parts = {"prior": Contribution(-0.5, 0.1), "binding": Contribution(0.125, 0.1)}
    assert Structure(-0.375, parts).binding_energy_ev == -0.375
    assert Structure(-1.0, {"full": Contribution(-1.0, 0.5)}).binding_energy_ev is None


def test_the_status_line_makes_room_for_other_lines():
    terminal = Terminal()
    line = telemetry.configure(None, terminal=terminal)
    line._every_s = 0.0
    StepLog(1, line).record((structure(),), TIMES, ORIGIN)
    width = len(terminal.getvalue()) - 1
    structlog.get_logger().info("closed")
    assert f"\r{' ' * width}\r" in terminal.getvalue()
    before = terminal.getvalue()
    line.clear()
    assert terminal.getvalue() == before


def shown(stream, seconds, every):
    line, now = status(stream)
    for n in range(int(seconds / every)):
        now[0] = n * every
        line.update(n, structure(), TIMES)
    return stream.getvalue().count("step ")


def test_a_terminal_is_updated_a_few_times_a_second():
    assert 200 <= shown(Terminal(), seconds=100, every=0.01) <= 1000


def test_plain_lines_come_early_and_then_seldom():
    assert shown(io.StringIO(), seconds=20, every=0.1) >= 1
    assert shown(io.StringIO(), seconds=86_400, every=5) <= 10_000


def test_without_a_terminal_lines_are_plain():
    stream = io.StringIO()
    line, now = status(stream)
    now[0] = 11.0
    line.update(1, Structure(0.0, {}), TIMES)
    assert stream.getvalue().endswith("E = 0.0000 eV\n")
    assert "\r" not in stream.getvalue()


class Gone(io.StringIO):
    """A terminal whose window was closed."""

    def write(self, text):
        raise OSError(5, "Input/output error")


@pytest.mark.parametrize("in_place", [True, False])
def test_a_terminal_that_is_gone_is_no_end(tmp_path, in_place):
    terminal = Gone()
    terminal.isatty = lambda: in_place
    line = telemetry.configure(tmp_path / "log", terminal=terminal)
    line._every_s = 0.0
    log = StepLog(1, line)
    for _ in range(3):
        log.record((structure(),), TIMES, ORIGIN)
        structlog.get_logger().info("closed")
    assert (tmp_path / "log").read_text().count("\n") == 6


def test_a_reader_that_leaves_is_no_end_and_no_other_exit_code():
    code = """
import structlog
from deltaserver.serve import telemetry
telemetry.configure(None)
for _ in range(100):
    structlog.get_logger().info("closed")
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    process.stderr.close()
    assert process.wait(120) == 0


def test_a_full_disk_is_told_once_and_its_end_too():
    terminal = io.StringIO()
    telemetry.configure(Path("/dev/full"), terminal=terminal)
    log = structlog.get_logger()
    for _ in range(5):
        StepLog(1, None).record((structure(),), TIMES, ORIGIN)
    told = terminal.getvalue().splitlines()
    assert len(told) == 1
    assert "/dev/full cannot be written (no space left on device); the run goes on" in told[0]
    telemetry.configured().file._fd = os.open(os.devnull, os.O_WRONLY)
    log.info("closed")
    assert "log written again" in terminal.getvalue()


def test_a_log_that_cannot_be_reopened_is_told(tmp_path):
    terminal = io.StringIO()
    (tmp_path / "d").mkdir()
    telemetry.configure(tmp_path / "d" / "log", terminal=terminal)
    (tmp_path / "d").rename(tmp_path / "e")
    telemetry.configured().reopen()
    assert "d/log cannot be reopened: no such file or directory" in terminal.getvalue()
    structlog.reset_defaults()
    assert telemetry.configured() is None
