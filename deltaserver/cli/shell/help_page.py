"""The program as a group of commands: its help, and commands that are imported when called."""

from __future__ import annotations

import importlib

import click

# heading -> parameters' names; what stands nowhere comes last, with --help and --version
HEADINGS = {
    "What to serve, and where": (
        "models",
        "committee",
        "sockets",
        "sockets_prefix",
        "component",
        "extras",
    ),
    "Connection": ("connect_timeout", "reconnect", "reconnect_limit"),
    "Evaluation": ("backend", "device", "precision", "threads", "storage", "batch_window"),
    "Guards": ("structure_check", "extrapolation", "novelty_limit", "uncertainty_limit"),
    "Learning, with --on-extrapolation label": (
        "dataset",
        "calculator",
        "labels_per_stop",
        "max_labels",
        "label_workers",
        "kelvin",
    ),
    "Log": ("log_file", "log_every", "log_max_size", "log_keep", "quiet"),
    "Monitoring": ("metrics_port", "metrics_host", "health_file"),
}
OTHERS = "Other options"


class LazyCommand(click.Command):
    """Stands in for a command until it is called: its name, where it is, one line of help."""

    def __init__(self, name: str, module: str, attribute: str, short_help: str) -> None:
        super().__init__(name, short_help=short_help)
        self.module = module
        self.attribute = attribute

    def load(self) -> click.Command:
        """Import the command itself."""
        command = getattr(importlib.import_module(self.module), self.attribute)
        assert isinstance(command, click.Command)
        return command


class ServeGroup(click.Group):
    """A command group whose own options are many: its help shows them by :data:`HEADINGS`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command and import it; where there is none, say which, and how to serve.

        Raises:
            click.UsageError: no such command.
        """
        if args[0] not in self.commands:
            raise click.UsageError(
                f"no command {args[0]!r}; there are {', '.join(sorted(self.commands))}, and "
                "--models DIR --socket ADDRESS to serve a model",
                ctx,
            )
        name, command, rest = super().resolve_command(ctx, args)
        return name, command.load() if isinstance(command, LazyCommand) else command, rest

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options heading by heading, then the commands."""
        heading_of = {name: heading for heading, names in HEADINGS.items() for name in names}
        rows: dict[str, list[tuple[str, str]]] = {heading: [] for heading in [*HEADINGS, OTHERS]}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record:
                rows[heading_of.get(param.name or "", OTHERS)].append(record)
        for heading, records in rows.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
        self.format_commands(ctx, formatter)
