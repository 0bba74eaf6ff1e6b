"""How wrong a model is on frames that it was not trained on, by part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.datasets.frames import LabelledFrames
from deltaserver.evaluation.held_out_errors import (
    OVERALL,
    ComponentErrors,
    FrameErrors,
    component_errors,
    evaluate_batches,
    matched,
)
from deltaserver.improve.doubt import Doubt
from deltaserver.model.composite import CompositeModel
from deltaserver.units import KCAL_PER_MOL_EV


def errors_by_part(model: CompositeModel, frames: LabelledFrames) -> dict[str, Any]:
    """Return force and energy errors of the whole and of each part, and how many are covered.

    Forces: MAE and RMSE over components, kcal/mol/Å. Energies: MAE, kcal/mol. ``within`` is the
    share of the whole's force components that differ by less than the calibrated uncertainty,
    where 0.68 should; None of a model that is not calibrated.
    """
    result = evaluate_batches(model, frames.positions, "total")
    evaluated = matched(model.name, Path(model.name), model, frames)
    found = {part.component: _errors(part) for part in component_errors(evaluated, frames, result)}
    u = Doubt(model)(frames.positions, result).uncertainty
    within = np.abs(result.forces - frames.forces) <= u[:, None, None]
    return {"parts": found, "within": float(within.mean()) if np.isfinite(u).all() else None}


def _errors(part: ComponentErrors) -> dict[str, float]:
    return told(part.energy, part.forces[OVERALL])


def told(energy: FrameErrors, force: FrameErrors) -> dict[str, float]:
    """Return errors as a round's record tells them."""
    return {
        "force_mae_kcal_mol_ang": float(force.absolute.mean()) / KCAL_PER_MOL_EV,
        "force_rmse_kcal_mol_ang": float(np.sqrt(force.squared.mean())) / KCAL_PER_MOL_EV,
        "energy_mae_kcal_mol": float(energy.absolute.mean()) / KCAL_PER_MOL_EV,
    }
