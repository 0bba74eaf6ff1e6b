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


@functools.cache
def guard_loops() -> ModuleType:
    """Import :mod:`deltaserver.model.guard_loops`, and numba with it."""
    return importlib.import_module("deltaserver.model.guard_loops")


def compiled(
    function: Callable[..., Any],
    *,
    inline: str = "never",
    reorder: bool = True,
    allocates: bool = True,
) -> Callable[..., Any]:
    """Compile on the first call and keep the machine code beside the module.

    A division by zero gives infinity, as in NumPy: a test for it would keep loops from becoming
    vector instructions.

    Args:
        function: what to compile.
        inline: ``"always"`` puts it into its callers before they are compiled.
        reorder: sums may be reordered, which is what makes them vector instructions.
        allocates: False for functions that make no arrays: views then cost nothing, which else
            count their references, a locked instruction each.
    """
    njit = importlib.import_module("numba").njit
    fastmath = {"contract", "nsz"} | ({"reassoc"} if reorder else set())
    options = {"cache": True, "nogil": True, "fastmath": fastmath, "error_model": "numpy"}
    result: Callable[..., Any] = njit(**options, inline=inline, _nrt=allocates)(function)
    return result
