"""The command line: ``deltaserver --models DIR --socket ADDRESS``, and the subcommands.

Users see one line when something is wrong, and an exit code that tells what kind of thing:
0 clean, 2 bad input, 3 no connection, 4 refused by a guard, 5 internal, 6 a run ended early.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

import deltaserver
from deltaserver.cli.analyze import register_analyze
from deltaserver.cli.check import register_check
from deltaserver.cli.dataset import register_dataset
from deltaserver.cli.dataset_import import register_import
from deltaserver.cli.evaluate import register_evaluate
from deltaserver.cli.help_page import ServeGroup
from deltaserver.cli.improve import register_improve
from deltaserver.cli.options.guards import guard_options, guard_settings
from deltaserver.cli.options.watching import make_watchers, operations_options
from deltaserver.cli.reorder import register_reorder
from deltaserver.cli.simulate import register_simulate
from deltaserver.cli.train import register_train
from deltaserver.compute.blas import blas_threads
from deltaserver.errors import (
    EXIT_INPUT,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    EXIT_OK,
    DeltaserverError,
    InputError,
)
from deltaserver.model.composite import BACKENDS, PRECISIONS
from deltaserver.serve import telemetry
from deltaserver.serve.answer import EXTRAS
from deltaserver.serve.daemon import Daemon, ServeSettings
from deltaserver.serve.loading import announce, load_model
from deltaserver.serve.logfile import Rotation
from deltaserver.serve.transport import DEFAULT_PREFIX, parse_address

PATH = click.Path(path_type=Path)
RECONNECT_LIMIT_S = 600.0


@click.group(
    cls=ServeGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("-m", "--models", type=PATH, help="Model directory with a model.yaml.")
@click.option(
    "-s", "--socket", "sockets", multiple=True, metavar="ADDRESS",
    help="Where i-PI listens: unix:NAME, unix:/path or inet:HOST:PORT. May be repeated.",
)  # fmt: skip
@click.option(
    "--sockets-prefix", default=DEFAULT_PREFIX, show_default=True,
    help="What i-PI puts before NAME; its own --sockets-prefix.",
)  # fmt: skip
@click.option(
    "--component", default="total", show_default=True,
    help="What to serve: total, fragments, binding, full or a fragment's name. "
    "component:NAME in the ffsocket's <parameters> wins for its connection.",
)  # fmt: skip
@click.option(
    "--backend", type=click.Choice(BACKENDS), default="numpy", show_default=True,
    help="Evaluator; sgdml's own predictor is there to compare against.",
)  # fmt: skip
@click.option(
    "--device", metavar="DEVICE",
    help="Evaluate with torch on cpu, cuda, cuda:1, …, or auto: a GPU if there is one.",
)  # fmt: skip
@click.option(
    "--precision", type=click.Choice(PRECISIONS), default="float64", show_default=True,
    help="Of the torch backend; what float32 costs is measured and told.",
)  # fmt: skip
@click.option(
    "--threads", type=click.IntRange(min=1), default=None,
    help="Threads of the evaluation; small models use one.  "
    "[$OMP_NUM_THREADS, else 2 if two cores may be used]",
)  # fmt: skip
@click.option(
    "--connect-timeout", type=click.FloatRange(min=0), default=60.0, show_default=True,
    metavar="SECONDS", help="How long to wait for i-PI to listen.",
)  # fmt: skip
@click.option(
    "--reconnect", is_flag=True,
    help="When a connection ends without EXIT, wait for i-PI to be back and connect again.",
)  # fmt: skip
@click.option(
    "--reconnect-limit", type=click.FloatRange(min=0), metavar="SECONDS",
    help=f"How long i-PI may be away, {RECONNECT_LIMIT_S:g} s unless given; implies --reconnect.",
)  # fmt: skip
@click.option(
    "--batch-window", type=click.FloatRange(min=0), default=0.0, show_default=True,
    metavar="MS", help="How long a request may wait for those of other connections, to be "
    "evaluated with them; what has arrived together is evaluated together anyway.",
)  # fmt: skip
@click.option(
    "--extras", type=click.Choice(EXTRAS), default="summary", show_default=True,
    help="What i-PI gets beside forces: a summary, or every contribution's forces too.",
)  # fmt: skip
@guard_options
@click.option("-l", "--log-file", type=PATH, help="Append JSON lines to this file.")
@click.option(
    "--log-every", type=click.IntRange(min=1), default=1, show_default=True, metavar="STEPS",
    help="Log every so many structures.",
)  # fmt: skip
@operations_options
@click.option("--quiet", is_flag=True, help="Nothing on the terminal but errors.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(deltaserver.__version__, prog_name="deltaserver")
@click.pass_context
def app(context: click.Context, /, debug: bool, **options: Any) -> None:
    """Serve Δ-sGDML force fields to i-PI, train them, and analyse the runs.

    \b
    Serve a model directory to the i-PI that you start beside it, before or after:
        deltaserver --models models/c60 --socket unix:delta --log-file run.jsonl
        i-pi ipi_inputs/c60_nvt.xml
    \b
    Both from one command:
        deltaserver simulate ipi_inputs/c60_nvt.xml --models models/c60 --directory run

    Exit codes: 0 done, 2 bad input, 3 no connection, 4 refused, 5 our fault, 6 a run ended
    early.
    """
    if context.invoked_subcommand is None:
        if not options["models"] and not options["sockets"]:
            click.echo(context.get_help())
            return
        serve(ServeRequest(**options))


@dataclass(frozen=True)
class ServeRequest:
    """What was asked of the daemon, before anything is read; see ``deltaserver --help``."""

    models: Path | None
    sockets: tuple[str, ...]
    sockets_prefix: str
    component: str
    backend: Any
    device: str | None
    precision: Any
    threads: int | None
    connect_timeout: float
    reconnect: bool
    reconnect_limit: float | None
    batch_window: float
    extras: Any
    structure_check: bool
    on_extrapolation: Any
    novelty_limit: float
    uncertainty_limit: float | None
    log_file: Path | None
    log_every: int
    log_max_size: int | None
    log_keep: int
    health_file: Path | None
    metrics_port: int | None
    metrics_host: str
    quiet: bool


def serve(asked: ServeRequest) -> None:
    """Load the models, then connect and serve until i-PI is done."""
    if asked.models is None:
        raise InputError("--models is missing; expected a directory with a model.yaml")
    if not asked.sockets:
        raise InputError("--socket is missing; expected unix:NAME or inet:HOST:PORT")
    addresses = tuple(parse_address(text, asked.sockets_prefix) for text in asked.sockets)
    if asked.device and asked.backend == "sgdml":
        raise InputError("--device is for the torch backend; --backend sgdml runs on the CPU")
    backend = asked.backend
    if backend == "numpy" and (asked.device or asked.precision != "float64"):
        backend = "torch"  # what only torch can do was asked for
    model, notes = load_model(
        asked.models, asked.component, backend, asked.device or "auto", asked.precision,
        asked.threads, asked.quiet,
    )  # fmt: skip
    rotation = Rotation(asked.log_max_size, asked.log_keep) if asked.log_max_size else None
    status = telemetry.configure(asked.log_file, quiet=asked.quiet, rotation=rotation)
    announce(model, asked.models, backend, notes)
    reconnect_limit = asked.reconnect_limit
    if asked.reconnect and reconnect_limit is None:
        reconnect_limit = RECONNECT_LIMIT_S
    guard = guard_settings(
        asked.structure_check,
        asked.on_extrapolation,
        asked.novelty_limit,
        asked.uncertainty_limit,
        asked.log_file,
        single_precision=asked.precision == "float32",
    )
    settings = ServeSettings(
        addresses,
        asked.component,
        asked.extras,
        asked.connect_timeout,
        1e-3 * asked.batch_window,
        reconnect_limit,
        guard,
        keeper=True,
    )
    watchers = make_watchers(asked.health_file, asked.metrics_port, asked.metrics_host)
    with blas_threads(1 if model.compiled else asked.threads or 1):
        Daemon(model, settings, telemetry.StepLog(asked.log_every, status), watchers).run()


for register in (
    register_check,
    register_reorder,
    register_simulate,
    register_dataset,
    register_import,
    register_train,
    register_evaluate,
    register_improve,
    register_analyze,
):
    register(app)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code. Errors become one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        app.main(args=arguments, prog_name="deltaserver", standalone_mode=False)
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.ClickException as error:
        told = error.format_message().rstrip(".")
        asked = getattr(error, "ctx", None)
        see = f"; see: {asked.command_path} --help" if asked else ""
        return _fail(f"{told}{see}", EXIT_INPUT, arguments)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", EXIT_INTERRUPTED, arguments)
    except DeltaserverError as error:
        return _fail(str(error), error.exit_code, arguments)
    except BrokenPipeError:
        return EXIT_OK  # whoever read our output has seen enough
    except OSError as error:
        if error.filename is None:
            return _fail_internally(error, arguments)
        # A directory that cannot be written, a disk that is full: the user's to mend.
        return _fail(f"{error.filename}: {error.strerror}", EXIT_INPUT, arguments)
    except Exception as error:
        return _fail_internally(error, arguments)
    return EXIT_OK


def _fail_internally(error: Exception, arguments: list[str]) -> int:
    message = f"internal error: {type(error).__name__}: {error}; run again with --debug"
    return _fail(message, EXIT_INTERNAL, arguments)


def _fail(message: str, code: int, arguments: list[str]) -> int:
    """Print one line, or with ``--debug`` the traceback before it; return the exit code."""
    if "--debug" in arguments:
        sys.excepthook(*sys.exc_info())
    print(f"deltaserver: {' '.join(message.split())}", file=sys.stderr)
    return code
