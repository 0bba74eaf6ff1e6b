"""Which atoms are which molecule: as the manifest says, or as the elements of a structure tell."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from deltaserver.arrays import Ints
from deltaserver.errors import ManifestError
from deltaserver.model.many.manifest import SpeciesEntry
from deltaserver.molecules.elements import SYMBOLS


def count_molecules(
    entries: Sequence[SpeciesEntry], numbers: Sequence[Ints], found: Ints | None, source: str
) -> tuple[Ints, ...]:
    """Return the atoms of every species' molecules, shape (n, m) each.

    Args:
        entries: the manifest's.
        numbers: atomic numbers of a molecule of each species.
        found: atomic numbers of the structure that tells how many there are; None: there is none.
        source: for messages.

    Raises:
        ManifestError: no way to share out all atoms.
    """
    if all(entry.atoms is not None for entry in entries):
        tables = [np.array(e.atoms, dtype=np.int64).reshape(-1, e.n_atoms) for e in entries]
    elif all(entry.count is not None for entry in entries):
        tables, start = [], 0
        for entry in entries:
            n_atoms = entry.n_atoms * (entry.count or 0)
            tables.append(np.arange(start, start + n_atoms).reshape(-1, entry.n_atoms))
            start += n_atoms
    elif found is None:
        raise ManifestError(
            f"{source}: how many molecules? Give every species count: NUMBER, or put structure.xyz "
            "into the directory"
        )
    else:
        tables = _read_off(entries, numbers, found, source)
    atoms = np.sort(np.concatenate([table.ravel() for table in tables]))
    if not np.array_equal(atoms, np.arange(len(atoms))):
        raise ManifestError(
            f"{source}: the species do not hold each atom from 0 to {len(atoms) - 1} exactly once"
        )
    return tuple(tables)


def _read_off(
    entries: Sequence[SpeciesEntry], numbers: Sequence[Ints], found: Ints, source: str
) -> list[Ints]:
    """Return the atoms of molecules that stand one after the other in a structure."""
    longest_first = sorted(range(len(entries)), key=lambda k: -len(numbers[k]))
    starts: list[list[int]] = [[] for _ in entries]
    at = 0
    while at < len(found):
        for k in longest_first:
            if np.array_equal(found[at : at + len(numbers[k])], numbers[k]):
                starts[k].append(at)
                at += len(numbers[k])
                break
        else:
            names = ", ".join(entry.name for entry in entries)
            raise ManifestError(
                f"{source}: from atom {at} ({SYMBOLS[found[at]]}) on, structure.xyz has the "
                f"elements of none of {names}: give the molecules one after the other, the atoms "
                "of each in its model's order"
            )
    for entry, some in zip(entries, starts, strict=True):
        if not some:
            raise ManifestError(
                f"{source}: structure.xyz has no molecule of species {entry.name!r}; take it out "
                "of model.yaml"
            )
    return [
        np.array(some)[:, None] + np.arange(len(own))
        for some, own in zip(starts, numbers, strict=True)
    ]
