"""The help of the program itself: headings, and short lines for every command."""

import click
import pytest
from click.testing import CliRunner

from deltaserver.cli.app import app, main
from deltaserver.cli.help_page import HEADINGS, ServeGroup
from tests.docs.doc_commands import every_command


def help_of(command, *names):
    result = CliRunner().invoke(command, [*names, "--help"])
    assert result.exit_code == 0
    return result.output


def test_every_option_stands_under_one_heading():
    text = help_of(app)
    for param in app.params:
        assert text.count(f"{max(param.opts, key=len)} ") >= 1
    for heading in HEADINGS:
        assert f"\n{heading}:\n" in text
    assert (
        text.index("What to serve, and where:") < text.index("-m, --models") < text.index("\nLog:")
    )
    assert text.index("Other options:") < text.index("--version") < text.index("\nCommands:\n")


def test_what_has_no_heading_comes_last_and_empty_headings_do_not_show():
    @click.group(cls=ServeGroup)
    @click.option("--new")
    @click.option("--models")
    def small(new, models):
        pass

    lines = help_of(small).split()
    assert lines.index("--models") < lines.index("Other") < lines.index("--new")
    assert "Guards:" not in lines


@pytest.mark.parametrize(
    "names", [names for names, command in every_command() if isinstance(command, click.Group)]
)
def test_no_command_is_told_in_a_sentence_that_is_cut(names):
    commands = help_of(app, *names).partition("\nCommands:\n")[2]
    assert commands
    assert "...\n" not in commands.replace("STRUCTURE...\n", "")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["serve"], "no command 'serve'; there are analyze, "),
        (["train", "data"], "see: deltaserver train --help"),
        (["dataset", "biuld"], "see: deltaserver dataset --help"),
        (["--sokcet", "x"], "see: deltaserver --help"),
        (["train", "d", "-o", "x", "--threads", "two"], "see: deltaserver train --help"),
    ],
)
def test_a_wrong_command_line_is_told_where_to_look(arguments, line, capsys):
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1
