"""Molecules that the cell cuts, at any step, under models that take no nearest images."""

import numpy as np
import pytest
from ase.io import read

from deltaserver import CompositeModel
from deltaserver.errors import StructureError
from deltaserver.model.composite import Fragment
from deltaserver.model.trust.structure import ExpectedStructure
from deltaserver.model.trust.wrapping import WrappingCheck
from tests.integration.conftest import ROOT

L = 30.0  # beyond the separations that binding models were trained on
CELL = L * np.eye(3)


@pytest.fixture(scope="module")
def dimer():
    return CompositeModel.load(ROOT / "models" / "benzene_dimer")


@pytest.fixture(scope="module")
def expected(dimer):
    return ExpectedStructure.of(dimer)


@pytest.fixture(scope="module")
def check(expected):
    return WrappingCheck(expected)


@pytest.fixture
def x():
    positions = read(ROOT / "ipi_inputs" / "benzene_dimer.xyz").positions
    return positions - positions.mean(axis=0) + 0.5 * L


@pytest.mark.parametrize("axis", range(3))
def test_each_atom_that_crosses_is_seen(check, x, axis):
    """As i-PI wraps: atoms by themselves, while the complex drifts through the boundary."""
    check(x, CELL)
    refused = 0
    for shift in np.linspace(0.0, L, 57):
        moved = x.copy()
        moved[:, axis] += shift
        wrapped = moved % L
        parts = (slice(0, 12), slice(12, 24))
        cut = not all(np.allclose(np.ptp(wrapped[p], 0), np.ptp(x[p], 0)) for p in parts)
        check(moved, CELL)  # not wrapped: whole, wherever it lies
        if cut:
            refused += 1
            with pytest.raises(StructureError, match="the cell's boundary has cut it"):
                check(wrapped, CELL)
        else:
            check(wrapped, CELL)
    assert refused > 5


def test_a_skewed_cell(check, x):
    cell = np.array([[14.0, 5.0, -3.0], [0.0, 13.0, 4.0], [0.0, 0.0, 12.0]])
    whole = x - x.mean(axis=0)
    inside = np.linalg.inv(cell) @ whole.T % 1.0
    check(whole, cell)
    with pytest.raises(StructureError):
        check((cell @ inside).T, cell)


def test_a_bond_across_is_named(check, x, expected):
    bonds = expected.bonds[0]
    hydrogen, carbon = max(bonds.i[-1], bonds.j[-1]), min(bonds.i[-1], bonds.j[-1])
    x[hydrogen, 2] -= L
    with pytest.raises(StructureError) as caught:
        check(x, CELL)
    names = expected.names
    assert f"the bond of atom {names[carbon]} and atom {names[hydrogen]} is 30" in str(caught.value)


def test_a_lone_ion_on_the_other_side():
    """It has no bond that would tell: what does is that everything lies in the cell."""
    model = CompositeModel.load(ROOT / "models" / "na_benzene")
    check = WrappingCheck(ExpectedStructure.of(model))
    x = read(ROOT / "models" / "na_benzene" / "structure.xyz").positions
    for offset in np.linspace(0.0, 0.9 * L, 10):
        moved = x + np.array([0.5 * L, 0.5 * L, offset - x[:, 2].min()])
        check(moved, CELL)
        wrapped = moved % L
        if (np.abs(wrapped[12] - wrapped[:12]) < 0.5 * L).all():
            check(wrapped, CELL)
        else:
            with pytest.raises(StructureError, match=r"the cell's boundary"):
                check(wrapped, CELL)
            check(wrapped, CELL, "fragments" if np.ptp(wrapped[:12, 2]) < 7.0 else "sodium")


def test_what_is_no_cut_passes(check, x):
    pulled = x.copy()
    pulled[12:] += [0.0, 0.0, 6.0]
    check(pulled, CELL)  # apart, but no nearer through the boundary
    stretched = x.copy()
    stretched[3] += [5.0, 0.0, 0.0]
    check(stretched, CELL)  # broken: the blow-up's matter
    for dummy in (np.eye(3), np.zeros((3, 3)), np.full((3, 3), np.nan)):
        check(x, dummy)


def periodic_in(model, *parts):
    """Return the model with minimum images in some of its parts."""

    class Periodic:
        def __init__(self, part):
            self.part, self.lattice = part, CELL

        def __getattr__(self, name):
            return getattr(self.part, name)

    fragments = tuple(
        Fragment(f.name, f.atoms, Periodic(f.model) if f.name in parts else f.model)
        for f in model.fragments
    )
    binding = Periodic(model.binding) if "binding" in parts else model.binding
    return CompositeModel(fragments, binding)


@pytest.mark.parametrize(
    ("parts", "bond"),
    [
        ((), False),
        (("binding",), False),
        (("benzene1", "benzene2"), False),
        (("benzene1", "binding"), True),
        (("benzene2", "binding"), False),
        (("benzene1", "benzene2", "binding"), True),
    ],
)
def test_every_part_is_judged_by_its_own_periodicity(dimer, x, parts, bond):
    """``bond``: whether one of benzene1 may be cut."""
    expected = ExpectedStructure.of(periodic_in(dimer, *parts))
    across = WrappingCheck(expected)
    cut = x.copy()
    cut[0] -= [L, 0.0, 0.0]
    for check in (expected.check, across):
        check(x, CELL)
        if bond:
            check(cut, CELL)
        else:
            with pytest.raises(StructureError, match="cut"):
                check(cut, CELL)
    other_side = x.copy()
    other_side[12:] += [0.0, L, 0.0]
    if "binding" in parts:
        expected.check(other_side, CELL)
    else:
        with pytest.raises(StructureError):
            expected.check(other_side, CELL)


def test_fragments_alone_do_not_mind_where_the_others_are(dimer, x):
    expected = ExpectedStructure.of(periodic_in(dimer, "benzene1"))
    cut = x.copy()
    cut[0] -= [L, 0.0, 0.0]
    cut[12:] += [0.0, L, 0.0]
    expected.check(cut, CELL, "fragments")
    WrappingCheck(expected)(cut, CELL, "fragments")
    with pytest.raises(StructureError):
        expected.check(cut, CELL, "binding")
