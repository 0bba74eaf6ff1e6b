import numpy as np
import pytest

from deltaserver.errors import GeometryError
from deltaserver.molecules.whole import Repeats, make_whole
from tests.textio.written import START

NUMBERS = np.array([8, 1, 1, 8, 1, 1])
CUBE = 9.0 * np.eye(3)
SKEWED = np.array([[9.0, 0.0, 0.0], [3.0, 8.5, 0.0], [-2.0, 1.5, 9.5]])
EVERYWHERE = (True, True, True)


def wrapped(positions, cell, pbc=EVERYWHERE):
    fractional = positions @ np.linalg.inv(cell)
    return (fractional - np.where(pbc, np.floor(fractional), 0.0)) @ cell


@pytest.mark.parametrize("cell", [CUBE, SKEWED])
@pytest.mark.parametrize("pbc", [EVERYWHERE, (True, False, False), (False, True, True)])
@pytest.mark.parametrize("seed", range(5))
def test_what_was_wrapped_is_whole_again(cell, pbc, seed):
    structure = START + np.random.default_rng(seed).uniform(-20.0, 20.0, 3)
    found = make_whole(NUMBERS, wrapped(structure, cell, pbc), Repeats(cell, pbc))
    moved = found - structure
    np.testing.assert_allclose(moved, np.tile(moved[0], (6, 1)), atol=1e-9)


def test_what_is_whole_is_left_as_it_is():
    structure = START + 2.0
    assert make_whole(NUMBERS, structure, Repeats(CUBE, EVERYWHERE)) is structure
    near = START + 4.0  # no two atoms are half a cell apart
    assert not Repeats(CUBE, EVERYWHERE).may_have_cut(near)
    torn = wrapped(START, CUBE)
    assert make_whole(NUMBERS, torn, Repeats(CUBE, (False, False, False))) is torn


def test_a_molecule_on_the_other_side_of_the_cell_comes_back():
    apart = START + np.where(np.arange(6)[:, None] > 2, 1.0, 0.0) * CUBE[0]
    found = make_whole(NUMBERS, apart, Repeats(CUBE, EVERYWHERE))
    np.testing.assert_allclose(found[3] - found[0], START[3] - START[0], atol=1e-9)


def test_a_chain_without_end_is_refused():
    chain = np.array([[1.5 * k, 0.0, 0.0] for k in range(4)])
    with pytest.raises(GeometryError, match="bonded to its own image"):
        make_whole(np.full(4, 6), chain, Repeats(np.diag([6.0, 9.0, 9.0]), EVERYWHERE))
    with pytest.raises(GeometryError, match=r"the cell is 1\.50 Å high, too small"):
        make_whole(np.full(4, 6), chain, Repeats(np.diag([1.5, 9.0, 9.0]), EVERYWHERE))
