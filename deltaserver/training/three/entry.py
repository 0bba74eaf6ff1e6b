"""What a training of three molecules leaves for ``model.yaml``: the entry of their binding.

By themselves molecules and triples are no force field; pairs are missing. So a directory of
trimers has ``bindings.yaml``, whose entry goes into the ``model.yaml`` of many molecules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deltaserver.datasets.frames import LabelledFrames
from deltaserver.model.directories import BINDINGS_NAME
from deltaserver.model.manifest import format_atoms
from deltaserver.model.many.electrostatics.block import format_induction
from deltaserver.model.many.triple_block import format_triples
from deltaserver.model.many.triples import TripleLabels
from deltaserver.model.prior import PairPrior, Prior
from deltaserver.model.prior_block import format_prior
from deltaserver.textio.journal import write_atomically
from deltaserver.textio.strict_yaml import dump_yaml
from deltaserver.training.components import BINDING, Component


def what_model_yaml_has(prior: Prior | None, fade: tuple[float, float] | None) -> dict[str, Any]:
    """Return the prior that a binding was trained beside, and where it ends, as entries."""
    told: dict[str, Any] = {} if fade is None else {"fade": list(fade)}
    if isinstance(prior, PairPrior):
        told["prior"] = format_prior(prior, format_atoms)
    elif isinstance(prior, TripleLabels) and prior.prior is not None:
        told["prior"] = format_triples(prior.prior, format_atoms)
    return told


def induction_of(prior: Prior | None, available: Sequence[Component]) -> dict[str, Any]:
    """Return the induction that a binding of three was trained beside, as an entry."""
    if not isinstance(prior, TripleLabels) or prior.induction is None:
        return {}
    named = _names(available)
    names = [named[one.members[0]] for one in available if one.is_fragment]
    return {"induction": format_induction(prior.induction.induction, names)}


def write_entry(
    output: Path, frames: LabelledFrames, available: Sequence[Component], report: Mapping[str, Any]
) -> str | None:
    """Write the entry, if there is any; return what is to be done with it."""
    told = report["components"].get(BINDING)
    if told is None:
        return None
    learned = (output / f"{BINDING}.npz").exists()
    if not learned and told["n_train"]:
        return None
    names = _names(available)
    entry = {
        "between": [names[member] for member in sorted(names)],
        **({"model": f"{BINDING}.npz", "fade": told["fade"]} if learned else {}),
        **({"prior": told["prior"]} if "prior" in told else {}),
    }
    more = {key: told[key] for key in ("induction",) if key in told}
    text = dump_yaml({"bindings": [entry], **more})
    write_atomically(output / BINDINGS_NAME, text.encode())
    return (
        f"{BINDINGS_NAME} has what goes into a model.yaml of many molecules: "
        f"`deltaserver assemble DIRECTORY_OF_PAIRS {output}` does that"
    )


def _names(available: Sequence[Component]) -> dict[int, str]:
    """Return what the species of every fragment is called, by its place."""
    names: dict[int, str] = {}
    for component in available:
        alike = len(component.members) > 1
        for member in component.members:
            name = re.sub(r"_?\d+\Z", "", component.name) if alike else ""
            names[member] = name or component.name
    return names
