"""Permutation groups against the axioms, their representations against the tables in the books."""

import itertools

import numpy as np
import pytest

from deltaserver.model.files.parameters import read_parameters
from deltaserver.model.groups import representations
from deltaserver.model.groups.representations import irreducible_representations, permutation_group


def cyclic(n):
    return np.array([np.roll(np.arange(n), k) for k in range(n)])


def symmetric(n):
    return np.array(list(itertools.permutations(range(n))))


def product(*perms):
    """All combinations of one permutation from each group, on consecutive points."""
    offsets = np.cumsum([0] + [group.shape[1] for group in perms])
    return np.array(
        [
            np.concatenate([p + o for p, o in zip(choice, offsets, strict=False)])
            for choice in itertools.product(*perms)
        ]
    )


# The quaternion group acting on itself from the left: i, j as permutations of ±1, ±i, ±j, ±k.
QUATERNION_I, QUATERNION_J = [2, 3, 1, 0, 6, 7, 5, 4], [4, 5, 7, 6, 1, 0, 2, 3]


def generated(*generators):
    found = {tuple(range(len(generators[0])))}
    while True:
        more = {tuple(np.array(g)[list(p)]) for g in generators for p in found} | found
        if len(more) == len(found):
            return np.array(sorted(found))
        found = more


GROUPS = {
    "trivial": np.arange(5)[None],
    "C2": cyclic(2),
    "C7": cyclic(7),
    "C12": cyclic(12),
    "S3": symmetric(3),
    "S4": symmetric(4),
    "C3 x S3": product(cyclic(3), symmetric(3)),
    "Q8": generated(QUATERNION_I, QUATERNION_J),
    "C60": read_parameters("models/c60/c60.npz").perms,
}
DIMENSIONS = {  # real ones: a complex pair counts once with twice its dimension
    "trivial": [1],
    "C2": [1, 1],
    "C7": [1, 2, 2, 2],
    "C12": [1, 1, 2, 2, 2, 2, 2],
    "S3": [1, 1, 2],
    "S4": [1, 1, 2, 3, 3],
    "C3 x S3": [1, 1, 2, 2, 2, 4],
    "Q8": [1, 1, 1, 1, 4],
    "C60": [1, 1, 3, 3, 3, 3, 4, 4, 5, 5],  # icosahedral, with inversion
}


@pytest.mark.parametrize("name", GROUPS)
def test_the_table_multiplies_permutations(name):
    perms = GROUPS[name]
    group = permutation_group(perms)
    assert group is not None
    assert group.order == len(perms)
    s, t = np.random.default_rng(0).integers(0, len(perms), (2, 50))
    np.testing.assert_array_equal(
        perms[group.table[s, t]], np.take_along_axis(perms[s], perms[t], axis=1)
    )
    np.testing.assert_array_equal(group.table[np.arange(len(perms)), group.inverse], group.identity)


@pytest.mark.parametrize("name", GROUPS)
def test_representations_are_the_known_ones(name):
    group = permutation_group(GROUPS[name])
    found = irreducible_representations(group)
    assert sorted(rho.shape[1] for rho in found) == DIMENSIONS[name]
    for rho in found:
        d = rho.shape[1]
        np.testing.assert_allclose(rho[group.identity], np.eye(d), atol=1e-12)
        np.testing.assert_allclose(  # orthogonal
            rho @ rho.swapaxes(1, 2), np.broadcast_to(np.eye(d), rho.shape), atol=1e-12
        )
        s, t = np.random.default_rng(1).integers(0, group.order, (2, 50))
        np.testing.assert_allclose(rho[s] @ rho[t], rho[group.table[s, t]], atol=1e-11)


@pytest.mark.parametrize("name", GROUPS)
def test_characters_of_different_representations_are_orthogonal(name):
    group = permutation_group(GROUPS[name])
    characters = np.stack([np.einsum("saa->s", rho) for rho in irreducible_representations(group)])
    overlaps = characters @ characters.T / group.order
    np.testing.assert_allclose(overlaps - np.diag(np.diag(overlaps)), 0.0, atol=1e-10)
    assert set(np.round(np.diag(overlaps)).astype(int)) <= {1, 2, 4}


@pytest.mark.parametrize(
    ("name", "n"), [("C2", 2), ("C7", 1), ("C12", 2), ("S4", 1), ("Q8", 2), ("C60", 2)]
)
def test_central_involutions(name, n):
    group = permutation_group(GROUPS[name])
    assert len(group.central_involutions) == n
    assert group.central_involutions[0] == group.identity


@pytest.mark.parametrize(
    "perms",
    [
        [[0, 1, 2, 3, 4], [1, 2, 0, 3, 4], [0, 1, 2, 4, 3]],  # not closed
        [[1, 0, 2], [1, 2, 0]],  # no identity
        [[0, 1, 2], [0, 1, 2]],  # one twice
    ],
)
def test_what_is_no_group_is_told(perms):
    assert permutation_group(np.array(perms)) is None


def test_representations_that_do_not_multiply_are_refused(monkeypatch):
    group = permutation_group(symmetric(4))
    monkeypatch.setattr(representations, "GAP", 10.0)  # every eigenspace in one
    with pytest.raises(ArithmeticError, match="reducible"):
        irreducible_representations(group)
