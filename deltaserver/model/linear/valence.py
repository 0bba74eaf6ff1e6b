"""A molecule's bonds, angles and torsions as distances: powers of each, products of neighbours.

    E = Σ_p Σ_k c_pk u_p^k + Σ b_pq u_p u_q + Σ t_pqr u_p u_q u_r + Σ_p ½ κ_p (z_p² − u_p²)

    z_p = (r_p − r̄_p) / s_p,      u_p = z_p up to ±LIMIT, beyond which it goes to a constant

r_p are the distances of atoms one, two and three bonds apart, r̄ and s their mean and spread in
the training frames. A distance over two bonds is an angle, one over three a torsion; with their
couplings it is a force field of the second class [Hwang, Stockfisch, Hagler, J. Am. Chem. Soc.
116, 2515 (1994), DOI 10.1021/ja00085a036], in coordinates that need no angle. All is linear in the
coefficients.

A polynomial says nothing far beyond its frames, so it is held there, and springs κ ≥ 0 pull back.
Without them a bond is free once it is so long: at 400 K one C–C bond of the 148 atoms of
C60@buckycatcher came to six spreads after 29 ps, and the molecule flew apart. The polynomial itself
is right for longer: against GFN2-xTB the forces on that bond were off by 4 % at 7.3 spreads.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Floats, Ints
from deltaserver.compute import jit
from deltaserver.model import loops
from deltaserver.model.linear.expansion import Evaluated, chunks, distances, join

LIMIT = 8.0  # spreads


def held(z: Floats) -> tuple[Floats, Floats]:
    """Return u: z, beyond ±LIMIT ±(LIMIT + tanh(|z| − LIMIT)), and its slope: twice differentiable.

    Where none is beyond, ``z`` itself is returned.
    """
    beyond = np.abs(z) - LIMIT
    if not (beyond > 0.0).any():
        return z, np.ones_like(z)
    bent = np.tanh(np.maximum(beyond, 0.0))
    value: Floats = np.where(beyond > 0.0, np.sign(z) * (LIMIT + bent), z)
    return value, 1.0 - bent**2


@dataclass(frozen=True)
class Valence:
    """The expansion of one molecule; energies and lengths are the model's.

    Attributes:
        pairs: atoms of every distance, shape (P, 2).
        mean: r̄, shape (P,).
        width: s, shape (P,).
        powers: c of z, z², …, shape (P, K).
        couplings: numbers p, q of the distances of every product, shape (C, 2).
        products: b, shape (C,).
        triples: p, q, r of every threefold product, shape (T, 3).
        cubic: t, shape (T,).
        springs: κ, shape (P,).
        n_atoms: N.
    """

    pairs: Ints
    mean: Floats
    width: Floats
    powers: Floats
    couplings: Ints
    products: Floats
    triples: Ints
    cubic: Floats
    springs: Floats
    n_atoms: int
    compiled: bool = jit.AVAILABLE

    def evaluate(self, positions: Floats, cell: Floats | None = None) -> Evaluated:
        """See :class:`deltaserver.model.linear.expansion.Expansion`."""
        numbers = 8 * max(len(self.pairs), self.n_atoms)
        parts = [self._chunk(positions[s], cell) for s in chunks(len(positions), numbers)]
        return join(parts, positions.shape)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what a model file holds of it."""
        return {
            "valence_pairs": self.pairs, "valence_mean": self.mean, "valence_width": self.width,
            "valence_powers": self.powers, "valence_couplings": self.couplings,
            "valence_products": self.products, "valence_triples": self.triples,
            "valence_cubic": self.cubic, "valence_springs": self.springs,
        }  # fmt: skip

    @cached_property
    def _coupling(self) -> Floats:
        """Return the table Q with E = ½ zᵀQz, shape (P, P)."""
        n = len(self.pairs)
        a, b = self.couplings.T
        table = np.zeros((n, n))
        np.add.at(table, (a, b), self.products)
        np.add.at(table, (b, a), self.products)
        return table

    @cached_property
    def _incidence(self) -> Floats:
        """Return +1 at the first atom of every distance, −1 at the second, shape (P, N)."""
        table = np.zeros((len(self.pairs), self.n_atoms))
        rows = np.arange(len(self.pairs))
        table[rows, self.pairs[:, 0]] = 1.0
        table[rows, self.pairs[:, 1]] = -1.0
        return table

    def _chunk(self, x: Floats, cell: Floats | None) -> Evaluated:
        d, r = distances(x, self.pairs[:, 0], self.pairs[:, 1], cell)
        z = (r - self.mean) / self.width
        u, bent = held(z)
        energy, slope = self._of(u)
        if u is not z:
            slope = slope * bent + self.springs * (z - u * bent)
            energy += 0.5 * (z**2 - u**2) @ self.springs
        pulls = (-slope / (self.width * r))[..., None] * d  # on the first atom of each
        forces = np.einsum("pn,bpx->bnx", self._incidence, pulls, optimize=True)
        return energy, forces, np.einsum("bpx,bpy->bxy", pulls, d)

    def _of(self, z: Floats) -> tuple[Floats, Floats]:
        """Return the polynomials E (B,) and ∂E/∂z (B, P)."""
        energy, slope = np.zeros(len(z)), np.zeros_like(z)
        power = np.ones_like(z)  # z^(k − 1)
        for k in range(self.powers.shape[1]):
            slope += (k + 1) * self.powers[:, k] * power
            power = power * z
            energy += power @ self.powers[:, k]
        coupled = z @ self._coupling
        energy += 0.5 * np.einsum("bp,bp->b", coupled, z)
        slope += coupled
        if len(self.cubic):
            self._add_cubic(z, energy, slope)
        return energy, slope

    def _add_cubic(self, z: Floats, energy: Floats, slope: Floats) -> None:
        if self.compiled:
            compiled = loops.load("valence")
            compiled.add_triples(np.ascontiguousarray(z), self.triples, self.cubic, energy, slope)
            return
        index = self.triples.T.ravel()
        for k, one in enumerate(z):
            a, b, c = one[self.triples.T]
            energy[k] += (a * b * c) @ self.cubic
            towards = np.concatenate([b * c, a * c, a * b]) * np.tile(self.cubic, 3)
            slope[k] += np.bincount(index, towards, len(one))
