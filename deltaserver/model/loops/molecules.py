"""Two and three molecules as compiled loops; see :mod:`deltaserver.model.many`."""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled
from deltaserver.model.loops.pairs import add_stress, fill_virial

Floats = NDArray[np.float64]


@compiled
def add_triples(
    x: Floats, table: Floats, cubed: float, energy: Floats, forces: Floats, virial: Floats
) -> None:
    """Fill energies (T,) and virials (T, 3, 3) of sites x (T, n, 3), add forces (T, n, 3).

    The sites of the first molecule come first, then those of the second and of the third, as many
    as ``table`` (n₁, n₂, n₃) has coefficients for; ``cubed`` is R³.
    """
    n_a, n_b, n_c = table.shape
    at_c, pull_c = np.empty((3, n_c)), np.empty((3, n_c))
    to_c = np.empty((n_b, 6, n_c))  # from every b: see _sides
    from_a, stress = np.empty((6, n_c)), np.empty(6)
    for t in range(len(x)):
        at, force, total = x[t], forces[t], 0.0
        stress[:] = 0.0
        for c in range(n_c):
            for k in range(3):
                at_c[k, c] = at[n_a + n_b + c, k]
        pull_c[:] = 0.0
        for b in range(n_b):
            _sides(at[n_a + b], at_c, cubed, to_c[b])
        for a in range(n_a):
            _sides(at[a], at_c, cubed, from_a)
            for b in range(n_b):
                one, other = at[a], at[n_a + b]
                dx, dy, dz = other[0] - one[0], other[1] - one[1], other[2] - one[2]
                energies, pull = _row(
                    dx * dx + dy * dy + dz * dz, cubed, table[a, b], from_a, to_c[b], pull_c,
                    (force[a], force[n_a + b], stress),
                )  # fmt: skip
                total += energies
                x_, y_, z_ = pull * dx, pull * dy, pull * dz
                force[a, 0] += x_
                force[a, 1] += y_
                force[a, 2] += z_
                force[n_a + b, 0] -= x_
                force[n_a + b, 1] -= y_
                force[n_a + b, 2] -= z_
                add_stress(stress, x_ * dx, x_ * dy, x_ * dz, y_ * dy, y_ * dz, z_ * dz)
        energy[t] = total
        for c in range(n_c):
            for k in range(3):
                force[n_a + n_b + c, k] += pull_c[k, c]
        fill_virial(stress, virial[t])


@partial(compiled, allocates=False)
def _sides(one: Floats, at_c: Floats, cubed: float, sides: Floats) -> None:
    """Fill the sides from one site to every c (3 rows), their squares, 1/(r³ + R³), its slope.

    The slope is that of the logarithm, by the square.
    """
    for c in range(at_c.shape[1]):
        x, y, z = at_c[0, c] - one[0], at_c[1, c] - one[1], at_c[2, c] - one[2]
        square = x * x + y * y + z * z
        root = np.sqrt(square)
        whole = 1.0 / (square * root + cubed)
        sides[0, c], sides[1, c], sides[2, c], sides[3, c] = x, y, z, square
        sides[4, c], sides[5, c] = whole, -1.5 * root * whole


@partial(compiled, allocates=False)
def _row(
    p: float,
    cubed: float,
    coefficients: Floats,
    from_a: Floats,
    from_b: Floats,
    pull_c: Floats,
    results: tuple[Floats, Floats, Floats],
) -> tuple[float, float]:
    """Sum over the sites c of one a and b, of the square p of their side.

    Adds forces on a and b, on all c to ``pull_c`` (3, n) and to the stress; returns the energy and
    the pull along the side from a to b, 2 ∂E/∂p.
    """
    on_a, on_b, stress = results
    root = np.sqrt(p)
    whole = 1.0 / (p * root + cubed)
    slope_p, inverse_p = -1.5 * root * whole, 1.0 / p
    total = pull = 0.0
    ax = ay = az = bx = by = bz = 0.0
    xx = xy = xz = yy = yz = zz = 0.0
    for c in range(len(coefficients)):
        q, r = from_b[3, c], from_a[3, c]
        u, v, w = p + r - q, p + q - r, q + r - p
        uv, vw, uw = u * v, v * w, u * w
        product = uv * w
        inverse_q, inverse_r = 1.0 / q, 1.0 / r
        third = 0.375 * inverse_p * inverse_q * inverse_r
        angles = 1.0 + product * third
        scale = coefficients[c] * whole * from_a[4, c] * from_b[4, c]
        total += scale * angles
        twice = 2.0 * scale
        pull += twice * ((vw + uw - uv - product * inverse_p) * third + angles * slope_p)
        along_b = twice * ((uw + uv - vw - product * inverse_q) * third + angles * from_b[5, c])
        along_a = twice * ((vw + uv - uw - product * inverse_r) * third + angles * from_a[5, c])
        dx, dy, dz = from_a[0, c], from_a[1, c], from_a[2, c]
        ex, ey, ez = from_b[0, c], from_b[1, c], from_b[2, c]
        fx, fy, fz = along_a * dx, along_a * dy, along_a * dz
        gx, gy, gz = along_b * ex, along_b * ey, along_b * ez
        ax, ay, az = ax + fx, ay + fy, az + fz
        bx, by, bz = bx + gx, by + gy, bz + gz
        pull_c[0, c] -= fx + gx
        pull_c[1, c] -= fy + gy
        pull_c[2, c] -= fz + gz
        xx += fx * dx + gx * ex
        xy += fx * dy + gx * ey
        xz += fx * dz + gx * ez
        yy += fy * dy + gy * ey
        yz += fy * dz + gy * ez
        zz += fz * dz + gz * ez
    on_a[0] += ax
    on_a[1] += ay
    on_a[2] += az
    on_b[0] += bx
    on_b[1] += by
    on_b[2] += bz
    add_stress(stress, xx, xy, xz, yy, yz, zz)
    return total, pull


@compiled
def shortest(x: Floats, n_first: int, rho: Floats) -> None:
    """Fill ρ (P,), the smooth shortest distance of the first ``n_first`` atoms and the others.

    ρ = (Σ r^(−12))^(−1/12) over pairs of atoms in x (P, n, 3).
    """
    n = x.shape[1]
    at = np.empty((3, n))
    for p in range(len(x)):
        for i in range(n):
            at[0, i], at[1, i], at[2, i] = x[p, i, 0], x[p, i, 1], x[p, i, 2]
        total = 0.0
        for i in range(n_first):
            x0, y0, z0 = at[0, i], at[1, i], at[2, i]
            for j in range(n_first, n):
                dx, dy, dz = at[0, j] - x0, at[1, j] - y0, at[2, j] - z0
                inverse = 1.0 / (dx * dx + dy * dy + dz * dz)
                third = inverse * inverse * inverse
                total += third * third
        rho[p] = total ** (-1.0 / 12.0)
