"""Whose directory it is."""

from __future__ import annotations

import json

import pytest

from deltaserver.errors import InputError
from deltaserver.simulate.directory import (
    keep_old_input,
    link_files,
    lock,
    refuse_strangers,
    set_old_files_aside,
)
from deltaserver.simulate.ipi.input import parse_input
from deltaserver.simulate.record import RunRecord, write_record
from deltaserver.simulate.sweep import write_sweep


def ipi_input(prefix="nvt", name="out"):
    return parse_input(
        "in.xml",
        f"<simulation><output prefix='{prefix}'><properties filename='{name}'>[step]</properties>"
        "<trajectory filename='pos'>positions</trajectory></output>"
        "<ffsocket mode='unix' name='d'><address>a</address></ffsocket><system/></simulation>",
    )


@pytest.mark.parametrize("name", ["input.xml", "RESTART", "nvt.out", "nvt.pos_0.xyz", "i-pi.log"])
def test_a_directory_with_a_file_that_would_be_written_over(tmp_path, name):
    (tmp_path / name).write_text("mine")
    with pytest.raises(InputError, match=f"holds {name}, which a run would write over"):
        refuse_strangers(tmp_path, ipi_input())
    write_record(RunRecord("m", "total", "custom", (), None, None, None, "nvt"), tmp_path)
    refuse_strangers(tmp_path, ipi_input())


def test_other_files_are_no_hindrance(tmp_path):
    for name in ("in.xml", "start.xyz", "nvt.sh", "nvt_old.out"):
        (tmp_path / name).write_text("mine")
    refuse_strangers(tmp_path, ipi_input())
    refuse_strangers(tmp_path / "new", ipi_input())
    set_old_files_aside(tmp_path, ipi_input())
    assert {path.read_text() for path in tmp_path.iterdir()} == {"mine"}
    assert {path.name for path in tmp_path.iterdir()} == {
        "in.xml", "start.xyz", "nvt.sh", "nvt_old.out"
    }  # fmt: skip


def test_another_program_s_run_json(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"mine": 1}))
    with pytest.raises(InputError, match="expected a record of format"):
        refuse_strangers(tmp_path, ipi_input())


@pytest.mark.parametrize(
    ("prefix", "name", "taken"),
    [("run", "json", "run.json"), ("run", "lock", "run.lock"), ("", "RESTART", "RESTART"),
     ("input", "xml", "input.xml"), ("i-pi", "log", "i-pi.log")],
)  # fmt: skip
def test_outputs_called_as_our_own_files(tmp_path, prefix, name, taken):
    with pytest.raises(InputError, match=f"would be called {taken}"):
        refuse_strangers(tmp_path, ipi_input(prefix, name))


def test_an_edited_input_is_kept(tmp_path):
    (tmp_path / "input.xml").write_text("edited")
    keep_old_input(tmp_path, "edited")
    assert (tmp_path / "input.xml").exists()
    keep_old_input(tmp_path, "made absolute")
    assert (tmp_path / "#input.xml#0#").read_text() == "edited"


def test_links_are_made_and_made_anew(tmp_path):
    from dataclasses import replace

    source = tmp_path / "elsewhere.xyz"
    source.write_text("there")
    (tmp_path / "run").mkdir()
    linked = replace(ipi_input(), links=(source,))
    for _ in range(2):
        link_files(tmp_path / "run", linked)
        assert (tmp_path / "run" / "elsewhere.xyz").read_text() == "there"


def test_a_new_run_does_not_wait_for_another_to_end(tmp_path):
    """And then take its place: only who goes on with a run waits for what is left of it."""
    other = lock(tmp_path, 0.3)
    with lock(tmp_path, 0.0), pytest.raises(InputError, match="another run goes on there; wait"):
        other.__enter__()
    with lock(tmp_path, 0.0):
        pass


def test_a_run_and_a_set_of_runs_have_a_directory_each(tmp_path):
    """Else --resume and an analysis would take the one for the other."""
    (tmp_path / "set").mkdir()
    write_sweep(tmp_path / "set", [])
    with pytest.raises(InputError, match="holds a set of runs"):
        refuse_strangers(tmp_path / "set", ipi_input())
    write_sweep(tmp_path / "set", [])
    record = RunRecord("m", "total", "custom", (), None, None, None, "nvt")
    (tmp_path / "run").mkdir()
    write_record(record, tmp_path / "run")
    with pytest.raises(InputError, match="is the directory of a run"):
        write_sweep(tmp_path / "run", [])
