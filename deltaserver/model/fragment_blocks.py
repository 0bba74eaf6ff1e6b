"""How much each entry of a binding model's descriptor counts, and how far the model reaches.

Most entries of a complex's descriptor are distances within a fragment. They say little about the
binding and dominate |D − D′|. A binding model may weigh them down, or leave them out:

    D̃_k = w_k D_k,      w_k = W_fg of the fragments f, g that the pair's atoms belong to

An entry of weight zero is read nowhere. What the kernel says of separations that it was not
trained on is worth nothing, so that its share of the energy fades out there,

    E = s(ρ) E_kernel,    ρ = (Σ_k D_k^12)^(−1/12) over the pairs of different fragments,

with s = 1 where it knows, 0 where it does not, and twice differentiable between. ρ is a smooth
shortest distance between fragments. All in the units of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from deltaserver.arrays import Floats, Ints
from deltaserver.model import loops

POWER = 12  # of the smooth shortest distance


def owner_of(groups: Sequence[ArrayLike]) -> Ints:
    """Return in which of ``groups``, which share out all atoms, each atom is, shape (N,)."""
    atoms = [np.asarray(group, dtype=np.int64) for group in groups]
    owner = np.zeros(sum(map(len, atoms)), dtype=np.int64)
    for k, group in enumerate(atoms):
        owner[group] = k
    return owner


@dataclass(frozen=True)
class Reach:
    """s(ρ): rises from 0 to 1 between ``near``, falls back to 0 between ``far``; lengths."""

    near: tuple[float, float]
    far: tuple[float, float]

    def __call__(self, rho: Any) -> tuple[Any, Any]:
        """Return s and ds/dρ of an array, or of a torch tensor."""
        rise, rises = smooth_step(rho, *self.near)
        fall, falls = smooth_step(rho, *self.far)
        return rise * (1.0 - fall), rises * (1.0 - fall) - rise * falls


@dataclass(frozen=True)
class FragmentBlocks:
    """The fragments of a complex as blocks of its descriptor.

    Attributes:
        fragment: which fragment each atom belongs to, shape (N,).
        weights: W, symmetric, not negative, shape (F, F).
        reach: where the model counts; None is everywhere.
    """

    fragment: Ints
    weights: Floats
    reach: Reach | None = None

    @cached_property
    def by_pair(self) -> Floats:
        """Return w of every descriptor entry, shape (D,)."""
        i, j = np.tril_indices(len(self.fragment), k=-1)
        weights: Floats = self.weights[self.fragment[i], self.fragment[j]]
        return weights

    @cached_property
    def by_atoms(self) -> Floats:
        """Return w of every two atoms, shape (N, N)."""
        weights: Floats = self.weights[self.fragment[:, None], self.fragment[None]]
        return weights

    @cached_property
    def kept(self) -> Ints:
        """Return the descriptor entries of a weight that is not zero."""
        return np.flatnonzero(self.by_pair)

    @cached_property
    def scale(self) -> Floats:
        """Return the weights of those."""
        return self.by_pair[self.kept]

    @cached_property
    def between(self) -> Ints:
        """Return the descriptor entries of two fragments."""
        i, j = np.tril_indices(len(self.fragment), k=-1)
        return np.flatnonzero(self.fragment[i] != self.fragment[j])

    def reduce(self, descriptor: Floats) -> Floats:
        """Return the weighted entries that are kept, shape (…, n_kept)."""
        return descriptor[..., self.kept] * self.scale

    def expand(self, gradient: Floats) -> Floats:
        """Return a gradient in kept entries as one in all entries, shape (…, D)."""
        full = np.zeros((*gradient.shape[:-1], len(self.by_pair)))
        full[..., self.kept] = gradient * self.scale
        return full

    def permutations(self, pair_perms: Ints) -> Ints:
        """Return pair permutations (S, D) as permutations of the kept entries.

        Raises:
            ValueError: one of them exchanges entries of different weights.
        """
        if (self.by_pair[pair_perms] != self.by_pair).any():
            raise ValueError("the permutations exchange descriptor entries of different weights")
        place = np.full(pair_perms.shape[1], -1)
        place[self.kept] = np.arange(len(self.kept))
        return place[pair_perms[:, self.kept]]

    def shortest(self, descriptor: Floats) -> Floats:
        """Return ρ of descriptors (B, D), shape (B,)."""
        near = descriptor[:, self.between]
        largest = near.max(axis=1)
        ratio = near / largest[:, None]  # of which no power leaves the range of floats
        rho: Floats = twelfth_power(ratio).sum(axis=1) ** (-1.0 / POWER) / largest
        return rho

    def share(self, descriptor: Floats) -> Floats:
        """Return s of descriptors (B, D), shape (B,)."""
        if self.reach is None:
            return np.ones(len(descriptor))
        share: Floats = self.reach(self.shortest(descriptor))[0]
        return share

    def fade_in_loops(self, x: Floats, offset: float, parts: tuple[Floats, Floats, Floats]) -> None:
        """Turn E (B,), forces and virials of x (B, N, 3) into those of s (E + offset)."""
        if self.reach is not None:
            reach = (*self.reach.near, *self.reach.far)
            loops.load("molecules").fade(x, self._atoms_between, reach, offset, parts)
            return
        parts[0][...] += offset

    @cached_property
    def _atoms_between(self) -> tuple[Ints, Ints]:
        """Return the atoms i > j of every pair of two fragments."""
        i, j = np.tril_indices(len(self.fragment), k=-1)
        return i[self.between], j[self.between]

    def fade(self, energy: Floats, g: Floats, descriptor: Floats) -> tuple[Floats, Floats, Floats]:
        """Return s E, −∂(s E)/∂D and s, shapes (B,), (B, D) and (B,), of E and g = −∂E/∂D."""
        if self.reach is None:
            return energy, g, np.ones(len(energy))
        near, rho = descriptor[:, self.between], self.shortest(descriptor)
        s, slope = self.reach(rho)
        faded = s[:, None] * g
        towards = (slope * energy * rho**2)[:, None]
        ratio = rho[:, None] * near
        faded[:, self.between] += towards * (twelfth_power(ratio) / ratio)
        return s * energy, faded, s


def twelfth_power(x: Floats) -> Floats:
    """Return x^12 by products: a power of floats takes ten times as long."""
    square = x * x
    sixth = square * square * square
    result: Floats = sixth * sixth
    return result


def smooth_step(x: Any, start: float, stop: float) -> tuple[Any, Any]:
    """Return 6t⁵ − 15t⁴ + 10t³ of t = (x − start)/(stop − start), held in 0 to 1; its slope."""
    t = ((x - start) / (stop - start)).clip(0.0, 1.0)
    slope = 30.0 * (t * (1.0 - t)) ** 2 / (stop - start)
    return t**3 * (10.0 + t * (6.0 * t - 15.0)), slope
