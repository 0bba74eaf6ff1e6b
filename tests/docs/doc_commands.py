"""The ``deltaserver`` commands that documentation and scripts show, and whether they parse."""

from __future__ import annotations

import contextlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from deltaserver.cli.app import app

PROGRAM = "deltaserver"
ENDS = re.compile(r"^(&&|\|\||\||;|&|<|2?>>?.*)$")  # the shell's, not ours
PLACEHOLDER = re.compile(r"…|\.\.\.$|^\.\.\.|\$")  # stands for more arguments or for a value


def commands(path: Path) -> Iterator[str]:
    """Yield the commands of a page, a script, a notebook or an i-PI input, one line each."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        text = text.replace('\\n",', "").replace('"\n', "\n").replace('    "', "")
    text = re.sub(r"\\\n\s*", " ", text)
    for line in text.splitlines():
        shown = re.match(r"^(?:\s{4,}|\$ )?((?:exec |nice |time )?deltaserver .*)", line.rstrip())
        if shown and (path.suffix != ".md" or line[0] in " $" or " --" in line):
            yield shown[1]
        elif path.suffix == ".md":
            # In a sentence a command may be named without all that it needs.
            yield from (f"{span} …" for span in re.findall(r"`(deltaserver [^`]+)`", line))
        elif run := re.search(r"(?<!from)(?:^|[\s(/])(deltaserver (?:-|[a-z]+ ).*)", line):
            yield run[1]


def arguments(command: str) -> list[str]:
    """Split a command as a shell would; return what deltaserver would get."""
    if command.count('"') % 2:  # the end of an echo
        command = command.rstrip('"')
    lexer = shlex.shlex(command, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = "#"
    words = list(lexer)
    words = words[words.index(PROGRAM) + 1 :]
    for k, word in enumerate(words):
        if ENDS.match(word):
            return words[:k]
        if word.endswith((";", ")")):
            return [*words[:k], word.rstrip(";)")]
    return words


def check(command: str) -> None:
    """Raise click.UsageError unless the command line's parser takes the command."""
    words = arguments(command)
    group: click.Command = app
    context = click.Context(app, info_name=PROGRAM, **app.context_settings)
    while isinstance(group, click.Group) and words and words[0].isidentifier():
        if words[0].isupper():  # COMMAND in a sentence
            return
        if words[0] not in group.commands and "all" in group.commands:
            words = ["all", *words]  # `analyze DIR` is `analyze all DIR`
        _, found, words = group.resolve_command(context, words)
        assert found is not None
        group = found
    if any(PLACEHOLDER.search(word) for word in words):
        known = {opt for param in group.get_params(context) for opt in param.opts}
        known |= {opt for param in group.get_params(context) for opt in param.secondary_opts}
        unknown = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)} - known
        if unknown:
            raise click.UsageError(f"no such option: {', '.join(sorted(unknown))}")
    elif words:  # the name alone stands for the command in a sentence
        with contextlib.suppress(click.exceptions.Exit):  # --help, --version
            group.make_context(PROGRAM, words)


def options() -> set[str]:
    """Return every option of the program and its commands."""
    params = [param for _, command in every_command() for param in command.params]
    return {opt for param in params for opt in [*param.opts, *param.secondary_opts]}


def every_command(
    command: click.Command = app, names: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with the names that lead to it, the program itself first."""
    yield names, command
    if isinstance(command, click.Group):
        for name in command.commands:
            _, sub, _ = command.resolve_command(click.Context(command), [name])
            assert sub is not None
            yield from every_command(sub, (*names, name))
