import numpy as np
import pytest

from deltaserver.simulate.blowup import BlowUpError, DriftWatch, GeometryWatch, Limits

WATERS = np.array([8, 1, 1, 8, 1, 1])
FRAGMENTS = [np.arange(3), np.arange(3, 6)]
ONE = np.array([[0.0, 0.0, 0.0], [0.0, 0.76, 0.59], [0.0, -0.76, 0.59]])
TWO = np.concatenate([ONE, ONE + np.array([3.0, 0.0, 0.0])])


def watch(**limits):
    result = GeometryWatch(WATERS, FRAGMENTS, Limits(**limits))
    result.check(TWO[None])
    return result


def moved(atom, by):
    positions = TWO.copy()
    positions[atom] += by
    return positions


def test_motion_passes():
    rng = np.random.default_rng(0)
    guard = watch()
    for _ in range(50):
        guard.check(TWO[None] + rng.normal(0.0, 0.08, (4, 6, 3)))


def test_a_stretched_bond_is_named_with_its_structure():
    structure = moved(4, [0.0, 1.2, 0.9])
    with pytest.raises(BlowUpError, match=r"the bond O3–H4 is 2.46 Å long") as caught:
        watch().check(np.stack([TWO, structure]))
    np.testing.assert_array_equal(caught.value.positions_ang, structure)
    assert caught.value.exit_code == 4
    watch(stretch=3.0).check(structure[None])


def test_a_squeezed_bond():
    with pytest.raises(BlowUpError, match=r"O0–H1 is 0.3\d Å long"):
        watch().check(moved(1, [0.0, -0.46, -0.37])[None])


def test_a_fragment_that_has_left():
    gone = TWO + np.repeat([[0.0, 0.0, 0.0], [20.0, 0.0, 0.0]], 3, axis=0)
    guard = watch()
    with pytest.raises(BlowUpError, match=r"fragment 1 is 23.0 Å away from the others"):
        guard.check(np.repeat(gone[None], 10, axis=0))
    watch(separation_ang=30.0).check(np.repeat(gone[None], 10, axis=0))


def test_positions_that_are_not_finite():
    with pytest.raises(BlowUpError, match="not finite"):
        watch().check(moved(0, [np.nan, 0.0, 0.0])[None])


def test_one_fragment_and_lone_atoms_have_nowhere_to_go():
    GeometryWatch(np.array([11]), [np.array([0])], Limits()).check(np.zeros((20, 1, 3)))


def test_a_fragment_is_called_by_its_name():
    watch = GeometryWatch(WATERS, FRAGMENTS, Limits(), names=("water", "other"))
    with pytest.raises(BlowUpError, match=r"fragment water is 26\.0 Å away"):
        watch.check((TWO + np.repeat([[0.0] * 3, [23.0, 0.0, 0.0]], 3, axis=0))[None])


def test_drift_is_per_atom_and_from_the_first_value():
    guard = DriftWatch(10, Limits(drift_ev_per_atom=0.1))
    for step, value in enumerate((-800.0, -800.9, -799.1)):
        guard.check(step, value)
    with pytest.raises(BlowUpError, match=r"changed by \+1.1 eV at step 3; 1 eV are allowed"):
        guard.check(3, -798.9)
    with pytest.raises(BlowUpError):
        guard.check(4, float("nan"))


def test_a_molecule_cut_by_the_cell_is_whole_for_a_periodic_model():
    """Also at the start, in a skewed cell, and when it crosses later; a broken one is not."""
    cell = np.array([[11.0, 2.0, -1.0], [0.0, 12.0, 3.0], [0.0, 0.0, 10.0]])
    base = TWO + cell @ [0.98, 0.5, 0.99]
    wrapped = base - np.floor(base @ np.linalg.inv(cell).T) @ cell.T
    assert np.abs(wrapped - base).max() > 5.0
    cells = cell[None]
    for first, then in ((wrapped, base), (base, wrapped)):
        guard = GeometryWatch(WATERS, FRAGMENTS, Limits(), periodic=True)
        for _ in range(12):
            guard.check(first[None], cells)
            guard.check(then[None], cells)
        broken = then.copy()
        broken[1] += [0.0, 1.5, 1.2]
        with pytest.raises(BlowUpError, match="the bond O0–H1"):
            guard.check(broken[None], cells)
    blind = GeometryWatch(WATERS, FRAGMENTS, Limits())
    blind.check(base[None], cells)
    with pytest.raises(BlowUpError, match="the bond"):
        blind.check(wrapped[None], cells)
