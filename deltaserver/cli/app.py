"""The command line: ``deltaserver --models DIR --socket ADDRESS``, and the subcommands.

Users see one line when something is wrong, and an exit code that tells what kind of thing:
0 clean, 2 bad input, 3 no connection, 4 refused by a guard, 5 internal, 6 a run ended early.
"""

from __future__ import annotations

import errno
import sys
import warnings
from typing import Any

import click

import deltaserver
from deltaserver.cli.options.common import (
    AT_LEAST_1,
    DEBUG,
    DEVICE,
    PATH,
    QUIET,
    STORAGE,
    FiniteRange,
    take,
)
from deltaserver.cli.options.directories import MODEL_DIRECTORY
from deltaserver.cli.options.guards import GUARD_OPTIONS
from deltaserver.cli.options.learning import LEARNING_OPTIONS, LearningOptions
from deltaserver.cli.options.watching import OPERATIONS_OPTIONS
from deltaserver.cli.shell.extras import missing_extra
from deltaserver.cli.shell.help_page import LazyCommand, ServeGroup
from deltaserver.errors import (
    EXIT_INPUT,
    EXIT_INTERNAL,
    EXIT_INTERRUPTED,
    EXIT_OK,
    DeltaserverError,
)
from deltaserver.model.engines import BACKENDS, PRECISIONS
from deltaserver.serve.settings import EXTRAS, RECONNECT_LIMIT_S, GuardSettings
from deltaserver.serve.transport import DEFAULT_PREFIX

# What click raises since 8.2; before, it prints the help itself.
NO_COMMAND = getattr(click.exceptions, "NoArgsIsHelpError", ())
_formatwarning = warnings.formatwarning  # as Python has it
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)  # of which the system names no file

# Each with the first sentence of its own help, so that ours imports none of them.
COMMANDS = [
    LazyCommand(name, f"deltaserver.cli.{module[0] if module else name}", attribute, short_help)
    for name, attribute, short_help, *module in (
        ("analyze", "analyze", "Analyse runs: numbers, figures and a report."),
        ("assemble", "assemble", "Make a model of many molecules of two.", "structures.assemble"),
        ("calibrate", "calibrate", "Calibrate how wrong the forces of MODELS may be."),
        ("check", "check", "Verify a model directory and print its fingerprint."),
        ("completion", "completion", "Print a script that makes SHELL complete our commands."),
        ("dataset", "dataset", "Sample a complex, label it and its fragments, write datasets."),
        ("evaluate", "evaluate", "Test models on held-out frames of DATASET: full against Δ."),
        ("improve", "improve", "Let MODELS learn from their own dynamics."),
        ("input", "input_command", "Write an i-PI input for a model directory."),
        ("models", "models", "List the shipped models, or copy one."),
        (
            "pes-path",
            "pes_path",
            "Print the file that i-PI's <pes_path> takes.",
            "input",
        ),
        (
            "reorder",
            "reorder",
            "Write the structures of FILE with their atoms in a model's order.",
            "structures.reorder",
        ),
        (
            "simulate",
            "simulate",
            "Run i-PI and serve it, both from this one command.",
            "simulate.command",
        ),
        ("train", "train", "Train fragments, binding and full on DATASET."),
    )
]


