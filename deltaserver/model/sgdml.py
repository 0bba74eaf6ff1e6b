"""One sGDML model: positions in Å, energy in eV, forces in eV/Å."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from deltaserver import units
from deltaserver.compute.team import ALONE, Team
from deltaserver.errors import GeometryError, UnitError
from deltaserver.model.descriptor import Geometry, PairDescriptor, compiled_cell
from deltaserver.model.files.parameters import ModelParameters, read_parameters
from deltaserver.model.kernel.training_sum import Task
from deltaserver.model.kernel.weighted import WeightedSum, sum_of
from deltaserver.model.linear.expansion import Expansion

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Precision = Literal["float64", "float32"]

DEFAULT_LENGTH_UNIT, DEFAULT_ENERGY_UNIT = "Ang", "kcal/mol"


class AssumedUnitsWarning(UserWarning):
    """A model file states no units and nothing else does: Å and kcal/mol are assumed."""


@dataclass(frozen=True)
class Evaluation:
    """Energies, forces and virials of a batch (or of one geometry, without the leading axis).

    Attributes:
        energy: eV, shape (B,).
        forces: eV/Å, shape (B, N, 3).
        virial: −∂E/∂ε, eV, shape (B, 3, 3).
    """

    energy: Floats
    forces: Floats
    virial: Floats

    def __getitem__(self, index: int) -> Evaluation:
        """Return one geometry of the batch."""
        return Evaluation(self.energy[index], self.forces[index], self.virial[index])


def concatenate(batches: Sequence[Evaluation]) -> Evaluation:
    """Join batches along their leading axis."""
    return Evaluation(
        np.concatenate([batch.energy for batch in batches]),
        np.concatenate([batch.forces for batch in batches]),
        np.concatenate([batch.virial for batch in batches]),
    )


class ForceModel(Protocol):
    """What a fragment or binding model has to offer to be composed."""

    @property
    def numbers(self) -> Ints:
        """Atomic numbers, shape (N,)."""

    @property
    def lattice(self) -> Floats | None:
        """Lattice vectors in columns, Å, of a periodic model."""

    def evaluate(self, positions: Floats, cell: Floats | None = None) -> Evaluation:
        """Evaluate a batch (B, N, 3) of positions in Å."""


@dataclass(frozen=True)
class NativeUnits:
    """What one length and one energy unit of a model file are, in Å and eV."""

    length_ang: float
    energy_ev: float


def resolve_units(
    parameters: ModelParameters, length_unit: str | None = None, energy_unit: str | None = None
) -> NativeUnits:
    """Choose a model's units: its file's, else those given (the manifest's), else Å and kcal/mol.

    Raises:
        UnitError: a unit's name is not known.
    """
    length = parameters.length_unit or length_unit
    energy = parameters.energy_unit or energy_unit
    if length is None or energy is None:
        warnings.warn(
            f"{parameters.source}: no units in the file or the manifest; "
            f"assuming {length or DEFAULT_LENGTH_UNIT} and {energy or DEFAULT_ENERGY_UNIT}",
            AssumedUnitsWarning,
            stacklevel=2,
        )
    try:
        return NativeUnits(
            units.length_in_ang(length or DEFAULT_LENGTH_UNIT),
            units.energy_in_ev(energy or DEFAULT_ENERGY_UNIT),
        )
    except UnitError as error:
        raise UnitError(f"{parameters.source}: {error}") from None


def as_batch(positions: ArrayLike, n_atoms: int, what: str) -> Floats:
    """Return positions as a finite float64 array of shape (B, n_atoms, 3).

    Raises:
        GeometryError: the shape is another one or a coordinate is not finite.
    """
    batch = _shaped(positions, n_atoms, what)
    if not np.isfinite(batch).all():
        frame, atom, _ = np.argwhere(~np.isfinite(batch))[0]
        raise GeometryError(f"{what}: position of atom {atom} in geometry {frame} is not finite")
    return batch


def _shaped(positions: ArrayLike, n_atoms: int, what: str) -> Floats:
    batch = np.ascontiguousarray(positions, dtype=np.float64)
    if batch.ndim not in (2, 3) or batch.shape[-2:] != (n_atoms, 3):
        raise GeometryError(
            f"{what}: positions have shape {batch.shape}; "
            f"expected ({n_atoms}, 3) or (B, {n_atoms}, 3)"
        )
    return batch.reshape(-1, n_atoms, 3)


def as_cell(cell: ArrayLike, what: str) -> Floats:
    """Return a cell as a finite, regular float64 array of shape (3, 3).

    Raises:
        GeometryError: the shape is another one, or the cell has no volume.
    """
    box = np.asarray(cell, dtype=np.float64)
    if box.shape != (3, 3):
        raise GeometryError(f"{what}: the cell has shape {box.shape}; expected (3, 3)")
    if not np.isfinite(box).all() or np.linalg.matrix_rank(box) < 3:
        raise GeometryError(f"{what}: the cell has no volume; expected three independent vectors")
    return box


class SGDMLModel:
    """A trained sGDML force field.

    E(x) = std · Σ_{m,s} k(D(x), P_s D(x_m)) + c, with k as in :mod:`deltaserver.model.kernel`;
    F = −∂E/∂x analytically. Where the model stands on a linear expansion, that is added.
    """

    def __init__(
        self, parameters: ModelParameters, native: NativeUnits, team: Team = ALONE
    ) -> None:
        self.parameters = parameters
        self.native = native
        self._pairs = PairDescriptor(len(parameters.numbers))
        self._sum = sum_of(parameters, self._pairs, team)
        self._compiled = self._sum.evaluator()
        self._scale = parameters.std * native.energy_ev
        self._shift = parameters.c * native.energy_ev

    @classmethod
    def load(
        cls,
        path: str | Path,
        length_unit: str | None = None,
        energy_unit: str | None = None,
    ) -> SGDMLModel:
        """Read a native sGDML ``.npz`` file; the units given hold only where the file has none."""
        parameters = read_parameters(path)
        return cls(parameters, resolve_units(parameters, length_unit, energy_unit))

    @property
    def numbers(self) -> Ints:
        """Atomic numbers, shape (N,)."""
        return self.parameters.numbers

    @property
    def compiled(self) -> bool:
        """Whether its sums are compiled loops, and not matrix products that BLAS shares out."""
        return self._sum.compiled

    @property
    def n_train(self) -> int:
        """Number of training points."""
        return len(self.parameters.x)

    @property
    def n_perms(self) -> int:
        """Number of permutations the model is symmetric under."""
        return len(self.parameters.perms)

    @property
    def lattice(self) -> Floats | None:
        """Lattice vectors in columns, Å, of a periodic model; None otherwise."""
        lattice = self.parameters.lattice
        return None if lattice is None else lattice * self.native.length_ang

    def evaluate(self, positions: ArrayLike, cell: ArrayLike | None = None) -> Evaluation:
        """Evaluate a batch of geometries.

        Args:
            positions: Å, shape (B, N, 3) or (N, 3); the result always has the leading axis.
            cell: lattice vectors in columns, Å. Only periodic models look at it; None stands
                for the lattice that the model was trained in.

        Raises:
            GeometryError: wrong shape, non-finite coordinates, coinciding atoms, a flat cell.
        """
        batch = _shaped(positions, len(self.numbers), self.parameters.source)
        box = self.lattice
        if box is not None and cell is not None:
            box = as_cell(cell, self.parameters.source)
        length = self.native.length_ang
        x = batch if length == 1.0 else batch / length
        scaled: Floats | None = None if box is None else box / length
        result = self._of(x, scaled)
        if length != 1.0:
            result.forces[:] /= length
        return result

    def _of(self, x: Floats, cell: Floats | None) -> Evaluation:
        """Energies in eV, forces and virials with them, all else in the model's units."""
        if self.parameters.linear is not None and isinstance(self._sum, WeightedSum):
            return self._evaluate_faded(self._sum, self.parameters.linear, x, cell)
        evaluate = self._evaluate if self._compiled is None else self._evaluate_compiled
        result = evaluate(x, cell)
        if self.parameters.linear is not None:
            more = self.parameters.linear.evaluate(x, cell)
            for array, addend in zip(
                (result.energy, result.forces, result.virial), more, strict=True
            ):
                array += addend * self.native.energy_ev
        return result

    def _evaluate_faded(
        self, total: WeightedSum, linear: Expansion, x: Floats, cell: Floats | None
    ) -> Evaluation:
        """Kernel sum and linear expansion, fading out together."""
        geometry = self._geometry(x, cell)
        more, forces, virial = linear.evaluate(x, cell)
        energy, g, share = total.with_more(geometry.descriptor, more / self.parameters.std)
        pulled, strained = self._pairs.pull_back(g * self._scale, geometry)
        share = share[:, None, None] * self.native.energy_ev
        return Evaluation(
            energy * self._scale + self._shift, pulled + share * forces, strained + share * virial
        )

    def _evaluate(self, x: Floats, cell: Floats | None) -> Evaluation:
        geometry = self._geometry(x, cell)
        energy, g = self._sum(geometry.descriptor)
        forces, virial = self._pairs.pull_back(g * self._scale, geometry)
        return Evaluation(energy * self._scale + self._shift, forces, virial)

    def _evaluate_compiled(self, x: Floats, cell: Floats | None) -> Evaluation:
        """Do the same in one compiled call."""
        assert self._compiled is not None
        energy, forces, virial = np.empty(len(x)), np.empty(x.shape), np.empty((len(x), 3, 3))
        filled = (energy, forces, virial)
        total = self._compiled(Task(x, *compiled_cell(cell), self._scale, self._shift, *filled))
        if not math.isfinite(total):
            self._geometry(x, cell)  # says what is wrong
        return Evaluation(energy, forces, virial)

    def _geometry(self, x: Floats, cell: Floats | None) -> Geometry:
        return self._pairs.geometry(as_batch(x, len(self.numbers), self.parameters.source), cell)
