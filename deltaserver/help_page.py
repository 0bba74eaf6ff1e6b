"""The help of ``deltaserver`` itself: its options under headings."""

from __future__ import annotations

import click

# heading -> parameters' names; what stands nowhere comes last, with --help and --version
HEADINGS = {
    "What to serve, and where": ("models", "sockets", "sockets_prefix", "component", "extras"),
    "Connection": ("connect_timeout", "reconnect", "reconnect_limit"),
    "Evaluation": ("backend", "device", "precision", "threads", "batch_window"),
    "Guards": ("structure_check", "on_extrapolation", "novelty_limit"),
    "Log": ("log_file", "log_every", "log_max_size", "log_keep", "quiet"),
    "Monitoring": ("metrics_port", "metrics_host", "health_file"),
}
OTHERS = "Other options"


class ServeGroup(click.Group):
    """A command group whose own options are many: its help shows them by :data:`HEADINGS`."""

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
