"""How wrong a model's forces may be: a spread that grows away from the data, calibrated.

    u = u₀ s^p F^q

is such that 68 % of the force components of a part differ by less from the reference, as its
validation frames tell. s is the posterior spread of a Gaussian process in the invariant features
f of :mod:`deltaserver.model.trust.novelty`, which stands on r ≤ 256 training points z,

    s² = 1 − k(f)ᵀ K⁻¹ k(f),    k_i(f) = (1 + ρ + ρ²/3) exp(−ρ),    ρ = √5 |f − z_i|/ℓ

[Rasmussen, Williams, Gaussian Processes for Machine Learning, 2006, Eq. 2.26, with the Matérn
kernel of ν = 5/2, their Eq. 4.17; so few points are the subset of regressors of their Sect. 8.3].
It is 0 at a training point and 1 far from all. F is the RMS of the force components that the part
gives there, of the binding with its prior: errors are larger where forces are. p, q, ℓ and u₀ are
calibrated on validation frames by :mod:`deltaserver.training.uncertainty`, never on test frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.model.files.uncertainty import UncertaintyBlock
from deltaserver.model.manifest import BOUND_PARTS
from deltaserver.model.trust.novelty import NoveltyMeasure, TrainingDistance

if TYPE_CHECKING:
    from deltaserver.model.composite import CompositeModel
    from deltaserver.model.sgdml import Evaluation


TOTAL = "total"
JITTER = 1e-6  # on the diagonal of K: neighbouring frames are nearly the same
LEAST_SQUARED = 1e-8  # of s: a training point is no exact label


class PosteriorSpread:
    """s of one model: see the module."""

    def __init__(self, distance: TrainingDistance, points: Ints, length: float) -> None:
        self._points = distance.points[points].astype(np.float64)  # [r, F]
        self._squared = np.einsum("rf,rf->r", self._points, self._points)
        self._length = length
        squared = squared_distances(self._points, self._points, self._squared)
        kernel = matern(squared, length) + JITTER * np.eye(len(points))
        # s² = 1 − |L⁻¹k|² with K = LLᵀ: one product of r² numbers a structure.
        self._whiten = np.linalg.inv(np.linalg.cholesky(kernel))

    def __call__(self, f: Floats) -> Floats:
        """Return s of features less their centre, (B, F): shape (B,)."""
        white = self._white(f)
        squared = 1.0 - np.einsum("br,br->b", white, white)
        result: Floats = np.sqrt(np.maximum(squared, LEAST_SQUARED))
        return result

    def covariance(self, f: Floats) -> Floats:
        """Return k(f, f′) − k(f)ᵀ K⁻¹ k(f′) of every two of the features (B, F): shape (B, B)."""
        white = self._white(f)
        result: Floats = matern(squared_distances(f, f), self._length) - white @ white.T
        return result

    def _white(self, f: Floats) -> Floats:
        """Return L⁻¹k(f) of features (B, F): shape (B, r)."""
        k = matern(squared_distances(f, self._points, self._squared), self._length)
        result: Floats = k @ self._whiten.T
        return result


def squared_distances(f: Floats, points: Floats, norms: Floats | None = None) -> Floats:
    """Return |f_i − p_j|² of rows (B, F) and (P, F), shape (B, P); ``norms`` are |p_j|²."""
    own = np.einsum("bf,bf->b", f, f)
    norms = np.einsum("pf,pf->p", points, points) if norms is None else norms
    result: Floats = np.maximum(own[:, None] + norms - 2.0 * (f @ points.T), 0.0)
    return result


def matern(squared: Floats, length: float) -> Floats:
    """Return (1 + ρ + ρ²/3) exp(−ρ) of squared distances, ρ = √5 d/ℓ."""
    rho = np.sqrt(5.0 * squared) / length
    result: Floats = (1.0 + rho * (1.0 + rho / 3.0)) * np.exp(-rho)
    return result


@dataclass(frozen=True)
class _Part:
    """One part of a model: whose atoms, and in what unit its block is."""

    atoms: Ints
    unit: float  # of the block's forces, eV/Å
    spread: PosteriorSpread
    block: UncertaintyBlock

    def __call__(self, f: Floats, forces: Floats) -> Floats:
        """Return u (eV/Å) of features and the part's forces (B, N, 3): shape (B,)."""
        force = rms(forces[:, self.atoms]) / self.unit
        return self.unit * uncertainty(self.block, self.spread(f), force)


