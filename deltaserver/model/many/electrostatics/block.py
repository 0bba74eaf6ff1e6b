"""The block ``induction`` of ``model.yaml`` as text; :mod:`deltaserver.model.many.manifest` reads.

Flows are told by what flows: pairs of atoms of one response stand together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deltaserver.model.many.electrostatics.induction import Induction, Response


def format_induction(induction: Induction, names: Sequence[str]) -> dict[str, Any]:
    """Return the block of an induction between species of these names."""
    return {
        "radius": float(induction.radius),
        "cutoff": [float(induction.switch.start), float(induction.switch.stop)],
        "species": [
            {"name": name, "charges": response.charges.tolist(), "flows": _flows(response)}
            for name, response in zip(names, induction.responses, strict=True)
            if response is not None
        ],
    }


def rename_species(induction: Mapping[str, Any], called: Mapping[str, str]) -> dict[str, Any]:
    """Return the block with the names of species that ``called`` gives; others keep theirs."""
    species = [
        {**one, "name": called.get(one["name"], one["name"])} for one in induction["species"]
    ]
    return {**induction, "species": species}


def _flows(response: Response) -> list[dict[str, Any]]:
    pairs: dict[float, list[list[int]]] = {}
    for a, b in zip(*np.triu_indices(len(response.charges), k=1), strict=True):
        if response.matrix[a, b]:
            pairs.setdefault(-float(response.matrix[a, b]), []).append([int(a), int(b)])
    return [{"between": some, "response": kappa} for kappa, some in pairs.items()]
