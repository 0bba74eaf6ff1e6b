"""The command line: one file a subcommand, and what they share."""

from __future__ import annotations


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code. What the script ``deltaserver`` calls."""
    from deltaserver.cli.app import main as run  # who wants one option need not load them all

    return run(arguments)
