"""Whether compiled loops are there, without paying for numba's import before they are used."""

from __future__ import annotations

import functools
import importlib
import importlib.util
from types import ModuleType

AVAILABLE = importlib.util.find_spec("numba") is not None


@functools.cache
def loops() -> ModuleType:
    """Import :mod:`deltaserver.model.loops`, and numba with it."""
    return importlib.import_module("deltaserver.model.loops")


@functools.cache
def novelty_loops() -> ModuleType:
    """Import :mod:`deltaserver.model.novelty_loops`, and numba with it."""
    return importlib.import_module("deltaserver.model.novelty_loops")
