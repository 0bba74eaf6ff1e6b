"""The command line: exit codes, and one line on stderr for whatever is wrong."""

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import structlog
import yaml

import deltaserver
from deltaserver.cli import app
from deltaserver.errors import GuardError
from deltaserver.model.force_field import ChargedCellWarning
from deltaserver.serve import loading
from tests.builders import (
    COMPLEX,
    ammonia_model,
    binding_model,
    manifest,
    sgdml_model,
    write_directory,
    write_model,
)
from tests.serve.conftest import SECONDS, _no_hang  # noqa: F401
from tests.serve.server_double import ServerDouble, init, message


@pytest.fixture(autouse=True)
def _clean():
    """No test leaves its logging behind."""
    yield
    structlog.reset_defaults()


def refusal(capsys, *arguments, code=2):
    """Run a command line that must fail; return its one line."""
    assert app.main([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = filter(None, captured.err.splitlines())  # click ends the line of a ^C first
    assert line.startswith("deltaserver: ")
    assert "Traceback" not in line
    return line


NOWHERE = ("--socket", "unix:/nowhere/s", "--connect-timeout", "0")


def refused_directory(capsys, directory):
    return refusal(capsys, "--models", directory, *NOWHERE)


@pytest.fixture
def directory(tmp_path):
    return write_directory(tmp_path / "model")


# -- help -------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help(capsys, arguments):
    assert app.main(arguments) == 0
    captured = capsys.readouterr()
    for option in ("--models", "--socket", "--component", "--log-file", "--connect-timeout"):
        assert option in captured.out
    assert captured.err == ""


@pytest.mark.parametrize("group", ["dataset", "models"])
def test_a_group_without_a_command_prints_its_help(capsys, group):
    assert app.main([group]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert captured.out.startswith(f"Usage: deltaserver {group}")
    assert "\nCommands:\n" in captured.out


def test_version(capsys):
    assert app.main(["--version"]) == 0
    assert deltaserver.__version__ in capsys.readouterr().out


# -- command lines ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bogus"], "--bogus"),
        (["bogus"], "bogus"),
        (["--models"], "--models"),
        (["--socket", "unix:x"], "--models is missing"),
        (["--models", "x"], "--socket is missing"),
        (["--log-every", "0"], "--log-every"),
        (["--log-every", "many"], "--log-every"),
        (["--connect-timeout", "-1"], "--connect-timeout"),
        (["--backend", "magic"], "--backend"),
        (["--extras", "all"], "--extras"),
    ],
)
def test_bad_command_lines(capsys, arguments, said):
    assert said in refusal(capsys, *arguments)


@pytest.mark.parametrize(
    "address",
    ["", "delta", "unix:", "inet:localhost", "inet:localhost:0", "inet:localhost:99999", "a\nb",
     "inet::1", "unix:/" + "x" * 200],
)  # fmt: skip
def test_bad_addresses(capsys, model_directory, address):
    assert "--socket" in refusal(capsys, "--models", model_directory, "--socket", address)


def test_a_bad_address_beside_a_good_one(capsys, model_directory):
    line = refusal(capsys, "--models", model_directory, *NOWHERE, "--socket", "tcp:x:1")
    assert "--socket tcp:x:1" in line


def test_a_component_that_the_model_does_not_have(capsys, model_directory):
    line = refusal(capsys, "--models", model_directory, *NOWHERE, "--component", "oxygen")
    assert "component 'oxygen' is not in water-ammonia; it has total, fragments, binding" in line


def test_a_log_file_that_cannot_be_written(capsys, model_directory, tmp_path):
    for path in (tmp_path / "missing" / "run.jsonl", tmp_path):
        line = refusal(capsys, "--models", model_directory, *NOWHERE, "--log-file", path)
        assert f"--log-file {path}" in line


def test_a_backend_that_is_not_installed(capsys, model_directory, monkeypatch):
    monkeypatch.setitem(sys.modules, "sgdml.predict", None)
    monkeypatch.delitem(sys.modules, "deltaserver.model.engines.reference", raising=False)
    line = refusal(capsys, "--models", model_directory, *NOWHERE, "--backend", "sgdml")
    assert "pip install 'deltaserver[train]'" in line


# -- model directories ------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["missing", "x" * 300, "line\nbreak"])
def test_directories_that_are_not_there(capsys, tmp_path, path):
    refused_directory(capsys, tmp_path / path)


@pytest.mark.parametrize(
    "text",
    ["", "- list", "a: [", "a: 1\na: 2", "a: &x 1\nb: *x", "format: !!bool maybe", "\x00",
     "? a\n  b\n: c\nd: |\n  e\n  f\n'g\n\n  h': i"],
)  # fmt: skip
def test_manifests_that_are_none(capsys, directory, text):
    (directory / "model.yaml").write_text(text)
    assert str(directory / "model.yaml") in refused_directory(capsys, directory)


def fragments(**changes):
    data = manifest()
    data["fragments"][0].update(changes)
    return data


ION = {"name": "ion", "atoms": "7", "species": ["Na"], "energy_unit": "eV"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (fragments(atoms="5,1"), "atom 3 in no fragment"),
        (fragments(atoms="5,1,3,0"), "atom 0 is in two fragments"),
        (fragments(atoms="5..3"), "atoms '5..3'"),
        (fragments(atoms="3,1,5"), "atom 3 is O in fragment 'water' and H in the binding model"),
        (fragments(name="full"), "fragments[0].name is 'full'"),
        (fragments(name="ammonia"), "two fragments have the name 'ammonia'"),
        (fragments(model="../water.npz"), "leads out of the model directory"),
        (fragments(model="/etc/passwd"), "leads out of the model directory"),
        (fragments(model="missing.npz"), "no file 'missing.npz'"),
        (fragments(model="model.yaml"), "corrupt or truncated"),
        (fragments(model="ammonia.npz"), "lists 3 atoms, its model has 4"),
        (fragments(colour="red"), "unknown key 'colour'"),
        (manifest() | {"hello\nworld": 1}, "unknown key"),
        (manifest() | {"units": {"energy": "furlong"}}, "units.energy"),
        (manifest() | {"binding": {"model": "water.npz"}}, "the binding model has 3"),
        (manifest() | {"full": {"model": "water.npz"}}, "the full model has 3"),
        (
            manifest() | {"fragments": [*manifest()["fragments"], ION | {"energy": float("nan")}]},
            "energy is nan",
        ),
        (
            manifest() | {"fragments": [*manifest()["fragments"], ION | {"energy": 1.0}]},
            "the fragments have 8 atoms together, the binding model has 7",
        ),
    ],
)
def test_manifests_that_are_wrong(capsys, directory, content, said):
    (directory / "model.yaml").write_text(yaml.safe_dump(content))
    line = refused_directory(capsys, directory)
    assert said in line
    assert str(directory) in line


