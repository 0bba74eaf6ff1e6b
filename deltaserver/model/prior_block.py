"""The block ``prior`` of ``model.yaml``: a pair potential as text, and back.

prior:
  limit: 0.0                          # eV, of fragments far apart; 0 if it is not there
  classes:
  - {name: water-O, atoms: 12, charge: -0.55}
  pairs:
  - between: [benzene-C, water-O]
    walls: [[3.6, 912.5]]             # b in 1/Å, A in eV
    attractions: [[6, 2.5, 31.0]]     # n, R in Å, C in eV Åⁿ
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from deltaserver.errors import ManifestError
from deltaserver.model.fragment_blocks import owner_of
from deltaserver.model.prior import AtomClass, Attraction, PairPrior, PairTerms, Wall
from deltaserver.textio.strict_yaml import Checker

MAX_TERMS = 20  # of a kind, for one pair of classes
MAX_POWER = 12
CHECK = Checker(None, ManifestError)
ParseAtoms = Callable[[str | int], tuple[int, ...]]


def parse_prior(data: Any, fragments: Sequence[tuple[int, ...]], atoms: ParseAtoms) -> PairPrior:
    """Return the potential that a block describes.

    Args:
        data: the block.
        fragments: the atoms of each.
        atoms: reads text such as ``0-4,9``.

    Raises:
        ManifestError: anything wrong with it; the message begins with the entry.
    """
    top = CHECK.mapping(data, "prior", ("classes", "pairs"), ("limit",))
    fragment = owner_of(fragments)
    classes = tuple(
        parse_class(entry, f"prior.classes[{k}]", atoms, ("charge",))
        for k, entry in enumerate(CHECK.sequence(top["classes"], "prior.classes"))
    )
    home = _check_classes(classes, fragment)
    terms: dict[tuple[str, str], PairTerms] = {}
    for k, entry in enumerate(CHECK.sequence(top["pairs"], "prior.pairs")):
        names, found = _pair(entry, f"prior.pairs[{k}]", home)
        if names in terms or names[::-1] in terms:
            raise ManifestError(f"prior.pairs[{k}]: {names[0]} and {names[1]} stand there twice")
        terms[names] = found
    limit = CHECK.number(top.get("limit", 0.0), "prior.limit")
    return PairPrior(fragment, classes, terms, limit)


def format_prior(prior: PairPrior, text: Callable[[tuple[int, ...]], str]) -> dict[str, Any]:
    """Return the block of a potential: the inverse of :func:`parse_prior`."""
    return {
        **({"limit": float(prior.limit)} if prior.limit else {}),
        "classes": [
            {"name": one.name, "atoms": text(one.atoms), "charge": float(one.charge)}
            for one in prior.classes
        ],
        "pairs": [
            {
                "between": list(names),
                "walls": [[float(x) for x in wall] for wall in terms.walls],
                "attractions": [[int(n), float(r), float(c)] for n, r, c in terms.attractions],
            }
            for names, terms in prior.terms.items()
        ],
    }


def parse_class(
    entry: Any, what: str, atoms: ParseAtoms, optional: tuple[str, ...] = ()
) -> AtomClass:
    """Return a class of atoms, which may have a charge if that is among ``optional``."""
    found = CHECK.mapping(entry, what, ("name", "atoms"), optional)
    name = CHECK.text(found["name"], f"{what}: name")
    if isinstance(found["atoms"], bool) or not isinstance(found["atoms"], (str, int)):
        raise ManifestError(f"{what}: atoms is no text such as '0-4,9'")
    charge = CHECK.number(found.get("charge", 0.0), f"{what}: charge")
    return AtomClass(name, atoms(found["atoms"]), charge)


def _check_classes(classes: tuple[AtomClass, ...], fragment: Any) -> dict[str, int]:
    """Return the fragment that each class belongs to; every atom is in exactly one class."""
    home: dict[str, int] = {}
    seen = np.zeros(len(fragment), dtype=np.int64)
    for one in classes:
        if one.name in home:
            raise ManifestError(f"prior.classes: two have the name {one.name!r}")
        if max(one.atoms) >= len(fragment):
            raise ManifestError(
                f"prior.classes: {one.name!r} names atom {max(one.atoms)}: no such atom"
            )
        owners = np.unique(fragment[list(one.atoms)])
        if len(owners) > 1:
            raise ManifestError(f"prior.classes: {one.name!r} has atoms of several fragments")
        home[one.name] = int(owners[0])
        np.add.at(seen, list(one.atoms), 1)
    if (seen != 1).any():
        atom = int(np.flatnonzero(seen != 1)[0])
        raise ManifestError(f"prior.classes: atom {atom} is in {seen[atom]} classes; expected one")
    return home


def _pair(entry: Any, what: str, home: dict[str, int]) -> tuple[tuple[str, str], PairTerms]:
    found = CHECK.mapping(entry, what, ("between",), ("walls", "attractions"))
    names = CHECK.sequence(found["between"], f"{what}: between")
    if len(names) != 2 or any(not isinstance(name, str) or name not in home for name in names):
        raise ManifestError(f"{what}: between is not two names of classes")
    if home[names[0]] == home[names[1]]:
        raise ManifestError(f"{what}: {names[0]} and {names[1]} are of the same fragment")
    walls = _rows(found.get("walls", []), 2, f"{what}: walls")
    attractions = _rows(found.get("attractions", []), 3, f"{what}: attractions")
    for decay, _ in walls:
        if decay <= 0.0:
            raise ManifestError(f"{what}: walls has a decay that is not positive")
    for power, radius, _ in attractions:
        if power not in range(2, MAX_POWER + 1) or radius < 0.0:
            raise ManifestError(
                f"{what}: attractions has a power outside 2 to {MAX_POWER}, or a negative radius"
            )
    return (names[0], names[1]), PairTerms(
        tuple(Wall(*row) for row in walls),
        tuple(Attraction(int(n), radius, c) for n, radius, c in attractions),
    )


def _rows(data: Any, width: int, what: str) -> list[list[float]]:
    rows = [CHECK.sequence(row, what) for row in CHECK.sequence(data, what)]
    if len(rows) > MAX_TERMS or any(len(row) != width for row in rows):
        raise ManifestError(f"{what}: expected at most {MAX_TERMS} lists of {width} numbers")
    return [[CHECK.number(value, what) for value in row] for row in rows]
