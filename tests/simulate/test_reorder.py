"""Atoms in any order, put back: by bonds, and by handedness where bonds leave a choice."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.io import read, write

from deltaserver.cli.app import main
from deltaserver.errors import StructureError
from deltaserver.molecules.matching import Reference, match_order
from tests import shipped
from tests.integration.conftest import ROOT

pytestmark = pytest.mark.usefixtures("shipped_loaded_once")


def model_of(name):
    directory = ROOT / "models" / name
    return shipped.load(directory), read(directory / "structure.xyz")


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", ["c60", "benzene_dimer", "benzene_water", "na_benzene"])
def test_any_order_gives_the_same_forces(tmp_path, name, seed):
    """The model's own group is all that may be left: the energy is the same."""
    model, atoms = model_of(name)
    rng = np.random.default_rng(seed)
    atoms.positions += rng.normal(0.0, 0.02, atoms.positions.shape)
    expected = model.evaluate(atoms.positions)
    mixed = atoms[rng.permutation(len(atoms))]
    mixed.rotate(40.0 * seed + 10.0, (1.0, 2.0, 3.0))
    write(tmp_path / "mixed.xyz", mixed)
    code = main(["reorder", str(tmp_path / "mixed.xyz"), "--models", str(ROOT / "models" / name)])
    assert code == 0
    found = read(tmp_path / "mixed_reordered.xyz")
    assert (found.numbers == model.numbers).all()
    model.check_structure(found.positions)
    # XYZ files have eight decimals; forces of some 10⁴ eV/Å² per Å at most.
    result = model.evaluate(found.positions)
    assert float(result.energy) == pytest.approx(float(expected.energy), abs=1e-4)


def reference_of(atoms):
    return Reference(atoms.numbers, atoms.positions, (("all", np.arange(len(atoms))),))


@pytest.mark.parametrize("name", ["CH3CH2OH", "C2H6", "CH3CONH2", "isobutane", "H2O2", "C3H8"])
@pytest.mark.parametrize("seed", range(2))
def test_alike_atoms_go_where_their_handedness_says(name, seed):
    """Hydrogens of one carbon look alike to bonds; exchanged, another structure results."""
    atoms = molecule(name)
    rng = np.random.default_rng(seed)
    x = atoms.positions + rng.normal(0.0, 0.03, atoms.positions.shape)
    perm = rng.permutation(len(atoms))
    order = match_order(reference_of(atoms), atoms.numbers[perm], x[perm])
    found = x[perm][order]
    assert (atoms.numbers[perm][order] == atoms.numbers).all()
    distances = [Atoms(atoms.numbers, p).get_all_distances() for p in (found, atoms.positions)]
    assert np.abs(distances[0] - distances[1]).max() < 0.4  # as far as the noise moves pairs


def test_a_chiral_centre():
    """CHFClBr with a methyl turned: the four different neighbours fix every atom."""
    x = np.array(
        [[0, 0, 0], [0.6, 0.6, 0.6], [-0.8, -0.8, 0.8], [1.0, -1.0, -1.0], [-1.1, 1.1, -1.1]]
    )
    atoms = Atoms("CHFClBr", x)
    perm = np.array([3, 1, 4, 0, 2])
    order = match_order(reference_of(atoms), atoms.numbers[perm], x[perm])
    np.testing.assert_array_equal(perm[order], np.arange(5))


@pytest.mark.parametrize("seed", range(4))
def test_a_molecule_that_is_its_own_mirror_image_is_numbered_as_the_reference(seed):
    """Numbered the other way round its distances fit as well; beside another it does not."""
    atoms = molecule("CH4")
    rng = np.random.default_rng(seed)
    x = atoms.positions + rng.normal(0.0, 0.05, (5, 3))
    perm = rng.permutation(5)
    order = match_order(reference_of(atoms), atoms.numbers[perm], x[perm])
    found = x[perm][order]
    sides = [np.linalg.det(p[1:4] - p[0]) for p in (atoms.positions, found)]
    assert sides[0] * sides[1] > 0.0


def test_another_molecule_is_refused(tmp_path, capsys):
    write(tmp_path / "other.xyz", molecule("C6H6") + molecule("CH3OH"))
    arguments = ["reorder", str(tmp_path / "other.xyz"), "--models",
                 str(ROOT / "models" / "benzene_dimer")]  # fmt: skip
    assert main(arguments) == 2
    assert "18 atoms; the model has 24" in capsys.readouterr().err
    with pytest.raises(StructureError, match=r"no molecule with the bonds of all \(H6C2O\)"):
        match_order(reference_of(molecule("CH3CH2OH")), molecule("CH3OCH3").numbers,
                    molecule("CH3OCH3").positions)  # fmt: skip


def test_what_a_cell_has_cut_is_made_whole(tmp_path, capsys):
    model, atoms = model_of("benzene_dimer")
    expected = model.evaluate(atoms.positions)
    wrapped = atoms[np.random.default_rng(0).permutation(len(atoms))]
    wrapped.set_cell([16.0, 16.0, 16.0])
    wrapped.pbc = True
    wrapped.wrap()
    assert np.ptp(wrapped.positions, axis=0).max() > 8.0
    write(tmp_path / "wrapped.xyz", wrapped)
    models = ["--models", str(ROOT / "models" / "benzene_dimer")]
    assert main(["reorder", str(tmp_path / "wrapped.xyz"), *models]) == 0
    assert "molecules made whole in 1" in capsys.readouterr().out
    found = read(tmp_path / "wrapped_reordered.xyz")
    energy = float(model.evaluate(found.positions).energy)
    assert energy == pytest.approx(float(expected.energy), abs=1e-4)
    ordered = atoms.copy()
    ordered.set_cell([16.0, 16.0, 16.0])
    ordered.pbc = True
    ordered.wrap()
    write(tmp_path / "start.xyz", ordered)
    words = ["input", "--kind", "nve", "--structure", str(tmp_path / "start.xyz"), *models]
    assert main(words) == 0
    (note,) = capsys.readouterr().err.splitlines()
    assert "start.xyz: molecules that the cell had cut or parted were made whole" in note


def test_every_frame_of_a_trajectory_and_never_the_file_itself(tmp_path, capsys):
    model, atoms = model_of("benzene_dimer")
    perm = np.random.default_rng(0).permutation(24)
    frames = [atoms[perm], atoms[perm], atoms]
    write(tmp_path / "t.xyz", frames)
    base = ["reorder", str(tmp_path / "t.xyz"), "--models", str(ROOT / "models/benzene_dimer")]
    assert main([*base, "-o", str(tmp_path / "out.xyz")]) == 0
    found = read(tmp_path / "out.xyz", ":")
    assert len(found) == 3
    for frame in found:
        model.check_structure(frame.positions)
    assert main([*base, "-o", str(tmp_path / "out.xyz")]) == 2
    assert "is there already; give --force" in capsys.readouterr().err
    assert main([*base, "-o", str(tmp_path / "out.xyz"), "--force"]) == 0
    before = (tmp_path / "t.xyz").read_bytes()
    assert main([*base, "-o", str(tmp_path / "t.xyz")]) == 2
    assert (tmp_path / "t.xyz").read_bytes() == before
    assert "would overwrite what is read" in capsys.readouterr().err
