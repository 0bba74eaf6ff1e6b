"""Types of options, and the options that nearly every command has."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import click

from deltaserver.errors import InputError
from deltaserver.model.engines import STORAGES

Command = TypeVar("Command", bound=Callable[..., Any])
Request = TypeVar("Request")
Decorator = Callable[[Command], Command]


def finite(text: str) -> float:
    """Parse a number; nan and inf are none (ValueError)."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(text)
    return number


class Finite(click.types.FloatParamType):
    """A number; "nan" and "inf" are none: every comparison with a limit of nan is false."""

    name = "number"  # in messages and help; click says "float range"

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        """Parse a number; defaults, which are numbers already, may be infinite."""
        number: float = super().convert(value, param, ctx)
        if isinstance(value, str) and not math.isfinite(number):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return number


class FiniteRange(Finite, click.FloatRange):
    """A number between limits."""

    name = "number"


class WholeRange(click.IntRange):
    """A whole number between limits."""

    name = "whole number"


PATH = click.Path(path_type=Path)
POSITIVE = FiniteRange(min=0.0, min_open=True)
AT_LEAST_0 = WholeRange(min=0)
AT_LEAST_1 = WholeRange(min=1)

DEVICE = click.option(
    "--device",
    metavar="DEVICE",
    help="Evaluate with torch on cpu, cuda, cuda:1, …, or auto: a GPU if there is one.",
)
STORAGE = click.option(
    "--storage",
    type=click.Choice(STORAGES),
    default="auto",
    show_default=True,
    envvar="DELTASERVER_STORAGE",
    help="Of training points. auto: in single precision where that costs less than 1e-4 of the "
    "forces, native sGDML files excepted; single: those too; double: none. Sums stay double.  "
    "[$DELTASERVER_STORAGE]",
)
QUIET = click.option("--quiet", is_flag=True, help="Nothing on the terminal but errors.")
FORCE = click.option(
    "--force",
    "--overwrite",
    "force",
    is_flag=True,
    help="Replace the file of --output, if it is there.",
)
# Read by deltaserver.cli.app.main, which is there before a command's options are and after.
DEBUG = click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks.")


class Span(click.ParamType[tuple[float, float]]):
    """``LOW:HIGH``, two numbers."""

    name = "low:high"

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[float, float]:
        """Parse two numbers in ascending order."""
        if isinstance(value, tuple):
            return value
        try:
            low, high = (finite(part) for part in str(value).split(":"))
        except ValueError:
            self.fail(f"{value!r} is not LOW:HIGH, such as 2:8", param, ctx)
        if not low < high:
            self.fail(f"{value!r}: {low:g} is not below {high:g}", param, ctx)
        return low, high


def integers(_context: click.Context, _option: click.Parameter, text: str) -> tuple[int, ...]:
    """Return the numbers of an option's list."""
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise click.BadParameter(f"{text!r}; expected numbers such as 3,4") from None


def tell(notes: Iterable[str]) -> None:
    """Print what a user may not expect, each once a command however often it is found."""
    told = click.get_current_context().meta.setdefault("deltaserver.told", set())
    for note in notes:
        if note not in told:
            told.add(note)
            click.echo(f"note: {note}", err=True)


def refuse_existing(output: Path, force: bool) -> None:
    """Refuse to replace a file that is there, unless that was asked for (InputError)."""
    if output.is_file() and not force:
        raise InputError(
            f"{output}: is there already; give --force to replace it, or choose another --output"
        )


def together(*options: Decorator[Any]) -> Decorator[Any]:
    """Return one decorator for several options, in this order."""

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def take(kind: type[Request], options: dict[str, Any]) -> Request:
    """Make a frozen request of those of a command's options that are its fields.

    They are taken out of ``options``: what is left is another request's.
    """
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: options.pop(name) for name in names if name in options})
