"""The options of a long run: rotating logs, a health file, metrics, systemd."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deltaserver.cli.options.common import AT_LEAST_1, PATH, WholeRange, together
from deltaserver.cli.options.sizes import as_bytes
from deltaserver.serve.logfile import KEEP

if TYPE_CHECKING:
    from deltaserver.serve.watchers.watch import Watcher

OPERATIONS_OPTIONS = together(
    click.option(
        "--log-max-size",
        metavar="SIZE",
        callback=as_bytes,
        help="Begin a new log file when it holds so many bytes (100M, 2G).",
    ),
    click.option(
        "--log-keep",
        type=AT_LEAST_1,
        default=KEEP,
        show_default=True,
        metavar="FILES",
        help="How many full log files to keep: FILE.1, FILE.2, …",
    ),
    click.option(
        "--metrics-port",
        type=WholeRange(0, 65535),
        metavar="PORT",
        help="Serve Prometheus metrics over HTTP (extra [metrics]); 0 takes a free port.",
    ),
    click.option(
        "--metrics-host",
        default="127.0.0.1",
        show_default=True,
        metavar="HOST",
        help="Where to listen for Prometheus; others than this machine's own are public.",
    ),
    click.option(
        "--health-file",
        type=PATH,
        metavar="FILE",
        help="Keep a small JSON file that tells state, last step and counts.",
    ),
)


def make_watchers(
    health_file: Path | None, metrics_port: int | None, metrics_host: str
) -> list[Watcher]:
    """Return what watches the daemon: what was asked for, and systemd if it started us.

    Raises:
        InputError: the file cannot be written, or the port is taken.
        MissingExtraError: metrics are asked for without prometheus-client.
    """
    from deltaserver.serve.watchers.health import HealthFile
    from deltaserver.serve.watchers.metrics import Metrics
    from deltaserver.serve.watchers.systemd import from_environment

    watchers: list[Watcher] = []
    if health_file:
        watchers.append(HealthFile(health_file))
    if metrics_port is not None:
        watchers.append(Metrics(metrics_port, metrics_host))
    if notifier := from_environment():
        watchers.append(notifier)
    return watchers
