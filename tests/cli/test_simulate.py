"""What `deltaserver simulate` and `deltaserver input` refuse, without starting anything."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest
from ase import Atoms

from deltaserver.cli import app
from deltaserver.errors import InputError
from deltaserver.serve.settings import GuardSettings
from deltaserver.serve.signals import STOPPING
from deltaserver.simulate import sweep
from deltaserver.simulate.blowup import Limits
from deltaserver.simulate.recipe import Recipe
from deltaserver.simulate.record import RunRecord, write_record
from deltaserver.simulate.request import RunOptions, RunRequest, read_request, write_request
from deltaserver.simulate.sweep import SweepRun, read_sweep, write_sweep
from tests.builders import COMPLEX, geometry

RECORD = RunRecord("models", "total", "nvt", (100.0,), 0.5, 31415, 1000, "model0_nvt")


@pytest.fixture
def start(tmp_path):
    path = tmp_path / "start.xyz"
    Atoms(COMPLEX, geometry(7, 3)).write(path)
    return path


def refused(capsys, *words, code=2):
    assert app.main([str(word) for word in words]) == code
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected INPUT.xml, or --kind to make one, or --resume"),
        (["--resume"], "no run to be resumed"),
        (["x.xml", "--models", "y"], "x.xml: no such file"),
        (["x.xml", "--kind", "nvt"], "INPUT.xml and --kind: give the one or the other"),
        (["x.xml", "--timestep", "1"], "timestep_fs: only with --kind"),
        (["x.xml", "--temperature", "1"], "temperatures_k: only with --kind"),
        (["--kind", "nvt"], "--models is missing"),
        (["--kind", "nvt", "--temperature", "5", "--temperature", "5"], "one stands there twice"),
        (["--kind", "remd", "--models", "x"], "--kind remd takes two or more --temperature"),
        (["--kind", "nvt", "--models", "nowhere"], "nowhere: no such file"),
    ],
)
def test_command_lines_that_make_no_sense(capsys, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, "simulate", "--directory", tmp_path / "run", *words)


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("nve", ["--pressure", "5"], "--pressure: only with --kind npt"),
        ("nve", ["--beads", "5"], "--beads: only with --kind pimd"),
        ("nve", ["--thermostat", "svr"], "--thermostat: only with --kind nvt, npt, remd"),
        ("nve", ["--tau", "50"], "--tau: only with --kind nvt"),
        ("pimd", ["--thermostat", "none"], "--thermostat: only with --kind nvt"),
        ("nvt", ["--hill-every", "50"], "--hill-every: only with --kind metad"),
        ("nve", ["--variable", "R"], "--variable: only with --kind nvt, umbrella, metad"),
    ],
)
def test_options_of_other_kinds_are_refused(capsys, tmp_path, kind, words, message):
    for command in (["input"], ["simulate", "--directory", tmp_path / "run"]):
        assert message in refused(capsys, *command, "--models", "nowhere", "--kind", kind, *words)


@pytest.mark.parametrize(
    "words", [["--temperature", "50"], ["--beads", "1"], ["--thermostat", "none"]]
)
def test_what_a_kind_does_anyway_may_be_said(capsys, words):
    """A temperature is that of the initial velocities."""
    line = refused(capsys, "input", "--models", "nowhere", "--kind", "nve", *words)
    assert "nowhere: no such file" in line


def test_an_input_needs_a_model(capsys, tmp_path):
    path = tmp_path / "input.xml"
    path.write_text("<simulation><ffsocket><address>a</address></ffsocket></simulation>")
    assert "--models is missing" in refused(capsys, "simulate", path)


def test_input_refuses_what_does_not_fit(capsys, model_directory, start, tmp_path):
    words = ("input", "--models", model_directory)
    assert "ships no structure.xyz" in refused(capsys, *words, "--kind", "nvt")
    line = refused(
        capsys, *words, "--kind", "mts", "--structure", start, "--component", "fragments"
    )
    assert "--kind mts splits fragments from binding" in line
    words_of_window = ("--kind", "umbrella", "--windows", "4", "--spring", "1")
    line = refused(
        capsys, *words, *words_of_window, "--structure", start, "--component", "fragments",
        "--inner-steps", "3",
    )  # fmt: skip
    assert "--inner-steps splits fragments from binding" in line
    line = refused(capsys, *words, "--kind", "nvt", "--structure", start, "--inner-steps", "3")
    assert "--inner-steps: only with --kind mts, umbrella, metad" in line
    line = refused(capsys, *words, "--kind", "nvt", "--structure", start, "--output", "/no/where")
    assert line == "deltaserver: --output /no/where: no such file or directory"
    assert "component 'oxygen'" in refused(
        capsys, *words, "--kind", "nvt", "--component", "oxygen", "--structure", start
    )


def test_input_keeps_a_file_that_is_there(capsys, model_directory, start, tmp_path):
    mine = tmp_path / "input.xml"
    mine.write_text("mine")
    words = ("input", "--models", model_directory, "--kind", "nvt", "--structure", start,
             "--output", mine)  # fmt: skip
    assert refused(capsys, *words) == (
        f"deltaserver: {mine}: is there already; give --force to replace it, or choose another "
        "--output"
    )
    assert mine.read_text() == "mine"
    assert app.main([str(word) for word in (*words, "--force")]) == 0
    assert mine.read_text().rstrip().endswith("</simulation>")


@pytest.mark.parametrize(
    ("kind", "alone"),
    [(("mts",), "1"), (("umbrella", "--windows", "4", "--spring", "1"), "0.5")],
)
def test_the_time_step_is_that_of_the_inner_steps(capsys, model_directory, start, kind, alone):
    words = ["input", "--models", model_directory, "--structure", start, "--kind", *kind]
    for more, expected in (((), alone), (("--inner-steps", 3), "1.5"), (("--timestep", 4), "4")):
        assert app.main([str(word) for word in (*words, *more)]) == 0
        assert f'<timestep units="femtosecond">{expected}<' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("component", "parts"),
    [("total", ["water", "ammonia", "binding"]), ("fragments", ["water", "ammonia"]),
     ("full", ["full"]), ("water", ["water"])],
)  # fmt: skip
def test_outputs_are_those_of_the_component(capsys, model_directory, start, component, parts):
    words = ["input", "--models", model_directory, "--kind", "nvt", "--structure", start,
             "--component", component]  # fmt: skip
    assert app.main([str(word) for word in words]) == 0
    text = capsys.readouterr().out
    found = [line.split('extra_type="')[1].split('"')[0] for line in text.splitlines()
             if "extra_type" in line]  # fmt: skip
    assert found == [f"{part}_energy_ev" for part in parts]


def test_notes_are_told_beside_the_input(capsys, model_directory, start):
    words = ["input", "--models", model_directory, "--structure", start, "--kind", "nvt"]
    words += ["--timestep", "2", "--positions-every", "0.1"]
    assert app.main([str(word) for word in words]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("<!--")
    assert said.err.splitlines() == [
        "note: a time step of 2 fs is long for hydrogens; 0.5 fs is safe",
        "note: --positions-every 0.1 is less than a time step: frames are written every 2 fs",
    ]


def test_a_run_begun_with_other_options_is_not_resumed(capsys, model_directory, start, tmp_path):
    record = replace(RECORD, models=str(model_directory.resolve()))
    words = ["simulate", "--models", model_directory, "--kind", "nvt", "--structure", start,
             "--directory", tmp_path, "--temperature", 100, "--resume"]  # fmt: skip
    write_record(replace(record, timestep_fs=0.25), tmp_path)
    assert "was begun with timestep_fs 0.25, not 0.5" in refused(capsys, *words)
    write_record(replace(record, status="blown up", step=7), tmp_path)
    assert "this run has blown up" in refused(capsys, *words)
    write_record(replace(record, status="finished", step=2000), tmp_path)
    assert "finished at step 2000; nothing to do" in refused(capsys, *words, code=0)
    fewer = refused(capsys, *words, "--steps", 500, code=0)  # more, as some would have it
    assert "nothing to do: --steps counts from the beginning of the run" in fewer


# -- sweeps --------------------------------------------------------------------------------------


def runs_in(directory: Path) -> list[SweepRun]:
    return [
        SweepRun(
            f"{t:g}K",
            directory / f"{t:g}K",
            RunRequest(Path("nowhere"), Recipe("nvt", (t,), steps=10), Path("start.xyz")),
            "x.out",
        )
        for t in (10.0, 300.0)
    ]


def test_a_sweep_is_read_as_it_was_written(tmp_path):
    assert read_sweep(tmp_path) is None
    write_sweep(tmp_path, runs_in(tmp_path))
    assert read_sweep(tmp_path) == runs_in(tmp_path)


def test_another_number_of_steps():
    run = runs_in(Path())[0].with_total_steps(50)
    assert run.total_steps == 50
    assert run.request.recipe == Recipe("nvt", (10.0,), steps=50)


def test_a_request_is_read_as_it_was_written(tmp_path):
    options = RunOptions(5, Limits(2.0), GuardSettings(extrapolation="stop"), "cpu", 2, "full")
    request = replace(runs_in(tmp_path)[0].request, options=options).absolute()
    write_request(tmp_path / "request.json", request)
    assert read_request(tmp_path / "request.json") == request
    (tmp_path / "request.json").write_text("{}")
    with pytest.raises(InputError, match="not a request of ours"):
        read_request(tmp_path / "request.json")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"format": "x"}', '{"format": "deltaserver-sweep/2"}']
)
def test_files_that_are_no_sweep(capsys, tmp_path, text):
    (tmp_path / "sweep.json").write_text(text)
    line = refused(capsys, "simulate", "--resume", "--directory", tmp_path)
    assert "sweep.json: not a sweep of ours" in line


def test_what_is_over_is_passed_over(capsys, tmp_path, monkeypatch):
    """Both runs are over: no process is started, and the end tells of the one that blew up."""
    monkeypatch.setattr(sweep.subprocess, "Popen", None)
    write_sweep(tmp_path, runs_in(tmp_path))
    for name, status, step in (("10K", "finished", 10), ("300K", "blown up", 4)):
        (tmp_path / name).mkdir()
        write_record(replace(RECORD, status=status, step=step, reason="why"), tmp_path / name)
    assert app.main(["simulate", "--resume", "--directory", str(tmp_path)]) == 4
    assert capsys.readouterr().err.splitlines() == [
        "10K: finished at step 10: why; passed over",
        "300K: blown up at step 4: why; passed over",
        "deltaserver: blown up: 300K",
    ]


def test_a_sweep_that_is_interrupted_says_how_to_go_on(capsys, tmp_path, monkeypatch):
    def interrupt(_: float) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    handlers = {number: signal.getsignal(number) for number in STOPPING}
    monkeypatch.setattr(sweep.time, "sleep", interrupt)
    write_sweep(tmp_path, runs_in(tmp_path))
    try:
        assert app.main(["simulate", "--resume", "--quiet", "--directory", str(tmp_path)]) == 130
    finally:  # a process that was interrupted stays deaf to signals; this one goes on
        for number, handler in handlers.items():
            signal.signal(number, handler)
    said = capsys.readouterr().err
    assert f"continue with: deltaserver simulate --resume --directory {tmp_path}" in said


@pytest.mark.parametrize("words", [("--models", "elsewhere"), ("--component", "full")])
def test_a_sweep_begun_with_other_models_is_not_resumed(capsys, tmp_path, words):
    write_sweep(tmp_path, runs_in(tmp_path))
    line = refused(capsys, "simulate", "--resume", "--directory", tmp_path, *words)
    assert f"10K: was begun with {words[0][2:]} " in line


def test_a_run_that_cannot_start_fails_by_itself(capsys, tmp_path):
    write_sweep(tmp_path, runs_in(tmp_path))
    line = refused(capsys, "simulate", "--resume", "--quiet", "--directory", tmp_path)
    assert "10K: failed: nowhere: no such file" in line
    assert "300K: failed: nowhere" in line
    (tmp_path / "10K").mkdir(exist_ok=True)  # a resume that fails leaves the record as it was
    write_record(replace(RECORD, status="stopped", step=4), tmp_path / "10K")
    line = refused(capsys, "simulate", "--resume", "--quiet", "--directory", tmp_path)
    assert "10K: failed: nowhere: no such file" in line
