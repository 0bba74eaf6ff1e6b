"""An embedding as compiled loops; see :mod:`deltaserver.model.linear.embedding`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled
from deltaserver.model.loops.pairs import _nearest_image
from deltaserver.model.loops.sites import _power

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@compiled
def densities(
    x: Floats,
    pairs: tuple[Ints, Ints],
    decays: Floats,
    multiples: Ints,
    cell: Floats | None,
    rho: Floats,
    phi: Floats,
    between: Floats,
) -> None:
    """Add ρ (N · groups, K) of positions (N, 3); set φ_k (P, K), and d and r of pairs (P, 4).

    ``pairs`` is the atoms (P, 2), and where the pair counts for the first and second (P, 2).
    """
    atoms, places = pairs
    for p in range(len(atoms)):
        a, b = atoms[p, 0], atoms[p, 1]
        d, e, f = x[a, 0] - x[b, 0], x[a, 1] - x[b, 1], x[a, 2] - x[b, 2]
        if cell is not None:
            d, e, f = _nearest_image(d, e, f, cell)
        r = np.sqrt(d * d + e * e + f * f)
        between[p, 0], between[p, 1], between[p, 2], between[p, 3] = d, e, f, r
        one = np.exp(-decays[0] * r)
        for k in range(len(decays)):
            n = multiples[k]
            value = _power(one, n) if n else np.exp(-decays[k] * r)
            phi[p, k] = value
            rho[places[p, 0], k] += value
            rho[places[p, 1], k] += value


@compiled
def stretch(
    x: Floats,
    terms: Ints,
    mean: Floats,
    linear: Floats,
    cell: Floats | None,
    rho: Floats,
    results: tuple[Floats, Floats, Floats],
) -> float:
    """Return the energy of stretches (L, 4); add to ``results``.

    These are ∂E/∂ρ (N, P), forces on i and j, and the virial.
    """
    weight, forces, virial = results
    energy, n_densities = 0.0, rho.shape[1]
    for s in range(len(terms)):
        a, i, j, of = terms[s, 0], terms[s, 1], terms[s, 2], terms[s, 3]
        d, e, f = x[i, 0] - x[j, 0], x[i, 1] - x[j, 1], x[i, 2] - x[j, 2]
        if cell is not None:
            d, e, f = _nearest_image(d, e, f, cell)
        length = np.sqrt(d * d + e * e + f * f)
        more, tension = length - mean[of], 0.0
        for p in range(n_densities):
            tension += linear[of, p] * rho[a, p]
            weight[a, p] += linear[of, p] * more
        energy += tension * more
        _pull(-tension / length, i, j, (d, e, f), forces, virial)
    return energy


@compiled
def product(terms: Ints, quadratic: Floats, rho: Floats, weight: Floats) -> float:
    """Return the energy of products (M, 3), add ∂E/∂ρ (N, P)."""
    energy, n_densities = 0.0, rho.shape[1]
    for m in range(len(terms)):
        a, b, of = terms[m, 0], terms[m, 1], terms[m, 2]
        for p in range(n_densities):
            meets = 0.0
            for q in range(n_densities):
                meets += quadratic[of, p, q] * rho[b, q]
                weight[b, q] += quadratic[of, p, q] * rho[a, p]
            weight[a, p] += meets
            energy += rho[a, p] * meets
    return energy


@compiled
def pull(
    pairs: Ints, places: Ints, decays: Floats, weight: Floats, phi: Floats, between: Floats,
    forces: Floats, virial: Floats,
) -> None:  # fmt: skip
    """Add the forces and the virial of ∂E/∂ρ = ``weight`` (N · groups, K)."""
    for p in range(len(pairs)):
        there, here, slope = places[p, 0], places[p, 1], 0.0
        for k in range(len(decays)):
            slope += decays[k] * (weight[there, k] + weight[here, k]) * phi[p, k]
        d = (between[p, 0], between[p, 1], between[p, 2])
        _pull(slope / between[p, 3], pairs[p, 0], pairs[p, 1], d, forces, virial)


@compiled
def _pull(
    pull: float, a: int, b: int, d: tuple[float, float, float], forces: Floats, virial: Floats
) -> None:
    for axis in range(3):
        force = pull * d[axis]
        forces[a, axis] += force
        forces[b, axis] -= force
        for other in range(3):
            virial[axis, other] += force * d[other]
