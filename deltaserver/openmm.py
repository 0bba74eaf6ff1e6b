"""A Δ-sGDML model in OpenMM: the same numbers that the daemon serves, as a ``PythonForce``.

Needs OpenMM 8.6 or newer (extra ``[openmm]``). OpenMM-ML, where it is installed, finds the model by
the name ``deltaserver``: ``MLPotential("deltaserver", models="models/c60")``.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import openmm
from openmm import unit

from deltaserver.arrays import Floats
from deltaserver.errors import GeometryError
from deltaserver.model.composite import CompositeModel
from deltaserver.molecules.elements import SYMBOLS
from deltaserver.units import KJ_PER_MOL_EV, LENGTH_ANG


def delta_force(
    model: CompositeModel | str | Path,
    component: str = "total",
    particles: Iterable[int] | None = None,
    check_structure: bool = True,
) -> openmm.PythonForce:
    """Return a force to be added to an OpenMM ``System``.

    Args:
        model: a loaded model, or the path of a model directory.
        component: see :meth:`deltaserver.CompositeModel.evaluate`.
        particles: the system's particles that are the model's atoms, in its order; all of them if
            not given.
        check_structure: refuse a first structure that is not the model's molecule: OpenMM's
            particles have no elements that could be compared.
    """
    loaded = model if isinstance(model, CompositeModel) else CompositeModel.load(model)
    loaded.check_component(component)
    force = openmm.PythonForce(_Computation(loaded, component, check_structure))
    force.setUsesPeriodicBoundaryConditions(loaded.periodic)
    if particles is not None:
        force.setParticles(list(particles))
    return force


class _Computation:
    """What OpenMM calls for energy (kJ/mol) and forces (kJ/mol/nm) of a ``State``."""

    def __init__(self, model: CompositeModel, component: str, check_structure: bool) -> None:
        self.model = model
        self.component = component
        self._structure_is_due = check_structure
        self._guards = model.guards()

    def __call__(self, state: Any) -> tuple[float, Floats]:
        """Evaluate; raise GeometryError or StructureError where there is nothing to evaluate."""
        x = state.getPositions(asNumpy=True).value_in_unit(unit.angstrom)
        cell = None
        if self.model.periodic:
            vectors = state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.angstrom)
            cell = vectors.T  # OpenMM keeps vectors in rows
            self._guards.check_wrapping(x, cell, self.component)
        if self._structure_is_due:
            self.model.check_structure(x, cell)
            self._structure_is_due = False
        result = self.model.evaluate(x, self.component, cell)
        energy = float(result.energy) / KJ_PER_MOL_EV
        return energy, result.forces * (LENGTH_ANG["nm"] / KJ_PER_MOL_EV)


class DeltaPotentialImplFactory:
    """What OpenMM-ML finds by the entry point ``deltaserver``: its ``MLPotentialImplFactory``."""

    def createImpl(  # noqa: N802
        self, name: str, models: CompositeModel | str | Path, component: str = "total"
    ) -> Any:
        """Return the potential; the arguments are those of ``MLPotential`` behind the name."""
        # OpenMM-ML loads its entry points, and so this module, while it is imported itself.
        from openmmml.mlpotential import MLPotentialImpl

        kind = type("DeltaPotentialImpl", (DeltaPotential, MLPotentialImpl), {})
        return kind(models, component)


class DeltaPotential:
    """A model as OpenMM-ML adds it to a system; elements are compared with the topology's.

    Beside OpenMM-ML's ``MLPotentialImpl`` in the bases of a class it is one of its potentials.
    """

    def __init__(self, models: CompositeModel | str | Path, component: str = "total") -> None:
        self.model = models if isinstance(models, CompositeModel) else CompositeModel.load(models)
        self.component = component

    def addForces(  # noqa: N802
        self,
        topology: Any,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        **arguments: Any,
    ) -> None:
        """Add the force; ``check_structure=False`` may be given to ``createSystem``.

        Raises:
            GeometryError: the elements are not the model's, in its order.
        """
        everything = list(topology.atoms())
        chosen = everything if atoms is None else [everything[k] for k in atoms]
        self._check_elements([a.element.atomic_number if a.element else 0 for a in chosen])
        force = delta_force(self.model, self.component, atoms, **arguments)
        force.setForceGroup(forceGroup)
        system.addForce(force)

    def _check_elements(self, numbers: list[int]) -> None:
        expected = self.model.numbers.tolist()
        if len(numbers) != len(expected):
            raise GeometryError(
                f"{self.model.name} has {len(expected)} atoms; the topology has {len(numbers)}"
            )
        for k, (want, got) in enumerate(zip(expected, numbers, strict=True)):
            if want != got:
                raise GeometryError(
                    f"atom {k} of the topology is {SYMBOLS[got] if got else 'no element'}; "
                    f"{self.model.name} has {SYMBOLS[want]} there"
                )
