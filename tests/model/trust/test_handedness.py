"""Molecules whose equal atoms are numbered as in their mirror image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.io import read

from deltaserver.errors import StructureError
from deltaserver.model.trust.handedness import Handedness
from deltaserver.model.trust.structure import ExpectedStructure
from tests import shipped
from tests.shipped import MODELS


@pytest.fixture(scope="module")
def model():
    return shipped.load(MODELS / "methane_dimer")


@pytest.fixture(scope="module")
def x():
    return read(MODELS / "methane_dimer" / "structure.xyz").positions


def exchanged(x, *pairs):
    x = x.copy()
    for i, j in pairs:
        x[[i, j]] = x[[j, i]]
    return x


def test_two_hydrogens_of_one_methane_make_it_its_mirror_image(model, x):
    """Its energy is another one, which no bond tells."""
    other = exchanged(x, (1, 2))
    assert abs(model.evaluate(other).energy - model.evaluate(x).energy) > 1e-3
    with pytest.raises(StructureError, match="methane2 is the mirror image, beside methane1, of"):
        model.check_structure(other)
    ExpectedStructure.of(model).check(other, component="fragments")  # alone they are the same


@pytest.mark.parametrize("pairs", [((1, 2), (6, 7)), ((1, 2), (2, 3)), ((6, 7), (8, 9))])
def test_turned_molecules_and_both_mirrored_have_the_same_energy(model, x, pairs):
    same = exchanged(x, *pairs)
    model.check_structure(same)
    model.check_structure(same * [1.0, 1.0, -1.0])  # as in a mirror
    assert model.evaluate(same).energy == pytest.approx(model.evaluate(x).energy, abs=1e-6)


def test_a_model_that_mirrors_one_alone_takes_both(model, x):
    """With the product of all permutations either numbering is as good."""
    perms = model.binding.parameters.perms
    one_alone = np.arange(10)
    one_alone[[1, 2]] = 2, 1
    parameters = replace(
        model.binding.parameters, perms=np.concatenate([perms, perms[:, one_alone]])
    )
    bonds = ExpectedStructure.of(model).bonds
    found = Handedness.of(bonds, replace_parameters(model.binding, parameters))
    assert found is not None
    assert len(found.known) == 4
    found.check(exchanged(x, (1, 2)))


def replace_parameters(binding, parameters):
    class Other:
        native = binding.native

    Other.parameters = parameters
    return Other


def test_a_molecule_that_turns_inside_out_has_none(model):
    """Half of the frames have two hydrogens of the second methane exchanged."""
    frames = model.binding.parameters.positions.copy()
    frames[:260, [6, 7]] = frames[:260, [7, 6]]
    parameters = replace(model.binding.parameters, positions=frames)
    bonds = ExpectedStructure.of(model).bonds
    assert Handedness.of(bonds, replace_parameters(model.binding, parameters)) is None


@pytest.mark.parametrize("name", ["benzene_dimer", "benzene_water", "na_benzene"])
def test_flat_molecules_have_none(name):
    assert ExpectedStructure.of(shipped.load(MODELS / name)).handedness is None


def test_a_cage_and_its_catcher_have_one():
    expected = ExpectedStructure.of(shipped.load(MODELS / "c60"))
    x = read(MODELS / "c60" / "structure.xyz").positions
    assert expected.handedness.names == ("c60", "buckycatcher")
    assert expected.handedness.hands(x).tolist() == [1, 1]


def test_half_of_a_cages_own_permutations_mirror_it():
    """With one of these the binding of C60 and its catcher is off by 0.07 eV."""
    model = shipped.load(MODELS / "c60")
    expected, cage = ExpectedStructure.of(model), np.array(model.fragments[0].atoms)
    x = read(MODELS / "c60" / "structure.xyz").positions
    energy = model.evaluate(x, "binding").energy
    for perm in np.random.default_rng(1).permutation(model.fragments[0].model.parameters.perms)[:8]:
        other = x.copy()
        other[cage] = x[cage[perm]]
        is_known = abs(model.evaluate(other, "binding").energy - energy) < 1e-6
        assert (expected.handedness.hands(other) == 1).all() == is_known
