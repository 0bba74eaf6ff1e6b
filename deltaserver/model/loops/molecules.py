"""Two and three molecules as compiled loops; see :mod:`deltaserver.model.many`."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled
from deltaserver.model.loops.eights import (
    LANES,
    add_place,
    add_stress_of_eight,
    apart,
    everywhere,
    fill_stress,
    gather,
    load,
    place,
    root,
    spread,
    spread_stress,
    store,
)
from deltaserver.model.loops.sum import aligned

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@compiled
def add_triples(
    x: Floats, table: Floats, cubed: float, energy: Floats, forces: Floats, virial: Floats
) -> None:
    """Fill energies (T,), forces (T, n, 3) and virials (T, 3, 3) of sites x (T, n, 3).

    The sites of the first molecule come first, then those of the second and of the third, as many
    as ``table`` (n₁, n₂, n₃) has coefficients for; ``cubed`` is R³.
    """
    n_a, n_b, n_c = table.shape
    n = n_a + n_b + n_c
    ends = (n_a, n_a + n_b, n)
    at, pull = aligned(1, 3 * n * LANES)[0], aligned(1, 3 * n * LANES)[0]
    n_sides = n_a * n_b + n_b * n_c + n_c * n_a
    sides, slopes = aligned(1, 4 * n_sides * LANES)[0], aligned(1, n_sides * LANES)[0]
    stress, total = aligned(1, 6 * LANES)[0], aligned(1, LANES)[0]
    for start in range(0, len(x), LANES):
        some = x[start : start + LANES]
        gather(some, at)
        eight_triples(at, ends, table, cubed, (sides, slopes, total, pull, stress))
        for lane in range(len(some)):
            energy[start + lane] = total[lane]
            spread(pull, lane, 1.0, forces[start + lane])
            spread_stress(stress, lane, virial[start + lane])


@compiled
def add_triples_of(
    sites: tuple[Floats, Floats, Floats],
    centres: Floats,
    triples: tuple[Ints, Floats, Floats],
    prior: tuple[Floats, float, float, float],
    results: tuple[Floats, tuple[Floats, Floats, Floats], Floats, Floats],
) -> None:
    """Add what triples of molecules give, with the ends of their potential.

    ``sites`` (n, sites, 3) are those of the molecules that each member may be, ``centres`` (n, 3)
    of all molecules; ``triples`` is (members, shifts, weight): numbers among all molecules, less
    the first of their species, and of that (2, 3, T), what is to be added to positions (3, T, 3)
    and (T,). ``prior`` is (table, R³, start and stop of S). Fills energies (T,), adds forces on
    sites (n, sites, 3) of each member, on centres (n, 3) and the virial (3, 3).
    """
    members, shifts, weight = triples
    table, cubed, first, last = prior
    energy, forces, on_centres, virial = results
    n_a, n_b, n_c = table.shape
    ends = (n_a, n_a + n_b, n_a + n_b + n_c)
    at, pull = aligned(1, 3 * ends[2] * LANES)[0], aligned(1, 3 * ends[2] * LANES)[0]
    n_sides = n_a * n_b + n_b * n_c + n_c * n_a
    sides, slopes = aligned(1, 4 * n_sides * LANES)[0], aligned(1, n_sides * LANES)[0]
    stress, total, three = aligned(1, 6 * LANES)[0], aligned(1, LANES)[0], np.empty((3, 3))
    strain = np.empty((3, 3))
    n_triples = len(weight)
    for start in range(0, n_triples, LANES):
        for lane in range(LANES):
            t = min(start + lane, n_triples - 1)
            _gather_molecule(sites[0][members[0, 0, t]], shifts[0, t], 0, lane, at)
            _gather_molecule(sites[1][members[0, 1, t]], shifts[1, t], ends[0], lane, at)
            _gather_molecule(sites[2][members[0, 2, t]], shifts[2, t], ends[1], lane, at)
        eight_triples(at, ends, table, cubed, (sides, slopes, total, pull, stress))
        for lane in range(min(LANES, n_triples - start)):
            t = start + lane
            for k in range(3):
                for axis in range(3):
                    three[k, axis] = centres[members[1, k, t], axis] + shifts[k, t, axis]
            spread_stress(stress, lane, strain)
            share = _ends(three, (first, last), weight[t], total[lane], strain)
            energy[t] = share * total[lane]
            for i in range(3):
                for j in range(3):
                    virial[i, j] += strain[i, j]
                    on_centres[members[1, i, t], j] += three[i, j]
            _add_molecule(pull, 0, lane, share, forces[0][members[0, 0, t]])
            _add_molecule(pull, ends[0], lane, share, forces[1][members[0, 1, t]])
            _add_molecule(pull, ends[1], lane, share, forces[2][members[0, 2, t]])


@partial(compiled, allocates=False)
def _gather_molecule(x: Floats, shift: Floats, first: int, lane: int, at: Floats) -> None:
    for i in range(len(x)):
        for k in range(3):
            at[(3 * (first + i) + k) * LANES + lane] = x[i, k] + shift[k]


@partial(compiled, allocates=False)
def _add_molecule(pull: Floats, first: int, lane: int, factor: float, to: Floats) -> None:
    for i in range(len(to)):
        for k in range(3):
            to[i, k] += factor * pull[(3 * (first + i) + k) * LANES + lane]


@partial(compiled, allocates=False)
def _ends(
    three: Floats, ends: tuple[float, float], weight: float, energy: float, virial: Floats
) -> float:
    """Return S of three centres (3, 3) times the weight; multiply the virial (3, 3) by it.

    Of the energy without S: its slope's forces on the centres come in their places, and their
    virial to the other.
    """
    ab, ab_slope = _switch(three[0], three[1], ends)
    bc, bc_slope = _switch(three[1], three[2], ends)
    ca, ca_slope = _switch(three[2], three[0], ends)
    share: float = weight * ab * bc * ca
    scale = weight * energy
    along_ab = scale * ab_slope * bc * ca
    along_bc, along_ca = scale * bc_slope * ca * ab, scale * ca_slope * ab * bc
    for i in range(3):
        for j in range(3):
            pulled = along_ab * (three[1, i] - three[0, i]) * (three[1, j] - three[0, j])
            pulled += along_bc * (three[2, i] - three[1, i]) * (three[2, j] - three[1, j])
            pulled += along_ca * (three[0, i] - three[2, i]) * (three[0, j] - three[2, j])
            virial[i, j] = share * virial[i, j] - pulled
    for k in range(3):
        a, b, c = three[0, k], three[1, k], three[2, k]
        three[0, k] = along_ab * (b - a) - along_ca * (a - c)
        three[1, k] = along_bc * (c - b) - along_ab * (b - a)
        three[2, k] = along_ca * (a - c) - along_bc * (c - b)
    return share


@partial(compiled, allocates=False)
def _switch(one: Floats, other: Floats, ends: tuple[float, float]) -> tuple[float, float]:
    """Return S of the distance R of two points, and S′/R."""
    x, y, z = other[0] - one[0], other[1] - one[1], other[2] - one[2]
    distance = np.sqrt(x * x + y * y + z * z)
    rise, slope = smooth_step(distance, ends[0], ends[1])
    return 1.0 - rise, -slope / distance


@partial(compiled, allocates=False)
def eight_triples(
    at: Floats,
    ends: tuple[int, int, int],
    table: Floats,
    cubed: float,
    work: tuple[Floats, Floats, Floats, Floats, Floats],
) -> None:
    """Fill energies, forces and stress of eight triples, side by side in vectors.

    ``at`` is (n, 3, 8) and ``ends`` where each molecule's sites end. ``work`` is the sides (ab, bc
    and ca, 4, 8), their pulls (…, 8), then what is filled: energies (8,), forces (n, 3, 8) and
    stress (6, 8). Of a triangle all depends on the three squares p, q, r of its sides alone: forces
    come of their slopes, once for every side.
    """
    sides, slopes, energy, pull, stress = work
    n_a, n_b, n_c = ends[0], ends[1] - ends[0], ends[2] - ends[1]
    bc = n_a * n_b
    ca = bc + n_b * n_c
    _sides(at, 0, n_a, n_a, n_b, cubed, sides, 0)
    _sides(at, n_a, n_b, ends[1], n_c, cubed, sides, bc)
    _sides(at, ends[1], n_c, 0, n_a, cubed, sides, ca)
    slopes[:] = 0.0
    total = everywhere(0.0)
    for a in range(n_a):
        for b in range(n_b):
            here = (a * n_b + b) * LANES
            found = _all_c(table[a, b], here, (bc + b * n_c, ca + a, n_a), sides, slopes)
            total = total + found
    store(energy, 0, total)
    pull[:] = 0.0
    stress[:] = 0.0
    _pull(at, 0, n_a, n_a, n_b, slopes, 0, pull, stress)
    _pull(at, n_a, n_b, ends[1], n_c, slopes, bc, pull, stress)
    _pull(at, ends[1], n_c, 0, n_a, slopes, ca, pull, stress)


@partial(compiled, allocates=False)
def _sides(
    at: Floats, one: int, n_one: int, other: int, n_other: int, cubed: float, sides: Floats,
    start: int,
) -> None:  # fmt: skip
    """Fill the square of every side, its inverse, 1/(r³ + R³) and the slope of its logarithm.

    By the square; from sites ``one`` on to sites ``other`` on, as sides ``start`` and after.
    """
    for i in range(n_one):
        x, y, z = place(at, one + i)
        for j in range(n_other):
            x_, y_, z_ = place(at, other + j)
            dx, dy, dz = x_ - x, y_ - y, z_ - z
            square = dx * dx + dy * dy + dz * dz
            length = root(square)
            cube = square * length + cubed
            both = 1.0 / (square * cube)  # one division for two
            whole = square * both
            to = 4 * (start + i * n_other + j) * LANES
            store(sides, to, square)
            store(sides, to + LANES, cube * both)
            store(sides, to + 2 * LANES, whole)
            store(sides, to + 3 * LANES, length * whole * -1.5)


@partial(compiled, allocates=False)
def _all_c(
    coefficients: Floats, here: int, where: tuple[int, int, int], sides: Floats, slopes: Floats
) -> Any:
    """Add the slopes of the sides of one a and b and all c; return the energies.

    ``where`` is the number of the side from b to the first c, of that from the first c to a, and
    how many lie between that and the next c's.
    """
    p, by_p = load(sides, 4 * here), load(sides, 4 * here + LANES)
    whole_p, slope_p = load(sides, 4 * here + 2 * LANES), load(sides, 4 * here + 3 * LANES)
    total, pull = everywhere(0.0), everywhere(0.0)
    for c in range(len(coefficients)):
        at_q, at_r = (where[0] + c) * LANES, (where[1] + c * where[2]) * LANES
        q, r = load(sides, 4 * at_q), load(sides, 4 * at_r)
        by_q, by_r = load(sides, 4 * at_q + LANES), load(sides, 4 * at_r + LANES)
        # Twice two sides times the cosine between them: at a, b and c.
        u, v, w = p + r - q, p + q - r, q + r - p
        uv, vw, uw = u * v, v * w, u * w
        scale = whole_p * load(sides, 4 * at_q + 2 * LANES) * load(sides, 4 * at_r + 2 * LANES)
        scale = scale * coefficients[c]
        third = scale * (by_p * by_q * by_r) * 0.375
        product = uv * w * third
        energy = scale + product
        total = total + energy
        pull = pull + ((vw + uw - uv) * third - product * by_p + energy * slope_p)
        pull_q = (uw + uv - vw) * third - product * by_q
        pull_q = pull_q + energy * load(sides, 4 * at_q + 3 * LANES)
        store(slopes, at_q, load(slopes, at_q) + pull_q)
        pull_r = (vw + uv - uw) * third - product * by_r
        pull_r = pull_r + energy * load(sides, 4 * at_r + 3 * LANES)
        store(slopes, at_r, load(slopes, at_r) + pull_r)
    store(slopes, here, load(slopes, here) + pull)
    return total


@partial(compiled, allocates=False)
def _pull(
    at: Floats, one: int, n_one: int, other: int, n_other: int, slopes: Floats, start: int,
    pull: Floats, stress: Floats,
) -> None:  # fmt: skip
    """Add the forces of sides, of the slopes ∂E/∂(r²), to pull (n, 3, 8) and stress (6, 8)."""
    for i in range(n_one):
        x, y, z = place(at, one + i)
        fx, fy, fz = everywhere(0.0), everywhere(0.0), everywhere(0.0)
        for j in range(n_other):
            x_, y_, z_ = place(at, other + j)
            dx, dy, dz = x_ - x, y_ - y, z_ - z
            twice = load(slopes, (start + i * n_other + j) * LANES) * 2.0
            gx, gy, gz = twice * dx, twice * dy, twice * dz
            fx, fy, fz = fx + gx, fy + gy, fz + gz
            add_place(pull, other + j, -1.0, gx, gy, gz)
            add_stress_of_eight(stress, gx, gy, gz, dx, dy, dz)
        add_place(pull, one + i, 1.0, fx, fy, fz)


@compiled
def closer(
    points: Floats, others: Floats, ranges: tuple[Ints, Ints], squared: float, found: Ints
) -> int:
    """Fill ``found`` (2, at most C) with (i, k) whose distance squared is below; return how many.

    Every point has equally many ``ranges``, first and last + 1 of the others that may be close.
    """
    first, last = ranges
    n_ranges, n_found = len(first) // len(points), 0
    for i in range(len(points)):
        x0, y0, z0 = points[i, 0], points[i, 1], points[i, 2]
        for r in range(n_ranges * i, n_ranges * (i + 1)):
            for k in range(first[r], last[r]):
                dx, dy, dz = others[k, 0] - x0, others[k, 1] - y0, others[k, 2] - z0
                if dx * dx + dy * dy + dz * dz < squared:
                    found[0, n_found], found[1, n_found] = i, k
                    n_found += 1
    return n_found


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


@compiled
def fade(
    x: Floats,
    between: tuple[Ints, Ints],
    reach: tuple[float, float, float, float],
    offset: float,
    results: tuple[Floats, Floats, Floats],
) -> None:
    """Turn E (B,), forces (B, n, 3) and virials of x (B, n, 3) into those of s(ρ) (E + offset).

    ``between`` is the atoms i and j of every pair of two molecules, ``reach`` over which s rises
    and over which it falls; see :class:`deltaserver.model.fragment_blocks.Reach`.
    """
    energy, forces, virial = results
    n = x.shape[1]
    at, pull = aligned(1, 3 * n * LANES)[0], aligned(1, 3 * n * LANES)[0]
    factor, stress = aligned(1, LANES)[0], aligned(1, 6 * LANES)[0]
    more, strain, share = np.empty((n, 3)), np.empty((3, 3)), np.empty(LANES)
    for start in range(0, len(x), LANES):
        some = x[start : start + LANES]
        gather(some, at)
        store(factor, 0, _near(at, between))
        for lane in range(len(some)):
            rho = factor[lane] ** (-1.0 / 12.0)
            rise, rises = smooth_step(rho, reach[0], reach[1])
            fall, falls = smooth_step(rho, reach[2], reach[3])
            share[lane] = rise * (1.0 - fall)
            slope = rises * (1.0 - fall) - rise * falls
            energy[start + lane] += offset
            # −E ds/dρ ρ¹³, which times r⁻¹⁴ d is the force; far away ρ may be infinite.
            factor[lane] = 0.0
            if slope != 0.0:
                factor[lane] = -energy[start + lane] * slope * rho**13
            energy[start + lane] *= share[lane]
        pull[:] = 0.0
        _pull_of_near(at, between, load(factor, 0), pull)
        fill_stress(at, pull, stress)
        for lane in range(len(some)):
            spread(pull, lane, 1.0, more)
            spread_stress(stress, lane, strain)
            here = start + lane
            for i in range(n):
                for k in range(3):
                    forces[here, i, k] = share[lane] * forces[here, i, k] + more[i, k]
            for i in range(3):
                for k in range(3):
                    virial[here, i, k] = share[lane] * virial[here, i, k] + strain[i, k]


@partial(compiled, allocates=False)
def smooth_step(x: float, start: float, stop: float) -> tuple[float, float]:
    """Return 6t⁵ − 15t⁴ + 10t³ of t = (x − start)/(stop − start), held in 0 to 1; its slope."""
    t = min(max((x - start) / (stop - start), 0.0), 1.0)
    bend = t * (1.0 - t)
    return t * t * t * (10.0 + t * (6.0 * t - 15.0)), 30.0 * bend * bend / (stop - start)


@partial(compiled, allocates=False)
def _near(at: Floats, between: tuple[Ints, Ints]) -> Any:
    """Return Σ r^(−12) of eight geometries."""
    total = everywhere(0.0)
    for p in range(len(between[0])):
        square = apart(at, between[0][p], between[1][p])[3]
        third = square * square * square
        total = total + 1.0 / (third * third)
    return total


@partial(compiled, allocates=False)
def _pull_of_near(at: Floats, between: tuple[Ints, Ints], factor: Any, pull: Floats) -> None:
    """Add forces ``factor`` r⁻¹⁴ d to pull (n, 3, 8)."""
    for p in range(len(between[0])):
        dx, dy, dz, square = apart(at, between[0][p], between[1][p])
        third = square * square * square
        along = factor / (third * third * square)
        fx, fy, fz = along * dx, along * dy, along * dz
        add_place(pull, between[0][p], 1.0, fx, fy, fz)
        add_place(pull, between[1][p], -1.0, fx, fy, fz)
