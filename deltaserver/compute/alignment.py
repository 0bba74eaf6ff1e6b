"""Where arrays that are read at every step begin in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from deltaserver.arrays import Floats

LINE = 8  # float64 numbers in a cache line
HUGE_PAGE = 2**18  # float64 numbers in 2 MiB
LINE_BYTES, HUGE_PAGE_BYTES = 8 * LINE, 8 * HUGE_PAGE


def aligned(*shape: int) -> Floats:
    """Return zeros from the start of a cache line: a vector across two lines costs two loads."""
    return _from_multiple_of(LINE_BYTES, shape, 0, np.dtype(np.float64))


def lasting(*shape: int, dtype: DTypeLike = np.float64) -> NDArray[Any]:
    """Return zeros that are kept for long: large arrays begin where a huge page may, and fill it.

    Where they lie in memory, and how fast they are read, is then the same in every process.
    """
    kind = np.dtype(dtype)
    if int(np.prod(shape)) * kind.itemsize < HUGE_PAGE_BYTES // 4:
        return _from_multiple_of(LINE_BYTES, shape, 0, kind)
    return _from_multiple_of(HUGE_PAGE_BYTES, shape, 2 * HUGE_PAGE_BYTES, kind)


def _from_multiple_of(
    start: int, shape: tuple[int, ...], least: int, kind: np.dtype[Any]
) -> NDArray[Any]:
    """Return zeros from a multiple of ``start`` bytes; less than 4 MiB gets no huge page."""
    size = int(np.prod(shape))
    raw = np.zeros((max(size * kind.itemsize, least) + start) // kind.itemsize, dtype=kind)
    skip = -raw.ctypes.data % start // kind.itemsize
    return raw[skip : skip + size].reshape(shape)


def round_up(n: int, multiple: int = LINE) -> int:
    """Return the least multiple that is not less than n."""
    return -(-n // multiple) * multiple
