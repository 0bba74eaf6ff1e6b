"""The block ``prior`` of a binding of three molecules, as text.

prior:
  radius: 4.5                           # R in Å
  cutoff: [7.0, 9.0]                    # Å between centres, over which it ends
  classes:
  - {name: first-C, atoms: "0,2,4"}
  - {name: second-C, atoms: "12,14,16"}
  - {name: third-C, atoms: "24,26,28"}
  triples:
  - {between: [first-C, second-C, third-C], coefficient: 23.0}   # C in eV Å⁹
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deltaserver.errors import ManifestError
from deltaserver.model.fragment_blocks import owner_of
from deltaserver.model.many.triples import TriplePrior
from deltaserver.model.prior import AtomClass
from deltaserver.model.prior_block import CHECK, ParseAtoms, parse_class


def parse_triples(
    data: Any, molecules: Sequence[tuple[int, ...]], atoms: ParseAtoms
) -> TriplePrior:
    """Return the potential that a block describes.

    Args:
        data: the block.
        molecules: the atoms of each of the three.
        atoms: reads text such as ``0-4,9``.

    Raises:
        ManifestError: anything wrong with it; the message begins with the entry.
    """
    top = CHECK.mapping(data, "prior", ("radius", "cutoff", "classes", "triples"))
    radius = CHECK.number(top["radius"], "prior.radius")
    if radius < 0.0:
        raise ManifestError("prior.radius is negative; expected Å")
    cutoff = [
        CHECK.number(v, "prior.cutoff") for v in CHECK.sequence(top["cutoff"], "prior.cutoff")
    ]
    if len(cutoff) != 2 or not 0.0 < cutoff[0] < cutoff[1]:
        raise ManifestError("prior.cutoff: expected two rising lengths in Å, such as [7.0, 9.0]")
    owner = owner_of(molecules)
    classes: list[AtomClass] = []
    home: dict[str, int] = {}
    for k, entry in enumerate(CHECK.sequence(top["classes"], "prior.classes")):
        one = _class(entry, f"prior.classes[{k}]", owner, atoms)
        if one.name in home or {a for c in classes for a in c.atoms} & set(one.atoms):
            raise ManifestError(f"prior.classes: {one.name!r} or its atoms stand there twice")
        home[one.name] = int(owner[one.atoms[0]])
        classes.append(one)
    found: dict[tuple[str, str, str], float] = {}
    for k, entry in enumerate(CHECK.sequence(top["triples"], "prior.triples")):
        names, value = _triple(entry, f"prior.triples[{k}]", home)
        if names in found:
            raise ManifestError(f"prior.triples[{k}]: {', '.join(names)} stand there twice")
        found[names] = value
    first, second, third = (len(some) for some in molecules)
    sizes = (first, second, third)
    return TriplePrior(sizes, tuple(classes), found, radius, (cutoff[0], cutoff[1]))


def format_triples(prior: TriplePrior, text: Callable[[tuple[int, ...]], str]) -> dict[str, Any]:
    """Return the block of a potential: the inverse of :func:`parse_triples`."""
    return {
        "radius": float(prior.radius),
        "cutoff": [float(end) for end in prior.cutoff],
        "classes": [{"name": one.name, "atoms": text(one.atoms)} for one in prior.classes],
        "triples": [
            {"between": list(names), "coefficient": float(value)}
            for names, value in prior.coefficients.items()
        ],
    }


def _class(entry: Any, what: str, owner: Any, atoms: ParseAtoms) -> AtomClass:
    one = parse_class(entry, what, atoms)
    if max(one.atoms) >= len(owner):
        raise ManifestError(
            f"prior.classes: {one.name!r} names atom {max(one.atoms)}: no such atom"
        )
    if len(np.unique(owner[list(one.atoms)])) > 1 or len(set(one.atoms)) < len(one.atoms):
        raise ManifestError(
            f"prior.classes: {one.name!r} has atoms of several molecules, or one twice"
        )
    return one


def _triple(entry: Any, what: str, home: dict[str, int]) -> tuple[tuple[str, str, str], float]:
    found = CHECK.mapping(entry, what, ("between", "coefficient"))
    names = CHECK.sequence(found["between"], f"{what}: between")
    known = all(isinstance(name, str) and name in home for name in names)
    if not known or [home[name] for name in names] != [0, 1, 2]:
        raise ManifestError(
            f"{what}: between is not a class of the first, the second and the third molecule"
        )
    return (names[0], names[1], names[2]), CHECK.number(
        found["coefficient"], f"{what}: coefficient"
    )
