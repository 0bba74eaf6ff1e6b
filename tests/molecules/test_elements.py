import numpy as np
from ase.data import chemical_symbols, covalent_radii

from deltaserver.molecules.elements import COVALENT_RADIUS_ANG, NUMBER_OF, SYMBOLS


def test_symbols_are_those_of_ase():
    assert list(SYMBOLS) == chemical_symbols


def test_the_placeholder_is_no_element():
    assert "X" not in NUMBER_OF
    assert [SYMBOLS[number] for number in NUMBER_OF.values()] == list(NUMBER_OF)


def test_radii_are_those_of_ase_up_to_curium():
    np.testing.assert_allclose(COVALENT_RADIUS_ANG[1:97], covalent_radii[1:97], rtol=1e-12)
    assert len(COVALENT_RADIUS_ANG) == len(SYMBOLS)
