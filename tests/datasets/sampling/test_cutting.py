"""Groups of molecules that are cut out of others: all that are there, images included, no more."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from deltaserver.datasets.sampling.cutting import (
    choose_kinds,
    cut,
    features,
    find_kinds,
    formula,
    shortest,
)
from deltaserver.errors import InputError

WATER = np.array([[0.0, 0.0, 0.0], [0.76, 0.59, 0.0], [-0.76, 0.59, 0.0]])
CELL = np.array([[9.5, 1.2, -0.7], [0.0, 9.0, 1.0], [0.0, 0.0, 9.8]])  # vectors in columns, Å
PLACES = np.array(list(product((0.1, 0.6), repeat=3)))[:7]


def liquid(seed=0, wrapped=True):
    """Seven waters in an oblique cell, turned and moved at random; atoms are wrapped into it."""
    rng = np.random.default_rng(seed)
    turns = Rotation.random(len(PLACES), rng).as_matrix()
    centres = (PLACES + 0.05 * rng.normal(size=PLACES.shape)) @ CELL.T
    x = (centres[:, None] + np.einsum("kxy,ay->kax", turns, WATER)).reshape(-1, 3)
    if wrapped:
        fractional = x @ np.linalg.inv(CELL).T
        x = (fractional - np.floor(fractional)) @ CELL.T
    return np.tile([8, 1, 1], len(PLACES)), x


def all_images(x):
    """Molecules (n, 3, 3) and their images in two cells around, with whose they are."""
    steps = np.array(list(product((-2, -1, 0, 1, 2), repeat=3))) @ CELL.T
    return (x[None] + steps[:, None, None]).reshape(-1, 3, 3), np.tile(np.arange(len(x)), 125)


def distances(groups):
    """Sorted distances between atoms of every group: what tells groups apart."""
    i, j = np.triu_indices(groups.shape[1], k=1)
    found = np.sort(np.linalg.norm(groups[:, i] - groups[:, j], axis=2), axis=1)
    return found[np.lexsort(found.T[::-1].round(6))]


@pytest.mark.parametrize(("order", "within"), [(2, 4.5), (2, 8.5), (3, 4.6)])
def test_every_group_is_cut_once_with_its_images(order, within):
    """By all images of all molecules: every group of which one is at home, each counted once."""
    numbers, x = liquid()
    (kind,) = find_kinds(numbers, x, CELL, {})
    found = cut((kind,) * order, x, CELL, within, 10**9, np.random.default_rng(0))
    whole = kind.whole(x, CELL)
    images, owner = all_images(whole)
    home = 62 * len(whole) + np.arange(len(whole))  # the step that is none
    near = {}
    for a in home:
        for b in range(len(images)):
            if b != a and shortest(images[[a]], images[[b]])[0] <= within:
                near.setdefault(int(a), []).append(b)
    expected = []
    for a in home.tolist():
        for others in combinations(near.get(a, []), order - 1):
            sides = [shortest(images[[b]], images[[c]])[0] for b, c in combinations(others, 2)]
            if all(side <= within for side in sides):
                # Once for each member that is at home or could be: a share of the group.
                expected.append(images[[a, *others]].reshape(-1, 3))
    assert len(expected) == order * len(found)
    np.testing.assert_allclose(distances(np.array(expected))[::order], distances(found), atol=1e-8)
    # a cell smaller than the reach has molecules meet their own images
    alone = {int(owner[a]) for a in home for b in near.get(int(a), []) if owner[a] == owner[b]}
    assert bool(alone) == (within > 8.0)
    assert len(found) > 3


def test_kinds_are_told_by_bonds_across_the_cell_and_named():
    numbers, x = liquid(3)
    numbers, x = np.append(numbers, 10), np.vstack([x, (0.62 * CELL).sum(axis=1)])
    water, neon = find_kinds(numbers, x, CELL, {(8, 1, 1): "water"})
    assert (water.name, len(water.atoms), neon.name) == ("water", 7, "Ne")
    np.testing.assert_array_equal(water.atoms, np.arange(21).reshape(-1, 3))
    whole = water.whole(x, CELL)
    np.testing.assert_allclose(np.linalg.norm(whole[:, 1] - whole[:, 0], axis=1),
                               np.linalg.norm(WATER[1]), rtol=1e-12)  # fmt: skip
    kinds = choose_kinds((water, neon), ("water", "Ne", "water"), 3)
    assert [kind.name for kind in kinds] == ["water", "water", "Ne"]
    found = cut(kinds, x, CELL, 5.0, 10**9, np.random.default_rng(0))
    assert len(found)
    assert found.shape[1] == 7
    with pytest.raises(InputError, match=r"there are water \(7\), Ne \(1\)"):
        choose_kinds((water, neon), (), 2)
    with pytest.raises(InputError, match="no 'helium' here"):
        choose_kinds((water, neon), ("helium", "water"), 2)


def test_what_groups_are_compared_by_knows_no_order_and_no_place():
    numbers, x = liquid(1, wrapped=False)
    (kind,) = find_kinds(numbers, x, CELL, {})
    groups = cut((kind,) * 3, x, CELL, 4.5, 20, np.random.default_rng(0))
    turned = groups @ Rotation.random(rng=np.random.default_rng(5)).as_matrix() + 3.0
    swapped = turned[:, [6, 8, 7, 0, 1, 2, 3, 5, 4]]
    mine = features((kind,) * 3, groups)
    assert mine.shape == (len(groups), 27)
    np.testing.assert_allclose(features((kind,) * 3, swapped), mine, rtol=1e-10)


def test_formulas_have_carbon_and_hydrogen_first():
    assert formula((8, 6, 1, 1, 17, 6)) == "C2H2ClO"
