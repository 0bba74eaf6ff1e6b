"""A number of bytes as an option's value."""

from __future__ import annotations

import click

from deltaserver.errors import InputError
from deltaserver.textio.sizes import parse_size


def as_bytes(_context: click.Context, _option: click.Parameter, text: str | None) -> int | None:
    """Return the bytes of a size, or refuse it in one line that names the option."""
    try:
        return None if text is None else parse_size(text)
    except InputError as error:
        raise click.BadParameter(str(error)) from None
