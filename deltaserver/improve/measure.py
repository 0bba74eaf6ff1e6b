"""How wrong a model is on frames of its own dynamics that nothing was trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.evaluation.held_out_errors import evaluate_batches
from deltaserver.improve.doubt import Doubt
from deltaserver.model.composite import CompositeModel
from deltaserver.model.manifest import BOUND_PARTS
from deltaserver.units import KCAL_PER_MOL_EV


def errors_by_part(model: CompositeModel, frames: LabelledFrames) -> dict[str, Any]:
    """Return force and energy errors of the whole and of each part, and how many are covered.

    Forces: MAE and RMSE over components, kcal/mol/Å. Energies: MAE, kcal/mol. ``within`` is the
    share of the whole's force components that differ by less than the calibrated uncertainty,
    where 0.68 should; None of a model that is not calibrated.
    """
    result = evaluate_batches(model, frames.positions, "total")
    parts = result.contributions
    found = {"total": _errors(result.forces - frames.forces, result.energy - frames.energy)}
    for index, spec in enumerate(frames.fragments):
        if len(spec.atoms) < 2:
            continue
        name = next(f.name for f in model.fragments if set(f.atoms.tolist()) == set(spec.atoms))
        force = (parts[name].forces - frames.fragment_forces)[:, spec.atoms]
        found[name] = _errors(force, parts[name].energy - frames.fragment_energies[:, index])
    bound = [parts[name] for name in BOUND_PARTS if name in parts]
    if bound:
        force = np.sum([part.forces for part in bound], axis=0) - frames.binding_forces
        energy = np.sum([part.energy for part in bound], axis=0) - frames.binding_energy
        found["binding"] = _errors(force, energy)
    u = Doubt(model)(frames.positions, result).uncertainty
    within = np.abs(result.forces - frames.forces) <= u[:, None, None]
    return {"parts": found, "within": float(within.mean()) if np.isfinite(u).all() else None}


def _errors(force: Floats, energy: Floats) -> dict[str, float]:
    force, energy = force / KCAL_PER_MOL_EV, energy / KCAL_PER_MOL_EV
    return {
        "force_mae_kcal_mol_ang": float(np.abs(force).mean()),
        "force_rmse_kcal_mol_ang": float(np.sqrt((force**2).mean())),
        "energy_mae_kcal_mol": float(np.abs(energy).mean()),
    }
