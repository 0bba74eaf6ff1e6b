"""Every option that takes a number, of every command."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from deltaserver.cli.app import app, main
from deltaserver.cli.options.bias import Windows
from deltaserver.cli.options.common import FiniteRange, Span
from deltaserver.cli.shell.help_page import LazyCommand


def commands(
    command: click.Command, name: str = "deltaserver"
) -> Iterator[tuple[str, click.Command]]:
    command = command.load() if isinstance(command, LazyCommand) else command
    yield name, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            yield from commands(found, f"{name} {child}")


def numeric() -> list[tuple[str, click.Parameter]]:
    kinds = (click.types.FloatParamType, Span, Windows)
    return [
        (f"{name} {option.opts[0]}", option)
        for name, command in commands(app)
        for option in command.params
        if isinstance(option.type, kinds)
    ]


def takes(option: click.Parameter, text: str) -> bool:
    try:
        option.type.convert(text, option, click.Context(app))
    except click.BadParameter:
        return False
    return True


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1:inf", "nan:2", "1:inf:1"])
def test_what_is_no_finite_number_is_refused_by_every_option(text):
    """A limit that is nan is none: no comparison with it is ever true."""
    options = numeric()
    assert len(options) > 60
    assert [where for where, option in options if takes(option, text)] == []


def test_a_default_may_be_infinite():
    assert FiniteRange(min=0.0).convert(float("inf"), None, None) == float("inf")
    assert FiniteRange(min=0.0).convert("2.5", None, None) == 2.5


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["simulate", "--novelty-limit", "nan"], "--novelty-limit"),
        (["--connect-timeout", "nan"], "--connect-timeout"),
        (["--batch-window", "inf"], "--batch-window"),
        (["evaluate", "x", "--displacements", "0,nan"], "--displacements"),
        (["train", "x", "--output", "y", "--sigma", "nan"], "--sigma"),
    ],
)
def test_the_option_is_named(capsys, words, option):
    assert main(words) == 2
    assert option in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "given", "said"),
    [
        ("--timestep", "0.5fs", "'0.5fs' is not a valid number"),
        ("--temperature", "300K", "'300K' is not a valid number"),
        ("--steps", "1e5", "'1e5' is not a valid whole number"),
    ],
)
def test_what_is_no_number_is_told_in_plain_words(capsys, option, given, said):
    assert main(["input", "--models", "nowhere", "--kind", "nvt", option, given]) == 2
    assert said in capsys.readouterr().err
