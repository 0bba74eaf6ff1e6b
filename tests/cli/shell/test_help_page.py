"""The help of the program itself: headings, and short lines for every command."""

import subprocess
import sys

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from deltaserver.cli.app import app, main
from deltaserver.cli.shell.help_page import HEADINGS, ServeGroup
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


def test_the_help_says_of_a_command_what_its_own_help_says():
    for name, stand_in in app.commands.items():
        command = stand_in.load()
        assert command.name == name
        told = stand_in.get_short_help_str(limit=1000)
        assert told == command.get_short_help_str(limit=1000)
        assert told.endswith(".")


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_imports_no_command_and_nothing_that_computes(option):
    code = (
        "import sys; from deltaserver.cli.app import main; main([sys.argv[1]]);"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, option], capture_output=True, text=True, check=True
    )
    loaded = set(done.stderr.split())
    assert not loaded & {"numpy", "yaml", "structlog", "deltaserver.model.composite"}
    assert not loaded & {command.module for command in app.commands.values()}


def test_a_shell_completes_commands_without_importing_them_and_options_of_a_command():
    def complete(*words):
        completion = ShellComplete(app, {}, "deltaserver", "_DELTASERVER_COMPLETE")
        return [item.value for item in completion.get_completions([*words[:-1]], words[-1])]

    assert complete("") == sorted(app.commands)
    assert complete("tr") == ["train"]
    assert "--n-train" in complete("train", "--n")
    assert complete("dataset", "bu") == ["build"]


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
