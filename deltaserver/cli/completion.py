"""``deltaserver completion``: commands, options and names of models at the Tab key."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from deltaserver.cli.options.common import DEBUG

PROGRAM = "deltaserver"
VARIABLE = "_DELTASERVER_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@DEBUG
def completion(shell: str) -> None:
    """Print a script that makes SHELL complete our commands.

    \b
    For bash and zsh, in ~/.bashrc or ~/.zshrc:
        eval "$(deltaserver completion bash)"
    For fish:
        deltaserver completion fish > ~/.config/fish/completions/deltaserver.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None  # click has all three
    root = click.get_current_context().find_root()
    click.echo(kind(root.command, {}, PROGRAM, VARIABLE).source())
