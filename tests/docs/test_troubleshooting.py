"""docs/troubleshooting.md explains every message of the package, and nothing that is gone."""

import ast
from pathlib import Path

import pytest

from deltaserver.cli.app import main
from tests.docs.messages import (
    PACKAGE,
    WARNING,
    Entry,
    Message,
    entries,
    exit_code,
    messages,
    messages_of,
)

PAGE = PACKAGE.parent / "docs" / "troubleshooting.md"
ENTRIES = entries(PAGE.read_text(encoding="utf-8"))


def heading_for(message):
    """How the heading of the message's entry begins; empty if any will do."""
    if message.kind == WARNING:
        return "Warnings"
    code = exit_code(message.kind)
    return "" if code is None else f"Exit {code}"


def explained(message):
    heading = heading_for(message)
    return [
        entry
        for entry in ENTRIES
        if entry.heading.startswith(heading) and entry.covers(message.text)
    ]


def test_every_message_has_an_entry():
    missing = [message for message in messages() if not explained(message)]
    lines = [
        f"| `{message.text}` | … |   under ## {heading_for(message) or 'Exit 2'} ({message.where})"
        for message in missing
    ]
    assert not missing, "\n".join(["docs/troubleshooting.md lacks these rows:", *lines])


def test_every_entry_is_of_a_message_that_exists():
    texts = {message.text for message in messages()}
    gone = [entry.pattern for entry in ENTRIES if not any(map(entry.covers, texts))]
    assert not gone, "\n".join(["no message reads like these any more; remove:", *gone])


def test_a_vague_pattern_explains_only_what_it_spells_out():
    vague, clear = (
        Entry("…: … is …", "", ""),
        Entry("…: the root is …; expected <simulation>", "", ""),
    )
    assert vague.covers("…: … is …")
    assert not vague.covers("…: sig is …")
    assert clear.covers("…: the root is <…>; expected <simulation>")


def test_every_entry_says_what_to_do():
    assert [entry.pattern for entry in ENTRIES if len(entry.advice) < 10] == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise DataError(f'{path}: no {what}')", [("…: no …", "DataError")]),
        ("raise DataError('one ' 'line')", [("one line", "DataError")]),
        ("raise DataError('is ' + ('bad' if x else 'worse'))", [("is bad", "DataError")]),
        ("text = f'no {x}'\nraise DataError(text)", [("no …", "DataError")]),
        (
            "def _why(): return f'no {x} here'\nraise DataError(self._why())",
            [("no … here", "DataError")],
        ),
        ("x = GuardError(f'{a}{b} refused')", [("… refused", "GuardError")]),
        ("raise click.BadParameter('expected one')", [("expected one", "BadParameter")]),
        ("warnings.warn(f'{a} assumed', Kind, stacklevel=2)", [("… assumed", "warning")]),
        ("raise MissingExtraError('ASE', 'train')", []),  # it words itself
        ("raise DataError(f'{path}: {error}')", []),  # it passes another message on
        ("raise RuntimeError('never')", []),
        (
            "def error(self, message) -> ManifestError: ...\nraise self.error(f'no {x}')",
            [("…: no …", "ManifestError")],
        ),
    ],
)
def test_messages_are_read_from_the_source(source, expected):
    found = messages_of(ast.parse(source), Path("a.py"), {"MissingExtraError"})
    assert [(message.text, message.kind) for message in found][: len(expected) or None] == expected


def test_exceptions_that_word_themselves_are_read_where_they_are_defined():
    source = "class OwnError(InputError):\n def __init__(self, n):\n  super().__init__(f'no {n}')"
    found = list(messages_of(ast.parse(source), Path("a.py"), {"OwnError"}))
    assert found == [Message("no …", "OwnError", "a.py:3")]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--models", "nowhere", "--socket", "unix:x"],
        ["--models", "nowhere"],
        ["--socket", "unix:x"],
        ["simulate", "nowhere.xml", "--models", "nowhere"],
        ["train", "nowhere", "--output", "x"],
        ["evaluate", "nowhere", "--output", "x"],
        ["dataset", "check", "nowhere"],
        ["analyze", "contributions", "nowhere.jsonl"],
    ],
    ids=" ".join,
)
def test_a_first_mistake_is_explained(arguments, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = main(arguments)
    line = capsys.readouterr().err.strip()
    assert line.count("\n") == 0
    text = line.removeprefix("deltaserver: ")
    hits = [e for e in ENTRIES if e.explains(text) and e.heading.startswith(f"Exit {code}")]
    assert hits, line
