"""The parts of a diagnosis that the shipped molecules leave in the dark."""

import numpy as np

from deltaserver.model.trust.diagnosis import Names, Suspect, diagnose_bonds, diagnose_scale
from deltaserver.molecules.bonds import find_bonds
from tests.builders import inverse_distances

# Hydrogen peroxide: H O O H
PEROXIDE = np.array([[-0.9, 0.3, 0.4], [-0.7, 0.0, -0.5], [0.7, 0.0, -0.5], [0.9, -0.3, 0.4]])
NUMBERS = np.array([1, 8, 8, 1])
NAMES = Names(("H", "O", "O", "H"), (0, 0, 0, 0), ("peroxide",))


def suspect(positions):
    bonds = find_bonds("peroxide", NUMBERS, np.arange(4), 1.0 / inverse_distances(PEROXIDE[None]))
    assert len(bonds) == 3
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
    return Suspect(positions, distances, (bonds,), NAMES)


def test_nothing_wrong_nothing_said():
    good = suspect(PEROXIDE)
    assert diagnose_scale(good) == diagnose_bonds(good) == ""


def test_a_hydrogen_on_the_other_oxygen_is_no_symmetry():
    said = diagnose_bonds(suspect(PEROXIDE[[3, 1, 2, 0]]))
    assert said.startswith("atom 0 (H of peroxide) should be bonded to atom 1 (O of peroxide)")
    # exchanging either the hydrogens or the oxygens mends it
    assert "are exchanged" in said


def test_turning_the_chain_round_is_a_symmetry():
    assert diagnose_bonds(suspect(PEROXIDE[::-1])) == ""


def test_a_short_bond_is_squeezed():
    x = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.1]])
    bonds = find_bonds("n2", np.array([7, 7]), np.arange(2), np.array([[1.1]]))
    distances = np.array([[0.0, 0.8], [0.8, 0.0]])
    said = diagnose_bonds(Suspect(x, distances, (bonds,), Names(("N", "N"), (0, 0), ("n2",))))
    assert said == (
        "the bond of atom 0 (N of n2) and atom 1 (N of n2) is 0.80 Å long, 1.10 to 1.10 Å in "
        "training: the structure is squeezed"
    )


def test_bonds_scaled_each_otherwise_are_not_called_scaled():
    x = PEROXIDE.copy()
    x[3] += [1.0, 0.0, 0.0]
    assert diagnose_scale(suspect(x)) == ""
    assert "atom 3 (H of peroxide)" in diagnose_bonds(suspect(x))
