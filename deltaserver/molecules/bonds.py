"""What counts as a bond, everywhere, and the bonds that a model's training geometries share.

Two atoms are bonded that are closer than 1.25 times the sum of their covalent radii [Cordero et
al., Dalton Trans. 2008, 2832, DOI 10.1039/b801115j]. A model file keeps no bonds, but its training
descriptors are all the pair distances of all its training geometries: a pair that is as close as a
bond in every one of them is a bond.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deltaserver.arrays import Bools, Floats, Ints
from deltaserver.molecules.elements import COVALENT_RADIUS_ANG

BOND_FACTOR = 1.25  # of the covalent radii's sum: C-C up to 1.9 Å, C-H up to 1.34 Å
HYDROGEN = 1
NONMETALS = (1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 33, 34, 35, 53)  # whose bonds are that long
# Hydrogen's radius makes 0.78 Å of that, which H2 (0.74 Å) leaves in every vibration. Two
# hydrogens of one heavier atom are 1.5 Å apart or more, and never bonded in any case: see below.
HYDROGEN_REACH_ANG = 1.1
# How far a bond may leave the range that it has in training. Hydrogen's zero-point motion spreads
# the beads of a path integral over some ±0.3 Å.
SLACK, SLACK_HYDROGEN = 0.15, 0.30
# The mean over a molecule's bonds fluctuates little, so that it tells a stretched molecule from a
# hot one: by 4 %, ten times training's standard deviation, or one bond's slack over √n.
MEAN_SLACK, MEAN_DEVIATIONS = 0.04, 10.0


@dataclass(frozen=True)
class FragmentBonds:
    """The bonds of one fragment; atoms are numbered as in the complex, lengths in Å.

    Attributes:
        name: the fragment's.
        i, j: the bonded atoms, shape (n_bonds,); empty where training shows no single molecule.
        shortest, longest: what training has, shape (n_bonds,).
        typical: mean over training, shape (n_bonds,).
        slack: how far a bond may leave that range, relative, shape (n_bonds,).
        mean_slack: how far the mean of length/typical may be from 1.
    """

    name: str
    i: Ints
    j: Ints
    shortest: Floats
    longest: Floats
    typical: Floats
    slack: Floats
    mean_slack: float

    def __len__(self) -> int:
        """Return the number of bonds."""
        return len(self.i)


def bond_reach(a: Ints, b: Ints) -> Floats:
    """Return below which distance, in Å, atoms of elements ``a`` and ``b`` count as bonded."""
    radii = np.array(COVALENT_RADIUS_ANG)
    both_hydrogen = (a == HYDROGEN) & (b == HYDROGEN)
    reach: Floats = np.where(both_hydrogen, HYDROGEN_REACH_ANG, BOND_FACTOR * (radii[a] + radii[b]))
    return reach


def bonded_pairs(numbers: Ints, i: Ints, j: Ints, near: Bools) -> Bools:
    """Return which pairs (i, j) are bonds, of those that are ``near``, shape (n_pairs,).

    A hydrogen that has a heavier neighbour is bonded to no other hydrogen, however near.
    """
    hydrogen = numbers == HYDROGEN
    heavy = near & ~(hydrogen[i] & hydrogen[j])
    has_heavy = np.zeros(len(numbers), dtype=np.bool_)
    has_heavy[np.concatenate([i[heavy], j[heavy]])] = True
    free = ~has_heavy & hydrogen
    result: Bools = heavy | (near & free[i] & free[j])
    return result


def bonds_between(numbers: Ints, positions: Floats, atoms: Ints | None = None) -> tuple[Ints, Ints]:
    """Return the bonds (i > j) of one structure (N, 3), Å, or of some of its atoms."""
    some = np.arange(len(numbers)) if atoms is None else atoms
    z, x = numbers[some], positions[some]
    i, j = np.tril_indices(len(some), k=-1)
    near = np.linalg.norm(x[i] - x[j], axis=-1) < bond_reach(z[i], z[j])
    bonded = bonded_pairs(z, i, j, near)
    return some[i[bonded]], some[j[bonded]]


def training_distances(x: Floats, length_ang: float) -> Floats:
    """Turn training descriptors (M, D), 1/length, into distances in Å; ∞ where they are none."""
    with np.errstate(divide="ignore"):
        return np.where(x > 0.0, length_ang / np.where(x > 0.0, x, 1.0), np.inf)


def find_bonds(name: str, numbers: Ints, atoms: Ints, distances: Floats) -> FragmentBonds:
    """Read a fragment's bonds off its training geometries.

    Args:
        name: the fragment's.
        numbers: atomic numbers, shape (n,), in the fragment model's order.
        atoms: the same atoms' numbers in the complex, shape (n,).
        distances: of every training geometry, Å, shape (M, n (n − 1)/2).

    A fragment whose bonds leave it in pieces (a cluster, a molecule that dissociates in its
    training data), or whose hydrogens have several, is no molecule that could be told by its
    bonds: it comes back without any.
    """
    i, j = np.tril_indices(len(numbers), k=-1)
    near = np.all(distances < bond_reach(numbers[i], numbers[j]), axis=0)
    bonded = bonded_pairs(numbers, i, j, near)
    degree = np.bincount(np.concatenate([i[bonded], j[bonded]]), minlength=len(numbers))
    pieces = pieces_of(len(atoms), i[bonded], j[bonded])
    if (degree[numbers == HYDROGEN] > 1).any() or pieces.any():
        bonded = np.zeros_like(bonded)
    i, j, lengths = i[bonded], j[bonded], distances[:, bonded]
    typical = lengths.mean(axis=0)
    with_hydrogen = (numbers[i] == HYDROGEN) | (numbers[j] == HYDROGEN)
    slack = np.where(with_hydrogen, SLACK_HYDROGEN, SLACK)
    return FragmentBonds(
        name,
        atoms[i],
        atoms[j],
        lengths.min(axis=0),
        lengths.max(axis=0),
        typical,
        slack,
        _mean_slack(lengths / typical) if len(i) else np.inf,
    )


def _mean_slack(ratios: Floats) -> float:
    deviation = float(ratios.mean(axis=1).std())
    one_bond = SLACK_HYDROGEN / np.sqrt(ratios.shape[1])
    return float(max(MEAN_SLACK, MEAN_DEVIATIONS * deviation, one_bond))


def pieces_of(n_atoms: int, i: Ints, j: Ints) -> Ints:
    """Return the least atom that bonds (i, j) connect each atom with, (N,): 0 for all of one."""
    label = np.arange(n_atoms)
    while True:
        lower = label.copy()
        np.minimum.at(lower, i, label[j])
        np.minimum.at(lower, j, label[i])
        if np.array_equal(lower, label):
            return label
        label = lower
