"""The options of a long run: rotating logs, a health file, metrics, systemd."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from deltaserver.serve.logfile import KEEP
from deltaserver.serve.watchers.health import HealthFile
from deltaserver.serve.watchers.metrics import Metrics
from deltaserver.serve.watchers.systemd import from_environment
from deltaserver.serve.watchers.watch import Watcher

SIZE_UNITS = {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30}
Command = TypeVar("Command", bound=Callable[..., Any])


def parse_size(context: click.Context, option: click.Parameter, text: str | None) -> int | None:
    """Return a number of bytes from such as ``500k``, ``100M`` or ``2G``."""
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,11})([kMG]?)", text)
    if not match:
        raise click.BadParameter(f"{text!r} is no size; expected bytes, or such as 500k, 100M, 2G")
    return int(match[1]) * SIZE_UNITS[match[2]]


def operations_options(command: Command) -> Command:
    """Add the options to the serving command."""
    for option in (
        click.option(
            "--health-file", type=click.Path(path_type=Path), metavar="FILE",
            help="Keep a small JSON file that tells state, last step and counts.",
        ),
        click.option(
            "--metrics-host", default="127.0.0.1", show_default=True, metavar="HOST",
            help="Where to listen for Prometheus; others than this machine's own are public.",
        ),
        click.option(
            "--metrics-port", type=click.IntRange(0, 65535), metavar="PORT",
            help="Serve Prometheus metrics over HTTP (extra [metrics]); 0 takes a free port.",
        ),
        click.option(
            "--log-keep", type=click.IntRange(min=1), default=KEEP, show_default=True,
            metavar="FILES", help="How many full log files to keep: FILE.1, FILE.2, …",
        ),
        click.option(
            "--log-max-size", metavar="SIZE", callback=parse_size,
            help="Begin a new log file when it holds so many bytes (100M, 2G).",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def make_watchers(
    health_file: Path | None, metrics_port: int | None, metrics_host: str
) -> list[Watcher]:
    """Return what watches the daemon: what was asked for, and systemd if it started us.

    Raises:
        InputError: the file cannot be written, or the port is taken.
        MissingExtraError: metrics are asked for without prometheus-client.
    """
    watchers: list[Watcher] = []
    if health_file:
        watchers.append(HealthFile(health_file))
    if metrics_port is not None:
        watchers.append(Metrics(metrics_port, metrics_host))
    if notifier := from_environment():
        watchers.append(notifier)
    return watchers
