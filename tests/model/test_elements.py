from ase.data import chemical_symbols

from deltaserver.model.elements import NUMBER_OF, SYMBOLS


def test_symbols_are_those_of_ase():
    assert list(SYMBOLS) == chemical_symbols


def test_the_placeholder_is_no_element():
    assert "X" not in NUMBER_OF
    assert [SYMBOLS[number] for number in NUMBER_OF.values()] == list(NUMBER_OF)
