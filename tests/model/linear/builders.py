"""Products of distances of two molecules of three atoms, the last two of which are alike."""

from __future__ import annotations

import numpy as np

from deltaserver.model.linear.products import DistancePairs, Products

FRAGMENT = np.array([0, 0, 0, 1, 1, 1])
TURNED = ([0, 1, 2], [0, 2, 1])
OF_EACH = np.array([[*p, *(3 + np.array(q))] for p in TURNED for q in TURNED])
PERMS = np.concatenate([OF_EACH, OF_EACH[:, [3, 4, 5, 0, 1, 2]]])  # and their exchange


def products(perms: np.ndarray = PERMS, seed: int = 7) -> Products:
    """Return random ones of two decays."""
    rng, pairs = np.random.default_rng(seed), DistancePairs(FRAGMENT, perms)
    n = int(pairs.classes.max()) + 1
    quadratic, coupling = rng.normal(size=(2, 2, n)), rng.normal(size=(2, n))
    # (m, n) of functions k, l is (n, m) of l, k.
    there, back = pairs.classes.ravel(), pairs.classes.T.ravel()
    partner = np.empty(n, dtype=np.int64)
    partner[there] = back
    quadratic = quadratic + quadratic.transpose(1, 0, 2)[:, :, partner]
    mean = rng.normal(size=n)[np.diagonal(pairs.classes)[pairs.within]]  # alike ones share it
    return Products(pairs, np.array([0.8, 1.6]), mean, quadratic, coupling)
