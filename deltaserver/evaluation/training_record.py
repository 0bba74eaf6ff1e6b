"""What ``deltaserver train`` has noted in a model directory's ``training.json``.

Read for what it tells; a directory without one, or with another tool's, tells nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deltaserver.evaluation.held_out_errors import TrainedPart
from deltaserver.model.directories import REPORT_NAME


def read_report(directory: Path) -> dict[str, Any]:
    """Return the report beside a model directory's manifest; empty where there is none."""
    path = (directory if directory.is_dir() else directory.parent) / REPORT_NAME
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return report if isinstance(report, dict) else {}


def sigma_search(report: Mapping[str, Any], part: TrainedPart) -> dict[str, float | None]:
    """Return the validation force MAE (kcal/mol/Å) of every σ tried for ``part``.

    None where a σ could not be trained; empty where nothing is noted, or of another model than
    the one that is there now.
    """
    try:
        entry = report["components"][part.name]
        if (entry["sigma"], entry["n_perms"]) != (part.sigma, part.n_perms):
            return {}
        several = len({candidate.get("intra_weight", 1.0) for candidate in entry["candidates"]}) > 1
        return {
            _label(candidate, several): candidate.get("valid_force_mae_kcal_mol_ang")
            for candidate in entry["candidates"]
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _label(candidate: Mapping[str, Any], with_weight: bool) -> str:
    sigma = f"{float(candidate['sigma']):g}"
    return f"{sigma} (weight {candidate.get('intra_weight', 1.0):g})" if with_weight else sigma
