"""``deltaserver models``, and names where a directory is expected."""

import re

import pytest
from click.shell_completion import ShellComplete

from deltaserver.cli import models
from deltaserver.cli.app import app, main
from deltaserver.model.directories import shipped_models
from tests.shipped import MODELS

SMALL = "methane_dimer"
DATA = MODELS.parent / "data"


@pytest.fixture(autouse=True)
def empty_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_list_tells_every_model_with_what_it_is(capsys):
    assert main(["models", "list"]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == ["name", "atoms", "complex", "reference", "MB"]
    assert [row.split()[0] for row in rows] == list(shipped_models())
    c60 = next(row for row in rows if row.startswith("c60 "))
    assert re.fullmatch(
        r"c60 +148 +C60@buckycatcher \(c60 \+ buckycatcher\) +GFN2-xTB +[\d.]+", c60
    )


def test_get_makes_a_copy_that_is_the_same_model(empty_directory, capsys):
    assert main(["models", "get", SMALL]) == 0
    assert main(["models", "get", SMALL, "a/b"]) == 0
    fingerprints = []
    for place in (f"./{SMALL}", "a/b", str(shipped_models()[SMALL])):
        capsys.readouterr()
        assert main(["check", "--models", place]) == 0
        fingerprints += re.findall(r"fingerprint +(\S+)", capsys.readouterr().out)
    assert len(fingerprints) == 3
    assert len(set(fingerprints)) == 1


def test_get_overwrites_nothing(empty_directory, capsys):
    (empty_directory / SMALL).mkdir()
    assert main(["models", "get", SMALL]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["models", "get", "nosuch"]) == 2
    assert "no shipped model is called 'nosuch'" in capsys.readouterr().err


def test_without_the_package_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(models, "shipped_models", dict)
    assert main(["models", "list"]) == 2
    # No package index has it: an extra that asks for it would end in "no matching distribution".
    assert "run: pip install ./models" in capsys.readouterr().err


def test_a_name_will_do_for_a_directory(empty_directory, capsys):
    assert main(["input", "--models", SMALL, "--kind", "nve"]) == 0
    assert "<simulation" in capsys.readouterr().out
    assert main(["input", "--models", "nosuch", "--kind", "nve"]) == 2
    assert "deltaserver models list" in capsys.readouterr().err


def test_names_are_completed():
    completion = ShellComplete(app, {}, "deltaserver", "_DELTASERVER_COMPLETE")

    def values(*words):
        return {item.value for item in completion.get_completions([*words[:-1]], words[-1])}

    assert SMALL in values("--models", "meth")
    assert "c60" not in values("simulate", "--models", "meth")
    assert values("models", "get", "c6") == {"c60"}


def test_what_is_shipped_is_not_changed_by_its_name(capsys):
    shipped = shipped_models()[SMALL]
    known = (shipped / "check.json").read_bytes()
    data = str(DATA / SMALL)
    for words in (
        ["check", "--store", "--models"],
        ["evaluate", data, "-o", "out", "--readme", "--models"],
        ["calibrate", "--dataset", data],
    ):
        assert main([*words, SMALL]) == 2
        assert f"copy it first: deltaserver models get {SMALL}" in capsys.readouterr().err
    assert (shipped / "check.json").read_bytes() == known
    assert main(["models", "get", SMALL]) == 0
    assert main(["check", "--store", "--models", SMALL]) == 0
