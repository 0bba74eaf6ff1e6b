"""Where arrays that are read at every step begin in memory."""

from __future__ import annotations

import numpy as np

from deltaserver.arrays import Floats

LINE = 8  # float64 numbers in a cache line
HUGE_PAGE = 2**18  # float64 numbers in 2 MiB


def aligned(*shape: int) -> Floats:
    """Return zeros from the start of a cache line: a vector across two lines costs two loads."""
    return _from_multiple_of(LINE, shape, LINE)


def lasting(*shape: int) -> Floats:
    """Return zeros that are kept for long: large arrays begin where a huge page may, and fill it.

    Where they lie in memory, and how fast they are read, is then the same in every process.
    """
    size = int(np.prod(shape))
    if size < HUGE_PAGE // 4:
        return aligned(*shape)
    return _from_multiple_of(HUGE_PAGE, shape, 2 * HUGE_PAGE)  # less than 4 MiB gets none


def _from_multiple_of(start: int, shape: tuple[int, ...], least: int) -> Floats:
    size = int(np.prod(shape))
    raw = np.zeros(max(size, least) + start)
    skip = -(raw.ctypes.data // raw.itemsize) % start
    return raw[skip : skip + size].reshape(shape)


def round_up(n: int, multiple: int = LINE) -> int:
    """Return the least multiple that is not less than n."""
    return -(-n // multiple) * multiple
