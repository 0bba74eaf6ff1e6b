"""Loops compiled by numba, a module for each kind; :mod:`deltaserver.compute.jit` compiles them.

Numba takes a second to import: whoever needs loops loads them at the first call.
"""

from __future__ import annotations

import functools
import importlib
from types import ModuleType


@functools.cache
def load(name: str) -> ModuleType:
    """Import one of these modules, and numba with it."""
    return importlib.import_module(f"deltaserver.model.loops.{name}")
