"""What fragments feel however far apart they are: stretches within each, and their couplings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deltaserver.errors import ModelFileError
from deltaserver.model.files.expansions import parse_between
from deltaserver.model.linear.expansion import Together
from deltaserver.model.linear.valence import Valence
from deltaserver.training.components import components, labelled_set
from deltaserver.training.linear.fit import linear_fit
from deltaserver.training.linear.limit_terms import LimitTerms
from deltaserver.training.linear.site_fit import SiteFit
from deltaserver.training.linear.topology import (
    FragmentTopology,
    MoleculeSites,
    MoleculeTerms,
    couplings_of,
    moved_distances,
)
from deltaserver.units import KCAL_PER_MOL_EV
from tests.tolerances import rounding
from tests.training.labelled import water_dimer

pytest.importorskip("scipy")
pytest.importorskip("networkx")

APART = np.array([[0, 1, 1], [1, 0, 2], [1, 2, 0]])
PERMS = np.array([[0, 1, 2], [0, 2, 1]])
WATER = (
    MoleculeSites((), np.zeros(0, dtype=np.int64)), MoleculeTerms.of(APART, PERMS),
    np.array([[1, 0], [2, 0], [2, 1]]), np.array([0, 0, 1]),
    couplings_of(APART, *moved_distances(APART, PERMS)),
)  # fmt: skip


def geometries(n: int = 4, apart: float = 3.0) -> np.ndarray:
    one = np.array([[0.0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    x = np.concatenate([one, one + np.array([0.0, 0.0, apart])])
    return x + 0.05 * np.random.default_rng(0).normal(size=(n, 6, 3))


@pytest.fixture(scope="module")
def terms() -> LimitTerms:
    fragments = [FragmentTopology(0, atoms, *WATER) for atoms in ((0, 1, 2), (3, 4, 5))]
    return LimitTerms.of(fragments, geometries(20))


def test_alike_molecules_share_their_columns(terms):
    assert len(terms) == 6  # z and z² of O–H and of H–H, O–H with O–H and with H–H
    c = np.random.default_rng(1).normal(size=6)
    x = geometries()
    energy = terms.expansion(c).evaluate(x)[0]
    for order in ([3, 4, 5, 0, 1, 2], [0, 2, 1, 3, 4, 5]):
        np.testing.assert_allclose(terms.expansion(c).evaluate(x[:, order])[0], energy, rtol=1e-12)


def test_columns_are_those_of_the_expansion(terms):
    c = np.random.default_rng(1).normal(size=len(terms))
    energy, forces, _ = terms.expansion(c).evaluate(geometries())
    for k, x in enumerate(geometries()):
        energies, columns = terms.rows(x)
        bound = 50 * rounding(len(terms.pairs))
        assert abs(energies @ c - energy[k]) <= bound * np.abs(energies * c).sum()
        error = np.abs(columns @ c - forces[k].ravel())
        assert (error <= bound * np.abs(columns).max() * np.abs(c).sum()).all()


def test_it_does_not_know_how_far_away_the_other_is(terms):
    c = np.random.default_rng(1).normal(size=len(terms))
    x, far = geometries(), geometries()
    far[:, 3:] += [0.0, 5.0, 17.0]
    for one, other in zip(
        terms.expansion(c).evaluate(x)[:2], terms.expansion(c).evaluate(far)[:2], strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)


def test_labels_that_do_not_vanish_are_followed():
    """Springs that nobody but the limit can tell are found; the file says the same again."""
    frames = water_dimer(60, seed=3)
    available = components(frames)
    binding = next(c for c in available if not c.is_fragment and c.name == "binding")
    data = labelled_set(frames, binding)
    some = np.arange(len(data.energy))
    empty = linear_fit(frames, available, binding, data, some[:50], some[50:], 100, limit=True)
    assert isinstance(empty, SiteFit)
    assert empty.limit is not None
    c = 0.1 * np.random.default_rng(2).normal(size=len(empty.limit))
    energy, forces, _ = empty.limit.expansion(c).evaluate(data.positions)  # kcal/mol
    labels = replace(data, energy=energy * KCAL_PER_MOL_EV, forces=forces * KCAL_PER_MOL_EV)
    fit = replace(empty, data=labels, n_contacts=0)
    found = fit.solve()
    assert isinstance(found, Together)
    with_limit = np.abs(found.evaluate(data.positions[50:])[1] - forces[50:]).max()
    without = replace(fit, limit=None).solve().evaluate(data.positions[50:])[1]
    assert with_limit < 0.02 * np.abs(without - forces[50:]).max()
    again = fit.parse(found.arrays(), "binding.npz")
    np.testing.assert_array_equal(
        again.evaluate(data.positions)[0], found.evaluate(data.positions)[0]
    )


def test_a_file_whose_limit_binds_two_fragments_is_refused(terms):
    limit = terms.expansion(np.ones(len(terms)))
    assert isinstance(limit, Valence)
    fragment = np.repeat([0, 1], 3)
    assert parse_between(limit.arrays(), fragment, "x") is not None
    crossed = limit.pairs.copy()
    crossed[0] = [0, 3]
    wrong = limit.arrays() | {"valence_pairs": crossed}
    with pytest.raises(ModelFileError, match="valence_pairs holds atoms of two fragments"):
        parse_between(wrong, fragment, "x")
