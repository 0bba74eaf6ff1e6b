"""An ASE calculator on a Δ-sGDML model: the same numbers that the daemon serves.

Needs ASE (in the extras ``[train]`` and ``[analysis]``).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ase.calculators.calculator import Calculator, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from deltaserver.errors import GeometryError
from deltaserver.model.force_field import ForceField, load
from deltaserver.model.sgdml import Evaluation
from deltaserver.model.trust.wrapping import check_repeats
from deltaserver.molecules.elements import SYMBOLS


class DeltaCalculator(Calculator):  # type: ignore[misc]
    """Energy (eV), forces (eV/Å) and, in a periodic cell, stress (eV/Å³) of a Δ model.

    Args:
        model: a loaded model, or the path of a model directory.
        component: see :meth:`deltaserver.CompositeModel.evaluate`.
        check_structure: refuse a first structure that is not the model's molecule; see
            :meth:`deltaserver.CompositeModel.check_structure`. Not unless asked: scans and
            optimisations may start from fragments far apart and from stretched bonds.

    After a calculation :attr:`contributions` maps each part's name to its evaluation. It stands
    beside ``results``, which hold what ASE knows and nothing else: ASE's own
    ``SinglePointCalculator`` and ``export_properties`` refuse other keys.
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress"]

    def __init__(
        self,
        model: ForceField | str | Path,
        component: str = "total",
        check_structure: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = load(model) if isinstance(model, str | Path) else model
        self.model.check_component(component)
        self.component = component
        self.contributions: Mapping[str, Evaluation] = {}
        self._structure_is_due = check_structure
        self._guards = self.model.guards()

    def reset(self) -> None:
        """Forget the last calculation; ASE calls this where atoms or parameters change."""
        super().reset()
        self.contributions = {}

    def calculate(
        self,
        atoms: Any = None,
        properties: Any = ("energy",),
        system_changes: Any = tuple(all_changes),
    ) -> None:
        """Evaluate ``atoms``; ASE calls this when a property is asked for.

        Raises:
            GeometryError: the atoms' elements are not the model's, in its order; or the model is
                periodic and they are not.
            StructureError: the cell has cut a molecule of a model that is not periodic, or the
                bonds are not the model's (only with ``check_structure``).
        """
        super().calculate(atoms, properties, system_changes)
        self._check_elements()
        periodic = self.atoms.cell.rank == 3
        cell = self.atoms.cell.array.T if periodic else None  # ASE keeps vectors in rows
        if self.model.periodic:
            check_repeats(self.model.name, cell, self.atoms.pbc)
        if cell is not None and self.atoms.pbc.any():
            self._guards.check_wrapping(self.atoms.positions, cell, self.component)
        if self._structure_is_due:
            self.model.check_structure(self.atoms.positions, cell)
            self._structure_is_due = False
        result = self.model.evaluate(self.atoms.positions, self.component, cell)
        self.results = {
            "energy": float(result.energy),
            "free_energy": float(result.energy),  # no electronic entropy: the same
            "forces": result.forces,
        }
        self.contributions = result.contributions
        if periodic:
            stress = -result.virial / self.atoms.get_volume()
            self.results["stress"] = full_3x3_to_voigt_6_stress(stress)

    def _check_elements(self) -> None:
        expected, found = self.model.numbers, self.atoms.numbers
        if len(expected) != len(found):
            raise GeometryError(
                f"{self.model.name} has {len(expected)} atoms; the structure has {len(found)}"
            )
        for index, (want, got) in enumerate(zip(expected, found, strict=True)):
            if want != got:
                raise GeometryError(
                    f"atom {index} is {SYMBOLS[got]}; {self.model.name} has {SYMBOLS[want]} there"
                )
