"""One set of charges for every species, out of what the priors of two molecules say.

A prior of two neutral molecules knows the products of their charges alone: those of one may be
twice as large, and those of the other half, or both have the other sign. So

- a charge that a molecule has as a whole fixes its own charges, and those of what it binds;
- a molecule's binding with itself fixes their size, but not their sign;
- that with another molecule, whose charges are known, fixes both: with charges q′ and p′ of the
  prior and q that are known, p = p′ (q′·q)/(q·q) is closest to the same products.

Charges are in e.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from deltaserver.arrays import Floats

NEUTRAL_E = 1e-6  # what is left of a molecule's charge by rounding


@dataclass(frozen=True)
class Products:
    """The charges that one prior gives two molecules.

    Attributes:
        between: the numbers of their species.
        charges: of either one's atoms, e.
    """

    between: tuple[int, int]
    charges: tuple[Floats, Floats]


def agree(products: Sequence[Products], n_species: int) -> dict[int, Floats]:
    """Return the charges of every species that a prior gives some."""
    given = {k: _given(products, k) for k in range(n_species)}
    found = {k: _mean(products, k) for k, sets in given.items() if sets and _is_ion(sets)}
    left = [k for k, sets in given.items() if sets and k not in found]
    while left:
        known = {k: _beside(products, k, found) for k in left}
        # Those first whose charges most is known of.
        k = max(left, key=lambda k: (known[k] is not None, _own(products, k) is not None, -k))
        found[k] = _settled(products, k, known[k])
        left.remove(k)
    return found


def _given(products: Sequence[Products], kind: int) -> list[Floats]:
    """Return all sets that priors give one species."""
    return [q for one in products for s, q in zip(one.between, one.charges, strict=True)
            if s == kind]  # fmt: skip


def _is_ion(sets: Sequence[Floats]) -> bool:
    return any(abs(float(own.sum())) > NEUTRAL_E for own in sets)


def _own(products: Sequence[Products], kind: int) -> Floats | None:
    """Return the charges of a species in its binding with itself."""
    sets = [q for one in products if one.between == (kind, kind) for q in one.charges]
    return np.asarray(np.mean(sets, axis=0)) if sets else None


def _mean(products: Sequence[Products], kind: int) -> Floats:
    own = _own(products, kind)
    return np.asarray(np.mean(_given(products, kind), axis=0)) if own is None else own


def _beside(products: Sequence[Products], kind: int, known: dict[int, Floats]) -> Floats | None:
    """Return the charges that a neutral species has beside those that are known; None: beside none.

    What it has beside ions comes first: these do not depend on what another fit found.
    """
    of_ions, others = [], []
    for one in products:
        if one.between[0] == one.between[1] or kind not in one.between:
            continue
        mine = one.between.index(kind)
        other = one.between[1 - mine]
        if other not in known:
            continue
        fitted, q = one.charges[1 - mine], known[other]
        if _is_ion([q]):
            of_ions.append(one.charges[mine])
        elif (overlap := float(fitted @ q)) != 0.0:
            others.append(one.charges[mine] * (overlap / float(q @ q)))
    sets = of_ions or others
    return np.asarray(np.mean(sets, axis=0)) if sets else None


def _settled(products: Sequence[Products], kind: int, beside: Floats | None) -> Floats:
    own = _own(products, kind)
    if own is None:
        return _balanced(products, kind) if beside is None else beside
    return -own if beside is not None and float(own @ beside) < 0.0 else own


def _balanced(products: Sequence[Products], kind: int) -> Floats:
    """Return charges as large as those of what a species is beside, where nothing is known."""
    sets = []
    for one in products:
        if kind in one.between:
            mine = one.between.index(kind)
            sets.append(one.charges[mine] * share(one.charges[mine], one.charges[1 - mine]))
    return np.asarray(np.mean(sets, axis=0))


def share(charges: Floats, others: Floats) -> float:
    """Return what makes charges as large as those of the other, if these are divided by it."""
    own, other = float(np.linalg.norm(charges)), float(np.linalg.norm(others))
    return float(np.sqrt(other / own)) if own > 0.0 and other > 0.0 else 1.0
