"""What is wrong with a structure whose bonds are not the model's: the cause, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from deltaserver.arrays import Bools, Floats, Ints
from deltaserver.molecules.bonds import FragmentBonds
from deltaserver.units import BOHR_ANG

UNIT_TOLERANCE = 0.08  # relative: how well a factor must be Bohr's to be called so
UNIFORM = 0.10  # spread of length/typical, relative, of bonds that were scaled together
FEW = 2  # atoms out of place that an exchange of two may explain


@dataclass(frozen=True)
class Names:
    """What atoms are called in messages: ``17 (C of c60)``."""

    symbols: tuple[str, ...]
    owner: tuple[int, ...]
    fragments: tuple[str, ...]

    def __getitem__(self, atom: int) -> str:
        return f"{atom} ({self.symbols[atom]} of {self.fragments[self.owner[atom]]})"


@dataclass(frozen=True)
class Suspect:
    """A structure beside the bonds it should have.

    Attributes:
        positions: Å, (N, 3).
        distances: all pairs, Å, (N, N).
        bonds: of every fragment.
        names: of atoms.
    """

    positions: Floats
    distances: Floats
    bonds: tuple[FragmentBonds, ...]
    names: Names

    @cached_property
    def i(self) -> Ints:
        """Return one atom of every bond of every fragment."""
        return np.concatenate([np.zeros(0, np.int64), *(bonds.i for bonds in self.bonds)])

    @cached_property
    def j(self) -> Ints:
        """Return the other atom of every bond."""
        return np.concatenate([np.zeros(0, np.int64), *(bonds.j for bonds in self.bonds)])

    @cached_property
    def limits(self) -> tuple[Floats, Floats]:
        """Return how short and how long every bond may be, Å."""
        shortest = [bonds.shortest * (1.0 - bonds.slack) for bonds in self.bonds]
        longest = [bonds.longest * (1.0 + bonds.slack) for bonds in self.bonds]
        return np.concatenate([np.zeros(0), *shortest]), np.concatenate([np.zeros(0), *longest])

    @cached_property
    def broken(self) -> Bools:
        """Return which bonds are too short or too long."""
        return self._outside(self.distances[self.i, self.j])

    @cached_property
    def degree(self) -> Ints:
        """Return how many bonds every atom should have."""
        return np.bincount(np.concatenate([self.i, self.j]), minlength=len(self.positions))

    def share_broken(self, broken: Bools | None = None) -> Floats:
        """Return the share of every atom's bonds that is broken (or in ``broken``)."""
        those = self.broken if broken is None else broken
        ends = np.concatenate([self.i[those], self.j[those]])
        count = np.bincount(ends, minlength=len(self.positions))
        share: Floats = count / np.maximum(self.degree, 1)
        return share

    def mended_by(self, a: int, b: int) -> bool:
        """Return whether every bond is right once atoms ``a`` and ``b`` change places."""
        order = np.arange(len(self.distances))
        order[a], order[b] = b, a
        return not self._outside(self.distances[order[self.i], order[self.j]]).any()

    def _outside(self, lengths: Floats) -> Bools:
        shortest, longest = self.limits
        result: Bools = ~((lengths >= shortest) & (lengths <= longest))
        return result


def diagnose_scale(suspect: Suspect, only_units: bool = False) -> str:
    """Tell lengths in another unit and molecules that are stretched or squeezed as a whole."""
    for bonds in suspect.bonds:
        if not len(bonds):
            continue
        ratios = suspect.distances[bonds.i, bonds.j] / bonds.typical
        factor = float(ratios.mean())
        together = float(ratios.std()) < UNIFORM * factor
        if abs(factor - 1.0) <= bonds.mean_slack or not together:
            continue
        told = (
            f"the bonds of {bonds.name} are {factor:.2f} times as long as in training (atom "
            f"{suspect.names[bonds.j[0]]} is {ratios[0] * bonds.typical[0]:.2f} Å from atom "
            f"{suspect.names[bonds.i[0]]}, {bonds.typical[0]:.2f} Å there)"
        )
        for unit, value in (("Å taken for Bohr", BOHR_ANG), ("Bohr taken for Å", 1.0 / BOHR_ANG)):
            if abs(factor / value - 1.0) < UNIT_TOLERANCE:
                return f"{told}: {unit}? Check the unit of positions in the start structure"
        if only_units:
            continue
        return f"{told}: the structure is {'stretched' if factor > 1.0 else 'squeezed'}"
    return ""


