"""Structures of a scan: identities of rigid motion."""

import numpy as np
import pytest

from deltaserver.datasets.complexes import random_rotation
from deltaserver.datasets.frames import FragmentSpec
from deltaserver.errors import DataError, InputError
from deltaserver.evaluation.scans.curves import (
    ANGLES_DEG,
    CONTACT_ANG,
    DISPLACEMENTS_ANG,
    NEAREST_ANG,
    RigidPair,
    ScanPlan,
    rotation_about,
    scan_curves,
)

NUMBERS = np.array([8, 1, 1, 7, 1, 1, 1])
WATER = np.array([[0.0, 0.0, 0.12], [0.0, 0.76, -0.48], [0.0, -0.76, -0.48]])
AMMONIA = np.array([[0.0, 0.0, 0.0], [0.94, 0.0, 0.38], [-0.47, 0.81, 0.38], [-0.47, -0.81, 0.38]])
X = np.concatenate([WATER, AMMONIA + np.array([0.4, 0.2, 3.4])])
TWO = (FragmentSpec("water", (0, 1, 2)), FragmentSpec("ammonia", (3, 4, 5, 6)))


def pair(x=X, numbers=NUMBERS, fragments=TWO):
    return RigidPair.of(numbers, x, fragments, "here")


def distances(x):
    return np.linalg.norm(x[..., :, None, :] - x[..., None, :, :], axis=-1)


def test_displacements_go_from_the_wall_to_infinity_densely_near_the_well():
    assert DISPLACEMENTS_ANG[0] == -1.0
    assert DISPLACEMENTS_ANG[-1] == 20.0
    steps = np.diff(DISPLACEMENTS_ANG)
    assert (steps[:12] == 0.25).all()
    assert (steps > 0.0).all()
    assert DISPLACEMENTS_ANG[12:15] == (2.0, 2.5, 3.0)


def test_a_dissociation_moves_one_rigid_fragment_along_the_line_of_centres():
    (curve, positions), *_ = scan_curves(pair(), ScanPlan())
    apart = np.array([pair(x).distance for x in positions])
    assert apart - curve.start_ang == pytest.approx(np.array(curve.values), abs=1e-7)
    assert positions[curve.values.index(0.0)] == pytest.approx(X, abs=1e-8)
    assert (positions[:, 3:] == positions[0, 3:]).all()
    assert np.ptp(distances(positions[:, :3]), axis=0).max() < 1e-7
    moved = positions[-1, :3] - positions[0, :3]
    line = pair().separation / pair().distance
    assert moved == pytest.approx(21.0 * np.tile(line, (3, 1)), abs=1e-7)


def test_other_orientations_begin_in_contact_and_are_turned_not_mirrored():
    curves = list(scan_curves(pair(), ScanPlan(orientations=4)))
    for curve, positions in curves[1:4]:
        start = pair(positions[curve.values.index(0.0)])
        assert start.shortest == pytest.approx(CONTACT_ANG, abs=1e-7)
        assert start.distance == pytest.approx(curve.start_ang, abs=1e-7)
        assert distances(start.positions[:3]) == pytest.approx(distances(X[:3]), abs=1e-7)
        assert pair(positions[-1]).shortest > 15.0
    assert not np.allclose(curves[1][1][-1], curves[2][1][-1])


def test_an_orientation_is_no_mirror_image():
    """The volume that N and three H span keeps its sign: distances alone do not tell."""
    specs = (FragmentSpec("ammonia", (3, 4, 5, 6)), FragmentSpec("water", (0, 1, 2)))
    volume = np.linalg.det(X[4:] - X[3])
    for curve, positions in scan_curves(pair(fragments=specs), ScanPlan(orientations=6)):
        found = np.linalg.det(positions[:, 4:] - positions[:, 3:4])
        assert found == pytest.approx(volume, rel=1e-6), curve.name


def test_a_rotation_turns_about_the_centre_by_every_angle():
    *_, (curve, positions) = scan_curves(pair(), ScanPlan(rotations=2))
    assert set(curve.values) <= set(ANGLES_DEG)
    assert positions[0] == pytest.approx(X, abs=1e-8)
    for x in positions:
        assert pair(x).separation == pytest.approx(pair().separation, abs=1e-7)
        assert distances(x[:3]) == pytest.approx(distances(X[:3]), abs=1e-7)
        assert x[3:] == pytest.approx(X[3:], abs=1e-8)


def test_matrices_are_proper_rotations_and_add_up():
    axis = np.array([0.3, -1.1, 0.7])
    for matrix in (random_rotation(np.random.default_rng(0)), rotation_about(axis, 77.0)):
        assert matrix @ matrix.T == pytest.approx(np.eye(3), abs=1e-14)
        assert np.linalg.det(matrix) == pytest.approx(1.0)
    assert rotation_about(axis, 77.0) @ axis == pytest.approx(axis)
    twice = rotation_about(axis, 30.0) @ rotation_about(axis, 60.0)
    assert twice == pytest.approx(rotation_about(axis, 90.0), abs=1e-14)
    assert np.trace(rotation_about(axis, 90.0)) == pytest.approx(1.0)


def test_the_same_seed_is_the_same_scan_and_more_orientations_change_none():
    few, more = (
        {c.name: x for c, x in scan_curves(pair(), ScanPlan(orientations=n, seed=5))}
        for n in (2, 3)
    )
    assert len(more) == len(few) + 1
    assert all((more[name] == x).all() for name, x in few.items())
    other = {c.name: x for c, x in scan_curves(pair(), ScanPlan(orientations=2, seed=6))}
    assert not np.array_equal(other["dissociation, orientation 1"][-1],
                              few["dissociation, orientation 1"][-1])  # fmt: skip


def test_points_at_which_atoms_clash_are_left_out():
    near = np.concatenate([WATER, AMMONIA + np.array([0.4, 0.2, 1.9])])
    for _, positions in scan_curves(pair(near), ScanPlan()):
        assert all(pair(x).shortest >= NEAREST_ANG for x in positions)
    (curve, positions), *_ = scan_curves(pair(near), ScanPlan())
    assert 0 < len(curve.values) == len(positions) < len(DISPLACEMENTS_ANG)


def test_of_a_lone_ion_and_a_molecule_the_molecule_turns():
    x = np.concatenate([[[0.0, 0.0, -2.6]], WATER])
    specs = (FragmentSpec("sodium", (0,), 1), FragmentSpec("water", (1, 2, 3)))
    ion = pair(x, np.array([11, 8, 1, 1]), specs)
    curves = list(scan_curves(ion, ScanPlan(orientations=3, rotations=1)))
    assert len(curves) == 4
    for _, positions in curves[1:]:
        assert not np.allclose(positions[1, 1:], x[1:])


def test_two_lone_atoms_have_one_curve():
    specs = (FragmentSpec("a", (0,)), FragmentSpec("b", (1,)))
    x = np.array([[0.0, 0.0, 0.0], [0.0, 3.0, 0.0]])
    assert len(list(scan_curves(pair(x, np.array([18, 18]), specs), ScanPlan()))) == 1


def test_what_is_no_scan_is_refused():
    one = (FragmentSpec("all", tuple(range(7))),)
    with pytest.raises(DataError, match="two fragments, here are 1"):
        pair(fragments=one)
    together = X.copy()
    together[:3] -= pair().separation
    with pytest.raises(DataError, match="no direction to pull in"):
        pair(together)
    for wrong in ((0.0,), (1.0, 0.0), (0.0, 0.0)):
        with pytest.raises(InputError, match="ascending"):
            ScanPlan(displacements=wrong)
