"""Products of two distances: what they are, and two ways to the same."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deltaserver.compute import jit
from deltaserver.model.kernel.training_sum import NoSum
from deltaserver.model.linear import quadratic_form as forms
from deltaserver.model.linear.products import DistancePairs
from deltaserver.model.sgdml import NativeUnits, SGDMLModel
from tests.model.linear.builders import FRAGMENT, PERMS, products
from tests.model.linear.test_linear import parameters, positions
from tests.tolerances import rounding


def written_out(e, x):
    """E by its formula, term by term."""
    i, j = e.pairs.descriptor.i, e.pairs.descriptor.j
    r = np.linalg.norm(x[i] - x[j], axis=1)
    between = [k for k in range(len(r)) if FRAGMENT[i[k]] != FRAGMENT[j[k]]]
    within = [k for k in range(len(r)) if FRAGMENT[i[k]] == FRAGMENT[j[k]]]
    energy = 0.0
    for m in between:
        for k, decay in enumerate(e.decays):
            phi = np.exp(-decay * r[m])
            for n in between:
                for q, other in enumerate(e.decays):
                    c = e.quadratic[k, q, e.pairs.classes[m, n]]
                    energy += 0.5 * c * phi * np.exp(-other * r[n])
            for number, n in enumerate(within):
                c = e.coupling[k, e.pairs.classes[m, n]]
                energy += c * phi * (r[n] - e.mean[number])
    return energy


@pytest.mark.parametrize("perms", [PERMS, PERMS[:1], PERMS[[0, 1]]])
def test_they_are_the_sum_written_out(perms):
    e, x = products(perms), positions(2)
    for energy, one in zip(e.evaluate(x)[0], x, strict=True):
        assert energy == pytest.approx(written_out(e, one), rel=1e-11)


@pytest.mark.parametrize("perm", PERMS)
def test_the_energy_has_the_symmetry(perm):
    """A permuted geometry has the same energy, and the forces permuted."""
    e, x = products(), positions(3)
    energy, forces, _ = e.evaluate(x)
    other, others, _ = e.evaluate(x[:, perm])
    np.testing.assert_allclose(energy, other, rtol=1e-11)
    np.testing.assert_allclose(
        forces[:, perm], others, rtol=0, atol=rounding(400) * np.abs(forces).max()
    )


@pytest.mark.parametrize("n", [1, 15, 16, 17, 40])
def test_representations_and_matrices_agree(n):
    """In loops, in NumPy, and as the two matrices: whatever is left of the last sixteen."""
    e, rng = products(), np.random.default_rng(0)
    p = e.quadratic[:, :, e.pairs.both].transpose(0, 2, 1, 3)
    m = e.coupling[:, e.pairs.mixed]
    sparse = forms._SymmetricForm.of(p, m, e.pairs.moved)
    assert sparse is not None
    y, x = rng.normal(size=(n, *p.shape[:2])), rng.normal(size=(n, m.shape[2]))
    ways = [sparse._in_numpy, *([sparse] if jit.AVAILABLE else [])]
    for way in ways:
        for found, expected in zip(way(y, x), forms._DenseForm(p, m)(y, x), strict=True):
            bound = 10 * rounding(p.shape[0] * p.shape[1] * m.shape[2])
            np.testing.assert_allclose(found, expected, rtol=0, atol=bound * np.abs(expected).max())


def test_permutations_that_are_no_group_are_multiplied_as_they_are():
    e = products(PERMS[:3])
    assert isinstance(e._form, forms._DenseForm)


def test_what_does_not_commute_is_noticed():
    e = products()
    p = e.quadratic[:, :, e.pairs.both].transpose(0, 2, 1, 3).copy()
    p[0, 1, 0, 1] += 1.0
    m = e.coupling[:, e.pairs.mixed]
    assert forms._SymmetricForm.of(p, m, e.pairs.moved) is None


def test_alike_pairs_of_pairs_share_a_class():
    pairs = DistancePairs(FRAGMENT, PERMS)
    images = pairs.descriptor.permutations(PERMS)
    for image in images:
        assert (pairs.classes[np.ix_(image, image)] == pairs.classes).all()
    # As many as orbits, counted by fixed points [Burnside].
    fixed = [(image == np.arange(pairs.descriptor.dim)).sum() ** 2 for image in images]
    assert pairs.classes.max() + 1 == np.mean(fixed)


def test_without_coefficients_there_is_no_kernel_sum():
    p = parameters(products())
    empty = replace(p, a=np.zeros_like(p.a))
    model, x = SGDMLModel(empty, NativeUnits(1.0, 1.0)), positions(2)
    assert not model.has_kernel
    assert isinstance(model.engine._sum.sum, NoSum)
    tiny = replace(p, a=1e-300 * p.a)  # summed, and too small to be seen
    summed = SGDMLModel(tiny, NativeUnits(1.0, 1.0))
    assert summed.has_kernel
    for name in ("energy", "forces", "virial"):
        np.testing.assert_array_equal(
            getattr(model.evaluate(x), name), getattr(summed.evaluate(x), name)
        )