def rms(forces: Floats) -> Floats:
    """Return √⟨F²⟩ over the components of forces (B, N, 3): shape (B,)."""
    result: Floats = np.sqrt(np.einsum("bna,bna->b", forces, forces) / forces[0].size)
    return result


def uncertainty(block: UncertaintyBlock, s: Floats, force: Floats) -> Floats:
    """Return u₀ s^p F^q, shape (B,), in the block's units."""
    f = np.maximum(force, block.floor)
    result: Floats = block.scale * s**block.spread_exponent * f**block.force_exponent
    return result


def forces_of(name: str, contributions: Mapping[str, Evaluation]) -> Floats:
    """Return the forces (B, N, 3) of a part, of the binding with its prior."""
    if name not in BOUND_PARTS:
        return contributions[name].forces
    bound = [contributions[part].forces for part in BOUND_PARTS if part in contributions]
    return sum(bound[1:], bound[0])


class UncertaintyMeasure:
    """The uncertainty of structures of a complex, component by component.

    Parts whose file says nothing of it have none.
    """

    def __init__(self, model: CompositeModel, novelty: NoveltyMeasure) -> None:
        self._parts: dict[str, _Part] = {}
        self._novelty = novelty
        self._n_atoms = model.n_atoms
        self._summed = {part.name for part in model.parts if part.trained} - {"full"}
        known: dict[int, PosteriorSpread] = {}  # fragments may share a model
        for part in model.parts:
            trained, distance = part.trained, novelty.distance_of(part.name)
            block = None if trained is None else trained.parameters.uncertainty
            if trained is None or block is None or distance is None:
                continue
            parameters, native = trained.parameters, trained.native
            if id(parameters) not in known:
                known[id(parameters)] = PosteriorSpread(distance, block.points, block.length)
            self._parts[part.name] = _Part(
                part.atoms, native.energy_ev / native.length_ang, known[id(parameters)], block
            )

    @property
    def components(self) -> tuple[str, ...]:
        """Return the parts that have an uncertainty."""
        return tuple(self._parts)

    def __call__(
        self,
        positions: Floats,
        contributions: Mapping[str, Evaluation],
        cell: Floats | None = None,
    ) -> dict[str, Floats]:
        """Return u of every structure by part, eV/Å, shape (B,).

        Args:
            positions: Å, (B, N, 3).
            contributions: of the parts that were evaluated.
            cell: lattice vectors in columns, Å; only periodic models look at it.
        """
        names = [name for name in self._parts if name in contributions]
        return self.of_features(self._novelty.features(positions, names, cell), contributions)

    def of_features(
        self, features: Mapping[str, Floats], contributions: Mapping[str, Evaluation]
    ) -> dict[str, Floats]:
        """Return the same of the ``features`` of the novelty, which costs most of it."""
        found = {
            name: part(features[name], forces_of(name, contributions))
            for name, part in self._parts.items()
            if name in contributions
        }
        return found | self._total(found, contributions)

    def _total(
        self, found: Mapping[str, Floats], contributions: Mapping[str, Evaluation]
    ) -> dict[str, Floats]:
        """Return √(Σ_p u_p² n_p/N), ``total``, where all that is summed has an uncertainty.

        Errors of different parts are independent; a fragment's are on its n_p atoms alone.
        """
        if set(found) != self._summed or "full" in contributions:
            return {}
        squared = [
            len(self._parts[name].atoms) / self._n_atoms * values**2
            for name, values in found.items()
        ]
        return {TOTAL: np.sqrt(np.sum(squared, axis=0))}
