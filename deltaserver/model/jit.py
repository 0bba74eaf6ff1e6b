"""Whether compiled loops are there, without paying for numba's import before they are used."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

AVAILABLE = importlib.util.find_spec("numba") is not None


@functools.cache
def loops() -> ModuleType:
    """Import :mod:`deltaserver.model.loops`, and numba with it."""
    return importlib.import_module("deltaserver.model.loops")


@functools.cache
def novelty_loops() -> ModuleType:
    """Import :mod:`deltaserver.model.novelty_loops`, and numba with it."""
    return importlib.import_module("deltaserver.model.novelty_loops")


def compiled(function: Callable[..., Any], *, inline: str = "never") -> Callable[..., Any]:
    """Compile on the first call and keep the machine code beside the module.

    Sums may be reordered, which is what makes them vector instructions.
    """
    njit = importlib.import_module("numba").njit
    options = {"cache": True, "nogil": True, "fastmath": {"reassoc", "contract", "nsz"}}
    result: Callable[..., Any] = njit(**options, inline=inline)(function)
    return result
