"""Shipped models against structures that are theirs, and against those that are not."""

import functools
import re
import shutil

import numpy as np
import pytest
from ase.io import read

from deltaserver import CompositeModel
from deltaserver.cli.app import main
from deltaserver.datasets.files import read_dataset
from deltaserver.errors import StructureError
from deltaserver.model.trust.structure import ExpectedStructure
from tests import shipped
from tests.builders import rotation
from tests.integration.conftest import ROOT

INPUTS = {"c60": "c60_buckycatcher", "benzene_dimer": "benzene_dimer"}
DATASETS = {
    "c60": "c60_buckycatcher_gfn2_400K.xyz.gz",
    "benzene_dimer": "benzene_dimer_gfn2_150K.xyz.gz",
    "methane_dimer": "methane_dimer",
    "benzene_water": "benzene_water",
    "na_benzene": "na_benzene",
}


def model_of(name):
    return shipped.load(ROOT / "models" / name)


@functools.cache
def expected_of(name):
    return ExpectedStructure.of(model_of(name))


def structure(name):
    return read(ROOT / "ipi_inputs" / f"{INPUTS[name]}.xyz").positions


def refusal(name, positions, cell=None, component="total"):
    with pytest.raises(StructureError) as caught:
        expected_of(name).check(positions, cell, component)
    assert caught.value.exit_code == 4
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", DATASETS)
def test_every_labelled_frame_passes(name):
    for positions in read_dataset(ROOT / "data" / DATASETS[name]).positions[::7]:
        expected_of(name).check(positions)
    assert expected_of(name).unchecked == ()


@pytest.mark.parametrize("name", INPUTS)
def test_the_inputs_pass_turned_moved_and_mirrored(name):
    x = structure(name)
    expected_of(name).check(x)
    expected_of(name).check(-(x @ rotation(1).T) + [1e3, -20.0, 3.0])


@pytest.mark.parametrize("name", INPUTS)
def test_symmetric_relabelling_passes(name):
    """A permutation of the model's own group is the same molecule."""
    perms = model_of(name).binding.parameters.perms
    for perm in np.random.default_rng(5).permutation(perms)[:20]:
        expected_of(name).check(structure(name)[perm])


@pytest.mark.parametrize("seed", range(3))
def test_a_permuted_complex_is_refused_with_its_first_atom(seed):
    x = structure("c60")
    order = np.random.default_rng(seed).permutation(len(x))
    said = refusal("c60", x[order])
    first = int(re.match(r"atom (\d+) \(C of c60\) should be bonded to atom", said)[1])
    assert first == np.flatnonzero(order != np.arange(len(x)))[0]
    assert "the order of the atoms is not the model's" in said


def test_one_permuted_fragment_is_refused():
    x = structure("c60")
    x[60:] = x[60:][::-1]
    said = refusal("c60", x)
    assert said.startswith("atom 60 (C of buckycatcher) should be bonded to atom ")


def test_exchanged_fragments_are_refused():
    assert "atom 0 (C of c60)" in refusal("c60", np.roll(structure("c60"), -60, axis=0))


@pytest.mark.parametrize(
    ("name", "a", "b"),
    [("c60", 0, 60), ("c60", 31, 147), ("c60", 3, 7), ("c60", 59, 100), ("benzene_dimer", 0, 12),
     ("benzene_dimer", 22, 23), ("benzene_dimer", 5, 23)],
)  # fmt: skip
def test_two_exchanged_atoms_are_named(name, a, b):
    x = structure(name)
    x[[a, b]] = x[[b, a]]
    names = expected_of(name).names
    said = refusal(name, x)
    assert said.startswith((f"atom {names[a]} should be", f"atom {names[b]} should be"))
    assert f"atom {names[a]} and atom {names[b]} are exchanged" in said


def test_a_lone_atom_exchanged_with_one_of_a_molecule():
    model = model_of("na_benzene")
    x = read_dataset(ROOT / "data" / "na_benzene").positions[0].copy()
    x[[0, 12]] = x[[12, 0]]
    names = expected_of("na_benzene").names
    assert model.fragments[1].name == "sodium"
    assert f"atom {names[0]} and atom 12 (Na of sodium) are exchanged" in refusal("na_benzene", x)


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize(
    ("factor", "said"),
    [(1.1, "1.10 times as long as in training"), (1.3, "the structure is stretched"),
     (0.88, "the structure is squeezed"), (0.529177, "Å taken for Bohr?"),
     (1.889726, "Bohr taken for Å?")],
)  # fmt: skip
def test_scaled_structures_are_refused(name, factor, said):
    assert said in refusal(name, structure(name) * factor)


