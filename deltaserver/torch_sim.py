"""Δ-sGDML models in torch-sim: the same numbers that the daemon serves, many systems at a time.

Needs torch-sim (extra ``[torch-sim]``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch_sim.models.interface import ModelInterface
from torch_sim.state import SimState

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import GeometryError
from deltaserver.model.composite import CompositeModel
from deltaserver.model.sgdml import Evaluation
from deltaserver.model.trust.wrapping import check_repeats
from deltaserver.molecules.elements import SYMBOLS


class DeltaModel(ModelInterface):  # type: ignore[misc]
    """Energies (eV), forces (eV/Å) and stresses (eV/Å³) of the systems of a torch-sim state.

    A Δ model is that of one complex. A state may hold several: each system is evaluated by the
    first of ``models`` whose elements it has, in that model's order; those of one model together.

    Args:
        models: loaded models, or the paths of model directories.
        component: see :meth:`deltaserver.CompositeModel.evaluate`.
        device: of the state's tensors.
        dtype: likewise; the models compute in float64 whatever it is.
        check_structure: refuse a model's first structure if its bonds are not the model's; see
            :meth:`deltaserver.CompositeModel.check_structure`.
    """

    def __init__(
        self,
        *models: CompositeModel | str | Path,
        component: str = "total",
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float64,
        check_structure: bool = False,
    ) -> None:
        super().__init__()
        self._device, self._dtype = torch.device(device), dtype
        self._compute_stress = self._compute_forces = True
        self._memory_scales_with = "n_atoms"
        self.component = component
        self.models = tuple(
            model if isinstance(model, CompositeModel) else CompositeModel.load(model)
            for model in models
        )
        for model in self.models:
            model.check_component(component)
        self._unchecked = set(self.models) if check_structure else set()
        self._guards = {model: model.guards() for model in self.models}

    def forward(self, state: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
        """Evaluate a state, or a dictionary of what makes one.

        Raises:
            GeometryError: a system is no model's, two of its atoms coincide, or its model is
                periodic and the state is not.
            StructureError: the cell has cut a molecule of a model that is not periodic, as
                torch-sim's own dynamics does where ``pbc`` is true; or its bonds are not the
                model's (only with ``check_structure``).
        """
        state = state if isinstance(state, SimState) else SimState(**state)
        positions, cells = (as_floats(tensor) for tensor in (state.positions, state.cell))
        numbers = state.atomic_numbers.cpu().numpy()
        owner = state.system_idx.cpu().numpy()
        atoms = [np.flatnonzero(owner == k) for k in range(len(cells))]
        energy, stress = np.zeros(len(cells)), np.zeros((len(cells), 3, 3))
        forces = np.zeros_like(positions)
        for model, systems in self._by_model([numbers[index] for index in atoms]).items():
            places = np.stack([atoms[k] for k in systems])  # [B, N]
            self._check_images(model, positions[places], cells[systems], state.pbc)
            found = self._evaluate(model, positions[places], cells[systems])
            energy[systems], forces[places] = found.energy, found.forces
            volume = np.abs(np.linalg.det(cells[systems]))[:, None, None]
            # Without a cell there is nothing that could be strained.
            has_cell = volume > 0.0
            stress[systems] = has_cell * -found.virial / np.where(has_cell, volume, 1.0)
        results = {"energy": energy, "forces": forces, "stress": stress}
        return {
            name: torch.as_tensor(values, dtype=self._dtype, device=self._device)
            for name, values in results.items()
        }

    def _by_model(self, numbers: list[Ints]) -> dict[CompositeModel, list[int]]:
        """Return which systems, of these elements, are whose."""
        found: dict[CompositeModel, list[int]] = defaultdict(list)
        for k, elements in enumerate(numbers):
            model = next((m for m in self.models if np.array_equal(m.numbers, elements)), None)
            if model is None:
                has = " ".join(SYMBOLS[number] for number in elements)
                names = ", ".join(m.name for m in self.models)
                raise GeometryError(
                    f"system {k} has the atoms {has[:120]}; of the models ({names}) none has "
                    "these, in this order"
                )
            found[model].append(k)
        return found

    def _check_images(
        self, model: CompositeModel, positions: Floats, cells: Floats, pbc: Any
    ) -> None:
        """Refuse systems of which the model and the state do not agree whether they repeat."""
        directions: Sequence[bool] = torch.as_tensor(pbc).reshape(-1).tolist()
        if model.periodic:
            check_repeats(model.name, cells[0], directions)
        if any(directions):
            for x, cell in zip(positions, cells, strict=True):
                self._guards[model].check_wrapping(x, cell, self.component)

    def _evaluate(self, model: CompositeModel, positions: Floats, cells: Floats) -> Evaluation:
        """Evaluate systems of one model, (B, N, 3); of a periodic one each in its own cell."""
        if model in self._unchecked:
            model.check_structure(positions[0], cells[0] if model.periodic else None)
            self._unchecked.discard(model)
        if not model.periodic:
            return model.evaluate(positions, self.component)
        one_by_one = [
            model.evaluate(x[None], self.component, cell)
            for x, cell in zip(positions, cells, strict=True)
        ]
        return type(one_by_one[0]).join(one_by_one)


def as_floats(tensor: torch.Tensor) -> Floats:
    """Return a tensor's numbers in float64, on the CPU."""
    found: Floats = tensor.detach().to("cpu", torch.float64).numpy()
    return found
