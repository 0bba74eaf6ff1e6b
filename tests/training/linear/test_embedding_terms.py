"""Stretches and products of an embedding: which there are, and columns that they are fitted by."""

from __future__ import annotations

import numpy as np
import pytest

from deltaserver.model.linear.embedding import Embedding
from deltaserver.training.linear import topology
from deltaserver.training.linear.embedding_terms import EmbeddingTerms
from deltaserver.training.linear.topology import FragmentTopology, MoleculeSites, MoleculeTerms
from tests.tolerances import rounding

WATER = MoleculeTerms.of(
    np.array([[0, 1, 1], [1, 0, 2], [1, 2, 0]]), np.array([[0, 1, 2], [0, 2, 1]])
)
LONE_ATOM = MoleculeTerms.of(np.zeros((1, 1), dtype=np.int64), np.zeros((1, 1), dtype=np.int64))
NO_DISTANCES = np.zeros((0, 2), dtype=np.int64), np.zeros(0, dtype=np.int64)
NUMBERS = np.array([8, 1, 1, 8, 1, 1, 11])


def geometries(n: int = 4) -> np.ndarray:
    x = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [2.5, 0, 1], [3.5, 0, 1], [2.5, 1, 1.2],
                  [1.0, 2.0, 2.0]])  # fmt: skip
    return x + 0.05 * np.random.default_rng(0).normal(size=(n, 7, 3))


@pytest.fixture(scope="module")
def terms() -> EmbeddingTerms:
    """Two waters, which are alike, and an ion."""
    nowhere = MoleculeSites((), np.zeros(0, dtype=np.int64))  # not looked at here
    fragments = [
        FragmentTopology(species, atoms, nowhere, molecule, *NO_DISTANCES)
        for species, atoms, molecule in (
            (0, (0, 1, 2), WATER), (0, (3, 4, 5), WATER), (1, (6,), LONE_ATOM)
        )
    ]  # fmt: skip
    return EmbeddingTerms.of(NUMBERS, fragments, geometries())


@pytest.fixture(scope="module")
def some(terms) -> Embedding:
    return terms.expansion(np.random.default_rng(1).normal(size=len(terms)))


def test_the_terms_of_a_molecule():
    # At O its two bonds and H–H; at each H its bond, H–H, and the other bond.
    assert len(WATER.stretches) == 9
    assert len(np.unique(WATER.of_stretch)) == 5
    assert sorted(map(tuple, WATER.products)) == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)]
    assert len(np.unique(WATER.of_product)) == 4


def test_bonds_farther_away_while_their_classes_are_few(monkeypatch):
    n = 5  # a chain that may be turned round
    chain = np.abs(np.arange(n)[:, None] - np.arange(n))
    perms = np.array([range(n), range(n)[::-1]])
    near = len(_stretches_of_all_atoms(chain, perms, monkeypatch, at_most=0))
    for at_most, (bonds, classes) in {100: (12, 6), 5: (10, 5), 3: (6, 3)}.items():
        found = _stretches_of_all_atoms(chain, perms, monkeypatch, at_most)
        farther = found[near:]
        assert len(farther) == bonds
        assert (chain[farther[:, 1], farther[:, 2]] == 1).all()
        assert (farther[:, :1] != farther[:, 1:]).all()
        assert len({min((a, i, j), (4 - a, 4 - j, 4 - i)) for a, i, j in farther}) == classes


def _stretches_of_all_atoms(apart, perms, monkeypatch, at_most):
    monkeypatch.setattr(topology, "FARTHER_CLASSES", at_most)
    return MoleculeTerms.of(apart, perms).stretches


def test_columns_are_those_of_the_expansion(terms, some):
    c = np.random.default_rng(1).normal(size=len(terms))
    energy, forces, _ = some.evaluate(geometries())
    for k, x in enumerate(geometries()):
        energies, columns = terms.rows(x)
        assert energies.shape == (len(terms),)
        bound = rounding(len(terms))
        assert abs(energies @ c - energy[k]) <= bound * np.abs(energies * c).sum()
        error = np.abs(columns @ c - forces[k].ravel())
        assert (error <= bound * (np.abs(columns) @ np.abs(c) + 1e-300)).all()


def test_no_column_is_of_what_nobody_can_feel(terms):
    """Every column acts somewhere, and an ion feels no ion."""
    norms = np.linalg.norm(np.concatenate([terms.rows(x)[1] for x in geometries()]), axis=0)
    assert (norms > 0.0).all()
    ion = 6
    assert not terms.felt[ion].reshape(-1, 3)[terms.empty.densities.group[ion]].any()


def test_alike_atoms_and_alike_fragments_may_change_places(some):
    x = geometries()
    for order in ([0, 2, 1, 3, 4, 5, 6], [3, 4, 5, 0, 1, 2, 6], [0, 1, 2, 3, 5, 4, 6]):
        energy, forces, _ = some.evaluate(x[:, order])
        expected, others, _ = some.evaluate(x)
        np.testing.assert_allclose(energy, expected, rtol=1e-12)
        np.testing.assert_allclose(forces, others[:, order], rtol=0, atol=1e-12)


def test_columns_of_one_scale_are_of_the_same_densities(terms):
    assert len(terms.family) == len(terms)
    assert len(np.unique(terms.family)) < len(terms)
