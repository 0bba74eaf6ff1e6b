"""Blocks of the descriptor under products of groups, against the sum that ignores them."""

import itertools

import numpy as np
import pytest

from deltaserver.model import orbits
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.kernel import TrainingSum

from .test_kernel import literal_sum


def cyclic(n):
    return [np.roll(np.arange(n), k) for k in range(n)]


def product(*groups):
    """All combinations of one permutation from each group, on consecutive atoms."""
    offsets = np.cumsum([0] + [len(group[0]) for group in groups])
    return np.array(
        [
            np.concatenate([p + o for p, o in zip(choice, offsets, strict=False)])
            for choice in itertools.product(*groups)
        ]
    )


@pytest.fixture
def no_minimum(monkeypatch):
    monkeypatch.setattr(orbits, "MIN_COLUMNS", 1)


@pytest.mark.usefixtures("no_minimum")
def test_product_group_gives_intra_and_inter_blocks():
    perms = product(cyclic(5), cyclic(4), [np.arange(3)])
    pairs = PairDescriptor(12)
    found = orbits.blocks(pairs.permutations(perms))
    sizes = {}
    fragment = np.repeat([0, 1, 2], [5, 4, 3])
    for block in found:
        kinds = {
            tuple(sorted((int(fragment[pairs.i[k]]), int(fragment[pairs.j[k]]))))
            for k in block.columns
        }
        for kind in kinds:
            sizes.setdefault(kind, set()).add(len(block.representative))
    # The intra blocks feel their own cycle only; opposite pairs of the 4-ring half of it.
    assert sizes[0, 0] == {5}
    assert sizes[1, 1] == {4, 2}
    assert sizes[2, 2] == {1}
    assert sizes[0, 1] == {20}
    assert sizes[0, 2] == {5}
    assert sizes[1, 2] == {4}


@pytest.mark.parametrize("minimum", [1, 10, 10_000])
def test_every_entry_is_in_one_block_and_members_act_as_they_say(monkeypatch, minimum):
    monkeypatch.setattr(orbits, "MIN_COLUMNS", minimum)
    pair_perms = PairDescriptor(9).permutations(product(cyclic(5), cyclic(4)))
    found = orbits.blocks(pair_perms)
    columns = np.sort(np.concatenate([block.columns for block in found]))
    np.testing.assert_array_equal(columns, np.arange(36))
    for block in found:
        action = pair_perms[:, block.columns]
        np.testing.assert_array_equal(np.sort(action[0]), block.columns)
        np.testing.assert_array_equal(action, action[block.representative][block.member])


@pytest.mark.parametrize("minimum", [1, 8, 10_000])
@pytest.mark.parametrize("energy_constraints", [False, True])
def test_the_sum_does_not_depend_on_the_blocks(monkeypatch, minimum, energy_constraints):
    monkeypatch.setattr(orbits, "MIN_COLUMNS", minimum)
    pair_perms = PairDescriptor(7).permutations(product(cyclic(3), cyclic(4)))
    rng = np.random.default_rng(minimum)
    x, a = rng.uniform(0.3, 1.0, (6, 21)), rng.normal(size=(6, 21))
    alphas = rng.normal(size=6) if energy_constraints else None
    q = rng.uniform(0.3, 1.0, (3, 21))
    energy, _ = TrainingSum.prepare(0.8, x, a, pair_perms, alphas)(q)
    expected = [literal_sum(0.8, x, a, pair_perms, alphas, row) for row in q]
    np.testing.assert_allclose(energy, expected, rtol=1e-11)


def test_permutations_that_are_no_group_are_summed_as_given():
    # A file may hold any set of permutations; nothing relies on closure.
    pair_perms = PairDescriptor(5).permutations(
        np.array([[0, 1, 2, 3, 4], [1, 2, 0, 3, 4], [0, 1, 2, 4, 3]])
    )
    rng = np.random.default_rng(5)
    x, a, q = rng.uniform(0.3, 1.0, (4, 10)), rng.normal(size=(4, 10)), rng.uniform(0.3, 1, (2, 10))
    energy, _ = TrainingSum.prepare(0.8, x, a, pair_perms, None)(q)
    expected = [literal_sum(0.8, x, a, pair_perms, None, row) for row in q]
    np.testing.assert_allclose(energy, expected, rtol=1e-11)
