"""What the sGDML descriptor compares in a complex: the paper's Section II.A, Figs. 2 and 3.

The kernel sees two geometries through z² = |ΔD|², with D_ij = 1/|r_i − r_j|. Every pair of atoms
belongs to one block: inside a fragment, or between two, so z² is a sum over blocks,

    z² = I_FF + I_CC + I_CF

for two fragments F and C, and n(n + 1)/2 terms for n of them. Each pair counts once, as in the
descriptor vector; the Frobenius norm of the symmetric matrix would be twice that.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
from deltaserver.errors import DataError
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.fragment_blocks import owner_of

N_PAIRS = 500


@dataclass(frozen=True)
class PairBlocks:
    """Which block every atom pair of the descriptor belongs to.

    Attributes:
        labels: of every block, as ``("c60", "c60")``; the fragments' own blocks come first.
        of_pair: block of every pair, shape (D,).
        n_fragments: so many blocks lie inside a fragment.
    """

    labels: tuple[tuple[str, str], ...]
    of_pair: Ints
    n_fragments: int

    @property
    def is_inter(self) -> NDArray[np.bool_]:
        """Whether a pair is of two different fragments, shape (D,)."""
        result: NDArray[np.bool_] = self.of_pair >= self.n_fragments
        return result


@dataclass(frozen=True)
class DescriptorAnalysis:
    """Squared descriptor distances of random frame pairs, by block.

    Attributes:
        blocks: the blocks.
        pairs: the frames of every pair, shape (P, 2).
        squared: of every pair and block Σ (ΔD_ij)², 1/Å², shape (P, n_blocks).
        total: z² = |ΔD|², 1/Å², shape (P,).
        entry_sigma: standard deviation of ΔD of every descriptor entry, 1/Å, shape (D,).
        entry_sigma_squared: standard deviation of (ΔD)², 1/Å², shape (D,).
    """

    blocks: PairBlocks
    pairs: Ints
    squared: Floats
    total: Floats
    entry_sigma: Floats
    entry_sigma_squared: Floats

    @property
    def shares(self) -> Floats:
        """Share of every block in Σ z² over the pairs, shape (n_blocks,)."""
        result: Floats = self.squared.sum(axis=0) / self.total.sum()
        return result

    def sigma(self, *, squared: bool = False) -> Floats:
        """Return σ of ΔD (or ΔD²) of the entries of every block, root mean square, (n_blocks,)."""
        values = self.entry_sigma_squared if squared else self.entry_sigma
        return np.array(
            [_rms(values[self.blocks.of_pair == k]) for k in range(len(self.blocks.labels))]
        )

    @property
    def sigma_ratio(self) -> float:
        """σ_inter/σ_intra of ΔD, entries pooled by root mean square; NaN without intra pairs."""
        inter = self.blocks.is_inter
        intra_sigma = _rms(self.entry_sigma[~inter])
        return _rms(self.entry_sigma[inter]) / intra_sigma if intra_sigma > 0.0 else float("nan")


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else float("nan")


def pair_blocks(fragments: tuple[FragmentSpec, ...]) -> PairBlocks:
    """Return the block of every atom pair (i > j, row order)."""
    owner = owner_of([fragment.atoms for fragment in fragments])
    names = [fragment.name for fragment in fragments]
    block = np.diag(np.arange(len(fragments)))
    labels = [(name, name) for name in names]
    for first in range(len(names)):
        for second in range(first + 1, len(names)):
            block[first, second] = block[second, first] = len(labels)
            labels.append((names[first], names[second]))
    i, j = np.tril_indices(len(owner), k=-1)
    return PairBlocks(tuple(labels), block[owner[i], owner[j]], len(fragments))


def cm_matrix(positions: Floats, fragments: tuple[FragmentSpec, ...]) -> Floats:
    """Return 1/|r_i − r_j| of one geometry (N, 3), atoms in fragment order, 1/Å, shape (N, N).

    The diagonal is NaN: sGDML's descriptor has none.
    """
    ordered = positions[np.concatenate([fragment.atoms for fragment in fragments])]
    return _as_matrix(PairDescriptor(len(ordered)).geometry(ordered[None]).descriptor[0])


def _as_matrix(descriptor: Floats) -> Floats:
    n_atoms = round((1.0 + np.sqrt(1.0 + 8.0 * len(descriptor))) / 2.0)
    matrix = np.full((n_atoms, n_atoms), np.nan)
    i, j = np.tril_indices(n_atoms, k=-1)
    matrix[i, j] = matrix[j, i] = descriptor
    return matrix


def analyse_descriptor(
    frames: LabelledFrames, n_pairs: int = N_PAIRS, seed: int = 0
) -> DescriptorAnalysis:
    """Compare ``n_pairs`` random pairs of different frames.

    Raises:
        DataError: fewer than two frames or atoms.
    """
    if len(frames) < 2 or len(frames.numbers) < 2:
        raise DataError(
            f"{frames.name}: {len(frames)} frames of {len(frames.numbers)} atoms; expected at "
            "least two of each to compare descriptors"
        )
    rng = np.random.default_rng(seed)
    first = rng.integers(0, len(frames), n_pairs)
    second = (first + rng.integers(1, len(frames), n_pairs)) % len(frames)
    pairs = np.column_stack([first, second])
    blocks = pair_blocks(frames.fragments)
    descriptor = PairDescriptor(len(frames.numbers))
    used, where = np.unique(pairs, return_inverse=True)
    d = np.concatenate([descriptor.geometry(frames.positions[m][None]).descriptor for m in used])
    where = where.reshape(pairs.shape)
    delta = d[where[:, 0]] - d[where[:, 1]]  # [P, D]
    squared = delta**2
    by_block = [squared[:, blocks.of_pair == k].sum(axis=1) for k in range(len(blocks.labels))]
    return DescriptorAnalysis(
        blocks,
        pairs,
        np.column_stack(by_block),
        np.einsum("pk,pk->p", delta, delta),
        # A random pair is as likely as its reverse: ΔD has the mean 0 exactly.
        np.sqrt(squared.mean(axis=0)),
        squared.std(axis=0),
    )
