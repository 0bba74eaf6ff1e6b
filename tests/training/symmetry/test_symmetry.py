from __future__ import annotations

import sys

import numpy as np
import pytest

from deltaserver.errors import DataError, MissingExtraError
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.training import symmetry
from deltaserver.training.symmetry import (
    automorphisms,
    bonded_graph,
    bonds,
    check_connected,
    check_elements,
    check_group,
    isomorphisms,
    product_group,
)

build = pytest.importorskip("ase.build")
pytest.importorskip("networkx")
Atoms = pytest.importorskip("ase").Atoms

NITRATE = Atoms("NO3", [[0, 0, 0], [1.25, 0, 0], [-0.625, 1.0825, 0], [-0.625, -1.0825, 0]])


def molecule(name):
    return NITRATE if name == "NO3" else build.molecule(name)


def graph_of(atoms, frames=None):
    positions = atoms.positions[None] if frames is None else frames
    return bonded_graph(atoms.numbers, bonds(atoms.numbers, positions))


@pytest.mark.parametrize(
    ("name", "order"),
    [("C6H6", 12), ("CH4", 24), ("H2O", 2), ("NO3", 6), ("C2H6", 72), ("C60", 120), ("CO", 1)],
)
def test_known_automorphism_groups(name, order):
    atoms = molecule(name)
    found = automorphisms(graph_of(atoms))
    assert len(found.perms) == found.full_order == order
    assert found.note == ""
    check_group(found.perms, name)
    check_elements(found.perms, atoms.numbers, name)
    np.testing.assert_array_equal(found.perms[0], np.arange(len(atoms)))


def test_bonds_survive_hot_frames():
    atoms = molecule("C6H6")
    rng = np.random.default_rng(0)
    frames = atoms.positions + 0.12 * rng.normal(size=(50, 12, 3))  # more than 500 K does
    assert len(automorphisms(graph_of(atoms, frames)).perms) == 12


def test_a_permuted_geometry_has_the_permuted_descriptor():
    atoms = molecule("CH4")
    perms = automorphisms(graph_of(atoms)).perms
    pairs = PairDescriptor(5)
    x = atoms.positions + 0.1 * np.random.default_rng(1).normal(size=(5, 3))
    for p, t in zip(perms, pairs.permutations(perms), strict=True):
        moved = pairs.geometry(x[p][None]).descriptor[0]
        np.testing.assert_allclose(moved, pairs.geometry(x[None]).descriptor[0][t])


def test_a_fragment_in_pieces_is_named():
    atoms = molecule("H2O") + Atoms("Ar", [[9, 9, 9]])
    with pytest.raises(DataError, match=r"fragment it: no bond connects Ar3 to the rest"):
        check_connected(graph_of(atoms), atoms.numbers, "it")
    check_connected(graph_of(molecule("H2O")), np.array([8, 1, 1]), "it")


def test_isomorphism_maps_like_to_like():
    atoms = molecule("C6H6")
    order = np.random.default_rng(2).permutation(12)
    p = next(isomorphisms(graph_of(atoms), graph_of(atoms[order])))
    np.testing.assert_array_equal(atoms[order].numbers[p], atoms.numbers)
    bonded = bonds(atoms.numbers, atoms.positions[None])
    np.testing.assert_array_equal(bonded[np.ix_(order, order)][np.ix_(p, p)], bonded)
    assert next(isomorphisms(graph_of(atoms), graph_of(molecule("CH4"))), None) is None


@pytest.mark.parametrize(("name", "cap"), [("C6H6", 10), ("C2H6", 20), ("CH4", 1)])
def test_a_cap_leaves_a_subgroup_and_says_so(name, cap):
    found = automorphisms(graph_of(molecule(name)), cap)
    assert 1 <= len(found.perms) <= cap
    assert found.full_order > cap
    assert f"more than {cap} automorphisms" in found.note
    check_group(found.perms, name)


def benzene_dimer(cap=1000, exchange=True):
    group = automorphisms(graph_of(molecule("C6H6"))).perms
    places = [np.arange(12), np.arange(12, 24)[::-1]]
    same = [[(0, np.arange(12)), (1, np.arange(12))]] if exchange else []
    return product_group(24, places, [group, group], same, cap)


def test_benzene_dimer_has_288():
    found = benzene_dimer()
    assert found.perms.shape == (288, 24)
    assert len(benzene_dimer(exchange=False).perms) == 144
    check_group(found.perms, "dimer")
    np.testing.assert_array_equal(found.perms[0], np.arange(24))


@pytest.mark.parametrize(
    ("cap", "kept", "without"),
    [
        (200, 144, "without the exchange"),
        (100, 12, "without fragment 1's 12 and the exchange"),
        (3, 1, "without fragment 0's 12 and fragment 1's 12"),
    ],
)
def test_a_product_beyond_the_cap_drops_exchange_then_fragments(cap, kept, without):
    found = benzene_dimer(cap)
    assert len(found.perms) == kept
    assert found.full_order == 288
    assert f"288 permutations are more than the cap of {cap}" in found.note
    assert without in found.note
    check_group(found.perms, "dimer")


def test_three_identical_atoms_exchange_in_six_ways():
    places = [np.array([0]), np.array([2]), np.array([1])]
    one = np.array([[0]])
    same = [[(0, np.array([0])), (1, np.array([0])), (2, np.array([0]))]]
    found = product_group(3, places, [one] * 3, same)
    assert len(found.perms) == 6
    check_group(found.perms, "three")


@pytest.mark.parametrize(
    ("perms", "message"),
    [
        ([[0, 1, 2], [0, 1, 1]], "row 1 is not a permutation of 0 to 2"),
        ([[0, 1, 2], [0, 1, 2]], "stands twice"),
        ([[0, 1, 2], [1, 2, 0]], "not a group"),
    ],
)
def test_what_is_no_group_is_refused(perms, message):
    with pytest.raises(DataError, match=message):
        check_group(np.array(perms), "file")


def test_exchange_of_different_elements_is_refused():
    with pytest.raises(DataError, match=r"permutation 0 puts H in the place of O \(atom 0\)"):
        check_elements(np.array([[1, 0, 2]]), np.array([8, 1, 1]), "file")


def test_a_missing_library_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(MissingExtraError, match=r"deltaserver\[train\]"):
        graph_of(Atoms("CO", [[0, 0, 0], [1.1, 0, 0]]))


def test_trivial_symmetry():
    assert symmetry.Symmetry.trivial(3, "why").note == "why"
