"""One sGDML model: positions in Å, energy in eV, forces in eV/Å."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from deltaserver import units
from deltaserver.arrays import Floats, Ints
from deltaserver.errors import UnitError
from deltaserver.model.descriptor import as_cell, shaped
from deltaserver.model.engines.base import Engine
from deltaserver.model.engines.numpy_engine import NumpyEngine
from deltaserver.model.files.parameters import ModelParameters, read_parameters

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

    def __getitem__(self, index: int | slice | Ints) -> Evaluation:
        """Return one geometry of the batch, or a part of it."""
        return Evaluation(self.energy[index], self.forces[index], self.virial[index])


def concatenate(batches: Sequence[Evaluation]) -> Evaluation:
    """Join batches along their leading axis."""
    return Evaluation(
        np.concatenate([batch.energy for batch in batches]),
        np.concatenate([batch.forces for batch in batches]),
        np.concatenate([batch.virial for batch in batches]),
    )


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


class SGDMLModel:
    """A trained sGDML force field.

    E(x) = std · Σ_{m,s} k(D(x), P_s D(x_m)) + c, with k as in :mod:`deltaserver.model.kernel`;
    F = −∂E/∂x analytically. Where the model stands on a linear expansion, that is added.

    Args:
        parameters: what the model file holds.
        native: its units.
        engine: what evaluates it; our own, in NumPy and compiled loops, if None.
    """

    def __init__(
        self, parameters: ModelParameters, native: NativeUnits, engine: Engine | None = None
    ) -> None:
        self.parameters = parameters
        self.native = native
        self.engine = engine or NumpyEngine(parameters)
        self._n_atoms = len(parameters.numbers)
        lattice = parameters.lattice
        self._lattice = None if lattice is None else lattice * native.length_ang

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
    def has_kernel(self) -> bool:
        """Whether there is a kernel sum, and not an expansion alone."""
        parameters = self.parameters
        energies = parameters.alphas_energy
        return bool(parameters.a.any() or (energies is not None and energies.any()))

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
        return self._lattice

    def evaluate(self, positions: ArrayLike, cell: ArrayLike | None = None) -> Evaluation:
        """Evaluate a batch of geometries.

        Args:
            positions: Å, shape (B, N, 3) or (N, 3); the result always has the leading axis.
            cell: lattice vectors in columns, Å. Only periodic models look at it; None stands
                for the lattice that the model was trained in.

        Raises:
            GeometryError: wrong shape, non-finite coordinates, coinciding atoms, a flat cell.
        """
        batch = shaped(positions, self._n_atoms, self.parameters.source)
        box = self._lattice
        if box is not None and cell is not None:
            box = as_cell(cell, self.parameters.source)
        length = self.native.length_ang
        x = batch if length == 1.0 else batch / length
        scaled: Floats | None = None if box is None else box / length
        energy, forces, virial = self.engine.evaluate(x, scaled, self.native.energy_ev)
        if length != 1.0:
            forces /= length
        return Evaluation(energy, forces, virial)