def truncated(directory):
    path = directory / "binding.npz"
    path.write_bytes(path.read_bytes()[:-1000])


def not_finite(directory):
    x = binding_model()["R_desc"].copy()
    x[3, 2] = np.inf
    write_model(directory / "binding.npz", binding_model(R_desc=x))


def other_elements(directory):
    write_model(directory / "binding.npz", sgdml_model(COMPLEX[::-1]))


def pickled(directory):
    write_model(directory / "binding.npz", binding_model() | {"c": np.array({}, dtype=object)})


def unknown_unit(directory):
    write_model(directory / "binding.npz", binding_model(e_unit="a\nb"))


def a_dataset(directory):
    write_model(directory / "binding.npz", {"type": "d", "z": COMPLEX, "R": np.ones((2, 7, 3))})


def a_task(directory):
    write_model(directory / "binding.npz", binding_model(type="t"))


def single_array(directory):
    with (directory / "binding.npz").open("wb") as file:
        np.save(file, np.arange(7))


@pytest.mark.parametrize(
    "damage",
    [truncated, not_finite, other_elements, pickled, unknown_unit, a_dataset, a_task, single_array],
)
def test_model_files_that_are_wrong(capsys, directory, damage):
    damage(directory)
    assert str(directory) in refused_directory(capsys, directory)


# -- serving ----------------------------------------------------------------------------------


def test_nobody_listens(capsys, model_directory):
    arguments = ["--models", str(model_directory), "--socket", "unix:/nowhere/s"]
    line = refusal(capsys, *arguments, "--connect-timeout", "0.1", "--quiet", code=3)
    assert "nobody listens at unix:/nowhere/s after 0.1 s" in line


