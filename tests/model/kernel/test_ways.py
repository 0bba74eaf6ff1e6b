"""Compiled ways from positions to forces against NumPy's, descriptor by descriptor."""

import numpy as np
import pytest

from deltaserver.compute import jit
from deltaserver.compute.thread_pool import ONE_THREAD, ThreadPool
from deltaserver.errors import GeometryError
from deltaserver.model.descriptor import PairDescriptor, compiled_cell
from deltaserver.model.engines.numpy_engine import NumpyEngine
from deltaserver.model.files.parameters import ModelParameters
from deltaserver.model.fragment_blocks import FragmentBlocks, Reach
from deltaserver.model.kernel import base, ways
from deltaserver.model.kernel.training_sum import Task
from tests.builders import TRICLINIC, geometry, shaken
from tests.model.groups.test_representations import cyclic, product, symmetric
from tests.tolerances import assert_same_sum, terms_of_kernel

pytestmark = pytest.mark.skipif(not jit.AVAILABLE, reason="numba is not installed")

N, M = 9, 11
MIXED = np.array([0, 5, 2, 3, 4, 1, 6, 7, 8])  # so that no fragment is a run of atoms
PERMS = product(symmetric(3), cyclic(4), np.arange(2)[None])[:, np.argsort(MIXED)]
PERMS = MIXED[PERMS]
FRAGMENT = np.array([0, 0, 0, 1, 1, 1, 1, 2, 2])[np.argsort(MIXED)]
BETWEEN = np.ones((3, 3)) - np.eye(3)
WEIGHTS = {
    "between": BETWEEN,
    "all": BETWEEN + 0.3 * np.eye(3),
    "some": np.array([[0.0, 1.0, 0.0], [1.0, 0.4, 2.0], [0.0, 2.0, 0.0]]),
}
PAIRS = PairDescriptor(N, compiled=False)


def engine_of(weights, reach, pool=ONE_THREAD):
    rng = np.random.default_rng(3)
    x = PAIRS.geometry(shaken(geometry(N), M, seed=1)).descriptor
    blocks = FragmentBlocks(FRAGMENT, weights, reach)
    parameters = ModelParameters(
        np.full(N, 6), x, rng.normal(size=x.shape), PERMS, 0.7, c=0.3, std=1.7, blocks=blocks
    )
    return NumpyEngine(parameters, pool)


def by_descriptors(engine, x, more, cell=None):
    """Return energies, forces and virials, the second and third of the sum alone."""
    here, std = PAIRS.geometry(x, cell), engine.parameters.std
    energy, g, share = engine._sum.with_more(here.descriptor, more / std)
    forces, virial = PAIRS.pull_back(g * std, here)
    return energy * std + engine.parameters.c, forces, virial, share


@pytest.mark.parametrize("cell", [None, TRICLINIC])
@pytest.mark.parametrize("n_batch", [1, 5])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("reach", [None, Reach((0.2, 0.9), (1.0, 8.0))])
def test_weights_reach_and_energies_from_elsewhere(monkeypatch, reach, weights, n_batch, cell):
    monkeypatch.setattr(ways, "TOGETHER", 3)
    engine = engine_of(WEIGHTS[weights], reach)
    x, more = shaken(geometry(N), n_batch, seed=5), np.linspace(0.3, 0.9, n_batch)
    found = np.empty(n_batch), np.empty(x.shape), np.empty((n_batch, 3, 3))
    share = np.empty(n_batch)
    task = Task(x, compiled_cell(cell), engine.parameters.std, engine.parameters.c, *found)
    assert np.isfinite(engine._loops.with_more(task, more, share))
    expected = by_descriptors(engine, x, more, cell)
    if reach is not None and cell is None:
        assert ((expected[3] > 0.0) & (expected[3] < 1.0)).all()
    n_terms = terms_of_kernel(PAIRS.permutations(PERMS), M, N)
    for ours, theirs in zip((*found, share), expected, strict=True):
        assert_same_sum(ours, theirs, n_terms)


@pytest.mark.parametrize("n_threads", [2, 3])
def test_threads(monkeypatch, n_threads):
    monkeypatch.setattr(base, "SHARED_NUMBERS", 1)
    monkeypatch.setattr("deltaserver.model.kernel.group.SHARED_NUMBERS", 1)
    x = shaken(geometry(N), 4, seed=5)
    reach = Reach((0.2, 0.9), (1.0, 8.0))
    alone = engine_of(BETWEEN, reach).evaluate(x, None, 1.0)
    shared = engine_of(BETWEEN, reach, ThreadPool(n_threads))
    assert not shared._sum.sum.alone
    for ours, theirs in zip(shared.evaluate(x, None, 1.0), alone, strict=True):
        assert_same_sum(ours, theirs, terms_of_kernel(PAIRS.permutations(PERMS), M, N))


def test_atoms_at_one_place_are_found():
    x = shaken(geometry(N), 2, seed=5)
    x[1, 4] = x[1, 0]
    with pytest.raises(GeometryError, match="atoms 0 and 4 are at the same place"):
        engine_of(BETWEEN, None).evaluate(x, None, 1.0)


def test_positions_that_are_no_numbers_are_found():
    x = shaken(geometry(N), 1, seed=5)
    x[0, 2] = np.nan
    with pytest.raises(GeometryError, match="position of atom 2"):
        engine_of(BETWEEN, None).evaluate(x, None, 1.0)
