"""Which parts of the descriptor feel which permutations.

Under the permutations of one fragment the pair distances of the other do not change, and the
distances between the two change with the pair (s₁, s₂). Splitting the descriptor into blocks that
every permutation maps onto themselves, each with its own *distinct* permutations, saves the
products that would come out the same: of C60@buckycatcher's 120 × 4 permutations the C60 block
needs 120, the catcher's 4, and only the block between them all 480.

Nothing about fragments is assumed: the blocks are read off the permutations.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

MIN_COLUMNS = 256  # smaller blocks cost more in calls than they save in products


@dataclass(frozen=True)
class Block:
    """A set of descriptor entries that every permutation maps onto itself.

    Attributes:
        columns: the entries, shape (D_b,).
        member: for each of the S permutations, which distinct one it acts as here, shape (S,).
        representative: for each distinct one, a permutation that acts so, shape (S_b,).
    """

    columns: Ints
    member: Ints
    representative: Ints


def blocks(pair_perms: Ints) -> tuple[Block, ...]:
    """Split the descriptor entries by how the permutations (S, D) act on them."""
    n_perms, n_desc = pair_perms.shape
    if n_perms == 1 or n_desc == 0:
        return (Block(np.arange(n_desc), np.zeros(n_perms, np.int64), np.zeros(1, np.int64)),)
    by_action: dict[bytes, list[Ints]] = {}
    for orbit in _orbits(pair_perms):
        by_action.setdefault(_action(pair_perms, orbit).tobytes(), []).append(orbit)
    groups = sorted((np.concatenate(orbits) for orbits in by_action.values()), key=len)
    small = [group for group in groups if len(group) < MIN_COLUMNS]
    large = [group for group in groups if len(group) >= MIN_COLUMNS]
    if small:
        large.append(np.concatenate([*small, *([large.pop()] if large else [])]))
    return tuple(_block(pair_perms, np.sort(group)) for group in large)


def _orbits(pair_perms: Ints) -> list[Ints]:
    """Return the sets of entries that the permutations map into each other."""
    label = np.arange(pair_perms.shape[1])
    while True:
        lower = np.minimum(label, label[pair_perms].min(axis=0))
        for perm in pair_perms:  # and back along each arrow
            np.minimum.at(lower, perm, label)
        if np.array_equal(lower, label):
            break
        label = lower[lower]
    order = np.argsort(label, kind="stable")
    starts = np.flatnonzero(np.diff(label[order], prepend=-1))
    return np.split(order, starts[1:])


def _action(pair_perms: Ints, columns: Ints) -> Ints:
    """Number the permutations by how they act on ``columns``: equal numbers, equal action."""
    weights = np.random.default_rng(0).integers(1, 1 << 62, len(columns), dtype=np.int64)
    fingerprint = (pair_perms[:, columns] * weights).sum(axis=1)  # wraps around: a hash
    _, first, member = np.unique(fingerprint, return_index=True, return_inverse=True)
    rank = np.argsort(np.argsort(first))  # numbered by first appearance, so that they compare
    result: Ints = rank[member.ravel()]
    return result


def _block(pair_perms: Ints, columns: Ints) -> Block:
    member = _action(pair_perms, columns)
    _, representative = np.unique(member, return_index=True)
    restricted = pair_perms[:, columns]
    if not np.array_equal(restricted, restricted[representative][member]):
        raise AssertionError("two permutations with one fingerprint act differently")
    return Block(columns, member, representative)
