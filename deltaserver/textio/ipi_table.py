"""Frames as i-PI writes them, as tables of bytes.

i-PI writes every atom as ``%8s %12.5e %12.5e %12.5e``: 48 bytes whose columns never move. Many
lines are one table then, and its numbers one matrix product with the place values of the digits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Floats, Ints

Bytes = NDArray[np.uint8]

LINE_BYTES = 48  # "%8s %12.5e %12.5e %12.5e\n"
NUMBERS_AT = (9, 22, 35)
POINTS = [column + 2 for column in NUMBERS_AT]
EXPONENTS = [column + 8 for column in NUMBERS_AT]
SIGNS = list(NUMBERS_AT)
EXPONENT_SIGNS = [column + 9 for column in NUMBERS_AT]
DIGITS = [column + k for column in NUMBERS_AT for k in (1, 3, 4, 5, 6, 7, 10, 11)]
ZERO, MINUS, POINT, LETTER_E, NEWLINE = b"0-.e\n"
POWERS = 10.0 ** np.arange(5 + 99, 5 - 100, -1)  # [99 + exponent]: what divides 6 digits


def _place_values() -> NDArray[np.float32]:
    """Return the (48, 6) matrix that turns digits into three mantissas and three exponents.

    The sums stay below 2²⁴, so that single precision is exact.
    """
    places = np.zeros((LINE_BYTES, 6), np.float32)
    for k, column in enumerate(NUMBERS_AT):
        for offset, value in zip((1, 3, 4, 5, 6, 7), 10.0 ** np.arange(5, -1, -1), strict=True):
            places[column + offset, k] = value
        places[column + 10, 3 + k], places[column + 11, 3 + k] = 10.0, 1.0
    return places


PLACES = _place_values()
PLACES_OF_ZERO = ZERO * PLACES.sum(axis=0)


def decode_lines(lines: Bytes) -> Floats:
    """Return (n, 3) numbers from (n, 48) bytes of i-PI's atom lines."""
    raw = lines.astype(np.float32) @ PLACES - PLACES_OF_ZERO
    exponent = raw[:, 3:].astype(np.int16)
    np.negative(exponent, where=lines[:, EXPONENT_SIGNS] == MINUS, out=exponent)
    values = raw[:, :3] / POWERS[99 + exponent]
    np.negative(values, where=lines[:, SIGNS] == MINUS, out=values)
    return np.asarray(values, np.float64)


def well_formed(lines: Bytes) -> NDArray[np.bool_]:
    """Tell for each of (…, 48) bytes whether it is an atom line as i-PI writes it."""
    good = lines[..., LINE_BYTES - 1] == NEWLINE
    for columns, letter in ((POINTS, POINT), (EXPONENTS, LETTER_E)):
        for column in columns:
            good &= lines[..., column] == letter
    for column in DIGITS:
        good &= lines[..., column] - np.uint8(ZERO) < 10
    return np.asarray(good)


def headers_alike(headers: Bytes) -> NDArray[np.bool_]:
    """Tell which of (B, n) headers differ from the first in numbers at most."""
    first = headers[0]
    text = ~(((first >= ZERO) & (first <= ZERO + 9)) | (first == MINUS) | (first == ord(" ")))
    same = (headers[:, text] == first[text]).all(axis=1)
    return np.asarray(same & ((headers == NEWLINE).sum(axis=1) == (first == NEWLINE).sum()))


def numbers_at(headers: Bytes, begin: int, end: int) -> Ints:
    """Read the whole number that ends at column ``end`` in (B, n) headers alike."""
    while headers[0, begin - 1] == ord(" "):
        begin -= 1  # a longer number takes the blanks before it
    field = headers[:, begin:end]
    digits = np.where(field == ord(" "), 0, field - np.uint8(ZERO)).astype(np.int64)
    return np.asarray(digits @ 10 ** np.arange(end - begin - 1, -1, -1))
