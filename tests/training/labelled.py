"""Labelled frames of small complexes with an analytic potential: pairwise, so exact and quick."""

from __future__ import annotations

from itertools import permutations

import numpy as np

from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
from deltaserver.model.many.triples import TriplePrior
from deltaserver.model.prior import AtomClass

WATER = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])
WATER_Z = np.array([8, 1, 1])
SPRING, WELL, REACH = 20.0, 0.05, 3.2  # eV/Å², eV, Å


def springs(positions: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Energy (M,) and forces (M, N, 3) of springs between all atoms of one molecule."""
    i, j = np.tril_indices(len(reference), -1)
    rest = np.linalg.norm(reference[i] - reference[j], axis=-1)
    d = positions[:, i] - positions[:, j]
    r = np.linalg.norm(d, axis=-1)
    pull = SPRING * (r - rest)
    return 0.5 * SPRING * ((r - rest) ** 2).sum(1), scatter(-pull / r, d, i, j, positions.shape)


def attraction(positions: np.ndarray, first: list[int], second: list[int]):
    """Energy and forces of Morse-like wells between all atoms of two molecules."""
    i, j = (grid.ravel() for grid in np.meshgrid(first, second, indexing="ij"))
    d = positions[:, i] - positions[:, j]
    r = np.linalg.norm(d, axis=-1)
    well = np.exp(-(r - REACH))
    energy = WELL * (well**2 - 2.0 * well).sum(1)
    slope = WELL * (-2.0 * well**2 + 2.0 * well)
    return energy, scatter(-slope / r, d, i, j, positions.shape)


def scatter(weights, d, i, j, shape) -> np.ndarray:
    forces = np.zeros(shape)
    for k, (a, b) in enumerate(zip(i, j, strict=True)):
        forces[:, a] += weights[:, k, None] * d[:, k]
        forces[:, b] -= weights[:, k, None] * d[:, k]
    return forces


def water_dimer(n_frames: int = 60, seed: int = 0, n_trajectories: int = 2) -> LabelledFrames:
    """Two waters 3 Å apart; the second one's atoms are listed in another order."""
    rng = np.random.default_rng(seed)
    order = [1, 0, 2]  # H O H
    start = np.concatenate([WATER, WATER[order] + [3.0, 0.3, 0.0]])
    numbers = np.concatenate([WATER_Z, WATER_Z[order]])
    x = start + 0.05 * rng.normal(size=(n_frames, 6, 3))
    parts = [springs(x[:, :3], WATER), springs(x[:, 3:], WATER[order])]
    fragment_forces = np.concatenate([part[1] for part in parts], axis=1)
    binding, binding_forces = attraction(x, [0, 1, 2], [3, 4, 5])
    fragment_energies = np.stack([part[0] - 10.0 for part in parts], axis=1)
    return LabelledFrames(
        "water_dimer", "springs", numbers,
        (FragmentSpec("left", (0, 1, 2)), FragmentSpec("right", (3, 4, 5))),
        x, fragment_energies.sum(1) + binding, fragment_forces + binding_forces,
        fragment_energies, fragment_forces,
        np.arange(n_frames) * n_trajectories // n_frames,
        np.arange(n_frames),
    )  # fmt: skip


def water_and_ion(n_frames: int = 40, seed: int = 0) -> LabelledFrames:
    """A water and a lone sodium ion."""
    rng = np.random.default_rng(seed)
    start = np.concatenate([WATER, [[2.6, 0.0, 0.3]]])
    x = start + 0.05 * rng.normal(size=(n_frames, 4, 3))
    energy, forces = springs(x[:, :3], WATER)
    binding, binding_forces = attraction(x, [0, 1, 2], [3])
    fragment_forces = np.concatenate([forces, np.zeros((n_frames, 1, 3))], axis=1)
    fragment_energies = np.stack([energy, np.full(n_frames, -4.5)], axis=1)
    return LabelledFrames(
        "water_sodium", "springs", np.array([*WATER_Z, 11]),
        (FragmentSpec("water", (0, 1, 2)), FragmentSpec("sodium", (3,), 1)),
        x, fragment_energies.sum(1) + binding, fragment_forces + binding_forces,
        fragment_energies, fragment_forces,
        np.zeros(n_frames, dtype=int), np.arange(n_frames),
    )  # fmt: skip


def dispersion(strength: float = 900.0, hydrogens: float = 0.0) -> TriplePrior:
    """What three waters have beyond their pairs here: of oxygens, and of two with a hydrogen."""
    names = [("O0", "H0"), ("O1", "H1"), ("O2", "H2")]
    classes = [
        AtomClass(name, atoms)
        for k in range(3)
        for name, atoms in ((f"O{k}", (3 * k,)), (f"H{k}", (3 * k + 1, 3 * k + 2)))
    ]
    c = {("O0", "O1", "O2"): strength}
    for k in range(3) if hydrogens else ():
        one = [names[m][1 if m == k else 0] for m in range(3)]
        c[one[0], one[1], one[2]] = hydrogens
    return TriplePrior((3, 3, 3), tuple(classes), c, 3.5, (6.0, 8.0))


def water_trimer(n_frames: int = 60, seed: int = 0, prior: TriplePrior | None = None):
    """Three waters in a triangle of 2.8 to 7 Å, of order 3, half of the frames a trajectory."""
    rng = np.random.default_rng(seed)
    corners = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.45, 0.9, 0.1]])
    centres = rng.uniform(2.8, 7.0, (n_frames, 1, 1)) * corners
    turns = np.linalg.qr(rng.normal(size=(n_frames, 3, 3, 3)))[0]
    x = np.einsum("mkxy,ay->mkax", turns, WATER) + centres[:, :, None]
    x = (x + rng.normal(0.0, 0.05, x.shape)).reshape(n_frames, 9, 3)
    places = [[3 * k, 3 * k + 1, 3 * k + 2] for k in range(3)]
    own = [springs(x[:, some], WATER) for some in places]
    pairs = [attraction(x, places[a], places[b]) for a, b in ((0, 1), (1, 2), (0, 2))]
    three = (prior or dispersion()).of_whole(x)
    fragment_forces = np.concatenate([part[1] for part in own], axis=1)
    fragment_energies = np.stack([part[0] - 10.0 for part in own], axis=1)
    two, two_forces = (sum(part[k] for part in pairs) for k in (0, 1))
    return LabelledFrames(
        "water_trimer", "springs", np.tile(WATER_Z, 3),
        tuple(FragmentSpec(f"water{k + 1}", tuple(some)) for k, some in enumerate(places)),
        x, fragment_energies.sum(1) + two + three.energy,
        fragment_forces + two_forces + three.forces,
        fragment_energies, fragment_forces,
        np.arange(n_frames) * 2 // n_frames, np.arange(n_frames), two, two_forces,
    )  # fmt: skip


def both_triples():
    """A group of 36 permutations of two triples: all of S₃ on both."""
    return np.array([[*p, *(3 + i for i in q)] for p in permutations(range(3))
                     for q in permutations(range(3))])  # fmt: skip
