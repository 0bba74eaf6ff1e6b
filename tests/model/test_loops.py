"""The compiled loops and the NumPy code that stands in for them give the same numbers."""

import subprocess
import sys

import numpy as np
import pytest

from deltaserver.errors import GeometryError
from deltaserver.model import jit, kernel
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.kernel import TrainingSum
from tests.builders import TRICLINIC, geometry, shaken

from .test_groups import cyclic, product, symmetric

needs_numba = pytest.mark.skipif(not jit.AVAILABLE, reason="numba is not installed")


def sum_of(n_train, pair_perms, seed=0):
    rng = np.random.default_rng(seed)
    shape = (n_train, pair_perms.shape[1])
    x, a = rng.uniform(0.3, 1.0, shape), rng.normal(size=shape)
    return TrainingSum.prepare(0.7, x, a, pair_perms, None)


@needs_numba
@pytest.mark.parametrize("n_batch", [1, 7, 8, 9, 17])
@pytest.mark.parametrize("n_train", [1, 2, 5])
def test_eight_queries_in_one_pass_equal_matrix_products(monkeypatch, n_train, n_batch):
    monkeypatch.setattr(kernel, "COLUMNS", 16)  # several blocks of columns, the last short
    q = np.random.default_rng(n_batch).uniform(0.3, 1.0, (n_batch, 28))
    total = sum_of(n_train, np.arange(28)[None])
    fast = total(q)
    monkeypatch.setattr(jit, "AVAILABLE", False)
    for ours, theirs in zip(fast, total(q), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


@needs_numba
@pytest.mark.parametrize("cell", [None, TRICLINIC])
@pytest.mark.parametrize("n_train", [1, 3, 4, 9])
@pytest.mark.parametrize("group", ["none", "C3", "C2 x C4", "S3"])
def test_one_geometry_in_one_call_equals_numpy(group, n_train, cell):
    perms = {
        "none": np.arange(7)[None],
        "C3": product(cyclic(3), np.arange(4)[None]),
        "C2 x C4": product(cyclic(2), cyclic(4), np.arange(1)[None]),
        "S3": product(symmetric(3), np.arange(4)[None]),
    }[group]
    pairs = PairDescriptor(7, compiled=False)
    total = sum_of(n_train, pairs.permutations(perms), seed=n_train)
    x = shaken(geometry(7), 1, seed=5)
    forces, virial = np.empty((1, 7, 3)), np.empty((1, 3, 3))
    box = np.eye(3) if cell is None else np.ascontiguousarray(cell)
    single = total.single()
    energy, smallest = single(x, box, np.linalg.inv(box), cell is not None, forces, virial)
    assert smallest > 0.0
    here = pairs.geometry(x, cell)
    expected_energy, g = total(here.descriptor)
    expected = pairs.pull_back(g, here)
    assert energy == pytest.approx(float(expected_energy[0]), rel=1e-11)
    for ours, theirs in zip((forces, virial), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-10, atol=1e-11)


@needs_numba
@pytest.mark.parametrize("n_train", [1, 3, 4, 5])
def test_one_query_and_a_large_group_equal_matrix_products(monkeypatch, n_train):
    total = sum_of(n_train, PairDescriptor(5).permutations(symmetric(5)), seed=n_train)
    q = np.random.default_rng(n_train).uniform(0.3, 1.0, (1, 10))
    fast = total(q)
    monkeypatch.setattr(jit, "AVAILABLE", False)
    for ours, theirs in zip(fast, total(q), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-11, atol=1e-12)


def test_large_groups_and_energy_constraints_have_no_compiled_loop(monkeypatch):
    pair_perms = PairDescriptor(5).permutations(symmetric(5))
    assert sum_of(3, pair_perms).single() is None  # 120 × 120
    x = np.random.default_rng(0).uniform(0.3, 1.0, (3, 10))
    assert TrainingSum.prepare(0.7, x, x, np.arange(10)[None], np.ones(3)).single() is None
    monkeypatch.setattr(jit, "AVAILABLE", False)
    assert sum_of(3, np.arange(10)[None]).single() is None


@needs_numba
@pytest.mark.parametrize("cell", [None, TRICLINIC])
def test_geometry_and_pull_back_equal_numpy(cell):
    positions = shaken(geometry(7), 3, seed=1)
    fast, plain = PairDescriptor(7, compiled=True), PairDescriptor(7, compiled=False)
    here, there = fast.geometry(positions, cell), plain.geometry(positions, cell)
    np.testing.assert_allclose(here.displacements, there.displacements, atol=1e-14)
    np.testing.assert_allclose(here.descriptor, there.descriptor, rtol=1e-14)
    g = np.random.default_rng(2).normal(size=here.descriptor.shape)
    for ours, theirs in zip(fast.pull_back(g, here), plain.pull_back(g, there), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=needs_numba)])
def test_coinciding_atoms_are_found_either_way(compiled):
    positions = shaken(geometry(5), 2, seed=3)
    positions[1, 4] = positions[1, 2]
    with pytest.raises(GeometryError, match="atoms 2 and 4 are at the same place"):
        PairDescriptor(5, compiled=compiled).geometry(positions)


@needs_numba
@pytest.mark.parametrize("perms", [np.arange(4)[None], symmetric(4)])
def test_not_a_number_stays_not_a_number(perms):
    total = sum_of(5, PairDescriptor(4).permutations(perms))
    forces, virial = np.empty((1, 4, 3)), np.empty((1, 3, 3))
    nowhere = np.full((1, 4, 3), np.nan)
    energy, smallest = total.single()(nowhere, np.eye(3), np.eye(3), False, forces, virial)
    assert not smallest < np.inf or np.isnan(energy)
    assert np.isnan(energy)
    assert np.isnan(forces).all()


def test_everything_works_without_numba():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from deltaserver.model import jit\n"
        "from deltaserver import CompositeModel\n"
        "assert not jit.AVAILABLE\n"
        "import numpy as np\n"
        "model = CompositeModel.load('models/benzene_dimer')\n"
        "from ase.io import read\n"
        "frame = read('ipi_inputs/benzene_dimer.xyz')\n"
        "print(repr(float(model.evaluate(frame.positions).energy)))\n"
    )
    without = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert without.returncode == 0, without.stderr
    from ase.io import read

    from deltaserver import CompositeModel

    frame = read("ipi_inputs/benzene_dimer.xyz")
    here = CompositeModel.load("models/benzene_dimer").evaluate(frame.positions).energy
    assert float(without.stdout) == pytest.approx(float(here), rel=1e-12)
