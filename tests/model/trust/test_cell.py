"""Cells around a small periodic model, down to those that its molecule does not fit into."""

import numpy as np
import pytest

from deltaserver import CompositeModel, SGDMLModel
from deltaserver.errors import StructureError
from deltaserver.model.composite import Fragment
from deltaserver.model.files.parameters import parse_parameters
from deltaserver.model.sgdml import NativeUnits
from deltaserver.model.trust.cell import check_cell, heights
from deltaserver.model.trust.structure import ExpectedStructure
from tests.builders import TRICLINIC, inverse_distances, rotation, sgdml_model

# Acetylene, 3.3 Å from end to end, along x
ACETYLENE = np.array([[0.0, 0.0, 0.0], [1.2, 0.0, 0.0], [-1.06, 0.0, 0.0], [2.26, 0.0, 0.0]])
NUMBERS = np.array([6, 6, 1, 1])
CELL = np.diag([9.0, 8.0, 7.0])


@pytest.fixture(scope="module")
def model():
    x = inverse_distances(ACETYLENE[None] + 4.0, CELL)
    raw = sgdml_model(NUMBERS, lattice=CELL, n_train=1) | {"R_desc": x.T}
    part = SGDMLModel(parse_parameters(raw, "memory"), NativeUnits(1.0, 1.0))
    return CompositeModel((Fragment("acetylene", np.arange(4), part),), None)


def check(model, positions, cell):
    check_cell(model, ExpectedStructure.of(model).bonds, positions, np.asarray(cell, float))


def test_heights_are_distances_between_faces():
    np.testing.assert_allclose(heights(CELL), [9.0, 8.0, 7.0])
    volume = abs(np.linalg.det(TRICLINIC))
    a, b, c = TRICLINIC.T
    areas = [np.linalg.norm(np.cross(*pair)) for pair in ((b, c), (c, a), (a, b))]
    np.testing.assert_allclose(heights(TRICLINIC), volume / np.array(areas))


@pytest.mark.parametrize("shift", [0.0, 2.5, 7.9])
def test_cells_that_hold_the_molecule_wrapped_or_not(model, shift):
    for cell in (CELL, 2.0 * CELL, np.diag([4.0, 3.0, 3.0])):
        check(model, ACETYLENE + shift, cell)
        check(model, (ACETYLENE + shift) % np.diag(cell), cell)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("axis", range(3))
def test_a_cell_smaller_than_the_molecule_is_refused(model, wrapped, axis):
    cell = np.diag(np.where(np.arange(3) == axis, 3.0, 20.0))
    x = np.roll(ACETYLENE, axis, axis=1) + 0.4
    x = x % np.diag(cell) if wrapped else x
    with pytest.raises(StructureError) as caught:
        check(model, x, cell)
    said = str(caught.value)
    assert f"the cell is 3.00 Å high along lattice vector {axis}" in said
    assert "less than the 3.32 Å of acetylene in that direction" in said
    assert caught.value.exit_code == 4


def test_what_counts_is_the_extent_across_the_cell(model):
    cell = np.diag([3.0, 20.0, 20.0])
    along_y = ACETYLENE[:, [1, 0, 2]]
    check(model, along_y, cell)
    turn = rotation(2)
    check(model, along_y @ turn.T, turn @ cell)
    with pytest.raises(StructureError):
        check(model, ACETYLENE @ turn.T, turn @ cell)


def test_cells_of_no_volume_are_left_to_the_evaluation(model):
    check(model, ACETYLENE, np.zeros((3, 3)))
    check(model, ACETYLENE, np.full((3, 3), np.nan))
