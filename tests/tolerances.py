"""How far two ways of computing the same may be apart: from the precision and the sum's length.

BLAS sums in another order on every processor and with every number of threads, so that a bound
read off one machine fails on the next. These bounds hold for any order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

# What else an entry of such a sum takes: roots, quotients, an exponential and its polynomial.
WEIGHT = 20


def rounding(n_terms: int, dtype: Any = np.float64) -> float:
    """Return γ, which times Σ|terms| bounds the error of a sum of ``n_terms``, in any order.

    Higham, Accuracy and Stability of Numerical Algorithms, section 3.1: γ = n u / (1 − n u). What
    a term itself takes counts as further terms: one for each product, root or quotient, and for
    each addition where it is a sum itself.
    """
    unit = n_terms * float(np.finfo(dtype).eps) / 2.0
    return unit / (1.0 - unit)


def size_of_terms(total: Any, n_terms: int) -> float:
    """Return what Σ|terms| may be where terms of either sign cancel as random ones do.

    The sum of n such terms is √n times smaller than that of their sizes; ``total`` is taken at its
    largest, because one entry may cancel further by chance.
    """
    return float(np.sqrt(n_terms) * np.abs(total).max(initial=0.0))


def terms_of_kernel(pair_perms: Any, n_points: int, n_atoms: int = 0) -> int:
    """Return how many roundings an energy, a gradient or a force of an sGDML model goes through.

    A dot product of descriptors, then a sum over training points and permutations, then one over
    the atom's neighbours.

    Args:
        pair_perms: of the descriptor's entries, (n_permutations, n_entries).
        n_points: training points.
        n_atoms: for forces and virials.
    """
    n_perms, n_entries = np.shape(pair_perms)
    return n_entries + n_perms * n_points + n_atoms + WEIGHT


def terms_of_block(n_perms: int, n_atoms: int) -> int:
    """Return the same for an entry of the kernel matrix: permutations, both atoms' neighbours."""
    return n_perms + 2 * (n_atoms - 1) + WEIGHT


def assert_same_sum(
    found: Any, expected: Any, n_terms: int, size: float | None = None, dtype: Any = np.float64
) -> None:
    """Compare sums of the same terms, each with its own rounding.

    Args:
        found, expected: arrays of any shape, in any unit.
        n_terms: of each of their entries.
        size: Σ|terms|; that of terms that cancel as random ones do if not given.
        dtype: the precision of the less precise one.
    """
    if size is None:
        size = size_of_terms(expected, n_terms)
    bound = 2.0 * rounding(n_terms, dtype) * size
    np.testing.assert_allclose(found, expected, rtol=0.0, atol=bound)