@click.group(
    cls=ServeGroup,
    commands=COMMANDS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "-m",
    "--models",
    type=MODEL_DIRECTORY,
    metavar="DIR",
    help="Model directory, with a model.yaml, or the name of a shipped model.",
)
@click.option(
    "--committee",
    type=MODEL_DIRECTORY,
    multiple=True,
    metavar="DIR",
    help="Another model of the same molecule; may be repeated. The mean is served, and what each "
    "says is in the extras, as i-PI's ffcommittee reads it.",
)
@click.option(
    "-s",
    "--socket",
    "sockets",
    multiple=True,
    metavar="ADDRESS",
    help="Where i-PI listens: unix:NAME, unix:/path or inet:HOST:PORT. May be repeated.",
)
@click.option(
    "--sockets-prefix",
    default=DEFAULT_PREFIX,
    show_default=True,
    help="What i-PI puts before NAME; its own --sockets-prefix.",
)
@click.option(
    "--component",
    default="total",
    show_default=True,
    help="What to serve: total, fragments, binding, full or a fragment's name. "
    "component:NAME in the ffsocket's <parameters> wins for its connection.",
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="numpy",
    show_default=True,
    help="Evaluator; sgdml's own predictor is there to compare against.",
)
@DEVICE
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float64",
    show_default=True,
    help="Of the torch backend; what float32 costs is measured and told.",
)
@click.option(
    "--threads",
    type=AT_LEAST_1,
    default=None,
    help="Threads of the evaluation; small models use one.  "
    "[$OMP_NUM_THREADS, else up to 4, as measured at the start]",
)
@STORAGE
@click.option(
    "--connect-timeout",
    type=FiniteRange(min=0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for i-PI to listen.",
)
@click.option(
    "--reconnect",
    is_flag=True,
    help="When a connection ends without EXIT, wait for i-PI to be back and connect again.",
)
@click.option(
    "--reconnect-limit",
    type=FiniteRange(min=0),
    metavar="SECONDS",
    help=f"How long i-PI may be away, {RECONNECT_LIMIT_S:g} s unless given; implies --reconnect.",
)
@click.option(
    "--batch-window",
    type=FiniteRange(min=0),
    default=0.0,
    show_default=True,
    metavar="MS",
    help="How long a request may wait for those of other connections, to be "
    "evaluated with them; what has arrived together is evaluated together anyway.",
)
@click.option(
    "--extras",
    type=click.Choice(EXTRAS),
    default="summary",
    show_default=True,
    help="What i-PI gets beside forces: a summary, or every contribution's forces too.",
)
@GUARD_OPTIONS
@LEARNING_OPTIONS
@click.option("-l", "--log-file", type=PATH, help="Append JSON lines to this file.")
@click.option(
    "--log-every",
    type=AT_LEAST_1,
    default=1,
    show_default=True,
    metavar="STEPS",
    help="Log every so many structures.",
)
@OPERATIONS_OPTIONS
@QUIET
@DEBUG
@click.version_option(deltaserver.__version__, prog_name="deltaserver")
@click.pass_context
def app(context: click.Context, /, **options: Any) -> None:
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
        from deltaserver.cli.serve import ServeRequest, serve

        guard = take(GuardSettings, options)
        learning = take(LearningOptions, options)
        serve(ServeRequest(guard=guard, learning=learning, **options))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return the exit code. Errors become one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    warnings.formatwarning = _warned
    try:
        app.main(args=arguments, prog_name="deltaserver", standalone_mode=False)
    except click.exceptions.Exit as request:
        return request.exit_code
    except click.ClickException as error:
        if isinstance(error, NO_COMMAND):  # of a group that has been given none: its help
            click.echo(error.format_message())
            return EXIT_OK
        told = error.format_message().rstrip(".")
        asked = getattr(error, "ctx", None)
        see = f"; see: {asked.command_path} --help" if asked else ""
        return _fail(f"{told}{see}", EXIT_INPUT, arguments)
    except (click.Abort, KeyboardInterrupt) as stop:
        # click puts its own in the place of one that says how to go on.
        said = str(stop) or str(stop.__cause__ or "") or "interrupted"
        return _fail(said, EXIT_INTERRUPTED, arguments)
    except DeltaserverError as error:
        return _fail(str(error), error.exit_code, arguments)
    except BrokenPipeError:
        return EXIT_OK  # whoever read our output has seen enough
    except OSError as error:
        # A directory that cannot be written, a disk that is full: the user's to mend.
        if error.filename is not None:
            return _fail(f"{error.filename}: {error.strerror}", EXIT_INPUT, arguments)
        if error.errno in NO_ROOM:
            return _fail(f"{error.strerror}: what is written goes to a full disk, or one over "
                         "its quota; make room and give the same command again",
                         EXIT_INPUT, arguments)  # fmt: skip
        return _fail_internally(error, arguments)
    except ModuleNotFoundError as error:
        if missing := missing_extra(error, arguments):
            return _fail(str(missing), missing.exit_code, arguments)
        return _fail_internally(error, arguments)
    except Exception as error:
        return _fail_internally(error, arguments)
    return EXIT_OK


def _warned(
    message: Warning | str, category: type[Warning], filename: str, lineno: int,
    line: str | None = None,
) -> str:  # fmt: skip
    """Return a warning of ours as one line, any other as Python shows it."""
    if category.__module__.startswith(f"{deltaserver.__name__}."):
        return f"deltaserver: warning: {message}\n"
    return _formatwarning(message, category, filename, lineno, line)


def _fail_internally(error: Exception, arguments: list[str]) -> int:
    message = f"internal error: {type(error).__name__}: {error}; run again with --debug"
    return _fail(message, EXIT_INTERNAL, arguments)


def _fail(message: str, code: int, arguments: list[str]) -> int:
    """Print one line, or with ``--debug`` the traceback before it; return the exit code."""
    if "--debug" in arguments:
        sys.excepthook(*sys.exc_info())
    print(f"deltaserver: {' '.join(message.split())}", file=sys.stderr)
    return code