def test_a_run_with_a_log_file(capsys, model_directory, positions, tmp_path):
    def script(peer):
        peer.introduce()
        for step in range(5):
            peer.forces(positions + 0.001 * step)
        peer.send(message("exit"))

    server = ServerDouble(f"unix:{tmp_path}/pre_name", script)
    log = tmp_path / "run.jsonl"
    arguments = ["--models", model_directory, "--socket", "unix:name", "--log-file", log,
                 "--sockets-prefix", f"{tmp_path}/pre_", "--log-every", "2"]  # fmt: skip
    assert app.main([str(argument) for argument in arguments]) == 0
    server.finish()
    events = [json.loads(line) for line in log.read_text().splitlines()]
    names = [event["event"] for event in events]
    assert names == ["loaded", "connecting", "connected", "introduced", *["step"] * 3, "closed",
                     "stopped"]  # fmt: skip
    assert [event["seq"] for event in events if event["event"] == "step"] == [0, 2, 4]
    assert events[0]["atoms"] == 7
    assert "introduced" in capsys.readouterr().err


def test_assumed_units_are_told_in_a_line(capsys, directory, tmp_path):
    write_model(directory / "ammonia.npz", ammonia_model(r_unit=None, e_unit=None))
    server = ServerDouble(f"unix:{tmp_path}/s", lambda peer: peer.introduce())
    assert app.main(["--models", str(directory), "--socket", server.address]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "assuming" in line]
    assert len(lines) == 1
    assert (
        "ammonia.npz: no units in the file or the manifest; assuming Ang and kcal/mol" in lines[0]
    )


def test_a_component_in_init_that_the_model_does_not_have(capsys, model_directory, tmp_path):
    def script(peer):
        peer.send(init(" component : oxygen , "))
        return peer.ends()

    server = ServerDouble(f"unix:{tmp_path}/s", script)
    arguments = ("--models", model_directory, "--socket", server.address, "--quiet")
    assert "component 'oxygen'" in refusal(capsys, *arguments, code=2)
    assert server.finish()


def test_garbage_from_a_server(capsys, model_directory, tmp_path):
    server = ServerDouble(f"unix:{tmp_path}/s", lambda peer: peer.send(b"\r\n" * 6))
    arguments = ("--models", model_directory, "--socket", server.address, "--quiet")
    assert "the peer sent the header" in refusal(capsys, *arguments, code=3)


# -- errors -----------------------------------------------------------------------------------


def raising(monkeypatch, error):
    def load(*args):
        raise error

    monkeypatch.setattr(loading, "load", load)


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (GuardError("not\nfinite"), 4, "deltaserver: not finite"),
        (ZeroDivisionError("by\nzero"), 5, "internal error: ZeroDivisionError: by zero; run again"),
        (KeyboardInterrupt(), 130, "deltaserver: interrupted"),
        (KeyboardInterrupt("interrupted at step 3"), 130, "deltaserver: interrupted at step 3"),
        (PermissionError(13, "Permission denied", "/out"), 2, "deltaserver: /out: Permission den"),
        (OSError(28, "No space left on device"), 2, "No space left on device: what is written"),
        (OSError("wire"), 5, "internal error: OSError: wire; run again"),
    ],
)
def test_every_kind_of_error_has_its_code_and_one_line(capsys, monkeypatch, error, code, said):
    raising(monkeypatch, error)
    assert said in refusal(capsys, "--models", "x", *NOWHERE, code=code)


def test_a_warning_is_one_line(capsys):
    assert app.main(["--version"]) == 0
    told = (warnings.formatwarning(f"{kind.__name__} here", kind, "file.py", 3)
            for kind in (ChargedCellWarning, UserWarning))  # fmt: skip
    ours, another = told
    assert ours == "deltaserver: warning: ChargedCellWarning here\n"
    assert another.startswith("file.py:3: UserWarning")


def test_a_reader_that_has_seen_enough_is_no_error(capsys, monkeypatch):
    raising(monkeypatch, BrokenPipeError())
    assert app.main(["--models", "x", *NOWHERE]) == 0
    assert capsys.readouterr().err == ""


def test_debug_shows_the_traceback_before_the_line(capsys, monkeypatch):
    raising(monkeypatch, ZeroDivisionError("here"))
    assert app.main(["--models", "x", *NOWHERE, "--debug"]) == 5
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith("deltaserver: internal error: ZeroDivisionError: here")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--version"], 0),
        (["--models", "missing", "--socket", "unix:x"], 2),
        (["--models", "models/benzene_dimer", "--socket", "unix:/nowhere/s", "--quiet",
          "--connect-timeout", "0"], 3),
    ],
)  # fmt: skip
def test_the_program_itself(arguments, code):
    program = Path(sys.executable).with_name("deltaserver")
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, timeout=SECONDS, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == code
    assert len((done.stdout + done.stderr).splitlines()) == 1
    assert "Traceback" not in done.stderr
