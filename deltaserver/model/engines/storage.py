"""In which precision training points are stored: what is read of them bounds the speed.

In single precision half as much is read; all sums stay those of float64. What that costs depends on
how far a model's terms cancel: it is measured, and not done where it costs too much.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.model.engines import Storage
from deltaserver.model.engines.numpy_engine import NumpyEngine
from deltaserver.model.files.parameters import ModelParameters

MAX_LOSS = 1e-4  # of the forces
FRAMES = 8  # of the training frames, that it is measured on


@dataclass(frozen=True)
class Stored:
    """How one model's training points are stored.

    Attributes:
        precision: ``"float64"`` or ``"float32"``.
        loss: what float32 costs of the forces, |ΔF|/|F| of the worst frame; None: not measured.
    """

    precision: str = "float64"
    loss: float | None = None


def choose(
    engine: NumpyEngine, parameters: ModelParameters, storage: Storage
) -> tuple[NumpyEngine, Stored]:
    """Return the engine to use, and what it stores.

    ``"auto"`` leaves native sGDML models alone: they agree with sgdml to the last digits.
    ``"single"`` measures them too. Neither takes what costs more than ``MAX_LOSS``.
    """
    native = parameters.positions is None
    if storage == "double" or (storage == "auto" and native):
        return engine, Stored()
    single = engine.single()
    loss = force_loss(engine, single, parameters)
    if not loss < MAX_LOSS:
        return engine, Stored("float64", loss)
    return single, Stored("float32", loss)


def force_loss(one: NumpyEngine, other: NumpyEngine, parameters: ModelParameters) -> float:
    """Return |ΔF|/|F| between two engines on the model's own frames, the largest of some.

    A native file has no positions, only descriptors: there F is −∂E/∂D.
    """
    some = np.linspace(0, len(parameters.x) - 1, min(FRAMES, len(parameters.x))).astype(int)
    found: list[Floats] = []
    for engine in (one, other):
        if parameters.positions is None:
            found.append(engine.gradient(parameters.x[some]))
        else:
            found.append(engine.evaluate(parameters.positions[some], parameters.lattice, 1.0)[1])
    exact, rounded = (forces.reshape(len(some), -1) for forces in found)
    size = np.linalg.norm(exact, axis=1)
    difference = np.linalg.norm(rounded - exact, axis=1)
    return float((difference / np.maximum(size, np.finfo(np.float64).tiny)).max())
