"""Labelled frames of small complexes with an analytic potential: pairwise, so exact and quick."""

from __future__ import annotations

import numpy as np

from deltaserver.datasets.frames import FragmentSpec, LabelledFrames

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
