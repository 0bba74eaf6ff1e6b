"""sgdml's own predictor behind our interface: ``--backend sgdml``, to compare against.

Needs the extra ``[train]``. It expands the training set S times in memory and knows neither
virials nor a cell other than the one it was trained in.
"""

from __future__ import annotations

import numpy as np
from sgdml.predict import GDMLPredict

from deltaserver.arrays import Floats
from deltaserver.errors import ModelFileError
from deltaserver.model.descriptor import PairDescriptor, as_batch
from deltaserver.model.engines.base import Engine, Evaluated
from deltaserver.model.files.parameters import ModelParameters


class ReferenceEngine(Engine):
    """A trained sGDML force field, evaluated by ``sgdml.predict.GDMLPredict``."""

    def __init__(self, parameters: ModelParameters) -> None:
        self.parameters = parameters
        if parameters.blocks is not None:
            raise ModelFileError(
                f"{parameters.source}: its descriptor is weighted by fragments, which sgdml cannot "
                "evaluate; use --backend numpy or torch"
            )
        if parameters.linear is not None:
            raise ModelFileError(
                f"{parameters.source}: it stands on a linear expansion, which sgdml cannot "
                "evaluate; use --backend numpy or torch"
            )
        self._predictor = GDMLPredict(as_sgdml(parameters), max_processes=1)

    def evaluate(self, x: Floats, cell: Floats | None, scale: float) -> Evaluated:
        """See :class:`Engine`; in the cell that the model was trained in, whatever ``cell`` is.

        Virials come from the atoms' forces, which is right for an isolated molecule only.
        """
        batch = as_batch(x, len(self.parameters.numbers), self.parameters.source)
        energy, forces = self._predictor.predict(batch.reshape(len(batch), -1))
        forces = forces.reshape(batch.shape) * scale
        centred = batch - batch.mean(axis=1, keepdims=True)
        return np.asarray(energy) * scale, forces, np.einsum("bia,bic->bac", forces, centred)


def as_sgdml(parameters: ModelParameters) -> dict[str, object]:
    """Return the model dictionary that GDMLPredict takes."""
    pairs = PairDescriptor(len(parameters.numbers))
    pair_perms = pairs.permutations(parameters.perms)
    offsets = np.arange(len(pair_perms))[:, None] * pairs.dim
    model: dict[str, object] = {
        "type": "m",
        "z": parameters.numbers,
        "R_desc": parameters.x.T,
        "R_d_desc_alpha": parameters.a,
        "perms": parameters.perms,
        "tril_perms_lin": (pair_perms + offsets).flatten("F"),
        "sig": parameters.sigma,
        "std": parameters.std,
        "c": parameters.c,
    }
    if parameters.alphas_energy is not None:
        model["alphas_E"] = parameters.alphas_energy
    if parameters.lattice is not None:
        model["lattice"] = parameters.lattice
    return model