def diagnose_bonds(suspect: Suspect) -> str:
    """Tell atoms in another order from bonds that are stretched; name the first atom."""
    if not suspect.broken.any():
        return ""
    misplaced = _misplaced(suspect)
    exchange = next(_exchanges(suspect, misplaced), None) if len(misplaced) <= FEW else None
    if exchange:
        a, b = suspect.names[exchange[0]], suspect.names[exchange[1]]
        told = _wrong_neighbour(suspect, misplaced[0])
        return (
            f"{told}: atom {a} and atom {b} are exchanged; deltaserver reorder FILE --models DIR "
            "mends it"
        )
    if _neighbours_are_right(suspect):
        return _stretched_bond(suspect)
    if len(misplaced) > FEW:
        misplaced = sorted({*misplaced, *np.flatnonzero(suspect.share_broken() > 0.5).tolist()})
    return (
        f"{_wrong_neighbour(suspect, misplaced[0])}; {len(misplaced)} of {len(suspect.positions)} "
        "atoms are not where the model has them: the order of the atoms is not the model's "
        "(deltaserver reorder FILE --models DIR mends that), or it is another molecule"
    )


def _misplaced(suspect: Suspect) -> list[int]:
    """Return the atoms that, taken out, leave no broken bond: the worst first taken, sorted.

    Of a carbon out of place its three neighbours have a broken bond too, but one each.
    """
    left = suspect.broken.copy()
    found = []
    while left.any():
        share = suspect.share_broken(left)
        count = share * suspect.degree
        worst = int(np.lexsort((-np.arange(len(share)), share, count.round()))[-1])
        found.append(worst)
        left &= (suspect.i != worst) & (suspect.j != worst)
    return sorted(found)


def _neighbours_are_right(suspect: Suspect) -> bool:
    """Return whether, whatever the lengths, bonded atoms still are the closest ones."""
    degree = suspect.degree
    rank = suspect.distances.argsort(axis=1).argsort(axis=1)  # 0 is the atom itself
    i, j = suspect.i[suspect.broken], suspect.j[suspect.broken]
    return bool(((rank[i, j] <= degree[i]) | (rank[j, i] <= degree[j])).all())


def _stretched_bond(suspect: Suspect) -> str:
    k = int(np.flatnonzero(suspect.broken)[0])
    a, b = sorted((int(suspect.i[k]), int(suspect.j[k])))
    length, longest = suspect.distances[a, b], suspect.limits[1][k]
    return (
        f"the bond of atom {suspect.names[a]} and atom {suspect.names[b]} is {length:.2f} Å long, "
        f"{_range(suspect, k)} in training: the structure is "
        f"{'stretched' if length > longest else 'squeezed'}"
    )


def _wrong_neighbour(suspect: Suspect, atom: int) -> str:
    broken = suspect.broken & ((suspect.i == atom) | (suspect.j == atom))
    k = int(np.flatnonzero(broken)[0])
    other = int(suspect.i[k] + suspect.j[k] - atom)
    return (
        f"atom {suspect.names[atom]} should be bonded to atom {suspect.names[other]} "
        f"({_range(suspect, k)} in training) and is {suspect.distances[atom, other]:.2f} Å from it"
    )


def _range(suspect: Suspect, k: int) -> str:
    shortest = np.concatenate([bonds.shortest for bonds in suspect.bonds])[k]
    longest = np.concatenate([bonds.longest for bonds in suspect.bonds])[k]
    return f"{shortest:.2f} to {longest:.2f} Å"


def _exchanges(suspect: Suspect, misplaced: list[int]) -> Iterator[tuple[int, int]]:
    """Yield the exchanges of two atoms that mend every bond."""
    for a in misplaced:
        for b in range(len(suspect.positions)):
            if b != a and suspect.mended_by(a, b):
                yield min(a, b), max(a, b)
