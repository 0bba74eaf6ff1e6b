"""A number of bytes as an option's value."""

from __future__ import annotations

import click

from deltaserver.errors import InputError
from deltaserver.textio.sizes import parse_size

LEAST_MEMORY = 1_000_000  # bytes: what is less was meant in other units


def as_bytes(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    """Return the bytes of a size, or refuse it in one line that names the option."""
    try:
        return None if text is None else parse_size(text)
    except InputError as error:
        raise click.BadParameter(str(error)) from None


def as_memory(context: click.Context, option: click.Parameter, text: str | None) -> int | None:
    """Return the bytes of memory that may be used, and refuse what is too little for anything."""
    n_bytes = as_bytes(context, option, text)
    if n_bytes is not None and n_bytes < LEAST_MEMORY:
        raise click.BadParameter(f"{text!r} are {n_bytes} bytes; give it with its unit: 18GB")
    return n_bytes
