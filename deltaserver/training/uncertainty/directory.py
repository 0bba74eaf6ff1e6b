"""The uncertainty of the models in a directory: what each is calibrated on, and its file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Ints
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.errors import DataError
from deltaserver.model.composite import CompositeModel
from deltaserver.model.files.archive import packed, read_arrays
from deltaserver.model.files.parameters import ModelParameters, parse_parameters
from deltaserver.model.files.uncertainty import (
    UNCERTAINTY_KEYS,
    UncertaintyBlock,
)
from deltaserver.model.many.manifest import is_of_many
from deltaserver.model.prior import PairPrior, Prior
from deltaserver.model.sgdml import SGDMLModel, resolve_units
from deltaserver.textio.journal import write_atomically
from deltaserver.training.components import (
    BINDING,
    Component,
    LabelledSet,
    components,
    labelled_set,
    without_prior,
)
from deltaserver.training.directory.files import read_report, split_settings
from deltaserver.training.selection import split_in_time
from deltaserver.training.uncertainty.calibrate import Residuals, calibrate
from deltaserver.training.warm_start import read_warm_start

MAX_FRAMES = 200  # more tell little more, and each is evaluated
BATCH = 16  # frames evaluated at once


@dataclass(frozen=True)
class Checked:
    """The labels that a model is calibrated on.

    Attributes:
        data: of its component (eV, Å), of the binding less the prior.
        valid: entries that it has neither trained on nor will be tested on.
        prior: of the binding, or None.
    """

    data: LabelledSet
    valid: Ints
    prior: Prior | None = None


def with_uncertainty(path: Path, known: Checked) -> tuple[bytes, UncertaintyBlock | None]:
    """Return a model file's content, calibrated, and the block; as it is where that cannot be done.

    Raises:
        ModelFileError: the file is no model.
    """
    arrays = read_arrays(path)
    parameters = parse_parameters(arrays, str(path))
    some = known.valid[spread_evenly(len(known.valid), MAX_FRAMES)]
    block = calibrate(parameters, _residuals(parameters, known, some)) if len(some) else None
    if block is None:
        return path.read_bytes(), None
    kept = {key: array for key, array in arrays.items() if key not in UNCERTAINTY_KEYS}
    return packed(kept | block.arrays()), block


def spread_evenly(count: int, most: int) -> Ints:
    """Return up to ``most`` places of ``count``, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _residuals(parameters: ModelParameters, known: Checked, some: Ints) -> Residuals:
    native = resolve_units(parameters)
    unit = native.energy_ev / native.length_ang
    model = SGDMLModel(parameters, native)
    positions = known.data.positions[some]
    batches = range(0, len(some), BATCH)
    forces = np.concatenate([model.evaluate(positions[k : k + BATCH]).forces for k in batches])
    errors = forces - known.data.forces[some]
    if known.prior is not None:
        forces = forces + known.prior.evaluate(positions).forces
    return Residuals(positions / native.length_ang, forces / unit, errors / unit)


def calibrate_directory(
    directory: Path, frames: LabelledFrames, say: Callable[[str], None] = lambda line: None
) -> list[str]:
    """Calibrate the models of a directory that is there; return the names of those that are.

    Validation frames are those of ``training.json``'s split of ``frames``, its own training
    points left out. Forces do not change, nor does the fingerprint.

    Raises:
        InputError: the directory cannot be loaded, or its atoms are not those of ``frames``.
    """
    if frames.order == 3 or is_of_many(directory):
        raise DataError(
            f"{directory}: an uncertainty is calibrated of one complex, and many molecules have "
            "none; novelty guards them"
        )
    model = CompositeModel.load(directory)
    if not np.array_equal(model.numbers, frames.numbers):
        raise DataError(f"{directory}: its atoms are not those of {frames.name}")
    report = read_report(directory)
    done = []
    for component in components(frames):
        path = directory / f"{component.name}.npz"
        if component.is_lone_atom or not path.exists():
            continue
        known = _known(path, component, frames, report, model.prior)
        content, block = with_uncertainty(path, known)
        if block is None:
            say(f"{component.name}: too few validation frames or points to calibrate on")
            continue
        write_atomically(path, content)
        done.append(component.name)
        say(
            f"{component.name}: u = {block.scale:.3g} s^{block.spread_exponent:.2f} "
            f"F^{block.force_exponent:.2f} kcal/mol/Å, from {len(known.valid)} frames"
        )
    return done


def _known(
    path: Path,
    component: Component,
    frames: LabelledFrames,
    report: Mapping[str, Any],
    prior: PairPrior | None,
) -> Checked:
    """Return a component's labels and which of them validate, by what its training tells."""
    split = split_in_time(frames.trajectory, frames.step, **split_settings(report, component.name))
    data = labelled_set(frames, component)
    valid = np.flatnonzero(np.isin(data.frame, split.valid))
    with contextlib.suppress(DataError):  # of other data: none of its points is here
        valid = np.setdiff1d(valid, read_warm_start(path, data).entries)
    if component.name != BINDING or prior is None:
        return Checked(data, valid)
    return Checked(without_prior(data, prior), valid, prior)
