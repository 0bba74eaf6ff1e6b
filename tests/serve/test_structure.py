import gzip

import numpy as np
import pytest
from ase import Atoms

from deltaserver import CompositeModel
from deltaserver.errors import InputError
from deltaserver.serve.structure import read_structure, start_structure
from tests.builders import COMPLEX, geometry

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
