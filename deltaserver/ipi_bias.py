"""The file that i-PI loads to have a bias beside a model, left out of the potential that it tells.

    <ffdirect name="bias" pbc="false">
      <pes>custom</pes> <pes_path>…/deltaserver/ipi_bias.py</pes_path>
      <parameters>{variable:R_CM, groups:0-4/5-9, …}</parameters>
    </ffdirect>
    <smotion mode="metad"> <metad><metaff>[ bias ]</metaff></metad> </smotion>
    … <ensemble> … <bias> <force forcefield="bias"/> </bias> </ensemble>

``deltaserver input --kind umbrella`` and ``metad`` write this. i-PI adds what stands in ``<bias>``
to the forces and to the conserved quantity, and tells it as ``ensemble_bias``. After each step its
metadynamics calls the force field's ``mtd_update``, which PLUMED's has and which ours is given
here; the work that it returns keeps the conserved quantity one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from ipi.pes.dummy import Dummy_driver

from deltaserver.arrays import Floats
from deltaserver.bias.hills_file import HillsFile, read_hills
from deltaserver.bias.potential import RunningBias
from deltaserver.bias.settings import HILLS_NAME, Bias
from deltaserver.errors import DeltaserverError, InputError
from deltaserver.units import BOHR_ANG, HARTREE_EV

__DRIVER_NAME__ = "deltaserver_bias"
__DRIVER_CLASS__ = "BiasDriver"

Result = tuple[float, Floats, Floats, str]


class BiasDriver(Dummy_driver):  # type: ignore[misc]
    """Energy, forces, virial and extras of a bias; see ``docs/enhanced_sampling.md``."""

    def __init__(self, **parameters: Any) -> None:
        self.parameters = parameters
        try:
            self.check_parameters()
        except DeltaserverError as error:
            print(f"deltaserver: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
            raise SystemExit(error.exit_code) from None
        forcefield: Any = sys._getframe(1).f_locals.get("self")  # which makes us
        if hasattr(forcefield, "pes_path"):
            forcefield.mtd_update = self.mtd_update

    def check_parameters(self) -> None:
        """Read the parameters, and the hills that are there already.

        Raises:
            InputError: something cannot be used.
        """
        bias = Bias.parse(self.parameters)
        path = Path(str(self.parameters.get("hills_file", HILLS_NAME)))
        step = int(self.parameters.get("first_step", 0))
        hills, keep = [], None
        if bias.growth:
            hills = read_hills(path)
            if hills and hills[-1].step > step:
                raise InputError(
                    f"{path}: holds hills beyond step {step}, where this run begins; continue it "
                    "with deltaserver simulate --resume, or move the file away"
                )
            keep = HillsFile(path).keep
        self.running = RunningBias(bias, step, hills, keep or (lambda _: None))

    def compute_structure(self, cell: Floats, pos: Floats) -> Result:
        """Evaluate one structure.

        Args:
            cell: not looked at; positions are taken as they are.
            pos: Bohr, shape (N, 3).

        Returns:
            energy (Hartree), forces (Hartree/Bohr), virial (Hartree), extras (JSON).
        """
        positions = BOHR_ANG * np.asarray(pos).reshape(-1, 3)
        found = self.running.evaluate(positions)
        name = self.running.bias.coordinate.name
        extras = json.dumps({f"{name}_ang": found.value_ang, "bias_energy_ev": found.energy_ev})
        return (
            found.energy_ev / HARTREE_EV,
            found.forces * (BOHR_ANG / HARTREE_EV),
            found.virial / HARTREE_EV,
            extras,
        )

    def mtd_update(self, pos: Floats, cell: Floats) -> float:
        """Note that a step has ended at ``pos``, Bohr; return what the bias has lost, Hartree."""
        positions = BOHR_ANG * np.asarray(pos).reshape(-1, 3)
        return self.running.advance(positions) / HARTREE_EV
