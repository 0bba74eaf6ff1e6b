"""deltaserver: serve and train Δ-sGDML force fields for non-covalent complexes."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from deltaserver.model.composite import CompositeEvaluation, CompositeModel
    from deltaserver.model.sgdml import Evaluation, SGDMLModel

__all__ = ["CompositeEvaluation", "CompositeModel", "Evaluation", "SGDMLModel", "__version__"]
__version__ = "0.2.0"
_HOMES = {
    "CompositeEvaluation": "deltaserver.model.composite",
    "CompositeModel": "deltaserver.model.composite",
    "Evaluation": "deltaserver.model.sgdml",
    "SGDMLModel": "deltaserver.model.sgdml",
}


def __getattr__(name: str) -> Any:
    """Import a class when it is asked for: ``deltaserver --help`` needs no numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
