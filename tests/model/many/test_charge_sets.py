"""One set of charges for each species: priors of neutral molecules know products alone."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
import pytest

from deltaserver.model import force_field
from deltaserver.model.many.electrostatics.charge_sets import Products, agree
from tests.model.many.builders import CELL, PRIOR, directory, manifest, positions

WATER = np.array([-0.8, 0.4, 0.4])
DIOXIDE = np.array([0.7, -0.35, -0.35])
ION = np.array([1.0])


def beside(first, second, factor=1.0, between=(0, 1)):
    return Products(between, (factor * first, second / factor))


@pytest.mark.parametrize("factor", [1.0, 8.0, -0.2])
def test_how_a_product_is_shared_out_does_not_matter(factor):
    """The solute's charges follow from the solvent's, which its binding with itself tells."""
    found = agree([beside(WATER, WATER, between=(0, 0)), beside(WATER, DIOXIDE, factor)], 2)
    assert np.allclose(found[0], WATER)
    assert np.allclose(found[1], DIOXIDE)


def test_signs_agree_where_both_have_a_binding_with_themselves():
    """A binding of a molecule with itself is the same with all its charges turned."""
    alone = [beside(WATER, WATER, between=(0, 0)), beside(-DIOXIDE, -DIOXIDE, between=(1, 1))]
    found = agree([*alone, beside(WATER, DIOXIDE)], 2)
    assert np.allclose(np.outer(found[0], found[1]), np.outer(WATER, DIOXIDE))


def test_ions_tell_the_charges_of_what_is_beside_them():
    """Those of the third follow from the second's, which are beside the ion."""
    products = [
        beside(ION, WATER, between=(0, 1)),
        beside(WATER, DIOXIDE, factor=-5.0, between=(1, 2)),
    ]
    found = agree(products, 3)
    assert np.allclose(found[0], ION)
    assert np.allclose(found[1], WATER)
    assert np.allclose(found[2], DIOXIDE)


def test_of_two_alone_neither_is_the_larger():
    found = agree([beside(WATER, DIOXIDE, factor=16.0)], 2)
    assert np.allclose(np.outer(found[0], found[1]), np.outer(WATER, DIOXIDE))
    assert np.linalg.norm(found[0]) == pytest.approx(np.linalg.norm(found[1]))


def test_a_fit_that_found_no_charges_says_nothing():
    none = np.zeros(3)
    found = agree([beside(WATER, WATER, between=(0, 0)), beside(none, DIOXIDE)], 2)
    assert np.allclose(found[0], WATER)
    assert np.isfinite(found[1]).all()
    assert 2 not in agree([beside(WATER, DIOXIDE)], 3)


def test_the_energy_of_a_liquid_does_not_depend_on_it(tmp_path):
    """Two kinds of water, of which the second is known beside the first alone."""
    x = positions(5, 0)
    found = []
    for k, factor in enumerate((1.0, 6.0, -1.0)):
        data = manifest(4, 0, ewald=True)
        data["species"].append({"name": "other", "model": "water.npz", "count": 1})
        prior = deepcopy(PRIOR)
        for one in prior["classes"]:
            one["charge"] *= factor if one["name"].endswith("1") else 1.0 / factor
        data["bindings"].append({"between": ["water", "other"], "prior": prior})
        model = force_field.load(directory(tmp_path / str(k), data))
        found.append(model.evaluate(x, "binding", CELL))
    for one in found[1:]:
        assert one.energy == pytest.approx(found[0].energy, abs=1e-9)
        assert np.allclose(one.forces, found[0].forces, atol=1e-9)
