"""Arrays of a model file, checked: what is read is what was meant, or the file is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.errors import ModelFileError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_CODE_POINT = 0x10FFFF
MAX_TEXT_BYTES = 400  # of the name of a unit, four a letter


def text(arrays: Mapping[str, Any], key: str, source: str) -> str:
    """Return a short text of a file.

    Raises:
        ModelFileError: it is none.
    """
    array = np.asarray(arrays[key])
    if array.size != 1 or array.dtype.kind not in "US" or array.nbytes > MAX_TEXT_BYTES:
        raise ModelFileError(f"{source}: {key} is not a short text")
    if array.dtype.kind == "U":
        # numpy hands out code points that Python's strings cannot hold: it crashes, or worse.
        codes = np.frombuffer(array.astype(array.dtype.newbyteorder("=")).tobytes(), np.uint32)
        if (codes > MAX_CODE_POINT).any():
            raise ModelFileError(f"{source}: {key} is not a short text")
    item = array.reshape(()).item()
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)


def floats(arrays: Mapping[str, Any], key: str, source: str) -> Floats:
    """Return an array of a file as finite numbers.

    Raises:
        ModelFileError: it is none.
    """
    try:
        if np.iscomplexobj(arrays[key]):
            raise TypeError
        values = np.asarray(arrays[key], dtype=np.float64)
    except (TypeError, ValueError):
        raise ModelFileError(f"{source}: {key} is not an array of numbers") from None
    if not np.isfinite(values).all():
        bad = int(values.size - np.isfinite(values).sum())
        raise ModelFileError(f"{source}: {key} holds {bad} values that are not finite")
    return values


def integers(arrays: Mapping[str, Any], key: str, source: str) -> Ints:
    """Return an array of a file as whole numbers.

    Raises:
        ModelFileError: it is none.
    """
    values = floats(arrays, key, source)
    with np.errstate(invalid="ignore"):  # what is too large for an integer is not equal to it
        whole = values.astype(np.int64)
    if not np.array_equal(whole, values):
        raise ModelFileError(f"{source}: {key} holds values that are not whole numbers")
    return whole


def scalar(arrays: Mapping[str, Any], key: str, source: str) -> float:
    """Return one number of a file.

    Raises:
        ModelFileError: it is none.
    """
    values = floats(arrays, key, source)
    if values.size != 1:
        raise ModelFileError(f"{source}: {key} has shape {values.shape}; expected one number")
    return float(values.reshape(()))


def expect_shape(source: str, key: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    """Raise ModelFileError unless an array has a shape."""
    if array.shape != shape:
        raise ModelFileError(f"{source}: {key} has shape {array.shape}; expected {shape}")


def numbered_from_zero(values: Ints) -> bool:
    """Return whether values are 0, 1, …, none left out; however large one of them is."""
    found = np.unique(values)
    return np.array_equal(found, np.arange(len(found)))
