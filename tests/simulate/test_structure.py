import gzip
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from deltaserver import CompositeModel
from deltaserver.errors import InputError, StructureError
from deltaserver.molecules import elements
from deltaserver.simulate.structure import read_structure, start_structure
from deltaserver.units import BOHR_ANG
from tests.builders import COMPLEX, geometry
from tests.textio.written import ALIKE, CELL, FRAMES, SYMBOLS, as_bytes, text

WATER = "3\nwater\nO 0 0 0.1\nH 0 0.76 -0.5 extra 1\nH 0 -0.76 -0.5\n"


def test_plain_xyz_and_its_first_frame(tmp_path):
    path = tmp_path / "w.xyz"
    path.write_text(WATER + WATER.replace("0.76", "0.96"))
    found = read_structure(path)
    assert found.numbers == (8, 1, 1)
    np.testing.assert_allclose(found.positions_ang[1], [0.0, 0.76, -0.5])


def test_compressed_and_numbers_for_symbols(tmp_path):
    path = tmp_path / "w.xyz.gz"
    path.write_bytes(gzip.compress(WATER.replace("O ", "8 ").replace("H ", "h ").encode()))
    assert read_structure(path).numbers == (8, 1, 1)


def test_other_formats_through_ase(tmp_path):
    atoms = Atoms("OH2", [[0, 0, 0.1], [0, 0.76, -0.5], [0, -0.76, -0.5]])
    atoms.write(tmp_path / "w.traj")
    found = read_structure(tmp_path / "w.traj")
    assert found.numbers == (8, 1, 1)
    np.testing.assert_allclose(found.positions_ang, atoms.positions)


@pytest.mark.parametrize("name", ALIKE)
def test_a_start_is_the_same_however_it_is_written(tmp_path, name):
    path = tmp_path / "w.xyz"
    path.write_bytes(as_bytes(ALIKE[name]))
    found = read_structure(path)
    assert found.numbers == (8, 1, 1, 8, 1, 1)
    np.testing.assert_allclose(found.positions_ang, FRAMES[0], atol=2e-8)
    assert found.symbols == (("O", "D", "H", "O", "T", "D") if name == "isotopes" else SYMBOLS)


def test_a_wrapped_start_is_made_whole(tmp_path):
    path = tmp_path / "w.xyz"
    lattice = 'Lattice="10 0 0 0 10 0 0 0 10" pbc="T T T"'
    path.write_text(text(FRAMES % 10.0, comment=lattice))
    moved = read_structure(path).positions_ang - FRAMES[0]
    np.testing.assert_allclose(moved, np.tile(moved[0], (6, 1)), atol=2e-8)
    path.write_text("2\nLattice='2 0 0 0 9 0 0 0 9'\nC 0 0 0\nC 1 0 0\n")
    with pytest.raises(InputError, match=r"the cell is 2\.00 Å high, too small"):
        read_structure(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not readable as XYZ"),
        ("3\nwater\nO 0 0 0\n", "not readable as XYZ"),
        ("1\n\nQq 0 0 0\n", "not readable as XYZ"),
        ("1\n\nO 0 0 nan\n", "not finite"),
        ("99999999999\n\n", "99999999999 atoms"),
    ],
)
def test_files_that_are_no_structure(tmp_path, text, message):
    (tmp_path / "x.xyz").write_text(text)
    with pytest.raises(InputError, match=message):
        read_structure(tmp_path / "x.xyz")


def test_what_ase_cannot_read(tmp_path):
    (tmp_path / "x.nonsense").write_text("nothing")
    with pytest.raises(InputError, match="ASE cannot read it"):
        read_structure(tmp_path / "x.nonsense")
    with pytest.raises(InputError, match="no such file"):
        read_structure(tmp_path / "absent.xyz")


def test_elements_are_checked_against_the_model(tmp_path, model_directory):
    model = CompositeModel.load(model_directory)
    atoms = Atoms(COMPLEX, geometry(7, 3))
    atoms.write(tmp_path / "good.xyz")
    assert start_structure(model_directory, tmp_path / "good.xyz", model).numbers == tuple(COMPLEX)
    atoms.numbers[2] = 6
    atoms.write(tmp_path / "wrong.xyz")
    with pytest.raises(InputError, match=r"atom 2 .* is C; water-ammonia has H there"):
        start_structure(model_directory, tmp_path / "wrong.xyz", model)
    atoms[:5].write(tmp_path / "short.xyz")
    with pytest.raises(InputError, match="5 atoms; water-ammonia has 7"):
        start_structure(model_directory, tmp_path / "short.xyz", model)
    with pytest.raises(InputError, match=r"ships no structure.xyz; give one with --structure"):
        start_structure(model_directory, None, model)


def test_the_one_given_must_have_the_models_bonds(tmp_path):
    directory = Path(__file__).parents[2] / "models" / "methane_dimer"
    model = CompositeModel.load(directory)
    start = read_structure(directory / "structure.xyz")
    symbols = [elements.SYMBOLS[z] for z in start.numbers]
    for factor, comment in ((1.0, "Å"), (1.0 / BOHR_ANG, CELL + "positions{{atomic_unit}}")):
        path = tmp_path / "good.xyz"
        path.write_text(text([start.positions_ang * factor], symbols, comment))
        found = start_structure(directory, path, model).positions_ang
        np.testing.assert_allclose(found, start.positions_ang, atol=2e-8)
    path = tmp_path / "bohr.xyz"
    path.write_text(text([start.positions_ang / BOHR_ANG], symbols))
    with pytest.raises(StructureError, match=r"bohr\.xyz: .*Bohr") as refusal:
        start_structure(directory, path, model)
    assert str(refusal.value).endswith("Å? Check the unit of positions in the start structure")
