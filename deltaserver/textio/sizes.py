"""Numbers of bytes as people write them, the same in every option."""

from __future__ import annotations

import re

from deltaserver.errors import InputError

# As in coreutils: k, M, G, T and KiB, MiB, … are powers of 1024, kB, MB, … of 1000.
_PREFIXES = "kmgt"
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*(?:([kmgt])(i?b)?|b)?", re.IGNORECASE)


def parse_size(text: str) -> int:
    """Return how many bytes ``1000``, ``500k``, ``18GB``, ``1.5 GiB`` … are.

    Raises:
        InputError: it is none of these, or less than one byte.
    """
    match = _SIZE.fullmatch(text.strip())
    number, prefix, unit = match.groups() if match else ("0", None, None)
    base = 1000 if unit and unit.lower() == "b" else 1024
    power = _PREFIXES.index(prefix.lower()) + 1 if prefix else 0
    n_bytes = int(float(number) * base**power)
    if n_bytes < 1:
        raise InputError(f"{text!r} is no size; expected bytes, or such as 500k, 100MB, 18GB")
    return n_bytes
