import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from deltaserver.analysis.measure import variables
from deltaserver.analysis.measure.variables import Variable

MASSES = np.array([1.0, 3.0, 2.0, 2.0, 1.0])
SQUARE = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0.5, 0.5, 2.0]])


def value(kind, groups, positions=SQUARE, **given):
    variable = Variable("v", kind, tuple(tuple(g) for g in groups), **given)
    found = variable.values(np.asarray(positions)[None], MASSES)
    assert found.shape == (1,)
    return found[0]


def test_distances_of_atoms_and_centres():
    assert value("distance", [[0], [2]]) == pytest.approx(np.sqrt(2))
    assert value("distance", [[0, 1], [4]], centre="geometry") == pytest.approx(np.sqrt(4.25))
    by_mass = np.linalg.norm(SQUARE[4] - [0.75, 0, 0])
    assert value("distance", [[0, 1], [4]]) == pytest.approx(by_mass)


def test_angles():
    assert value("angle", [[1], [0], [3]]) == pytest.approx(90.0)
    assert value("angle", [[0], [1], [0]]) == pytest.approx(0.0)
    assert value("angle", [[1], [0], [2]]) == pytest.approx(45.0)


def test_dihedrals_have_the_sign_that_ase_and_iupac_give():
    from ase import Atoms

    rng = np.random.default_rng(1)
    for _ in range(20):
        points = rng.normal(size=(5, 3))
        expected = Atoms("H5", points).get_dihedral(0, 1, 2, 3)
        found = value("dihedral", [[0], [1], [2], [3]], points)
        assert found % 360 == pytest.approx(expected)
        assert -180 <= found <= 180


def test_planes():
    assert value("plane_distance", [[4], [0, 1, 2, 3]]) == pytest.approx(2.0)
    assert value("plane_distance", [[4], [0, 3, 2, 1]]) == pytest.approx(-2.0)
    assert value("plane_angle", [[0, 1, 2, 3], [0, 1, 4]]) == pytest.approx(
        np.degrees(np.arctan2(2.0, 0.5))
    )
    assert value("plane_angle", [[0, 1, 2], [2, 1, 0]]) == pytest.approx(0.0, abs=1e-9)


def test_nothing_changes_when_all_is_turned_and_moved():
    rng = np.random.default_rng(2)
    points = rng.normal(size=(5, 3))
    moved = Rotation.random(rng=rng).apply(points) + rng.normal(size=3)
    kinds = {
        "distance": [[0, 1], [2, 3]],
        "angle": [[0], [1, 2], [3]],
        "dihedral": [[0], [1], [2], [3, 4]],
        "plane_angle": [[0, 1, 2], [1, 2, 3, 4]],
        "plane_distance": [[0], [1, 2, 3, 4]],
    }
    assert set(kinds) == set(variables.N_GROUPS)
    for kind, groups in kinds.items():
        assert value(kind, groups, points) == pytest.approx(value(kind, groups, moved))


def test_least_squares_plane_of_many_atoms():
    rng = np.random.default_rng(3)
    flat = np.column_stack([rng.normal(size=(30, 2)), 1e-3 * rng.normal(size=30)])
    normal = variables.normal_of(flat[None])[0]
    assert abs(normal[2]) == pytest.approx(1.0, abs=1e-5)


def test_names_and_units():
    opening = Variable("R_p", "distance", ((0,), (1,)), symbol="$R_p$")
    assert (opening.label, opening.column) == ("$R_p$ / Å", "R_p_ang")
    assert Variable("w", "angle", ((0,), (1,), (2,))).column == "w_deg"
    assert Variable("w", "distance", ((0,), (9,))).atoms_beyond(5) == (9,)
