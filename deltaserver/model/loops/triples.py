"""Dispersion of three molecules as compiled loops; see :mod:`deltaserver.model.many.triples`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled

Floats = NDArray[np.float64]


@compiled
def add_triples(
    x: Floats, table: Floats, cubed: float, energy: Floats, forces: Floats, virial: Floats
) -> None:
    """Add energies (T,), forces (T, n, 3) and virials (T, 3, 3) of sites x (T, n, 3).

    The sites of the first molecule come first, then those of the second and of the third, as many
    as ``table`` (n₁, n₂, n₃) has coefficients for; ``cubed`` is R³.
    """
    n_a, n_b, n_c = table.shape
    of_a, of_b = np.empty((4, n_c)), np.empty((4, n_c))  # sides to c, and their squares
    damped_a, damped_b = np.empty((2, n_c)), np.empty((2, n_c))
    pull_a, pull_b = np.empty(n_c), np.empty(n_c)
    for t in range(len(x)):
        at, force, stress = x[t], forces[t], virial[t]
        for a in range(n_a):
            for c in range(n_c):
                _side(at[a], at[n_a + n_b + c], of_a[:, c], damped_a[:, c], cubed)
            for b in range(n_b):
                for c in range(n_c):
                    _side(at[n_a + b], at[n_a + n_b + c], of_b[:, c], damped_b[:, c], cubed)
                dx = at[n_a + b, 0] - at[a, 0]
                dy = at[n_a + b, 1] - at[a, 1]
                dz = at[n_a + b, 2] - at[a, 2]
                p = dx * dx + dy * dy + dz * dz
                root = np.sqrt(p)
                whole = 1.0 / (p * root + cubed)
                slope_p = -1.5 * root * whole
                total = pull = 0.0
                for c in range(n_c):
                    q, r = of_b[3, c], of_a[3, c]
                    u, v, w = p + r - q, p + q - r, q + r - p
                    uv, vw, uw = u * v, v * w, u * w
                    product = uv * w
                    inverse = 0.375 / (p * q * r)
                    angles = 1.0 + product * inverse
                    scale = table[a, b, c] * whole * damped_a[0, c] * damped_b[0, c]
                    total += scale * angles
                    twice = 2.0 * scale
                    pull += twice * ((vw + uw - uv - product / p) * inverse + angles * slope_p)
                    pull_b[c] = twice * (
                        (uw + uv - vw - product / q) * inverse + angles * damped_b[1, c]
                    )
                    pull_a[c] = twice * (
                        (vw + uv - uw - product / r) * inverse + angles * damped_a[1, c]
                    )
                energy[t] += total
                _pull(force, stress, a, n_a + b, (dx, dy, dz), pull)
                for c in range(n_c):
                    other = n_a + n_b + c
                    _pull(force, stress, a, other, (of_a[0, c], of_a[1, c], of_a[2, c]), pull_a[c])
                    _pull(
                        force, stress, n_a + b, other, (of_b[0, c], of_b[1, c], of_b[2, c]),
                        pull_b[c],
                    )  # fmt: skip


@compiled
def _side(one: Floats, other: Floats, side: Floats, damped: Floats, cubed: float) -> None:
    """Fill a side and its square, 1/(r³ + R³), and the slope of its logarithm by the square."""
    square = 0.0
    for k in range(3):
        side[k] = other[k] - one[k]
        square += side[k] * side[k]
    root = np.sqrt(square)
    side[3] = square
    damped[0] = 1.0 / (square * root + cubed)
    damped[1] = -1.5 * root * damped[0]


@compiled
def _pull(
    force: Floats, stress: Floats, i: int, j: int, d: tuple[float, float, float], pull: float
) -> None:
    """Add a pull along d from i to j: 2 ∂E/∂(d²)."""
    for k in range(3):
        force[i, k] += pull * d[k]
        force[j, k] -= pull * d[k]
        for m in range(3):
            stress[k, m] -= pull * d[k] * d[m]
