from __future__ import annotations

import sys

import numpy as np
import pytest

from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
from deltaserver.errors import DataError, InputError, MissingExtraError
from deltaserver.training.components import components, labelled_set
from deltaserver.training.symmetry_modes import resolve, restricted
from tests.training.labelled import WATER, attraction, springs, water_and_ion, water_dimer

pytest.importorskip("networkx")
SWAP = [0, 2, 1, 3, 4, 5]  # the left water's hydrogens


def resolved(mode, name, frames=None, **options):
    frames = frames or water_dimer()
    available = components(frames)
    component = next(c for c in available if c.name == name)
    data = labelled_set(frames, component)
    return resolve(str(mode), frames, available, component, data, np.arange(20), **options)


@pytest.mark.parametrize(
    ("mode", "orders"),
    [
        ("none", {"left": 1, "binding": 1, "full": 1}),
        ("fragment", {"left": 2, "binding": 1, "full": 1}),
        ("product", {"left": 2, "binding": 8, "full": 8}),
    ],
)
def test_modes(mode, orders):
    for name, order in orders.items():
        assert len(resolved(mode, name).perms) == order


def test_product_of_a_molecule_and_an_ion():
    frames = water_and_ion()
    assert len(resolved("product", "binding", frames).perms) == 2
    assert len(resolved("product", "sodium", frames).perms) == 1


def test_product_leaves_the_true_energy_unchanged():
    frames = water_dimer()
    perms = resolved("product", "full", frames).perms
    left, right = springs(frames.positions[:, :3], WATER)[0], frames.fragment_energies[:, 1] + 10.0
    for p in perms:
        moved = frames.positions[:, p]
        again = springs(moved[:, :3], WATER)[0] + springs(moved[:, 3:], WATER[[1, 0, 2]])[0]
        np.testing.assert_allclose(again, left + right)
        pulled, _ = attraction(moved, [0, 1, 2], [3, 4, 5])
        np.testing.assert_allclose(pulled, frames.binding_energy)


def test_a_cap_is_reported():
    found = resolved("product", "binding", cap=4)
    assert (len(found.perms), found.full_order) == (4, 8)
    assert "8 permutations are more than the cap of 4" in found.note


def two_methanes():
    """Two methanes, the second one turned and listed in the other handedness."""
    rng = np.random.default_rng(3)
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 0.63
    one = np.concatenate([[[0.0, 0.0, 0.0]], corners])
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    start = np.concatenate([one, one[[0, 2, 1, 3, 4]] @ turn.T + [3.8, 0.2, -0.1]])
    x = start + 0.03 * rng.normal(size=(30, 10, 3))
    fragments = (FragmentSpec("left", tuple(range(5))), FragmentSpec("right", tuple(range(5, 10))))
    nothing = np.zeros((30, 10, 3))
    return LabelledFrames(
        "methanes", "none", np.array([6, 1, 1, 1, 1] * 2), fragments, x, np.zeros(30), nothing,
        np.zeros((30, 2)), nothing, np.zeros(30, dtype=np.int64), np.arange(30),
    )  # fmt: skip


def handedness(x):
    """Of four hydrogens about a carbon: the sign of their triple product."""
    return np.sign(np.linalg.det(x[..., 2:, :] - x[..., 1:2, :]))


def test_rotations_are_the_half_of_the_product_that_mirrors_no_molecule_alone():
    frames = two_methanes()
    whole = resolved("product", "binding", frames, cap=1152).perms
    half = resolved("rotations", "binding", frames).perms
    assert (len(whole), len(half)) == (1152, 576)
    sides = np.stack([handedness(frames.positions[0][whole][:, some]) for some in
                      (slice(0, 5), slice(5, 10))])  # fmt: skip
    own = sides[:, [np.flatnonzero((whole == np.arange(10)).all(axis=1))[0]]]
    expected = whole[(sides * own).prod(axis=0) > 0]
    assert set(map(tuple, half)) == set(map(tuple, expected))
    assert any(p[0] == 5 for p in half)  # the exchange is among them


def test_flat_molecules_are_their_own_mirror_images():
    assert len(resolved("rotations", "binding").perms) == 8
    assert len(resolved("rotations", "left").perms) == 2


