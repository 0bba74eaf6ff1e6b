"""The prior of three molecules, fitted without a kernel to come, and what it leaves of the labels.

Dispersion and induction by themselves are most of what three molecules have beyond their pairs, at
a fraction of a kernel's cost.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Ints
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.model.many.triples import TripleLabels
from deltaserver.training.components import (
    BINDING,
    Component,
    LabelledSet,
    choose,
    labelled_set,
    without_prior,
)
from deltaserver.training.directory.files import refuse_another
from deltaserver.training.directory.job import TrainingPlan, prior_alone
from deltaserver.training.request import data_md5
from deltaserver.training.selection import Split
from deltaserver.training.three.entry import induction_of, what_model_yaml_has
from deltaserver.units import KCAL_PER_MOL_EV


def fit_alone(
    frames: LabelledFrames,
    available: tuple[Component, ...],
    split: Split,
    plan: TrainingPlan,
    output: Path,
    report: dict[str, Any],
    say: Callable[[str], None],
) -> None:
    """Fit it and enter it into ``report``, in the place of a kernel if that may be overwritten.

    Raises:
        InputError: there is a kernel, or frames or ``plan.induction`` do not allow a fit.
    """
    (component,) = choose(available, BINDING)
    data = labelled_set(frames, component)
    identity = {"dataset": data.name, "dataset_md5": data_md5(data).decode(), "n_train": 0}
    if not plan.overwrite:
        refuse_another(output, report, BINDING, identity)
    prior, fitted, valid = prior_alone(frames, available, component, split, plan)
    assert isinstance(prior, TripleLabels)
    left = without_prior(data, prior)
    say(f"{BINDING}: {len(fitted)} frames, no kernel")
    say(f"{BINDING}: {describe(prior, left, valid)}")
    (output / f"{BINDING}.npz").unlink(missing_ok=True)
    report["components"][BINDING] = {
        "n_train": 0,
        "n_fitted": len(fitted),
        **what_model_yaml_has(prior, None),
        **induction_of(prior, available),
        **_errors(left, valid),
        "identity": {**identity, "n_valid": len(valid)},
    }


def describe(prior: TripleLabels, left: LabelledSet, valid: Ints) -> str:
    """Return what a prior is, and what it leaves of the labels of validation frames.

    Args:
        prior: of three molecules.
        left: the labels without it.
        valid: entries of these.
    """
    parts = []
    if prior.prior is not None:
        parts.append(f"dispersion with R = {prior.prior.radius:g} Å")
    if prior.induction is not None:
        parts.append(f"induction with s = {prior.induction.induction.radius:g} Å")
    known = prior.evaluate(left.positions[valid])
    whole = _rms(left.energy[valid] + known.energy), _rms(left.forces[valid] + known.forces)
    rest = _rms(left.energy[valid]), _rms(left.forces[valid])
    return (
        f"{', '.join(parts)}; of {len(valid)} validation frames' energies (RMS {whole[0]:.4f} "
        f"kcal/mol) {rest[0]:.4f} is left, of forces ({whole[1]:.4f} kcal/mol/Å) {rest[1]:.4f}"
    )


def _rms(values: Any) -> float:
    return float(np.sqrt(np.mean(values**2))) / KCAL_PER_MOL_EV


def _errors(left: LabelledSet, valid: Ints) -> dict[str, float]:
    energy, forces = left.energy[valid] / KCAL_PER_MOL_EV, left.forces[valid] / KCAL_PER_MOL_EV
    return {
        "valid_force_mae_kcal_mol_ang": float(np.abs(forces).mean()),
        "valid_force_rmse_kcal_mol_ang": float(np.sqrt((forces**2).mean())),
        "valid_energy_mae_kcal_mol": float(np.abs(energy).mean()),
        "valid_energy_rmse_kcal_mol": float(np.sqrt((energy**2).mean())),
    }