def test_a_large_molecule_tells_five_per_cent():
    assert "the bonds of c60 are 1.05 times" in refusal("c60", structure("c60") * 1.05)


def test_one_stretched_bond():
    x = structure("c60")
    partner = int(expected_of("c60").bonds[1].j[0])
    bond = expected_of("c60").bonds[1]
    hydrogen = next(
        (i, j) for i, j in zip(bond.i, bond.j, strict=True) if model_of("c60").numbers[i] == 1
    )
    x[hydrogen[0]] += 0.6 * (x[hydrogen[0]] - x[hydrogen[1]])
    said = refusal("c60", x)
    assert f"atom {hydrogen[0]} (H of buckycatcher)" in said
    assert said.endswith("the structure is stretched")
    assert partner >= 60


def knows_only_the_well(directory):
    """Train a binding model without a prior on frames of the well."""
    shutil.copytree(ROOT / "models" / "methane_dimer", directory)
    for name in ("binding.npz", "model.yaml", "training.json", "check.json"):
        (directory / name).unlink()
    data = str(ROOT / "data" / "methane_dimer")
    options = "--component binding --symmetry none --n-train 20 --n-valid 10 --sigma 20 --quiet"
    assert main(["train", data, "--output", str(directory), *options.split()]) == 0
    return CompositeModel.load(directory)


def test_fragments_pulled_apart_are_refused_where_binding_is_served(tmp_path):
    model = knows_only_the_well(tmp_path / "well")
    x = read(ROOT / "models" / "methane_dimer" / "structure.xyz").positions
    ExpectedStructure.of(model).check(x)
    x[5:] += 6.0 * np.sign(x[5:].mean(axis=0) - x[:5].mean(axis=0))
    with pytest.raises(StructureError, match="the complex is pulled apart") as caught:
        ExpectedStructure.of(model).check(x)
    assert str(caught.value).startswith("methane1 is ")
    assert caught.value.exit_code == 4
    ExpectedStructure.of(model).check(x, component="fragments")
    expected_of("methane_dimer").check(x)  # whose binding is right at any separation
    known = structure("benzene_dimer")
    known[12:] += 6.0 * np.sign(known[12:].mean(axis=0) - known[:12].mean(axis=0))
    expected_of("benzene_dimer").check(known)


def test_fragments_that_overlap_are_refused():
    x = structure("benzene_dimer")
    x[12:] -= x[12:].mean(axis=0) - x[:12].mean(axis=0) - [0.0, 0.0, 0.5]
    said = refusal("benzene_dimer", x)
    assert "the molecules overlap" in said


def test_a_molecule_that_the_cell_has_cut():
    cell = 30.0 * np.eye(3)
    x = (structure("c60") + 15.0 - structure("c60")[3]) % 30.0
    expected_of("c60").check(x, cell)
    x = (x + 15.0) % 30.0
    said = refusal("c60", x, cell)
    assert "make the molecules whole in the start file" in said
    assert 'set pbc="false"' in said
    assert "pbc" not in refusal("c60", x)
    outside = refusal("c60", x - 4.0, cell)  # i-PI has not wrapped that: the file was so
    assert "make the molecules whole in the start file" in outside
    assert "pbc" not in outside


@pytest.mark.parametrize("name", INPUTS)
def test_after_the_first_structure_only_the_order_counts(name):
    """A minimiser's trial steps may be anything; another replica's order of atoms may not."""
    x = structure(name)
    expected = expected_of(name)
    rng = np.random.default_rng(3)
    for trial in (x, 1.3 * x, 0.8 * x, x + rng.normal(0.0, 0.5, x.shape)):
        expected.check_order(trial)
    for wrong in (x[::-1], x[rng.permutation(len(x))]):
        with pytest.raises(StructureError, match="should be bonded"):
            expected.check_order(wrong)
    with pytest.raises(StructureError, match="Bohr taken for Å"):
        expected.check_order(x / 0.529177)


def test_from_python():
    model = model_of("benzene_dimer")
    model.check_structure(structure("benzene_dimer"))
    with pytest.raises(StructureError):
        model.check_structure(structure("benzene_dimer")[::-1])