def test_molecules_that_bend_keep_the_product():
    """Exchanging two hydrogens of one methyl neither turns nor mirrors an ethane."""
    angles = np.concatenate([[0.0, 2.0, 4.0], [1.0, 3.0, 5.0]]) * np.pi / 3
    sides = np.repeat([-1.16, 1.16], 3)
    hydrogens = np.column_stack([1.03 * np.cos(angles), 1.03 * np.sin(angles), sides])
    ethane = np.array([[0, 0, -0.77], [0, 0, 0.77], *hydrogens])
    x = np.concatenate([ethane, [[5.0, 0.0, 0.0]]])[None] + np.zeros((30, 1, 1))
    x += 0.02 * np.random.default_rng(5).normal(size=x.shape)
    fragments = (FragmentSpec("ethane", tuple(range(8))), FragmentSpec("neon", (8,)))
    nothing = np.zeros((30, 9, 3))
    frames = LabelledFrames(
        "ethane_neon", "none", np.array([6, 6, *[1] * 6, 10]), fragments, x, np.zeros(30), nothing,
        np.zeros((30, 2)), nothing, np.zeros(30, dtype=np.int64), np.arange(30),
    )  # fmt: skip
    assert len(resolved("product", "binding", frames).perms) == 72
    assert len(resolved("rotations", "binding", frames).perms) == 72


def test_a_product_above_the_cap_is_its_rotations_where_they_fit():
    found = resolved("product", "binding", two_methanes())
    assert (len(found.perms), found.full_order) == (576, 1152)
    assert "without those that mirror one molecule alone" in found.note
    smaller = resolved("product", "binding", two_methanes(), cap=500)
    assert "without fragment" in smaller.note
    assert np.array_equal(
        smaller.perms, resolved("rotations", "binding", two_methanes(), cap=500).perms
    )


def test_sgdml_search():
    pytest.importorskip("sgdml")
    found = resolved("sgdml", "left")
    assert len(found.perms) in (1, 2)


def test_sgdml_without_a_closed_group_is_the_identity(monkeypatch):
    perm = pytest.importorskip("sgdml.utils.perm")
    monkeypatch.setattr(perm, "find_perms", lambda *_, **__: None)
    found = resolved("sgdml", "full")
    assert len(found.perms) == 1
    assert "no closed group within its limit of 100; using the identity" in found.note


def test_a_missing_sgdml_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "sgdml.utils", None)
    monkeypatch.setitem(sys.modules, "sgdml", None)
    with pytest.raises(MissingExtraError, match="sgdml is not installed"):
        resolved("sgdml", "left")


@pytest.mark.parametrize("suffix", [".npy", ".txt"])
def test_files_of_the_whole_complex(tmp_path, suffix):
    path = tmp_path / f"perms{suffix}"
    perms = np.array([range(6), SWAP])
    np.save(path, perms) if suffix == ".npy" else np.savetxt(path, perms, fmt="%d")
    assert resolved(path, "full").perms.tolist() == perms.tolist()
    assert resolved(path, "left").perms.tolist() == [[0, 1, 2], [0, 2, 1]]


def test_files_by_component(tmp_path):
    path = tmp_path / "perms.npz"
    np.savez(path, binding=[range(6), SWAP])
    assert len(resolved(path, "binding").perms) == 2
    other = resolved(path, "full")
    assert len(other.perms) == 1
    assert "has nothing for full" in other.note


def test_restriction_to_a_fragment_in_any_order():
    exchange = [4, 3, 5, 1, 0, 2]  # not within the fragment: left out
    perms = np.array([range(6), SWAP, exchange])
    np.testing.assert_array_equal(restricted(perms, (2, 0, 1)), [[0, 1, 2], [2, 1, 0]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([[0, 1, 2], [0, 2, 1]], r"full has 6 atoms; the permutations have shape \(2, 3\)"),
        ([range(6), [1, 0, 2, 3, 4, 5]], "puts H in the place of O"),
        ([range(6), [0, 2, 1, 5, 4, 3], SWAP], "not a group"),
    ],
)
def test_bad_permutations_are_refused(tmp_path, content, message):
    path = tmp_path / "perms.txt"
    np.savetxt(path, content, fmt="%d")
    with pytest.raises(DataError, match=message):
        resolved(path, "full")


def test_bad_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="expected none, fragment, product, rotations, sgdml or"):
        resolved("everything", "full")
    path = tmp_path / "perms.txt"
    path.write_text("one two\n")
    with pytest.raises(DataError, match="not readable as permutations"):
        resolved(path, "full")
    np.savetxt(path, [range(6), SWAP], fmt="%d")
    with pytest.raises(DataError, match="2 permutations are more than the cap of 1"):
        resolved(path, "full", cap=1)
