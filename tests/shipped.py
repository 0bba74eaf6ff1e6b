"""The models that ship, each loaded once a process: C60@buckycatcher takes two seconds."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from deltaserver import CompositeModel

MODELS = Path(__file__).parents[1] / "models"

_load = CompositeModel.load
_once = functools.cache(_load)


def load(directory: str | Path, *args: Any, **options: Any) -> CompositeModel:
    """Load as ``CompositeModel.load``; what ships, which no test changes, only once."""
    place = Path(directory).resolve()
    if place.parent == MODELS:
        return _once(place, *args, **options)
    return _load(directory, *args, **options)
